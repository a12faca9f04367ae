"""Tiny runs with adapters, in this process, and the states they end in."""

from collections.abc import Mapping
import functools
import pathlib
from unittest import mock

import jax
import ml_collections
import numpy as np

from configs import docstrings
from nashmd_jax import pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.stages import text
from nashmd_jax.training import (
  checkpoints,
  loop,
  optimizer,
  programs,
  sharding,
  state,
  step,
)

RANK = 2
TARGETS = ("query", "value")


def config(records: pathlib.Path):
  """Two runs that read every set there is, before judges of both kinds."""
  made = docstrings.get_config("tiny").unlock()
  made.data.update({"records": str(records), "schema": "summary"})
  made.lora.update({"rank": RANK, "targets": TARGETS})
  made.reward.start_from_sft = False
  made.nash.past.update({"size": 2, "every": 2})
  made.nash.runs = {
    "mixed": {"deploy": "mixture", "watch": ("reward",)},
    "followed": {"opponent": "tests.lora_runs:averages", "deploy": "ema"},
  }
  made.tournament.policies = ("sft", "mixed", "followed")
  made.tournament.judges = ("reward",)
  made.export.policies = ("mixed", "followed")
  return made


def on_one_device():
  """A context in which a run takes the first of the tests' devices alone."""
  made = sharding.make_devices
  one = functools.partial(made, jax.devices()[:1])
  return mock.patch.object(sharding, "make_devices", one)


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  *chosen: str,
) -> dict[str, state.TrainState]:
  """Runs the chosen jobs, all if none are, and gives their last states."""
  saved, ends = checkpoints.save, {}

  def save(checkpointer, step, state, batches, **more):
    folder = pathlib.Path(checkpointer.directory).parent
    ends[folder.relative_to(workdir.absolute()).as_posix()] = state
    saved(checkpointer, step, state, batches, **more)

  prepare(config, workdir)
  with on_one_device(), mock.patch.object(checkpoints, "save", save):
    for job, stage in text.PIPELINE.jobs(config).items():
      if job in chosen or not chosen:
        stage.run(config, workdir, job)
  return jax.device_get(ends)


def prepare(config, workdir: pathlib.Path) -> None:
  """Checks the config and makes its data and tokenizer."""
  pipeline.check(text.PIPELINE, config)
  with on_one_device():
    text.PIPELINE.prepare(config, workdir)


def load_task(config, workdir: pathlib.Path) -> task_lib.Task:
  with on_one_device():
    return task_lib.load_task(config, workdir)


def five_steps(built: step.Experiment, section, devices) -> state.TrainState:
  """The state after five steps on a layout, on the host."""
  tx = optimizer.make_optimizer(**section.optimizer)
  start = loop.make_first_state(built, tx, devices=devices)
  now = sharding.store(devices, start, *built.init(None))
  make = functools.partial(
    step.make_programs,
    built,
    tx,
    seed=0,
    updates_per_rollout=1,
    micro_batches=1,
  )
  take = programs.compile_step(devices, make, now, host=built.host)
  batches = built.batches()
  for _ in range(5):
    now, _ = take(now, next(batches))
  return jax.device_get(now)


def numbers(tree) -> int:
  """How many numbers the arrays of a tree hold."""
  return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


def saved_shapes(folder: pathlib.Path) -> Mapping[str, dict[str, tuple]]:
  """Shapes of all arrays in the last checkpoint of a stage, by their path."""
  with checkpoints.make_checkpointer(folder) as checkpointer:
    held = checkpointer.orbax.checkpointables_metadata(
      checkpointer.latest
    ).metadata
  del held["data"]
  return {
    name: {
      jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
      for path, leaf in jax.tree.leaves_with_path(tree)
    }
    for name, tree in held.items()
  }


def averages(mixture: float):
  """An opponent that plays every set made for one rollout, half the time."""
  del mixture
  return [(0.5, {"interpolation": 1.0}), (0.5, {"past_policy": 1.0})]
