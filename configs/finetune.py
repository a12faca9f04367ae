"""A folder of your own, trained and exported: one command, no config file.

  python -m nashmd_jax.main --config=configs/finetune.py --workdir=DIR \
    --config.model.pretrained=MODEL --config.data.records=FOLDER \
    [--config.data.comparisons=PAIRS]

MODEL holds a model in the Hugging Face layout of any family of docs/models.md:
family, sizes, special tokens and chat template are the folder's. FOLDER holds
train.jsonl, validation.jsonl and test.jsonl of prompts, or messages, and
responses; PAIRS the first two of comparisons of them. Without comparisons
simulated raters compare what the model writes, which is good for a first run
and for nothing else.

Low-rank adapters of the one folder are policy, reference and judges; the policy
is in DIR/export/nash_md at the end. SFT is for base models: an instruct model
is its own reference with --config.sft.train.steps=0. For one GPU; `:tiny` after
the file name takes a few steps of everything, to see that it all fits.
"""

import importlib.util
import pathlib

import ml_collections

placeholder = ml_collections.config_dict.placeholder

PAIR = (
  "Here is a request and two responses to it.\n\nRequest: {prompt}\n\n"
  "Response 1: {first}\n\nResponse 2: {second}\n\nWhich response is better? "
  "Answer 1 or 2."
)
SINGLE = (
  "Here is a request and a response to it.\n\nRequest: {prompt}\n\n"
  "Response: {first}\n\nIs the response good? Answer 1 for yes or 2 for no."
)


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  """A run on the folder of a model, or `:tiny`."""
  if variant not in ("full", "tiny"):
    raise ValueError(f"configs/finetune.py: no variant {variant!r}")
  config = load("docstrings").get_config(variant)
  config.unlock()
  config.required = ("model.pretrained", "data.records")
  config.tokenizer = {
    "file": placeholder(str),
    "vocab_size": 0,
    "eos_token": placeholder(str),
    "bos_token": placeholder(str),
    "special_tokens": (),
  }
  config.chat.template = "auto"
  config.layout = {"prompt_buckets": (128, 256, 512), "max_response": 64}
  config.model = {"pretrained": placeholder(str)}
  config.lora = {"rank": 8, "alpha": 16.0, "targets": ("query", "value")}
  for name, prompt in (("preference", PAIR), ("reward", SINGLE)):
    config[name].start_from_sft = False
    config[name].template = {
      "prompt": prompt,
      "response": "",
      "answers": ("1", "2"),
      "chat": True,
    }
  for name, steps in (
    ("sft", 200), ("preference", 400), ("reward", 400), ("nash", 400)
  ):  # fmt: skip
    section = config[name]
    section.optimizer.update(
      {
        "learning_rate": 1e-4 if name == "nash" else 1e-3,
        "warmup_steps": 10,
        "decay_steps": steps,
        "weight_decay": 0.0,
      }
    )
    section.train.update(
      {"steps": steps, "log_every": 10, "eval_every": 100, "save_every": 100}
    )
    section.data.update({"batch_size": 16, "eval_examples": 128})
  config.comparisons.prompts.update({"train": 2000, "validation": 200})
  config.comparisons.drawing.batch_size = 32
  config.nash.watch = ()
  config.tournament.update({"prompts": 200, "batch_size": 32})
  config.tournament.policies = ("sft", "nash_md")
  config.tournament.judges = ("preference",)
  config.exploit.batch_size = 32
  config.export = {"policies": ("nash_md",), "form": "whole"}
  if variant == "tiny":
    make_tiny(config)
  return config.lock()


def make_tiny(config: ml_collections.ConfigDict) -> None:
  """A few steps on a few records."""
  config.layout = {"prompt_buckets": (64, 256), "max_response": 16}
  config.comparisons.prompts.update({"train": 8, "validation": 4})
  config.comparisons.drawing.batch_size = 4
  for section in (config.sft, config.preference, config.reward, config.nash):
    section.data.update({"batch_size": 4, "eval_examples": 4})
    section.optimizer.update({"warmup_steps": 0, "decay_steps": 2})
    section.train.update({
      "steps": 2, "log_every": 1, "eval_every": 2, "save_every": 2
    })  # fmt: skip
  config.tournament.update({"prompts": 4, "batch_size": 4})
  config.exploit.update({"prompts": 4, "samples": 3, "replies": 2})
  config.exploit.batch_size = 4


def load(name: str):
  """A config file beside this one, without importing the library's."""
  path = pathlib.Path(__file__).parent / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
