"""What a stage is, and a pipeline of them; the check of a config.

A stage owns itself: its settings, its check, what it needs and reads, and its
run stand in one file. A pipeline is a list of stages.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import operator
import pathlib
from typing import Any, NamedTuple

import ml_collections

from nashmd_jax import declare, mistakes

Config = ml_collections.ConfigDict
NAME = declare.text("What a config is of: text, worlds or games.")
SEED = declare.whole(
  "The seed of all that is drawn: starts, batches, responses.", least=0
)


class Stage(NamedTuple):
  """One stage of a pipeline: one job, or several.

  Attributes:
    name: of the stage; its jobs are "name" or "name/…", folders in a workdir.
    settings: of its config sections, see `declare`.
    check: (config, findings) -> None. Collects what would fail later of
      settings that are each what they may be.
    jobs: (config) -> names of its jobs.
    needs: (config, job) -> names of the jobs whose results a job reads.
    reads: (config, job) -> all settings that its result depends on by their
      dotted name, besides those of the jobs that it needs.
    run: (config, workdir, job) -> results, for JSON.
    facts: names of the pipeline's facts that its result depends on.
    job_facts: (config, job) -> names of those that one job depends on besides.
    alone: whether one process does it for all; it touches no shared array.
    shared: whether trials of a sweep that agree on it have it in common.
    replay: (config, workdir, job, step) -> lines about a step that was kept,
      computed again; None where none is kept.
  """

  name: str
  settings: declare.Settings
  check: Callable[[Config, mistakes.Findings], None]
  jobs: Callable[[Config], Sequence[str]]
  needs: Callable[[Config, str], Sequence[str]]
  reads: Callable[[Config, str], Mapping[str, Any]]
  run: Callable[[Config, pathlib.Path, str], Mapping[str, Any]]
  facts: Sequence[str] = ()
  job_facts: Callable[[Config, str], Sequence[str]] = lambda config, job: ()
  alone: bool = False
  shared: bool = False
  replay: Callable[[Config, pathlib.Path, str, int], Sequence[str]] | None = (
    None
  )


class Pipeline(NamedTuple):
  """The stages of one kind of config, in order.

  Attributes:
    stages: see `Stage`.
    settings: of sections that several stages read, see `Stage.settings`.
    check: of those, see `Stage.check`.
    prepare: (config, workdir) -> facts by name that results depend on and that
      no setting tells, such as a hash of the data; None for what is not there.
      Makes what all stages read.
    page: what to open when all is done, relative to the workdir.
    look: (config, workdir) -> the same facts as they are now, once prepared;
      None where no stage reads what others may change.
  """

  stages: Sequence[Stage]
  settings: declare.Settings
  check: Callable[[Config, mistakes.Findings], None]
  prepare: Callable[[Config, pathlib.Path], Mapping[str, Any]]
  page: str
  look: Callable[[Config, pathlib.Path], Mapping[str, Any]] | None = None

  def jobs(self, config: Config) -> dict[str, Stage]:
    """All jobs that the config names, in order, and the stage of each."""
    return {job: stage for stage in self.stages for job in stage.jobs(config)}

  def declared(self) -> declare.Settings:
    """The settings of a whole config."""
    found = dict(self.settings)
    for stage in self.stages:
      found |= stage.settings
    return found


def check(pipeline: Pipeline, config: Config) -> None:
  """Checks a whole config before anything runs.

  Raises: Mistake with every fault that was found.
  """
  check_settings(pipeline, config)  # what compares them may trust each
  findings = mistakes.Findings()
  pipeline.check(config, findings)
  for stage in pipeline.stages:
    stage.check(config, findings)
  findings.tell()


def check_settings(pipeline: Pipeline, config: Config) -> None:
  """Raises Mistake with every setting that is not what it may be."""
  declare.check(pipeline.declared(), config.to_dict(), "")


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


def check_given(config: Config, names: Iterable[str]) -> None:
  """Raises Mistake unless the user has given all that has no default."""
  known = flat(plain(config))
  for name in names:
    if name not in known:
      raise mistakes.Mistake(
        f"required: there is no setting {mistakes.quote(name)}"
      )
  absent = [name for name in names if known[name] is None]
  if absent:
    flags = " ".join(f"--config.{name}=…" for name in absent)
    raise mistakes.Mistake(f"config: this one needs to be told {flags}")
