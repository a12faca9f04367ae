"""Metrics, samples and progress; the JSON lines are the truth of a run.

Only process 0 writes. The JSON lines hold no times, so that a resumed run
leaves the same file as an uninterrupted one: a metric whose name ends as one of
`TIMES` does goes to `writers` and the line of progress alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import io
import json
import pathlib
import shutil
import sys
import time
from typing import Any, TypeVar

import jax
import numpy as np
import tqdm

from nashmd_jax import arrays, files, mistakes
from nashmd_jax.training import distributed, telling

SAMPLES = "samples.jsonl"
SECONDS, TOKENS = "_seconds", "tokens_a_second"
TIMES = (SECONDS, "_a_second")
# What the line of progress says of a row, where it has it.
SHOWN = {
  "win_prob": "win {:.3f}",
  "reward": "reward {:.3g}",
  "accuracy": "accuracy {:.3f}",
  "kl": "KL {:.3g}",
}
PER_TOKEN = "nats_per_token"
EVERY = 60.0  # seconds between lines of progress without a terminal
SOON = 10.0  # seconds; what is done sooner leaves no line there
REDRAWN = 0.1  # seconds between two looks of the line on a terminal
LINE = "{desc}: {n_fmt}/{total_fmt}, {remaining} left{postfix}, {rate_fmt}"
T = TypeVar("T")


class MetricWriter:
  """Writes rows to `metrics.jsonl`, and samples to `samples.jsonl`.

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
    self._path, self._samples = folder / "metrics.jsonl", folder / SAMPLES
    self._active = distributed.is_first()
    self.last_step = distributed.on_first(
      functools.partial(self._drop_after, start_step)
    )
    if self._active:
      self._file = self._path.open("ab", buffering=0)

  def _drop_after(self, start_step: int) -> int:
    """Drops what a cut-off run wrote after a step; the last step of a row."""
    last = _drop_after(self._path, start_step)
    if self._samples.exists():  # they are written before their row
      _drop_after(self._samples, last)
    return last

  def write(
    self,
    step: int,
    scalars: Mapping[str, float],
    samples: Sequence[telling.Sample] = (),
  ) -> None:
    """Appends one row, and samples; they are on disk when this returns."""
    if not self._active:
      return
    if samples:
      with self._samples.open("ab", buffering=0) as file:
        for row in telling.as_rows(step, samples):
          _append(file, row, self._samples)
    _append(self._file, as_row(step, scalars), self._path)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Closes the file."""
    if self._active:
      self._file.close()


def _append(file: io.FileIO, row: Mapping[str, Any], path: pathlib.Path):
  files.append(file, (json.dumps(row) + "\n").encode(), path)


def as_row(step: int, scalars: Mapping[str, float]) -> dict[str, float]:
  """The row of `metrics.jsonl`: no times, in the order of the names."""
  return {"step": step} | {
    name: float(value)
    for name, value in sorted(scalars.items())
    if not name.endswith(TIMES)
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
  """What the line of progress says of a row, each thing behind a comma.

  The loss, or nats a token where there are any; what of `SHOWN` it has; tokens
  of responses a second; and its times.
  """
  loss = f"loss {row['loss']:.3f}"
  if PER_TOKEN in row:
    loss = f"{row[PER_TOKEN]:.3f} nats a token"
  said = [form.format(row[name]) for name, form in SHOWN.items() if name in row]
  if TOKENS in row:
    said.append(f"{tqdm.tqdm.format_sizeof(row[TOKENS])} tok/s")
  times = [
    f"{name.removesuffix(SECONDS)} {row[name]:.2f} s"
    for name in sorted(row)
    if name.endswith(SECONDS)
  ]
  return ", ".join([loss, *said, *times])


class Progress:
  """A line that is drawn anew on a terminal; elsewhere a line a minute.

  What is done soon leaves no line. Rates and the time left do not count the
  time before `begin`, such as that of compiling.
  """

  def __init__(self, name: str, *, start: int, total: int, unit: str):
    """Shows a count of units from `start` to `total` under a name."""
    self._name, self._total, self._unit = name, total, unit
    self._active = jax.process_index() == 0
    self._told, self._drawn = False, ""
    self.begin(start)

  def begin(self, start: int, note: str = "") -> None:
    """Starts the clock anew, with `start` units done, and says why."""
    self._start = start
    self._began = self._shown = time.monotonic()
    if note and self._active:
      self._wipe()
      print(f"{self._name}: {note}", file=sys.stderr, flush=True)

  def pace(self, done: int) -> float:
    """Units a second since the clock was started, with so many done."""
    seconds = time.monotonic() - self._began
    return (done - self._start) / seconds if seconds > 0 else 0.0

  def update(self, done: int, note: str = "") -> None:
    """Tells how many units are done, with a few words about them."""
    if not self._active:
      return
    now, last = time.monotonic(), done == self._total
    meter = tqdm.tqdm.format_meter(
      done,
      self._total,
      now - self._began,
      prefix=self._name,
      unit=self._unit,
      initial=self._start,
      postfix=note,
      bar_format=LINE,
    )
    line = " ".join(meter.split())
    if sys.stderr.isatty():
      if last or not self._drawn or now - self._shown >= REDRAWN:
        self._shown = now
        self._draw(line)
    elif now - self._shown >= EVERY or (
      last and (self._told or now - self._began >= SOON)
    ):
      self._shown, self._told = now, True
      print(line, file=sys.stderr, flush=True)

  def _draw(self, line: str) -> None:
    """Draws the line in place of the last, without what there is no room for.

    What it says stands in the order of its worth.
    """
    room = shutil.get_terminal_size().columns - 1
    while len(line) > room and ", " in line:
      line = line.rpartition(", ")[0]
    line = line[:room]
    rest = " " * (min(len(self._drawn), room) - len(line))
    print(f"\r{line}{rest}", end="", file=sys.stderr, flush=True)
    self._drawn = line

  def _wipe(self) -> None:
    """Takes the line away from a terminal, for what is to stand there."""
    if self._drawn:
      blank = " " * len(self._drawn)
      print(f"\r{blank}\r", end="", file=sys.stderr, flush=True)
      self._drawn = ""

  def say(self, lines: Iterable[str]) -> None:
    """Prints lines to the log, above the line of progress."""
    if self._active:
      self._wipe()
      for line in lines:
        print(line, flush=True)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Leaves the line on the screen as it is."""
    if self._drawn:
      print(file=sys.stderr, flush=True)


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
