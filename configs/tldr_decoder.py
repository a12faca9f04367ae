"""The same run with decoders: Gemma 2 of 2 or 9 billion parameters.

  python -m nashmd_jax.main --config=configs/tldr_decoder.py:9b --workdir=DIR \
    --config.data.records=POSTS --config.data.comparisons=COMPARISONS \
    --config.model.pretrained=GEMMA --config.judge_model.pretrained=GEMMA

POSTS, COMPARISONS and the folders of models are as in configs/tldr_t5.py; any
family of decoders will do, its sizes in `config.model`. The smallest slice of
a kind of chip that holds the run is found by

  python -m nashmd_jax.main --stage=pod_check --topology=v5e \
    --config=configs/tldr_decoder.py:2b

`:tiny` after the file name runs the same path on CPU in about a minute.
"""

import ml_collections

placeholder = ml_collections.config_dict.placeholder


SIZES = {
  "2b": {
    "width": 2304,
    "num_layers": 26,
    "num_heads": 8,
    "num_kv_heads": 4,
    "mlp_dim": 9216,
  },
  "9b": {
    "width": 3584,
    "num_layers": 42,
    "num_heads": 16,
    "num_kv_heads": 8,
    "mlp_dim": 14_336,
  },
}
# As many chips as there are key heads share each matrix that is run.
SHARED = {"2b": 4, "9b": 8}


def get_config(variant: str = "2b") -> ml_collections.ConfigDict:
  """The run with a policy and a judge of that size, or `:tiny`."""
  if variant not in (*SIZES, "tiny"):
    raise ValueError(f"configs/tldr_decoder.py: no variant {variant!r}")
  size = "2b" if variant == "tiny" else variant
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
    "packages": (),
  }
  config.tokenizer = {
    "file": placeholder(str),
    "vocab_size": 256_000,
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "special_tokens": ("<bos>", "<unused0>", "<unused1>", "<unused2>"),
  }
  config.layout = {"prompt_buckets": (256, 512), "max_response": 64}
  config.model = {
    "pretrained": placeholder(str),
    "family": "gemma2",
    **SIZES[size],
    "head_dim": 256,
    "rope_base": 10_000.0,
    "window": 4096,
    "query_scale": 256**-0.5,
    "dtype": "bfloat16",
    "remat": "full",
    "attention": "einsum",
  }
  # What differs in the judges.
  config.judge_model = {"pretrained": placeholder(str)}
  config.devices = {
    "mode": "jit",
    "model": SHARED[size],
    "fsdp": True,
    "smallest": 65_536,
    "run_dtype": "bfloat16",
    "frozen_dtype": "bfloat16",
  }
  config.raters = {
    "weights": {"coverage": 0.34, "brevity": 0.36, "grounding": 0.30},
    "sharpness": {"coverage": 10.0, "brevity": 1.0, "grounding": 10.0},
  }
  config.comparisons = {
    "prompts": {"train": 10_000, "validation": 400},
    "drawing": {
      "pairs_per_prompt": 6,
      "votes_per_pair": 9,
      "samples_per_prompt": 3,
      "batch_size": 128,
      "temperature": 0.7,
    },
  }
  config.sft = stage(batch_size=32, steps=4000, learning_rate=1e-3)
  for name, response in (
    ("preference", "<unused0>{first}<unused1>{second}<unused2>"),
    ("reward", "<unused0>{first}<unused2>"),
  ):
    config[name] = stage(batch_size=32, steps=4000, learning_rate=1e-4)
    config[name].start_from_sft = False
    config[name].template = {
      "prompt": "<bos>{prompt}",
      "response": response,
      "answers": ("<unused0>", "<unused1>"),
    }
  config.nash = stage(batch_size=32, steps=10_000, learning_rate=3e-5)
  config.nash.opponent = "mixture"
  config.nash.mixture = 0.125
  config.nash.mixture_end = 0.125
  config.nash.mixture_steps = 0
  config.nash.past = {"size": 8, "every": 1000, "law": "uniform"}
  config.nash.judge = "preference"
  config.nash.loss = "policy_gradient"
  config.nash.samples = 1
  config.nash.updates_per_rollout = 1
  config.nash.clip = 0.2
  config.nash.deploy = "last"
  config.nash.kl_coef = 0.008
  config.nash.temperature = 1.0
  faster = {"optimizer": {"learning_rate": 1e-4}}
  config.nash.runs = {
    "nash_md": {},
    "self_play": {"opponent": "self"} | faster,
    "best_response": {"opponent": "reference"} | faster,
    "nash_ema": {"opponent": "moving_average"} | faster,
    "rlhf": {"judge": "reward", "opponent": "self", "kl_coef": 0.05} | faster,
  }
  config.tournament = {
    "policies": ("sft", "nash_md", "self_play", "best_response", "rlhf"),
    "prompts": 2000,
    "batch_size": 32,
    "temperature": 1.0,
    "confidence": 0.95,
  }
  config.export = {"policies": ("nash_md",)}
  if variant == "tiny":
    make_tiny(config)
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
        "ema_decay": 0.999,
        "log_every": 20,
        "eval_every": 500,
        "save_every": 500,
      },
    }
  )


def make_tiny(config: ml_collections.ConfigDict) -> None:
  """Shrinks everything until the whole path takes about a minute."""
  config.required = ()
  config.model.pretrained = config.judge_model.pretrained = "random"
  config.data.packages = ("asyncio", "email", "logging", "tkinter", "turtle")
  config.tokenizer.vocab_size = 384
  config.layout = {"prompt_buckets": (32,), "max_response": 8}
  config.model.update(
    {
      "width": 16,
      "num_layers": 2,
      "num_heads": 2,
      "num_kv_heads": 1,
      "head_dim": 8,
      "mlp_dim": 32,
      "window": 16,
    }
  )
  config.devices.model = 1
  config.devices.smallest = 64
  config.comparisons.prompts.update({"train": 16, "validation": 8})
  config.comparisons.drawing.batch_size = 8
  for section in (config.sft, config.preference, config.reward, config.nash):
    section.data.update({"batch_size": 8, "eval_examples": 16})
    section.train.update({
      "steps": 4, "log_every": 1, "eval_every": 2, "save_every": 2
    })  # fmt: skip
  config.tournament.update({"prompts": 8, "batch_size": 8})
  config.tournament.policies = ("sft", "nash_md")
