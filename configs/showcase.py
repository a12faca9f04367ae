"""An instruct model learns to summarise in one sentence, before raters' votes.

  python -m nashmd_jax.main --config=configs/showcase.py --workdir=DIR \
    --config.model.pretrained=SMOLLM2 --config.data.records=FOLDER

`make showcase` makes FOLDER of SciTLDR, first sentences of abstracts and one
sentence that people wrote, and runs this on SmolLM2-135M-Instruct. The folder
is the reference, nothing is fine-tuned before: adapters of it learn from the
votes of simulated raters which of two answers is preferred, and others of it by
Nash-MD-PG to be preferred. The setting tournament.policies names the methods
that play: rlhf, self_play, best_response, best_of_8 beside nash_md.

For 2 CPU cores; `:gpu` after the file name has room for whole abstracts and
takes more of everything, `:tiny` a few steps.
"""

import importlib.util
import pathlib

import ml_collections

PAIR = (
  "Text: {prompt}\n\nSummary 1: {first}\n\nSummary 2: {second}\n\nWhich "
  "summary is better? Answer 1 or 2."
)
SINGLE = (
  "Text: {prompt}\n\nSummary: {first}\n\nIs the summary good? Answer 1 for yes "
  "or 2 for no."
)


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """The run of `make showcase`, or `:gpu`, or `:tiny`."""
  if variant not in ("full", "gpu", "tiny"):
    raise ValueError(f"configs/showcase.py: no variant {variant!r}")
  config = load("finetune").get_config("tiny" if variant == "tiny" else "full")
  config.unlock()
  config.chat.template = "folder"
  config.chat.system = "You write summaries."
  config.chat.user = "Summarize in one short sentence:\n\n{prompt}"
  config.sft.train.steps = 0
  attention, mlp = ("query", "key", "value", "out"), ("gate", "up", "down")
  config.lora.targets = (*attention, *mlp)
  config.preference.template.prompt = PAIR
  config.reward.template.prompt = SINGLE
  config.nash.watch = ("raters",)
  config.nash.kl_coef = 0.02
  config.tournament.judges = ("raters", "preference")
  if variant == "full":
    make_small(config)
  if variant == "gpu":
    config.layout = {"prompt_buckets": (256, 320, 512), "max_response": 64}
  return config.lock()


def make_small(config: ml_collections.ConfigDict) -> None:
  """What 2 CPU cores do in three hours."""
  config.layout = {"prompt_buckets": (56, 72), "max_response": 40}
  config.comparisons.prompts.update({"train": 160, "validation": 32})
  config.comparisons.drawing.update({"batch_size": 16, "samples_per_prompt": 5})
  for name, batch, steps, rate in (
    ("preference", 8, 60, 1e-3),
    ("reward", 8, 60, 1e-3),
    ("nash", 8, 120, 5e-4),
  ):
    section = config[name]
    section.data.update({"batch_size": batch, "eval_examples": 64})
    section.optimizer.update(
      {
        "learning_rate": rate,
        "warmup_steps": steps // 20,
        "decay_steps": steps,
      }
    )
    section.train.update(
      {
        "steps": steps,
        "log_every": 5,
        "eval_every": steps // 2,
        "save_every": 5,
      }
    )
  config.tournament.update({"prompts": 200, "batch_size": 40})


def load(name: str):
  """A config file beside this one, without importing the library's."""
  path = pathlib.Path(__file__).parent / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
