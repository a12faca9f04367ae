"""Pieces of a stage's work that outlive a cut, a line each.

What is written or judged between two moments at which a stage may stop is a
piece. Its line is on disk before the next is begun; after a cut the same
command reads the pieces there are, and goes on with the first that is not.
"""

from collections.abc import Callable
import functools
import json
import pathlib
from typing import Any

from nashmd_jax import files, mistakes
from nashmd_jax.training import distributed

NAME = "pieces.jsonl"
Once = Callable[[str, Callable[[], Any]], Any]


def keep(path: pathlib.Path, *, of: str) -> Once:
  """(name, work) -> what a piece of work gave: before a cut, or now.

  All processes ask for the same pieces in the same order, and may stop before
  each that is not there. Work gives JSON, the same in all of them.

  Args:
    path: of the lines.
    of: what the pieces depend on, as one word; those of another are dropped.
  Raises: Mistake for a line that is damaged; Preempted after a signal.
  """
  known = distributed.on_first(functools.partial(_load, path, of))

  def once(name: str, work: Callable[[], Any]) -> Any:
    if name not in known:
      distributed.stop_if_asked()
      known[name] = work()
      if distributed.is_first():
        _add(path, {"piece": name, "gave": known[name]})
    return known[name]

  return once


def anew(name: str, work: Callable[[], Any]) -> Any:
  """Does a piece of work that is not kept."""
  del name
  distributed.stop_if_asked()
  return work()


def named(once: Once, prefix: str) -> Once:
  """The same for pieces whose names begin so."""
  return lambda name, work: once(f"{prefix}, {name}", work)


def _add(path: pathlib.Path, line: dict[str, Any]) -> None:
  with path.open("ab", buffering=0) as file:
    files.append(file, (json.dumps(line) + "\n").encode(), path)


def _load(path: pathlib.Path, of: str) -> dict[str, Any]:
  """The pieces that are there, once the file is fit to be added to."""
  head = json.dumps({"of": of})
  whole = _whole_lines(path) if path.exists() else []
  if not whole or whole[0] != head.encode():
    files.save_text(path, f"{head}\n")
    return {}
  found = {}
  for number, line in enumerate(whole[1:], start=2):
    try:
      piece = files.parse_json(line)
      found[piece["piece"]] = piece["gave"]
    except files.UNFIT as error:
      raise mistakes.Mistake(
        f"{path}, line {number}: is damaged ({files.cause(error)}); delete "
        "the file to have its pieces made again"
      ) from None
  return found


def _whole_lines(path: pathlib.Path) -> list[bytes]:
  """The lines of a file; a last one cut short is cut off it."""
  text = files.read_bytes(path)
  whole = text.rfind(b"\n") + 1
  if whole < len(text):
    with path.open("r+b") as file:
      file.truncate(whole)
  return text[:whole].splitlines()
