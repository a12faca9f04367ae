"""Worlds with an exact answer: neural policies in small ones, and pure games.

  python -m nashmd_jax.main --config=configs/worlds.py --workdir=DIR

Trains a small T5, by sampling, on four prompts whose every response can be
listed: self-play, Nash-MD at two β, IPO-MD and best response, about a minute
each on 2 CPU cores. Expected: KL from the exact point of rest below 0.002.
`:family` does the same with policies that are held to their last iterates, or
to their moving average: INPO, MNPO, SPPO, mirror descent. `:one_token` does
the first with responses of one token, `:tiny` with next to nothing, in under a
minute.

  python -m nashmd_jax.main --config=configs/worlds.py:games

About two minutes on 2 CPU cores. Writes to out/worlds-games/games a table of
iterations and preference queries until KL to equilibrium stays at 1e-6, and
figures. Expected, among others, at the best constant step: OMD 13, Nash-MD
about 355, EGPO 4 on the three raters; OMD 96, EGPO 12 on rock, paper,
scissors. `:games_tiny` runs the same path in seconds.
"""

import ml_collections


def get_config(variant: str = "neural") -> ml_collections.ConfigDict:
  """Neural policies, in full or `:tiny`; or `:games`, `:games_tiny`."""
  if variant in ("neural", "one_token", "family", "tiny"):
    return neural_config(variant)
  if variant in ("games", "games_tiny"):
    return games_config(variant)
  raise ValueError(f"configs/worlds.py: no variant {variant!r}")


def games_config(variant: str) -> ml_collections.ConfigDict:
  """The study of exact games."""
  config = ml_collections.ConfigDict()
  config.pipeline = "games"
  config.games = {
    "references": {
      "three_raters": (1 / 3, 1 / 3, 1 / 3),
      "rock_paper_scissors": (0.7, 0.2, 0.1),
      "dice": (0.5, 0.3, 0.2),
    },
    "kl_coef": 0.1,
    "target_kl": 1e-6,
    "horizon": 200_000,
    "ema_decay": 0.9,
    "step_sizes": {"smallest": 1e-3, "largest": 30.0, "count": 600},
  }
  if variant == "games_tiny":
    for name in ("three_raters", "dice"):
      del config.games.references[name]
    config.games.horizon = 400
    config.games.step_sizes.count = 20
  return config.lock()


def family_runs() -> dict[str, dict]:
  """Runs that are held to more than μ; all should come to rest at π*_τ."""
  last = {"every": 10, "coef": 0.2}
  inpo = {
    "opponent": "anchor",
    "loss": "inpo",
    "iterate": last,
    "samples": 4,
    "optimizer": {"max_grad_norm": 20.0},
  }
  return {
    "inpo": inpo,
    "mnpo": inpo
    | {"loss": "mnpo", "iterate": last | {"weights": (2.0, 1.0, 1.0)}},
    "sppo": inpo | {"loss": "sppo"},
    "mirror_descent": {"opponent": "anchor", "iterate": last},
    "magnet": {
      "opponent": "self",
      "iterate": {"anchor": "ema", "coef": 0.2},
      "ema": {"decay": 0.9},
    },
    # Two steps are one iteration, of which the optimizer counts one.
    "egpo": inpo
    | {
      "opponent": "self",
      "loss": "egpo",
      "iterate": {"every": 2},
      "optimizer": {"max_grad_norm": 20.0, "decay_steps": 750},
    },
    "stackelberg": {
      "opponent": "self",
      "loss": "stackelberg",
      "samples": 2,
    },
    # 16 proposals to a prompt, a third of them accepted, each with 8 voters; at
    # τ = 0.2 it would be one in 14, with 13.
    "nash_rs": {
      "opponent": "rejection",
      "kl_coef": 0.5,
      "rejection": {"proposals": 2},
      "data": {"batch_size": 32},
      "optimizer": {"decay_steps": 1000},
      "train": {"steps": 1000},
    },
  }


def neural_config(variant: str) -> ml_collections.ConfigDict:
  """Policies trained in a world of 31 responses, or of 5 of one token each."""
  config = ml_collections.ConfigDict()
  config.pipeline = "worlds"
  config.seed = 0
  config.world = {
    "vocab_size": 3,
    "max_response": 4,
    "prompts": 4,
    "prompt_length": 3,
    "cycle": 1.5,
    "brevity": 0.5,
    "noise": 1.0,
    "seed": 0,
  }
  config.model = {
    "family": "t5",
    "width": 32,
    "num_heads": 2,
    "head_dim": 16,
    "mlp_dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_buckets": 8,
    "max_distance": 16,
  }
  config.devices = {
    "mode": "jit",
    "model": 1,
    "compile": "full",
    "fsdp": False,
    "smallest": 65_536,
    "run_dtype": "float32",
    "frozen_dtype": "float32",
  }
  config.log = {"writers": ("tensorboard",), "project": "nashmd_jax"}
  config.nash = {
    "opponent": "mixture",
    "mixture": 0.125,
    "mixture_end": 0.125,
    "mixture_steps": 0,
    # Of the opponents that follow as a moving average.
    "ema": {"decay": 0.99},
    # Where the last iterate plays, or coef holds the policy to it.
    "iterate": {
      "every": 50,
      "weights": (1.0,),
      "coef": 0.0,
      "anchor": "last",
    },
    # Of the opponent that is the best response.
    "rejection": {"proposals": 16},
    "loss": "policy_gradient",
    "samples": 8,
    "updates_per_rollout": 1,
    "clip": 0.2,
    "ratio": "product",
    "desired_share": 0.5,
    "pessimism": 0.1,
    "follower_kl_coef": 0.2,
    "design": "all",
    "orders": "one",
    "kl_coef": 0.2,
    "temperature": 1.0,
    "data": {"batch_size": 64},
    "optimizer": {
      "name": "adamw",
      "learning_rate": 3e-3,
      "warmup_steps": 20,
      "decay_steps": 1500,
      "max_grad_norm": 1.0,
      "b1": 0.9,
      "b2": 0.98,
      "weight_decay": 0.0,
    },
    "train": {
      "steps": 1500,
      "micro_batches": 1,
      "nonfinite_steps": 3,
      "log_every": 50,
      "eval_every": 250,
      "save_every": 500,
      "save_minutes": 0.0,
      "keep": {
        "last": 2,
        "best": 0,
        "metric": ml_collections.config_dict.placeholder(str),
        "highest": False,
      },
    },
    "runs": {
      "self_play": {"opponent": "self"},
      "nash_md_eighth": {},
      "nash_md_half": {"mixture": 0.5},
      # Its gradient is 4/τ times that of the others, and a sample counts
      # twice: both responses of a pair are learnt from.
      "ipo_md_eighth": {
        "loss": "ipo",
        "samples": 4,
        "optimizer": {"max_grad_norm": 20.0},
      },
      "best_response": {"opponent": "reference"},
      # Rests elsewhere: where τ log(π/μ) is the Bradley-Terry fit under π. Log
      # odds are about 4 (P − ½), so that this τ is as strong as the others'.
      "online_dpo": {
        "opponent": "self",
        "loss": "dpo",
        "samples": 4,
        "kl_coef": 0.8,
      },
    },
  }
  if variant == "one_token":
    config.world.update(
      {"vocab_size": 5, "max_response": 1, "prompt_length": 2}
    )
  if variant == "family":
    config.nash.runs = family_runs()
  if variant == "tiny":
    config.devices.compile = "quick"
    config.world.max_response = 2
    config.model.update({"encoder_layers": 1, "decoder_layers": 1})
    config.nash.samples = 2
    config.nash.data.batch_size = 8
    config.nash.optimizer.update({"warmup_steps": 1, "decay_steps": 4})
    config.nash.train.update({
      "steps": 4, "log_every": 1, "eval_every": 2, "save_every": 2
    })  # fmt: skip
    for name in ("self_play", "ipo_md_eighth", "best_response", "online_dpo"):
      del config.nash.runs[name]
  return config.lock()
