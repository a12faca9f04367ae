"""What a checkpoint or a folder of weights holds, as a tree with norms.

Arrays are read one at a time, and no device computes anything.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import math
import pathlib
import re
import shutil
import sys
from typing import Any, NamedTuple

from etils import epath
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.hub import folders, safetensors, weights
from nashmd_jax.training import checkpoints, keeping, metrics, stored

FLAG = "--what"
BLOCK = 2**20  # numbers that are looked at together
WIDE = 10_000  # columns of what is no terminal
LEAST = 20  # columns of a name
COLUMNS = ("array", "numbers", "norm", "largest")
STEPS = re.compile(r"(?P<job>.+):(?P<step>\d+)")


class Measure(NamedTuple):
  """What is measured of arrays; of several it adds up.

  Attributes:
    count: numbers.
    size: bytes.
    squares: the sum of their squares.
    largest: in absolute value; NaN where one is NaN.
  """

  count: int = 0
  size: int = 0
  squares: float = 0.0
  largest: float = 0.0

  def plus(self, other: "Measure") -> "Measure":
    """Of the arrays of both."""
    return Measure(
      self.count + other.count,
      self.size + other.size,
      self.squares + other.squares,
      float(np.maximum(self.largest, other.largest)),
    )

  @property
  def norm(self) -> float:
    """The square root of the sum of squares."""
    return math.sqrt(self.squares)


Row = tuple[Sequence[str], str, Measure]  # path, array, what is measured


class Node(NamedTuple):
  """An array, or a group of what has the same beginning of its name.

  Attributes:
    name: the rest of its name.
    array: "f32[8,4@model]"; empty for a group.
    measure: of all below it.
    below: the nodes of a group.
  """

  name: str
  array: str
  measure: Measure
  below: Sequence["Node"]


def lines(
  workdir: pathlib.Path, jobs: Iterable[str], what: str | None
) -> Iterator[str]:
  """A table of what is named, its sums, and what is odd about it.

  Args:
    workdir: of a run.
    jobs: of its config.
    what: one of them, perhaps with a step, as nash/nash_md:800; or a folder of
      weights or adapters.
  Raises: Mistake for what is neither, or cannot be read.
  """
  where, found = _find(workdir, list(jobs), what)
  shown = metrics.shown(found, "inspect", total=len(found), unit="array")
  measured = [(one, measure(one.load())) for one in shown]
  tree = _tree([(one.path, notation(one), size) for one, size in measured])
  yield where
  yield from table(tree)
  every = functools.reduce(Measure.plus, (size for _, size in measured))
  yield (
    f"in all {every.count:,} numbers in {len(found)} arrays, "
    f"{keeping.shown(every.size)}; norm {every.norm:.4g}, largest "
    f"{every.largest:.4g}"
  )
  if any(axes for one in found for axes in one.split):
    yield "8@data: this axis was split along the axis data of the mesh"
  odd = [
    ".".join(one.path)
    for one, size in measured
    if not math.isfinite(size.largest)
  ]
  if odd:
    yield f"not finite: {mistakes.some(odd)}"


def measure(array: np.ndarray) -> Measure:
  """What is measured of an array, a block of it at a time."""
  found, flat = Measure(), array.reshape(-1)
  for start in range(0, flat.size, BLOCK):
    block = flat[start : start + BLOCK].astype(np.float64)
    largest = float(np.max(np.abs(block)))
    squares = float(block @ block) if math.isfinite(largest) else largest
    found = found.plus(Measure(0, 0, squares, largest))
  return found._replace(count=array.size, size=array.nbytes)


def table(tree: Sequence[Node]) -> Iterator[str]:
  """The lines of a table that is no wider than a terminal.

  Names that are too long for it are cut there.
  """
  rows = [("", *COLUMNS), *_rows(tree)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  room = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
  room = max(room - 1 - sum(widths[1:]) - 2 * len(COLUMNS), LEAST)
  width = min(widths[0], room)
  for name, array, *numbers in rows:
    cells = [mistakes.bounded(name, width).ljust(width), array.ljust(widths[1])]
    cells += [
      number.rjust(least)
      for number, least in zip(numbers, widths[2:], strict=True)
    ]
    yield "  ".join(cells)


def _find(
  workdir: pathlib.Path, jobs: Sequence[str], what: str | None
) -> tuple[str, list[stored.Stored]]:
  """What is named, in words, and its arrays."""
  kept = {job: workdir / job / checkpoints.FOLDER for job in jobs}
  steps = {job: checkpoints.steps(folder) for job, folder in kept.items()}
  known = STEPS.fullmatch(what or "")
  job, step = (known["job"], int(known["step"])) if known else (what, None)
  if steps.get(job) and (step is None or step in steps[job]):
    step = steps[job][-1] if step is None else step
    place = kept[job] / str(step)
    return f"{place}:", stored.arrays(place.absolute())
  folder = epath.Path(what) if what else None
  if folder is not None and folder.is_dir():
    return f"{what}:", _of_folder(folder)
  there = [f"{job}:{step}" for job in jobs for step in steps[job]]
  raise mistakes.Mistake(
    f"{FLAG}: got {mistakes.quote(what)}, expected a job with a checkpoint in "
    f"{workdir}, perhaps with its step, or a folder of weights; there is "
    f"{', '.join(there) or 'no checkpoint'}"
  )


def _of_folder(folder: epath.Path) -> list[stored.Stored]:
  """The tensors of a folder, by the names that they have there."""
  adapters = folder / folders.ADAPTERS[1]
  if adapters.exists():
    tensors = safetensors.load_header(adapters)
  else:
    tensors = weights.load_headers(folder)
  return [
    stored.Stored(
      path=tuple(name.split(".")),
      shape=one.shape,
      dtype=one.dtype,
      split=((),) * len(one.shape),
      load=functools.partial(safetensors.load_tensor, one),
    )
    for name, one in sorted(tensors.items(), key=lambda x: _natural(x[0]))
  ]


def _natural(name: str) -> list[tuple[int, str]]:
  """Sorts names with their numbers in order."""
  return [
    (int(part), "") if part.isdecimal() else (-1, part)
    for part in name.split(".")
  ]


def notation(one: stored.Stored) -> str:
  """As JAX writes it: "f32[8,4@model]"."""
  kind = str(one.dtype)
  for long, short in (("float", "f"), ("uint", "u"), ("int", "i")):
    kind = kind.replace(long, short)
  axes = [*map(_axis, one.shape, one.split)]
  return f"{kind}[{','.join(axes)}]"


def _axis(size: int, along: Sequence[str]) -> str:
  if not along:
    return str(size)
  names = along[0] if len(along) == 1 else f"({','.join(along)})"
  return f"{size}@{names}"


def _tree(rows: Sequence[Row]) -> list[Node]:
  """Nodes of arrays by their paths; a group of one is one line with it."""
  groups: dict[str, list[Any]] = {}
  for path, *rest in rows:
    groups.setdefault(path[0], []).append((path[1:], *rest))
  return [_node(name, below) for name, below in groups.items()]


def _node(name: str, rows: Sequence[Row]) -> Node:
  path, array, size = rows[0]
  if not path:
    return Node(name, array, size, ())
  below = _tree(rows)
  if len(below) == 1:
    return below[0]._replace(name=f"{name}.{below[0].name}")
  sizes = (one.measure for one in below)
  return Node(name, "", functools.reduce(Measure.plus, sizes), below)


def _rows(nodes: Iterable[Node], depth: int = 0) -> Iterator[tuple[str, ...]]:
  for one in nodes:
    size = one.measure
    yield (
      "  " * depth + one.name,
      one.array,
      _short(size.count),
      f"{size.norm:.3g}",
      f"{size.largest:.3g}",
    )
    yield from _rows(one.below, depth + 1)


def _short(count: int) -> str:
  """A count in its largest unit: "28.3 M"."""
  power = sum(count >= 1000**n for n in range(1, 5))
  return f"{count / 1000**power:.3g} {' kMBT'[power]}".strip()
