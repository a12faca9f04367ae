"""Checksums of a checkpoint: who lists which files, what differs from a list.

Each process lists the files that it wrote, once all are written, in a
file of its own; with the last of these lists the checkpoint is complete. A list
holds the size of each file and its CRC-32: a changed byte never escapes it, any
other damage once in four thousand million times.
"""

from collections.abc import Iterator
from concurrent import futures
import pathlib
import re
from typing import Any, NamedTuple
import zlib

from nashmd_jax import files, mistakes

FOLDER = "checksums"
METADATA = "_CHECKPOINT_METADATA"  # a file of orbax's
NAME = re.compile(r"process_(\d+)-of-(\d+)\.json")
# How orbax and grain name what one of several processes writes.
OWNER = re.compile(r"(?:^|/)(?:ocdbt\.)?process_(\d+)(?=/|$|-of-)")
CHUNK = 1 << 22  # bytes
READERS = 4


class Damage(NamedTuple):
  """What is wrong with a checkpoint.

  Attributes:
    what: in words, after the place: "params/d/0 lacks 12 of its 365 bytes".
    cut: whether the save was cut off, rather than the files changed later.
  """

  what: str
  cut: bool


def write(folder: pathlib.Path, process: int, count: int) -> None:
  """Lists the files of a whole checkpoint that one process wrote.

  Args:
    folder: of the checkpoint.
    process: number of this process.
    count: processes that wrote it.
  """
  found = {}
  for name in _names(folder):
    owner = OWNER.search(name)
    number = int(owner[1]) if owner else 0
    if process == (number if number < count else 0):
      found[name] = _sum(folder / name)
  files.save_json(folder / FOLDER / f"process_{process}-of-{count}.json", found)


def find_damage(
  folder: pathlib.Path, *, part: str | None = None
) -> Damage | None:
  """What of a checkpoint differs from its lists, None if nothing does.

  Args:
    folder: of the checkpoint.
    part: name of the one subfolder to look into, beside the files that stand
      in no subfolder; None for all.
  """
  try:
    lists = _load_lists(folder)
  except ValueError as error:
    return Damage(
      f"its list of checksums is damaged ({mistakes.brief(error)})", cut=False
    )
  if lists is None:
    return Damage("it was cut off before it was whole", cut=True)
  wanted = {
    name: expected
    for name, expected in lists.items()
    if part is None or "/" not in name or name.startswith(f"{part}/")
  }
  with futures.ThreadPoolExecutor(READERS, "checksums") as pool:
    found = pool.map(lambda name: _differs(folder, name, wanted[name]), wanted)
    return next((Damage(one, cut=False) for one in found if one), None)


def _load_lists(folder: pathlib.Path) -> dict[str, list[int]] | None:
  """All lists as one; None if there are not as many as processes wrote."""
  parts = {}
  for path in (folder / FOLDER).glob("process_*.json"):
    name = NAME.fullmatch(path.name)
    if name:
      parts[int(name[1]), int(name[2])] = path
  count = max((of for _, of in parts), default=1)
  if set(parts) != {(number, count) for number in range(count)}:
    return None
  found = {}
  for path in parts.values():
    for name, sums in files.load_object(path).items():
      if not _is_listed(folder, name, sums):
        raise ValueError(f"{path.name} has {mistakes.some([name])}")
      found[name] = sums
  return found


def _is_listed(folder: pathlib.Path, name: str, sums: Any) -> bool:
  """Whether an entry of a list is the name of a file in it, and its sums."""
  numbers = isinstance(sums, list) and [type(one) for one in sums] == [int] * 2
  inside = (folder / name).resolve().is_relative_to(folder.resolve())
  return numbers and inside


def _names(folder: pathlib.Path) -> Iterator[str]:
  for path in sorted(folder.rglob("*")):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and not name.startswith(f"{FOLDER}/"):
      yield name


def _differs(folder: pathlib.Path, name: str, expected: list[int]) -> str:
  """How a file differs from what was listed; empty if it does not."""
  try:
    size, crc = _sum(folder / name)
  except FileNotFoundError:
    return f"{name} is missing"
  except OSError as error:
    return f"{name} cannot be read ({files.reason(error)})"
  if size != expected[0]:
    return f"{name} has {size} bytes and not {expected[0]}"
  return "" if crc == expected[1] else f"{name} holds other bytes than it did"


def _sum(path: pathlib.Path) -> list[int]:
  """Bytes and CRC-32 of a file."""
  size, crc = 0, 0
  with path.open("rb", buffering=0) as file:
    while chunk := file.read(CHUNK):
      size, crc = size + len(chunk), zlib.crc32(chunk, crc)
  return [size, crc]


def promise() -> dict[str, bool]:
  """What the metadata that a checkpoint is begun with says of its lists."""
  return {FOLDER: True}


def is_of_before(folder: pathlib.Path) -> bool:
  """Whether a checkpoint is of a version that wrote no lists."""
  if (folder / FOLDER).exists():
    return False
  try:
    said = files.load_object(folder / METADATA)
    return FOLDER not in (said["custom_metadata"] or {})
  except files.UNFIT:
    return False  # whatever it is, it is not whole
