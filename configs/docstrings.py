"""Nash-MD on real text found on this machine: docstrings and their summaries.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Some minutes on 2 CPU cores. `make demo` runs it and writes to out/demo.json
how long it took, how often Nash-MD is preferred to SFT by the simulated raters
and how accurate the judges are. `:tiny` after the file name runs the same path
on very little.
"""

import ml_collections

placeholder = ml_collections.config_dict.placeholder

TEMPLATE_TOKENS = ("<1>", "<2>", "<answer>")
# Of the preference model and the judge of Munos et al., ICML 2024.
PAIR = (
  "You are an expert summary rater. Given a piece of text and two of its "
  "possible summaries, output 1 or 2 to indicate which summary is better. "
  "Text - {prompt}, Summary 1 - {first}, Summary 2 - {second}. "
  "Preferred Summary -"
)


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """The run of `make demo`, or `:tiny`."""
  if variant not in ("full", "tiny"):
    raise ValueError(f"configs/docstrings.py: no variant {variant!r}")
  config = ml_collections.ConfigDict()
  config.pipeline = "text"
  config.required = ()
  config.seed = 0
  config.data = {
    "records": placeholder(str),
    "schema": "summary",
    "comparisons": placeholder(str),
    "comparisons_schema": "comparison",
    "bad_rows": "error",
    "packages": (),
    "target": "summary",
  }
  config.tokenizer = {
    "file": placeholder(str),
    "vocab_size": 4096,
    "eos_token": "</s>",
    "bos_token": placeholder(str),
    "special_tokens": TEMPLATE_TOKENS,
  }
  # None reads text as it is; "folder" takes the template of the model's folder.
  config.chat = {
    "template": placeholder(str),
    "system": placeholder(str),
    "user": "{prompt}",
  }
  # Above 1 the policy writes every turn of the assistant in a conversation.
  config.turns = {"most": 1, "between": 0}
  config.layout = {"prompt_buckets": (48, 72), "max_response": 24}
  config.model = {
    "pretrained": placeholder(str),
    "family": "t5",
    "width": 128,
    "num_heads": 4,
    "head_dim": 32,
    "mlp_dim": 256,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_buckets": 32,
    "max_distance": 128,
  }
  # What differs in the judges; they start from SFT, so nothing can.
  config.judge_model = ml_collections.ConfigDict()
  # rank 0 trains the parameters themselves.
  config.lora = {"rank": 0, "alpha": 16.0, "targets": ("query", "value")}
  config.devices = {
    "mode": "jit",
    "model": 1,
    "compile": "full",
    "fsdp": False,
    "smallest": 65_536,
    "run_dtype": "float32",
    "frozen_dtype": "float32",
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
  config.sft = stage(batch_size=32, steps=500, learning_rate=2e-3)
  config.sft.seed = placeholder(int)
  config.preference = stage(batch_size=32, steps=700, learning_rate=4e-4)
  config.preference.start_from_sft = True
  config.preference.template = {
    "prompt": "{prompt}",
    "response": "<1>{first}<2>{second}<answer>",
    "answers": ("<1>", "<2>"),
    "chat": False,
  }
  config.reward = stage(batch_size=32, steps=500, learning_rate=4e-4)
  config.reward.start_from_sft = True
  config.reward.template = {
    "prompt": "{prompt}",
    "response": "{first}<answer>",
    "answers": ("<1>", "<2>"),
    "chat": False,
  }
  config.judges = judges()
  for judge in (config.preference, config.reward):
    judge.labels = {"kind": "soft", "ties": "half", "smoothing": 0.0}
    judge.data.eval_examples = 1920
    judge.train.eval_every = 160
  config.nash = stage(batch_size=32, steps=200, learning_rate=5e-4)
  config.nash.train.eval_every = 40
  config.nash.opponent = "mixture"
  # β goes from mixture to mixture_end over mixture_steps; 0 keeps it.
  config.nash.mixture = 0.125
  config.nash.mixture_end = 0.125
  config.nash.mixture_steps = 0
  # Kept by the runs that play or deploy them alone; the paper's decay of .999
  # at 10,000 steps, at the same share of the run.
  config.nash.ema = {"decay": 0.95}
  config.nash.past = {"size": 8, "every": 10, "law": "uniform"}
  # Of the training records, one part of so many; 1 learns from all of them.
  config.nash.split = {"parts": 1, "part": 0, "overlap": 0.0}
  # Read where the last iterate plays, or where coef holds the policy to it.
  config.nash.iterate = {
    "every": 10, "weights": (1.0,), "coef": 0.0, "anchor": "last",
  }  # fmt: skip
  # Whom the opponent "rival" plays; see the stage exploit.
  config.nash.rival = placeholder(str)
  # Whom the opponent "population" plays.
  config.nash.population = {"policies": (), "weights": ()}
  # Of the opponent "rejection"; each has several voters.
  config.nash.rejection = {"proposals": 16}
  config.nash.judge = "preference"
  # These judge the same held-out pairs beside it and teach nothing.
  config.nash.watch = ("raters",)
  config.nash.loss = "policy_gradient"
  config.nash.samples = 1
  # More than 1 is the off-policy form; optimizer.decay_steps counts updates.
  config.nash.updates_per_rollout = 1
  config.nash.clip = 0.2
  config.nash.ratio = "product"
  # Of the losses that ask for them.
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
  config.nash.kl_coef = 0.05
  config.nash.temperature = 0.7
  # A run says what it must have whatever the section is set to.
  config.nash.runs = {
    # Log-odds have four times the slope of a probability at one half.
    "rlhf": {
      "judge": "reward",
      "opponent": "self",
      "kl_coef": 0.2,
      "loss": "policy_gradient",
      "updates_per_rollout": 1,
      "design": "all",
      "orders": "one",
      "judge_ahead": 0,
    },
    "self_play": {"opponent": "self"},
    "nash_md": {},
    "best_response": {"opponent": "reference", "deploy": "last"},
    # Trained against the end of another run if exploit.adversaries names it.
    "adversary": {"opponent": "rival", "rival": "nash_md", "deploy": "last"},
    "nash_ema": {"opponent": "moving_average"},
    # Each learns from a third of the comparisons, for the ensemble below.
    **{f"pepo_{part}": pepo(part, 3) for part in range(3)},
  }
  # Runs that also answer in another way: {"run": …, "deploy": …} by name.
  config.nash.deployed = {}
  # Policies that answer as one; they wait to be named among those that play.
  config.nash.ensembles = {
    "pepo": {
      "members": ("pepo_0", "pepo_1", "pepo_2"),
      "rule": "minimum",
      "deviations": 1.0,
      "proposals": 0,
    },
  }
  # These are trained and played; nash_ema waits to be named here.
  config.tournament = {
    "policies": ("sft", "rlhf", "self_play", "nash_md", "best_response"),
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
    "judges": ("raters", "preference"),
    "prompts": 500,
    "samples": 1,
    # Cells end once their interval is this narrow; 0 judges all prompts.
    "width": 0.0,
    "batch_size": 128,
    "temperature": 0.7,
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
    "batch_size": 128,
    "temperature": 0.7,
    "confidence": 0.95,
  }
  config.export = {"policies": (), "form": "whole"}
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
  if variant == "tiny":
    make_tiny(config)
  return config.lock()


def pepo(part: int, parts: int) -> dict:
  """A member of an ensemble, which learns from one part of the comparisons."""
  return {
    "loss": "pepo",
    "design": "records",
    "split": {"parts": parts, "part": part},
    "updates_per_rollout": 1,
    "orders": "one",
    "judge_ahead": 0,
    "deploy": "last",
  }


def stage(
  *, batch_size: int, steps: int, learning_rate: float
) -> ml_collections.ConfigDict:
  """What every trained stage has."""
  return ml_collections.ConfigDict(
    {
      "data": {"batch_size": batch_size, "eval_examples": 320},
      "optimizer": {
        "name": "adamw",
        "learning_rate": learning_rate,
        "warmup_steps": steps // 20,
        "decay_steps": steps,
        "max_grad_norm": 1.0,
        "b1": 0.9,
        "b2": 0.98,
        "weight_decay": 0.1,
      },
      "train": {
        "steps": steps,
        "micro_batches": 1,
        "nonfinite_steps": 3,
        "log_every": 20,
        "eval_every": 80,
        "save_every": 80,
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


def make_tiny(config: ml_collections.ConfigDict) -> None:
  """Shrinks everything, for tests of the whole path."""
  config.data.packages = ("asyncio", "email", "logging", "tkinter", "turtle")
  config.tokenizer.vocab_size = 384
  config.layout = {"prompt_buckets": (32,), "max_response": 8}
  config.devices.compile = "quick"
  config.model.update(
    {
      "width": 16,
      "num_heads": 2,
      "head_dim": 8,
      "mlp_dim": 32,
      "encoder_layers": 1,
      "decoder_layers": 1,
    }
  )
  config.comparisons.prompts.update({"train": 16, "validation": 8})
  config.comparisons.drawing.batch_size = 8
  for section in (config.sft, config.preference, config.reward, config.nash):
    section.data.update({"batch_size": 8, "eval_examples": 16})
    section.optimizer.update({"warmup_steps": 1, "decay_steps": 4})
    section.train.update({
      "steps": 4, "log_every": 1, "eval_every": 2, "save_every": 2
    })  # fmt: skip
  config.tournament.update({"prompts": 8, "batch_size": 8})
  config.exploit.update({"prompts": 4, "samples": 3, "replies": 2})
  config.exploit.batch_size = 8
  config.tournament.policies = ("sft", "rlhf", "nash_md")
