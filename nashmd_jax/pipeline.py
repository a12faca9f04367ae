"""What a pipeline is, and the checks of config sections that all share."""

from collections.abc import Callable, Iterable, Sequence
import functools
import inspect
import operator
import pathlib
from typing import Any, NamedTuple

import ml_collections

Config = ml_collections.ConfigDict
Job = Callable[[], dict[str, Any]]


class Pipeline(NamedTuple):
  """The stages of one kind of config, as functions of it.

  Attributes:
    stages: names, in order; a stage is one job or several.
    check: (config) -> None. Raises ValueError for what would fail later,
      before anything runs.
    jobs: (config, workdir) -> the jobs in order, by folder in the workdir:
      "stage" or "stage/name". A job returns its results, for JSON.
    alone: stages that touch no array shared by processes; one does them.
    needed: (config, job) -> names of the jobs whose results a job reads.
    page: what to open when all is done, relative to the workdir.
    pod_check: (config, topology, report) -> None. Compiles the programs of a
      run for a TPU slice, each reported as a line; None if there are none.
  """

  stages: Sequence[str]
  check: Callable[[Config], None]
  jobs: Callable[[Config, pathlib.Path], dict[str, Job]]
  alone: Sequence[str]
  needed: Callable[[Config, str], Sequence[str]]
  page: str
  pod_check: Callable[[Config, str, Callable[[str], None]], None] | None


def keywords(function: Callable) -> set[str]:
  """The keyword-only arguments of a function."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


def section_at(config: Config, path: str):
  """The part of a config with a dotted name; the whole for an empty one."""
  keys = path.split(".") if path else ()
  return functools.reduce(operator.getitem, keys, config)


def check_keys(config: Config, path: str, expected: Iterable[str]) -> None:
  """Raises ValueError unless a section has just the expected keys."""
  section = section_at(config, path)
  missing = sorted(set(expected) - set(section))
  unknown = sorted(set(section) - set(expected))
  if missing or unknown:
    raise ValueError(
      f"{'.'.join(['config', path] if path else ['config'])}: missing "
      f"{missing}, unknown {unknown}; expected {sorted(expected)}"
    )


def check_given(config: Config, names: Iterable[str]) -> None:
  """Raises ValueError unless the user has given all that has no default."""
  absent = [name for name in names if section_at(config, name) is None]
  if absent:
    flags = " ".join(f"--config.{name}=…" for name in absent)
    raise ValueError(f"config: this one needs to be told {flags}")


def at_least_one(config: Config, path: str, *names: str) -> None:
  """Raises ValueError unless the named counts are 1 or more."""
  section = section_at(config, path)
  for name in names:
    if section[name] < 1:
      raise ValueError(
        f"config.{path}.{name}: got {section[name]}, expected 1 or more"
      )
