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
"""

import importlib.util
import pathlib

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """The run of figures/judges_votes.py, or `:tiny`."""
  if variant not in ("full", "tiny"):
    raise ValueError(f"configs/votes.py: no variant {variant!r}")
  config = load("docstrings").get_config(variant)
  config.unlock()
  config.required = ("data.records", "data.comparisons")
  # Learned from comparisons alone; these two name the judges to be trained.
  config.tournament.judges = ("preference", "reward")
  config.nash.watch = ()
  for name in ("preference", "reward"):
    config[name].start_from_sft = False
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


def load(name: str):
  """A config file beside this one, without importing the library's."""
  path = pathlib.Path(__file__).parent / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
