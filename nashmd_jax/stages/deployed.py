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
  """The job that trains a policy, see `settings.policy_lane`; no ensemble."""
  return run_job(settings.run_of(config, name))


def jobs(config: pipeline.Config, name: str) -> list[str]:
  """The jobs that train a policy, or the members of an ensemble."""
  return [run_job(run) for run in settings.runs_of(config, name)]


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


def load_policy(
  config: pipeline.Config,
  task: task_lib.Task,
  name: str,
  workdir: pathlib.Path,
  *further: str,
) -> dict[str, Any]:
  """The sets in which a policy answers, without the base of adapters.

  Args:
    name: see `settings.policy_lane`.
    workdir: holds what trained it.
    *further: sets besides, such as "reference".
  """
  start, others = workdir / settings.START, dict.fromkeys(further, 1.0)
  if name in settings.joined(config):
    members = {
      one: load_learnt(config, task, policy, workdir)
      for one, policy in settings.members(config, name).items()
    }
    return members | load_sets(task, others, start, start)
  lane = {**settings.policy_lane(config, name), **others}
  return load_sets(task, lane, workdir / job(config, name), start)


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
  joined, otherwise = settings.joined(config), settings.otherwise(config)
  names = list(names)
  paths = [f"nash.ensembles.{name}" for name in names if name in joined]
  for name in names:
    own = joined[name].members if name in joined else [name]
    paths += [f"nash.deployed.{one}" for one in own if one in otherwise]
  return pipeline.settings(config, *dict.fromkeys(paths))
