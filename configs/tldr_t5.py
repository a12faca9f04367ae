"""The paper's run: T5-large learns to summarise before a T5-XL judge.

  python -m nashmd_jax.main --config=configs/tldr_t5.py --workdir=DIR \
    --config.data.records=POSTS --config.data.comparisons=COMPARISONS \
    --config.model.pretrained=T5_LARGE --config.judge_model.pretrained=T5_XL

POSTS and COMPARISONS are folders, local or gs://, of train.jsonl and so on in
the schemas of `nashmd_jax/data/tldr.py`; the models are folders of T5 v1.1 in
the Hugging Face layout with tokenizer.json. For a TPU v5e slice of 16 chips;
before renting one:

  python -m nashmd_jax.main --stage=pod_check --config=configs/tldr_t5.py \
    --topology=v5e:4x4

Expected of that check: every program fits, and a step of Nash-MD is predicted
to take less than a second; the published run took about four. `make scale`
writes what it found to out/scale.json. `:tiny` after the file name runs the
same path on CPU with very little, from folders with random weights that it
writes first. `:folder` and `:tiny_folder` are for T5 of any other size: it is
what its folder says.
"""

import ml_collections

placeholder = ml_collections.config_dict.placeholder

# Of the preference model and the judge of Munos et al., ICML 2024.
PAIR = (
  "You are an expert summary rater. Given a piece of text and two of its "
  "possible summaries, output 1 or 2 to indicate which summary is better. "
  "Text - {prompt}, Summary 1 - {first}, Summary 2 - {second}. "
  "Preferred Summary -"
)
# Of the reward model.
SINGLE = "Context - {prompt}, Summary - {first}"


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """The run of the paper, or `:tiny`; `:folder` states no sizes."""
  if variant not in ("full", "tiny", "folder", "tiny_folder"):
    raise ValueError(f"configs/tldr_t5.py: no variant {variant!r}")
  config = ml_collections.ConfigDict()
  config.pipeline = "text"
  config.required = (
    "data.records",
    "data.comparisons",
    "model.pretrained",
    "judge_model.pretrained",
  )
  config.seed = 0
  config.data = {
    "records": placeholder(str),
    "schema": "tldr_posts",
    "comparisons": placeholder(str),
    "comparisons_schema": "openai_comparisons",
    "bad_rows": "error",
    "packages": (),
    "target": "summary",
  }
  config.tokenizer = {
    "file": placeholder(str),
    "vocab_size": 32_128,
    "eos_token": "</s>",
    "bos_token": placeholder(str),
    "special_tokens": ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>"),
  }
  # None reads text as it is; "folder" takes the template of the model's folder.
  config.chat = {
    "template": placeholder(str),
    "system": placeholder(str),
    "user": "{prompt}",
  }
  config.turns = {"most": 1, "between": 0}
  config.layout = {"prompt_buckets": (256, 512), "max_response": 64}
  config.model = {
    "pretrained": placeholder(str),
    "family": "t5",
    "width": 1024,
    "num_heads": 16,
    "head_dim": 64,
    "mlp_dim": 2816,
    "encoder_layers": 24,
    "decoder_layers": 24,
    "num_buckets": 32,
    "max_distance": 128,
    "dtype": "bfloat16",
    "remat": "full",
    "attention": "xla",
  }
  # What differs in the judges.
  config.judge_model = {
    "pretrained": placeholder(str),
    "width": 2048,
    "num_heads": 32,
    "mlp_dim": 5120,
  }
  # rank 0 trains the parameters themselves.
  config.lora = {"rank": 0, "alpha": 16.0, "targets": ("query", "value")}
  config.devices = {
    "mode": "jit",
    "model": 1,
    "compile": "full",
    "fsdp": True,
    "smallest": 65_536,
    "run_dtype": "bfloat16",
    "frozen_dtype": "bfloat16",
  }
  config.log = {
    "writers": ("tensorboard",),
    "project": "nashmd_jax",
    "samples": 2,
  }
  config.raters = {
    "weights": {
      "coverage": 0.34,
      "brevity": 0.36,
      "grounding": 0.30,
      "plainness": 0.0,
    },
    "sharpness": {
      "coverage": 10.0,
      "brevity": 1.0,
      "grounding": 10.0,
      "plainness": 1.0,
    },
    "short": 5,
    # 0: a rater a type; else so many, who differ in their sharpness too.
    "panel": {"size": 0, "spread": 0.0},
  }
  config.comparisons = {
    "prompts": {"train": 10_000, "validation": 400},
    "drawing": {
      "pairs_per_prompt": 6,
      "votes_per_pair": 9,
      "voters": "all",
      "samples_per_prompt": 3,
      "batch_size": 128,
      "temperature": 0.7,
    },
  }
  config.sft = stage(batch_size=32, steps=4000, learning_rate=1e-3)
  config.sft.seed = placeholder(int)
  for name, prompt in (("preference", PAIR), ("reward", SINGLE)):
    config[name] = stage(batch_size=32, steps=4000, learning_rate=1e-4)
    config[name].start_from_sft = False
    config[name].template = {
      "prompt": prompt,
      "response": "",
      "answers": ("1", "2"),
      "chat": False,
    }
    config[name].labels = {"kind": "soft", "ties": "half", "smoothing": 0.0}
  config.judges = judges()
  config.judges.recorded.schema = "openai_comparisons"
  config.nash = stage(batch_size=32, steps=10_000, learning_rate=3e-5)
  config.nash.opponent = "mixture"
  config.nash.mixture = 0.125
  config.nash.mixture_end = 0.125
  config.nash.mixture_steps = 0
  # Kept by the runs that play or deploy them alone.
  config.nash.ema = {"decay": 0.999}
  config.nash.past = {"size": 8, "every": 1000, "law": "uniform"}
  config.nash.split = {"parts": 1, "part": 0, "overlap": 0.0}
  config.nash.iterate = {
    "every": 1000, "weights": (1.0,), "coef": 0.0, "anchor": "last",
  }  # fmt: skip
  config.nash.rival = placeholder(str)
  config.nash.population = {"policies": (), "weights": ()}
  # Of the opponent "rejection"; each has several voters.
  config.nash.rejection = {"proposals": 16}
  config.nash.judge = "preference"
  config.nash.watch = ()
  config.nash.loss = "policy_gradient"
  config.nash.samples = 1
  config.nash.updates_per_rollout = 1
  config.nash.clip = 0.2
  config.nash.ratio = "product"
  config.nash.desired_share = 0.5
  config.nash.pessimism = 0.1
  # Of the loss stackelberg, whose policy answers what it wrote itself.
  config.nash.follower_kl_coef = 0.1
  config.nash.follower_instruction = "\n\nA better summary:\n"
  # Which pairs a judge is asked about, and in which orders.
  config.nash.design = "all"
  config.nash.orders = "one"
  # 1 judges a rollout on the host while the next is written.
  config.nash.judge_ahead = 0
  config.nash.deploy = "last"
  config.nash.kl_coef = 0.008
  config.nash.temperature = 1.0
  faster = {"optimizer": {"learning_rate": 1e-4}}
  config.nash.runs = {
    "nash_md": {},
    "self_play": {"opponent": "self"} | faster,
    "best_response": {"opponent": "reference", "deploy": "last"} | faster,
    # Trained against the end of another run if exploit.adversaries names it.
    "adversary": {"opponent": "rival", "rival": "nash_md", "deploy": "last"},
    "nash_ema": {"opponent": "moving_average"} | faster,
    "rlhf": {
      "judge": "reward",
      "opponent": "self",
      "kl_coef": 0.05,
      "loss": "policy_gradient",
      "updates_per_rollout": 1,
      "design": "all",
      "orders": "one",
      "judge_ahead": 0,
    }
    | faster,
  }
  # Runs that also answer in another way: {"run": …, "deploy": …} by name.
  config.nash.deployed = {}
  # Policies that answer as one: {"members": …, "rule": …, …} by name.
  config.nash.ensembles = {}
  config.tournament = {
    "policies": ("sft", "nash_md", "self_play", "best_response", "rlhf"),
    # Choices among samples, which train nothing; they wait to be named above.
    "chosen": {
      "best_of_8": {
        "policy": "sft",
        "choose": "best",
        "samples": 8,
        "judge": "preference",
      },
      "nash_of_8": {
        "policy": "sft",
        "choose": "equilibrium",
        "samples": 8,
        "judge": "preference",
      },
    },
    # Policies of others: files of responses, workdirs, folders.
    "guests": {},
    "judges": ("preference",),
    "prompts": 2000,
    "samples": 1,
    # Cells end once their interval is this narrow; 0 judges all prompts.
    "width": 0.0,
    "batch_size": 32,
    "temperature": 1.0,
    "confidence": 0.95,
    "log_ratio": False,
  }
  # How much could be gained against a policy; none is asked about here.
  config.exploit = {
    "policies": (),
    "adversaries": (),
    "judge": "preference",
    "kl_coef": 0.1,
    "prompts": 200,
    "samples": 16,
    "replies": 8,
    "batch_size": 32,
    "temperature": 1.0,
    "confidence": 0.95,
  }
  config.export = {"policies": ("nash_md",), "form": "whole"}
  # People compare responses on a page; nobody is asked here.
  config.annotate = {
    "policies": (),
    "pairs": 100,
    "repeats": 0.1,
    "golden": 0.1,
    "certainty": 0.9,
    "judge": "preference",
    "annotators": 1,
    "host": "127.0.0.1",
    "port": 8421,
  }
  if variant.startswith("tiny"):
    make_tiny(config)
  if variant.endswith("folder"):
    leave_sizes_to_folders(config)
  return config.lock()


def stage(
  *, batch_size: int, steps: int, learning_rate: float
) -> ml_collections.ConfigDict:
  """What every trained stage has."""
  return ml_collections.ConfigDict(
    {
      "data": {"batch_size": batch_size, "eval_examples": 320},
      "optimizer": {
        "name": "adafactor",
        "learning_rate": learning_rate,
        "warmup_steps": 0,
        "decay_steps": 0,
        "max_grad_norm": 1.0,
        "decay_rate": 0.8,
      },
      "train": {
        "steps": steps,
        "micro_batches": 1,
        "nonfinite_steps": 3,
        "log_every": 20,
        "eval_every": 500,
        "save_every": 500,
        "save_minutes": 0.0,
        "keep": {
          "last": 2,
          "best": 0,
          "metric": placeholder(str),
          "highest": False,
        },
      },
    }
  )


def judges() -> ml_collections.ConfigDict:
  """The settings of judges that are not trained; read where one is named."""
  config = ml_collections.ConfigDict()
  # "preference-1" is the preference model trained once more.
  config.ensemble = {
    "members": ("preference", "preference-1"),
    "rule": "mean",
    "deviations": 1.0,
  }
  config.penalised = {"judge": "preference", "log_odds": 0.02}
  config.recorded = {"file": placeholder(str), "schema": "comparison"}
  config.served = {
    "url": placeholder(str),
    "model": placeholder(str),
    "form": "chat",
    "system": placeholder(str),
    "prompt": PAIR,
    "answers": ("1", "2"),
    "top_logprobs": 5,
    "max_tokens": 8,
    "orders": "both",
    "timeout_seconds": 60.0,
    "retries": 5,
    "connections": 16,
    "per_minute": 0.0,
    "budget_calls": 0,
    "budget_tokens": 0,
    "most_failed": 0.1,
    "key_variable": "OPENAI_API_KEY",
    # None keeps the answers in the workdir.
    "cache": placeholder(str),
  }
  return config


def leave_sizes_to_folders(config: ml_collections.ConfigDict) -> None:
  """Takes all that a model's folder says out of its section."""
  names = ("model", "judge_model")
  if not config.required:
    config.required = tuple(f"{name}.pretrained" for name in names)
  for section in (config[name] for name in names):
    section.pretrained = placeholder(str)
    for key in set(section) - {"pretrained", "dtype", "remat", "attention"}:
      del section[key]


def make_tiny(config: ml_collections.ConfigDict) -> None:
  """Shrinks everything, for tests of the whole path."""
  config.required = ()
  config.model.pretrained = config.judge_model.pretrained = "random"
  config.data.packages = ("asyncio", "email", "logging", "tkinter", "turtle")
  config.tokenizer.vocab_size = 384
  config.layout = {"prompt_buckets": (32,), "max_response": 8}
  config.devices.compile = "quick"
  small = {"width": 16, "num_heads": 2, "mlp_dim": 32}
  config.model.update(
    small | {"head_dim": 8, "encoder_layers": 1, "decoder_layers": 1}
  )
  config.judge_model.update(small | {"width": 24, "num_heads": 3})
  config.devices.smallest = 64
  config.comparisons.prompts.update({"train": 16, "validation": 8})
  config.comparisons.drawing.batch_size = 8
  for section in (config.sft, config.preference, config.reward, config.nash):
    section.data.update({"batch_size": 8, "eval_examples": 16})
    section.train.update({
      "steps": 4, "log_every": 1, "eval_every": 2, "save_every": 2
    })  # fmt: skip
  config.tournament.update({"prompts": 8, "batch_size": 8})
  config.exploit.update({"prompts": 4, "samples": 3, "replies": 2})
  config.exploit.batch_size = 8
  config.tournament.policies = ("sft", "nash_md")
  config.tournament.judges = ("raters", "preference")
