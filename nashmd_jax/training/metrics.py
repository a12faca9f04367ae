"""Metrics and progress: JSON lines are the truth, TensorBoard stands beside.

Only process 0 writes. The JSON lines hold no times, so that a resumed run
leaves the same file as an uninterrupted one: a metric whose name ends in
"_seconds" goes to the event file and the line of progress alone.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import sys
import time

import jax
import numpy as np
import tensorboardX
import tqdm

from nashmd_jax import arrays, files

SECONDS = "_seconds"


class MetricWriter:
  """Writes one row of scalars a step to `metrics.jsonl` and an event file.

  Scalars whose name ends in "_seconds" go to the event file alone.
  """

  def __init__(self, folder: pathlib.Path, *, start_step: int):
    """Opens the files; rows after `start_step` of a cut-off run are dropped.

    Args:
      folder: of the stage.
      start_step: step that the run continues from, 0 for a new one.
    """
    self._active = jax.process_index() == 0
    if not self._active:
      return
    path = folder / "metrics.jsonl"
    kept = [row for row in load_metrics(path) if row["step"] <= start_step]
    files.save_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    self._file = path.open("a", encoding="utf-8")
    self._events = tensorboardX.SummaryWriter(
      str(folder / "events"), purge_step=start_step + 1, write_to_disk=True
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one row; it is on disk when this returns."""
    if not self._active:
      return
    row = {"step": step} | {
      name: float(value)
      for name, value in sorted(scalars.items())
      if not name.endswith(SECONDS)
    }
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()
    for name, value in scalars.items():
      self._events.add_scalar(name, float(value), step)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Flushes and closes both files."""
    if self._active:
      self._file.close()
      self._events.close()


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


def load_metrics(path: pathlib.Path) -> list[dict[str, float]]:
  """The whole rows of a `metrics.jsonl`; a last row cut short is left out."""
  rows = []
  if path.is_file():
    for line in path.read_text(encoding="utf-8").splitlines():
      try:
        rows.append(json.loads(line))
      except json.JSONDecodeError:
        break
  return rows


def note(row: Mapping[str, float]) -> str:
  """What the line of progress says of a row: its loss and its times."""
  times = [
    f"{name.removesuffix(SECONDS)} {row[name]:.2f} s"
    for name in sorted(row)
    if name.endswith(SECONDS)
  ]
  return ", ".join([f"loss {row['loss']:.3f}", *times])


class Progress:
  """A bar on a terminal; elsewhere a line every ten seconds."""

  def __init__(self, name: str, *, start: int, total: int):
    """Shows steps `start` to `total` under a name."""
    self._name, self._start, self._total = name, start, total
    self._began = self._shown = time.monotonic()
    self._bar = None
    self._active = jax.process_index() == 0
    if self._active and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=name, initial=start, total=total, unit="step", leave=True
      )

  def update(self, step: int, note: str) -> None:
    """Tells that `step` steps are done, with a few words about them."""
    if self._bar is not None:
      self._bar.set_postfix_str(note, refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = time.monotonic()
    due = now - self._shown >= 10 or step == self._total
    if self._active and due:
      self._shown = now
      meter = tqdm.tqdm.format_meter(
        step,
        self._total,
        now - self._began,
        ncols=0,
        prefix=self._name,
        unit="step",
        initial=self._start,
        postfix=note,
      )
      print(meter, file=sys.stderr, flush=True)

  def __enter__(self):
    return self

  def __exit__(self, *error) -> None:
    """Leaves the bar on the screen as it is."""
    if self._bar is not None:
      self._bar.close()
