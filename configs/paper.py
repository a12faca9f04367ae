"""The policies of the paper's tables from one start, over seeds or over τ.

  make paper FLAGS="--size=cpu --minutes=60"
  python -m nashmd_jax.main --config=configs/paper.py:cpu --trial=0

SFT, RLHF, self-play, Nash-MD at six β, best response and Nash-EMA at two
decays, its last and its averaged policy, and the mixture that each Nash-MD run
has played. Judges learn from the votes of one half of a panel of simulated
raters; all of the panel, exactly, judges in the end.

| variant | on |
|---|---|
| `cpu` | what parameters are in the code of this machine, a small T5 |
| `gpu` | the pretrained folder of showcase.py, by adapters |
| `tldr` | posts, T5-large before T5-XL, as in tldr_t5.py |
| `tiny` | a few steps of everything |

`_tau` after the name sweeps τ of a run of each kind, `SWEPT`, with one seed.
"""

import importlib.util
import pathlib

import ml_collections

SEEDS = (0, 1, 2, 3, 4)
# τ of the runs, as multiples of what the section nash and RLHF have.
TAUS = (0.5, 1.0, 2.0, 4.0, 8.0)
SWEPT = ("rlhf", "self_play", "md_125", "best_response")
MIXTURES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
DECAYS = {"ema_999": 0.999, "ema_9995": 0.9995}
STEPS = 10_000  # of the paper, at which its decays are
BASES = {
  "tiny": ("docstrings", "tiny"),
  "cpu": ("docstrings", "full"),
  "gpu": ("showcase", "gpu"),
  "tldr": ("tldr_t5", "full"),
}
PANEL = {"size": 24, "spread": 0.5}
# Shares of other raters, of whom nothing learns.
SECOND_WEIGHTS = {
  "coverage": 0.5, "brevity": 0.1, "grounding": 0.3, "plainness": 0.1,
}  # fmt: skip


def get_config(variant: str = "cpu") -> ml_collections.ConfigDict:
  """The base of the sweeps."""
  size, part = split(variant)
  file, name = BASES[size]
  config = load(file).get_config(name).unlock()
  config.tournament.judges = ("raters", "preference")
  if size == "cpu":
    write_parameters(config)
  config.raters.panel = PANEL
  config.comparisons.drawing.voters = "half"
  config.sft.seed = 0
  config.nash.watch = ("raters",)
  set_policies(config)
  config.tournament.log_ratio = True
  # Of the distribution that is trained, whose KL it is.
  config.tournament.temperature = config.nash.temperature
  config.exploit.temperature = config.nash.temperature
  if part == "tau":
    leave_swept(config)
  return config.lock()


def write_parameters(config: ml_collections.ConfigDict) -> None:
  """What a parameter is, in ten words, so that a T5 of 128 writes English."""
  config.data.target = "parameter"
  config.layout = {"prompt_buckets": (24,), "max_response": 12}
  config.comparisons.prompts.train = 7_000
  config.raters.weights = {
    "coverage": 0.26, "brevity": 0.32, "grounding": 0.1, "plainness": 0.32,
  }  # fmt: skip
  config.raters.sharpness = {
    "coverage": 20.0, "brevity": 3.0, "grounding": 20.0, "plainness": 3.0,
  }  # fmt: skip
  config.raters.short = 2
  # The judge that is learnt costs more here than all runs.
  config.tournament.judges = ("raters",)
  # The smallest of the sweep at which runs stay within 4 nats of SFT.
  config.nash.kl_coef, config.nash.runs.rlhf.kl_coef = 0.05, 0.2
  for judge in (config.preference, config.reward):
    judge.optimizer.learning_rate = 6e-4
  for section, batch_size, steps in (
    (config.sft, 64, 900),
    (config.preference, 64, 700),
    (config.reward, 64, 500),
    (config.nash, 32, 200),
  ):
    section.data.batch_size = batch_size
    section.optimizer.update(
      {"decay_steps": steps, "warmup_steps": steps // 15}
    )
    section.train.update({
      "steps": steps, "eval_every": steps // 5, "save_every": steps // 5
    })  # fmt: skip


def set_policies(config: ml_collections.ConfigDict) -> None:
  """Names the runs, how they answer, and who plays."""
  base = config.nash.runs
  for_play = {k: v for k, v in base.self_play.items() if k != "opponent"}
  runs = {
    "rlhf": base.rlhf,
    "self_play": base.self_play,
    **{
      name_of(beta): {"mixture": beta, "mixture_end": beta} for beta in MIXTURES
    },
    "best_response": base.best_response,
  }
  for name, decay in DECAYS.items():
    own = 1 - (1 - decay) * STEPS / config.nash.train.steps
    ema = {"ema": {"decay": max(0.0, own)}}
    runs[name] = {"opponent": "moving_average", **ema, **for_play}
  config.nash.opponent = "mixture"
  config.nash.runs = runs
  config.nash.deployed = {
    **{f"{name}_average": {"run": name, "deploy": "ema"} for name in DECAYS},
    **{
      f"{name_of(beta)}_mixture": {"run": name_of(beta), "deploy": "mixture"}
      for beta in MIXTURES
    },
  }
  trained = (*runs, *config.nash.deployed)
  config.tournament.policies = ("sft", *trained)
  config.exploit.update({
    "policies": trained, "judge": "raters", "kl_coef": config.nash.kl_coef
  })  # fmt: skip
  if config.export.policies:
    config.export.policies = (name_of(MIXTURES[0]),)


def leave_swept(config: ml_collections.ConfigDict) -> None:
  """Leaves those whose τ is swept."""
  runs = config.nash.runs
  config.nash.runs = {name: runs[name] for name in SWEPT}
  config.nash.deployed = {}
  config.tournament.policies = ("sft", *SWEPT)
  config.exploit.policies = ()


def name_of(beta: float) -> str:
  """The run of Nash-MD at a β."""
  return f"md_{round(1000 * beta)}"


def get_hyper(hyper, variant: str = "cpu") -> list[dict]:
  """Five seeds, or five τ."""
  size, part = split(variant)
  if part == "seeds":
    return hyper.values("seed", *SEEDS)
  config = get_config(size)
  names = {
    "nash.kl_coef": config.nash.kl_coef,
    "nash.runs.rlhf.kl_coef": config.nash.runs.rlhf.kl_coef,
  }
  return hyper.zipped(
    *(
      hyper.values(name, *(share * own for share in TAUS))
      for name, own in names.items()
    )
  )


def split(variant: str) -> tuple[str, str]:
  """The size that a variant names, and what is swept."""
  size = variant.removesuffix("_tau")
  if size not in BASES:
    raise ValueError(
      f"configs/paper.py: no variant {variant!r}, expected one of "
      f"{tuple(BASES)}, each with _tau after it or without"
    )
  return size, "seeds" if size == variant else "tau"


def load(name: str):
  """A config file of this folder, which is no package."""
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  spec = importlib.util.spec_from_file_location(f"{name}_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
