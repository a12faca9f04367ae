"""Judges alone, from people's votes on pairs of short texts.

  python -m nashmd_jax.main --config=configs/votes.py --stage=preference \\
    --config.data.records=FOLDER --config.data.comparisons=PAIRS --workdir=DIR

and then --stage=reward and --stage=judges, which leaves accuracy, calibration
and cycles in DIR/judges/results.json. Nothing but the tokenizer is learned from
the summary records. The texts may be of 110 words, two of them in one reading:
about twelve minutes for both judges on 2 CPU cores, from scratch, so expect
little more than what the lengths tell. `python -m figures.judges_votes` does
all of it on UKPConvArg1. `:tiny` after the file name runs the same path on very
little.

  python -m nashmd_jax.main --config=configs/votes.py:smollm2 \
    --stage=preference --config.data.records=FOLDER --workdir=DIR \
    --config.data.comparisons=PAIRS --config.model.pretrained=SMOLLM2

trains adapters of SmolLM2-135M-Instruct, in the Hugging Face layout, which is
asked in words; about half a minute a step on 2 CPU cores.
"""

import importlib.util
import pathlib

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """The run of figures/judges_votes.py, or `:tiny`."""
  if variant not in ("full", "tiny", "smollm2"):
    raise ValueError(f"configs/votes.py: no variant {variant!r}")
  base = "tiny" if variant == "tiny" else "full"
  config = load("docstrings").get_config(base)
  config.unlock()
  config.required = ("data.records", "data.comparisons")
  # Learned from comparisons alone; these two name the judges to be trained.
  config.tournament.judges = ("preference", "reward")
  config.nash.watch = ()
  for name in ("preference", "reward"):
    config[name].start_from_sft = False
  if variant == "smollm2":
    make_smollm2(config)
  if variant == "full":
    config.tokenizer.vocab_size = 4096
    config.layout = {"prompt_buckets": (48,), "max_response": 144}
    config.model.update({"width": 64, "num_heads": 2, "mlp_dim": 128})
    for name, steps in (("preference", 200), ("reward", 300)):
      section = config[name]
      section.data.update({"batch_size": 32, "eval_examples": 320})
      section.optimizer.update(
        {
          "learning_rate": 1e-3,
          "warmup_steps": steps // 20,
          "decay_steps": steps,
        }
      )
      section.train.update(
        {"steps": steps, "eval_every": steps // 5, "save_every": steps // 5}
      )
  return config.lock()


def make_smollm2(config: ml_collections.ConfigDict) -> None:
  """Adapters of SmolLM2-135M-Instruct, on texts of 40 words."""
  config.required = (*config.required, "model.pretrained")
  config.tokenizer.eos_token = ml_collections.config_dict.placeholder(str)
  config.chat.template = "folder"
  config.layout = {"prompt_buckets": (24,), "max_response": 64}
  # Its folder says the sizes.
  config.model = {"pretrained": ml_collections.config_dict.placeholder(str)}
  config.lora = {"rank": 8, "alpha": 16.0, "targets": ("query", "value")}
  for name, question in (
    (
      "preference",
      "Two arguments on: {prompt}\n\nArgument 1: {first}\n\nArgument 2: "
      "{second}\n\nWhich one is more convincing? Answer 1 or 2.",
    ),
    (
      "reward",
      "An argument on: {prompt}\n\n{first}\n\nIs it convincing? Answer 1 for "
      "yes or 2 for no.",
    ),
  ):
    section = config[name]
    section.template = {
      "prompt": question,
      "response": "",
      "answers": ("1", "2"),
      "chat": True,
    }
    section.data.update({"batch_size": 8, "eval_examples": 64})
    section.optimizer.update(
      {
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "decay_steps": 40,
        "weight_decay": 0.0,
      }
    )
    section.train.update(
      {"steps": 40, "log_every": 5, "eval_every": 20, "save_every": 20}
    )


def load(name: str):
  """A config file beside this one, without importing the library's."""
  path = pathlib.Path(__file__).parent / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
