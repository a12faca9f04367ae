"""What a command asked for: its config file, and what differs from that."""

from collections.abc import Mapping
import importlib.util
import pathlib
import types
from typing import Any

from nashmd_jax import files, mistakes, pipeline

NAME = "asked.json"
ABSENT = "absent"


def differences(config_flag: str, config: pipeline.Config) -> Mapping[str, Any]:
  """What flags and the trial of a sweep have set, for the page of a run.

  Args:
    config_flag: as `--config` takes it; the file has been loaded before.
    config: of the run.
  Returns: "config", the flag; "changed", by dotted name [in the file, here],
    each as JSON holds it or `ABSENT`.
  """
  before = pipeline.flat(pipeline.plain(load_config(config_flag)))
  now = pipeline.flat(pipeline.plain(config))
  changed = {}
  for name in dict.fromkeys((*before, *now)):
    both = [one.get(name, ABSENT) for one in (before, now)]
    if both[0] != both[1]:
      changed[name] = both
  return {"config": config_flag, "changed": changed}


def load(path: pathlib.Path) -> tuple[str, dict[str, list[Any]]]:
  """What `differences` gave, from its file: the flag, and what is changed.

  Raises: Mistake for a file that holds something else.
  """
  found = files.load_object(path, "config", "changed")
  flag, changed = found["config"], found["changed"]
  pairs = changed.values() if isinstance(changed, dict) else [None]
  if not isinstance(flag, str) or any(
    not isinstance(both, list) or len(both) != 2 for both in pairs
  ):
    raise mistakes.Mistake(
      f"{path}: is not what a command leaves there; delete it, and the next "
      "command writes it anew"
    )
  return flag, changed


def load_config(config_flag: str) -> pipeline.Config:
  """The config of a file as it stands there."""
  module, variant = load_module(config_flag)
  return module.get_config(*variant)


def load_module(config_flag: str) -> tuple[types.ModuleType, list[str]]:
  """A config file, and what its functions take: its variant, if it has one."""
  file, _, variant = config_flag.partition(":")
  spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, [variant] if variant else []
