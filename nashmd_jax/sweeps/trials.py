"""The trials of a sweep: a base config, and what each trial sets in it.

A config file is a sweep if it defines `get_hyper`, see `hyper`. Trial N has
the folder N, three digits, in the sweep's workdir; `trial.json` there holds
what it sets, and `failed.json` why a job of it failed last.
"""

from collections.abc import Mapping, Sequence
import copy
import difflib
import json
import pathlib
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from nashmd_jax import asked, files, mistakes
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.sweeps import hyper

SEED = "seed"


class Trial(NamedTuple):
  """One config of a sweep.

  Attributes:
    number: from 0.
    overrides: what it sets, by dotted name.
    config: the base config with that, locked.
    folder: its workdir.
  """

  number: int
  overrides: hyper.Overrides
  config: ml_collections.ConfigDict
  folder: pathlib.Path


def load_sweep(config_flag: str) -> hyper.Sweep | None:
  """What `get_hyper` of a config file returns; None if it defines none.

  Args:
    config_flag: as `--config` takes it, "configs/sweeps.py:mixture" for one.
  Raises: ValueError if it fails, or returns no list of trials.
  """
  file = config_flag.partition(":")[0]
  module, variant = asked.load_module(config_flag)
  if not hasattr(module, "get_hyper"):
    return None
  try:
    sweep = module.get_hyper(hyper, *variant)
  except Exception as error:  # a user's function can raise anything
    raise mistakes.Mistake(
      f"{file}, get_hyper: {workdir_lib.error_line(error)}"
    ) from None
  if (
    not isinstance(sweep, list)
    or not sweep
    or not all(isinstance(overrides, dict) for overrides in sweep)
  ):
    raise mistakes.Mistake(
      f"{file}, get_hyper: got {mistakes.quote(sweep)}, expected a list of at "
      "least one "
      "{dotted name: value}"
    )
  return sweep


def all_trials(
  config: ml_collections.ConfigDict,
  sweep: hyper.Sweep,
  *,
  given: Sequence[str],
  workdir: pathlib.Path,
) -> list[Trial]:
  """The trials of a sweep over a config.

  Args:
    config: the base, locked.
    sweep: what each trial sets in it.
    given: dotted names that the command line set in the base.
    workdir: of the sweep.
  Raises: ValueError that names the first trial that cannot be, or that is
    the same as another.
  """
  trials, seen = [], {}
  for number, overrides in enumerate(map(_python, sweep)):
    for name in given:
      if name in overrides:
        raise mistakes.Mistake(
          f"--config.{name}: is set by the trials of this sweep; leave it out"
        )
    own = override(config, overrides, where=f"trial {number}")
    same = seen.setdefault(_plain(own), number)
    if same != number:
      raise mistakes.Mistake(
        f"trial {number}: has the same config as trial {same}; leave one out"
      )
    folder = workdir / f"{number:03d}"
    trials.append(Trial(number, overrides, own, folder))
  return trials


def override(
  config: ml_collections.ConfigDict, overrides: hyper.Overrides, *, where: str
) -> ml_collections.ConfigDict:
  """A copy of a locked config in which settings have other values.

  A value of another type than the setting has is set all the same, for the
  check of the config to refuse.

  Raises: ValueError for a name that the config lacks; `where` stands in front
    of it.
  """
  config = copy.deepcopy(config)
  for name, value in overrides.items():
    *path, last = name.split(".")
    section = config
    try:
      for key in path:
        section = section[key]
      section[last]  # a lock lets new keys pass in no section
    except (KeyError, TypeError):
      raise mistakes.Mistake(f"{where}: {_unknown(config, name)}") from None
    try:
      section[last] = value
    except TypeError:
      with section.ignore_type():
        section[last] = value
  return config


def _python(value: Any) -> Any:
  """A value, or what a dict or a tuple holds, without NumPy's numbers."""
  if isinstance(value, dict):
    return {name: _python(one) for name, one in value.items()}
  if isinstance(value, tuple | list):
    return tuple(_python(one) for one in value)
  return value.item() if isinstance(value, np.generic) else value


def _unknown(config: ml_collections.ConfigDict, name: str) -> str:
  near = difflib.get_close_matches(name, _names(config), n=1, cutoff=0)
  name, nearest = map(mistakes.quote, (name, near[0]))
  return f"there is no setting {name}; the nearest is {nearest}"


def _names(section, prefix: str = "") -> list[str]:
  names = []
  for key in section:
    names.append(f"{prefix}{key}")
    if isinstance(section[key], ml_collections.ConfigDict):
      names += _names(section[key], f"{prefix}{key}.")
  return names


def _plain(config: ml_collections.ConfigDict) -> str:
  return json.dumps(json.loads(config.to_json_best_effort()), sort_keys=True)


def chosen(trials: Sequence[Trial], number: int) -> Trial:
  """The trial with a number.

  Raises: ValueError that says how many there are.
  """
  if not 0 <= number < len(trials):
    raise mistakes.Mistake(
      f"--trial: got {number}, expected 0 to {len(trials) - 1}: the sweep has "
      f"{len(trials)} trials"
    )
  return trials[number]


def describe(overrides: Mapping[str, Any]) -> str:
  """What a trial sets, on one line."""
  return ", ".join(f"{name}={value}" for name, value in overrides.items())


def claim(trial: Trial) -> None:
  """Writes what a trial sets into its workdir, or checks that it is the same.

  Raises: ValueError that names the first setting that differs.
  """
  path = trial.folder / "trial.json"
  mine = json.loads(json.dumps(trial.overrides))
  if not path.exists():
    files.save_json(path, {"trial": trial.number, "overrides": mine})
    return
  old = files.load_object(path, "overrides")["overrides"]
  if not isinstance(old, dict):
    raise mistakes.Mistake(
      f"{path}: overrides are {mistakes.quote(old)} and no settings by name; "
      "it was changed"
    )
  for name in sorted(set(mine) | set(old)):
    if mine.get(name, "absent") != old.get(name, "absent"):
      raise mistakes.Mistake(
        f"{trial.folder}: belongs to another trial, {name} was "
        f"{mistakes.quote(old.get(name, 'absent'))} and is now "
        f"{mistakes.quote(mine.get(name, 'absent'))}; choose another --workdir"
      )
