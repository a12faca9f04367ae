"""Planted worlds: one stage, `nash`, with a job for each run."""

import functools
import pathlib

from nashmd_jax import pipeline
from nashmd_jax.stages import nash
from nashmd_jax.training import followers, loop, optimizer, sharding
from nashmd_jax.worlds import planted, training

SECTIONS = {
  "pipeline": None,
  "seed": None,
  "world": pipeline.keywords(planted.make_world),
  "model": None,
  "devices": pipeline.keywords(sharding.check_devices),
  "nash": ("data", "optimizer", "train", *nash.GAME, "past", "runs"),
}


def jobs(
  config: pipeline.Config, workdir: pathlib.Path
) -> dict[str, pipeline.Job]:
  """One job for each of `config.nash.runs`."""
  return {
    f"nash/{name}": functools.partial(training.run, config, workdir, name)
    for name in config.nash.runs
  }


def check(config: pipeline.Config) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  check_keys = functools.partial(pipeline.check_keys, config)
  check_keys("", SECTIONS)
  for path, keys in SECTIONS.items():
    if keys:
      check_keys(path, keys)
  check_keys("nash.data", ("batch_size",))
  check_keys("nash.past", pipeline.keywords(followers.past_policies))
  sharding.check_devices(**config.devices)
  given = {"devices", "name", "folder", "seed", "updates_per_rollout"}
  check_keys("nash.train", pipeline.keywords(loop.train) - given)
  loop.check_intervals("nash", **config.nash.train)
  for name in config.nash.runs:
    section = training.run_section(config, name)
    optimizer.make_optimizer(**section.optimizer)


PIPELINE = pipeline.Pipeline(
  stages=("nash",),
  check=check,
  jobs=jobs,
  alone=(),
  needed=lambda config, name: (),
  page="nash",
  pod_check=None,
)
