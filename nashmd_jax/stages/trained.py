"""What every trained stage of a run on text has: keys, checks, its training."""

from collections.abc import Iterable
import pathlib

import ml_collections

from nashmd_jax import mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.training import loop, optimizer
from nashmd_jax.training import step as step_lib

Config = ml_collections.ConfigDict
KEYS = ("data", "optimizer", "train")
TRAIN = {
  "steps",
  "micro_batches",
  "log_every",
  "eval_every",
  "save_every",
}
# What texts, tokens and models of a run depend on.
READS = (
  "seed",
  "tokenizer.eos_token",
  "tokenizer.bos_token",
  "layout",
  "model",
  "lora",
  "devices.run_dtype",
  "devices.frozen_dtype",
)
FACTS = ("records", "tokenizer")


def keys(name: str, further: Iterable[str] = ()) -> dict:
  """The config sections of a stage; see `pipeline.Stage.keys`."""
  return {
    name: {*KEYS, *further},
    f"{name}.data": {"batch_size", "eval_examples"},
    f"{name}.train": TRAIN,
  }


def check(
  name: str, section: Config, config: Config, findings: mistakes.Findings
) -> None:
  """Collects what is wrong with a section, a run's changes included.

  Args:
    name: of the section, for the sentences.
    section: with the keys of `KEYS`.
    config: the whole.
    findings: where to.
  """
  for path, expected in (
    ("data", {"batch_size", "eval_examples"}), ("train", TRAIN)
  ):  # fmt: skip
    with findings.collect(name):
      pipeline.check_keys(section, path, expected)
      if path == "train":
        loop.check_intervals(**section.train)
      elif min(section.data.batch_size, section.data.eval_examples) < 1:
        raise mistakes.Mistake(
          f"data: got batch_size {section.data.batch_size} and eval_examples "
          f"{section.data.eval_examples}, expected 1 or more"
        )
      else:
        parts = section.train.micro_batches
        if parts > 0 and section.data.batch_size % parts:
          raise mistakes.Mistake(
            f"data.batch_size: got {section.data.batch_size}, expected a "
            f"multiple of train.micro_batches ({parts})"
          )
  with findings.collect(name):
    optimizer.make_optimizer(**section.optimizer)


def train(
  experiment: step_lib.Experiment,
  section: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  job: str,
  *,
  updates_per_rollout: int = 1,
) -> dict[str, float]:
  """Trains a stage with its section and returns its last evaluation."""
  return loop.train(
    experiment,
    optimizer.make_optimizer(**section.optimizer),
    devices=task.devices,
    name=job,
    folder=workdir / job,
    seed=task.seed,
    updates_per_rollout=updates_per_rollout,
    **section.train,
  )
