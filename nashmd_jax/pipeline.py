"""What a stage is, and a pipeline of them; checks of config sections.

A stage owns itself: its keys, its check, what it needs and reads, and its run
stand in one file. A pipeline is a list of stages.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import inspect
import operator
import pathlib
from typing import Any, NamedTuple

import ml_collections

from nashmd_jax import mistakes

Config = ml_collections.ConfigDict
Keys = Mapping[str, Iterable[str] | None]


class Stage(NamedTuple):
  """One stage of a pipeline: one job, or several.

  Attributes:
    name: of the stage; its jobs are "name" or "name/…", folders in a workdir.
    keys: the keys of its config sections by their dotted name; None for a
      section that may hold any, "name.*" for each that a section holds.
    check: (config, findings) -> None. Collects what would fail later.
    jobs: (config) -> names of its jobs.
    needs: (config, job) -> names of the jobs whose results a job reads.
    reads: (config, job) -> all settings that its result depends on by their
      dotted name, besides those of the jobs that it needs.
    run: (config, workdir, job) -> results, for JSON.
    facts: names of the pipeline's facts that its result depends on.
    alone: whether one process does it for all; it touches no shared array.
    shared: whether trials of a sweep that agree on it have it in common.
  """

  name: str
  keys: Keys
  check: Callable[[Config, mistakes.Findings], None]
  jobs: Callable[[Config], Sequence[str]]
  needs: Callable[[Config, str], Sequence[str]]
  reads: Callable[[Config, str], Mapping[str, Any]]
  run: Callable[[Config, pathlib.Path, str], Mapping[str, Any]]
  facts: Sequence[str] = ()
  alone: bool = False
  shared: bool = False


class Pipeline(NamedTuple):
  """The stages of one kind of config, in order.

  Attributes:
    stages: see `Stage`.
    keys: of sections that several stages read, see `Stage.keys`.
    check: of those, see `Stage.check`.
    prepare: (config, workdir) -> facts by name that results depend on and that
      no setting tells, such as a hash of the data. Makes what all stages read.
    page: what to open when all is done, relative to the workdir.
  """

  stages: Sequence[Stage]
  keys: Keys
  check: Callable[[Config, mistakes.Findings], None]
  prepare: Callable[[Config, pathlib.Path], Mapping[str, Any]]
  page: str

  def jobs(self, config: Config) -> dict[str, Stage]:
    """All jobs that the config names, in order, and the stage of each."""
    return {job: stage for stage in self.stages for job in stage.jobs(config)}


def check(pipeline: Pipeline, config: Config) -> None:
  """Checks a whole config before anything runs.

  Raises: Mistake with every fault that was found.
  """
  findings = mistakes.Findings()
  keys = dict(pipeline.keys)
  for stage in pipeline.stages:
    for path, expected in stage.keys.items():
      known = keys.setdefault(path, expected)
      if known != expected:
        keys[path] = {*known, *expected}
  check_sections(config, keys, findings)
  findings.tell()  # what reads a section may trust its keys
  pipeline.check(config, findings)
  for stage in pipeline.stages:
    stage.check(config, findings)
  findings.tell()


def check_sections(
  config: Config, keys: Keys, findings: mistakes.Findings
) -> None:
  """Collects the sections that do not have just the expected keys."""
  tops = {path.partition(".")[0] for path in keys}
  with findings.collect():
    check_keys(config, "", tops)
  for path, expected in keys.items():
    if expected is None:
      continue
    for found in _sections(config, path):
      with findings.collect():
        check_keys(config, found, expected)


def _sections(config: Config, path: str) -> list[str]:
  """The dotted names of the sections that a name of `Stage.keys` is of."""
  parent, star, _ = path.partition(".*")
  if not has_section(config, parent):
    return []
  return (
    [f"{parent}.{k}" for k in section_at(config, parent)] if star else [path]
  )


def has_section(config: Config, path: str) -> bool:
  """Whether there is a section with a dotted name."""
  for key in path.split("."):
    if not isinstance(config, Config) or key not in config:
      return False
    config = config[key]
  return isinstance(config, Config)


def keywords(function: Callable) -> set[str]:
  """The keyword-only arguments of a function."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


def section_at(config: Config, path: str):
  """The part of a config with a dotted name; the whole for an empty one."""
  keys = path.split(".") if path else ()
  return functools.reduce(operator.getitem, keys, config)


def settings(config: Config, *paths: str) -> dict[str, Any]:
  """The settings below dotted names, flat, as JSON can hold them."""
  found = {}
  for path in paths:
    found |= flat(plain(section_at(config, path)), path)
  return found


def plain(value: Any) -> Any:
  """A part of a config as JSON can hold it; references are resolved."""
  if isinstance(value, Mapping | ml_collections.ConfigDict):
    return {key: plain(value[key]) for key in value}
  if isinstance(value, tuple | list):
    return [plain(one) for one in value]
  return value if value is None or isinstance(value, str) else _number(value)


def _number(value: Any) -> Any:
  return value.item() if hasattr(value, "item") else value


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """The leaves of nested dicts by their dotted names."""
  if not isinstance(tree, dict) or not tree:
    return {prefix: tree}
  found = {}
  for key, value in tree.items():
    found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
  return found


def check_keys(
  config: Config, path: str, expected: Iterable[str], where: str = "config"
) -> None:
  """Raises Mistake unless a section has just the expected keys."""
  section = section_at(config, path)
  if not isinstance(section, Config):
    raise mistakes.Mistake(
      f"{where}.{path}: got {section!r}, expected a section with the keys "
      f"{sorted(expected)}"
    )
  missing = sorted(set(expected) - set(section))
  unknown = sorted(set(section) - set(expected))
  if missing or unknown:
    raise mistakes.Mistake(
      f"{'.'.join([where, path] if path else [where])}: missing "
      f"{missing}, unknown {unknown}; expected {sorted(expected)}"
    )


def check_given(config: Config, names: Iterable[str]) -> None:
  """Raises Mistake unless the user has given all that has no default."""
  absent = [name for name in names if section_at(config, name) is None]
  if absent:
    flags = " ".join(f"--config.{name}=…" for name in absent)
    raise mistakes.Mistake(f"config: this one needs to be told {flags}")


def at_least_one(
  config: Config, findings: mistakes.Findings, path: str, *names: str
) -> None:
  """Collects those of the named counts that are not 1 or more."""
  section = section_at(config, path)
  for name in names:
    with findings.collect():
      if section[name] < 1:
        raise mistakes.Mistake(
          f"config.{path}.{name}: got {section[name]}, expected 1 or more"
        )
