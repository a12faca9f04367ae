"""Metrics and progress: JSON lines are the truth, TensorBoard stands beside.

Only process 0 writes. The JSON lines hold no times, so that a resumed run
leaves the same file as an uninterrupted one: a metric whose name ends in
"_seconds" goes to the event file and the line of progress alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import json
import pathlib
import sys
import time
from typing import TypeVar

import jax
import numpy as np
import tqdm

from nashmd_jax import arrays, files, mistakes
from nashmd_jax.training import distributed, events

SECONDS, PER_TOKEN = "_seconds", "nats_per_token"
EVERY = 10  # seconds between lines of progress
T = TypeVar("T")


class MetricWriter:
  """Writes one row of scalars a step to `metrics.jsonl` and an event file.

  Scalars whose name ends in "_seconds" go to the event file alone.

  Attributes:
    last_step: of the last row that was there to begin with, 0 for none.
  """

  def __init__(self, folder: pathlib.Path, *, start_step: int):
    """Opens the files; rows after `start_step` of a cut-off run are dropped.

    Args:
      folder: of the stage.
      start_step: step that the run continues from, 0 for a new one.
    Raises: Mistake for rows of before that are damaged.
    """
    self._active = distributed.is_first()
    path = folder / "metrics.jsonl"
    drop = functools.partial(_drop_after, path, start_step)
    self.last_step = distributed.on_first(drop)
    if not self._active:
      return
    self._path, self._file = path, path.open("ab", buffering=0)
    self._events = events.Events(folder / "events", start_step=start_step)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one row; it is on disk when this returns."""
    if not self._active:
      return
    row = as_row(step, scalars)
    files.append(self._file, (json.dumps(row) + "\n").encode(), self._path)
    self._events.write(step, scalars)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Closes both files."""
    if self._active:
      self._file.close()
      self._events.close()


def as_row(step: int, scalars: Mapping[str, float]) -> dict[str, float]:
  """The row of `metrics.jsonl`: no times, in the order of the names."""
  return {"step": step} | {
    name: float(value)
    for name, value in sorted(scalars.items())
    if not name.endswith(SECONDS)
  }


def means(rows: Sequence[Mapping[str, arrays.Mean]]) -> dict[str, float]:
  """The means over several steps, each weighted by its count.

  Args:
    rows: metrics of a step each, still on the devices. A count of nothing
      gives NaN.
  """
  found = {}
  for row in jax.device_get(rows):
    for name, mean in row.items():
      total, count = found.get(name, (0.0, 0.0))
      found[name] = total + float(mean.total), count + float(mean.count)
  return {
    name: float(np.float32(total / count)) if count else float("nan")
    for name, (total, count) in found.items()
  }


def _drop_after(path: pathlib.Path, step: int) -> int:
  """Drops the rows after a step, and a last one cut short; the last step."""
  kept = [row for row in load_metrics(path) if row["step"] <= step]
  files.save_text(path, "".join(json.dumps(row) + "\n" for row in kept))
  return kept[-1]["step"] if kept else 0


def load_metrics(path: pathlib.Path) -> list[dict[str, float]]:
  """The rows of a `metrics.jsonl`; a last one cut short is left out.

  Raises: Mistake for any other line that is no row.
  """
  if not path.is_file():
    return []
  rows, lines = [], files.read_bytes(path).splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      row = files.parse_json(line)
      if type(row["step"]) is not int:
        raise TypeError("its step is no number")
      rows.append(row)
    except files.UNFIT as error:
      if number == len(lines):
        break
      raise mistakes.Mistake(
        f"{path}, line {number}: is no row of metrics "
        f"({files.cause(error)}), but {len(lines) - number} more follow; "
        f"mend it, or delete {path.parent} to train it anew"
      ) from None
  return rows


def note(row: Mapping[str, float]) -> str:
  """What the line of progress says of a row: its loss and its times."""
  times = [
    f"{name.removesuffix(SECONDS)} {row[name]:.2f} s"
    for name in sorted(row)
    if name.endswith(SECONDS)
  ]
  loss = f"loss {row['loss']:.3f}"
  if PER_TOKEN in row:
    loss = f"{row[PER_TOKEN]:.3f} nats a token"
  return ", ".join([loss, *times])


class Progress:
  """A bar on a terminal; elsewhere a line every ten seconds.

  What is done sooner leaves no line. Rates and the time left do not count the
  time before `begin`, such as that of compiling.
  """

  def __init__(self, name: str, *, start: int, total: int, unit: str):
    """Shows a count of units from `start` to `total` under a name."""
    self._name, self._total, self._unit = name, total, unit
    self._bar, self._told = None, False
    self._active = jax.process_index() == 0
    self.begin(start)

  def begin(self, start: int, note: str = "") -> None:
    """Starts the clock anew, with `start` units done, and says why."""
    self._start = start
    self._began = self._shown = time.monotonic()
    if note and self._active:
      print(f"{self._name}: {note}", file=sys.stderr, flush=True)

  def update(self, done: int, note: str = "") -> None:
    """Tells how many units are done, with a few words about them."""
    if self._active and sys.stderr.isatty():
      self._update_bar(done, note)
      return
    now = time.monotonic()
    over = done == self._total and self._told
    if self._active and (now - self._shown >= EVERY or over):
      self._shown, self._told = now, True
      meter = tqdm.tqdm.format_meter(
        done,
        self._total,
        now - self._began,
        ncols=0,
        prefix=self._name,
        unit=self._unit,
        initial=self._start,
        postfix=note,
      )
      print(meter, file=sys.stderr, flush=True)

  def _update_bar(self, done: int, note: str) -> None:
    if self._bar is None:
      self._bar = tqdm.tqdm(
        desc=self._name,
        initial=self._start,
        total=self._total,
        unit=self._unit,
        leave=True,
      )
      self._bar.start_t -= time.monotonic() - self._began
    self._bar.set_postfix_str(note, refresh=False)
    self._bar.update(done - self._bar.n)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Leaves the bar on the screen as it is."""
    if self._bar is not None:
      self._bar.close()


def shown_batches(
  batches: Iterable[T], name: str, *, rows: int, batch_size: int
) -> Iterator[T]:
  """`shown` for the batches that so many rows fill, the last one maybe not."""
  return shown(batches, name, total=-(-rows // batch_size), unit="batch")


def shown(
  pieces: Iterable[T], name: str, *, total: int, unit: str
) -> Iterator[T]:
  """The same pieces, with a line of progress for the count of those done."""
  with Progress(name, start=0, total=total, unit=unit) as progress:
    for done, piece in enumerate(pieces):
      progress.update(done)
      yield piece
    progress.update(total)
