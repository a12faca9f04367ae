"""Where the parameters of a trained policy lie, and how they are read."""

from collections.abc import Iterable
import pathlib
from typing import Any

from nashmd_jax import pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.nash import settings

RUNS = "nash"  # the folder of all runs


def run_job(run: str) -> str:
  """The job that trains "sft", or a run of `nash.runs`."""
  return run if run == settings.START else f"{RUNS}/{run}"


def job(config: pipeline.Config, name: str) -> str:
  """The job that trains a policy, see `settings.policy_lane`."""
  return run_job(settings.run_of(config, name))


def load_sets(
  task: task_lib.Task,
  lane: sampling.Lane,
  place: pathlib.Path,
  start: pathlib.Path,
) -> dict[str, Any]:
  """The parameter sets that a lane names, without the base of adapters.

  Args:
    place: stage that trained the policy and its moving average.
    start: stage that gave μ.
  """
  saved = {
    "policy": (place, "params"),
    "ema": (place, "ema"),
    "reference": (start, "params"),
  }
  sets = {}
  for wanted in lane:
    folder, name = saved[wanted]
    sets[wanted] = task_lib.load_trained(task, "model", folder, name=name)
  return sets


def load_learnt(
  config: pipeline.Config, task: task_lib.Task, name: str, workdir: pathlib.Path
) -> Any:
  """The parameters with which a policy is deployed, its reference apart.

  Args:
    name: see `settings.policy_lane`.
    workdir: holds what trained it.
  """
  lane = {
    one: weight
    for one, weight in settings.policy_lane(config, name).items()
    if one != "reference"
  }
  place = workdir / job(config, name)
  (learnt,) = load_sets(task, lane, place, workdir / settings.START).values()
  return learnt


def reads(config: pipeline.Config, names: Iterable[str]) -> dict[str, Any]:
  """The settings by which some of the named policies answer otherwise."""
  there = [name for name in names if name in settings.otherwise(config)]
  return pipeline.settings(config, *(f"nash.deployed.{n}" for n in there))
