"""The event file that TensorBoard reads, written row by row.

There is no thread and no queue behind it: a row that is written is on disk. It
stands beside `metrics.jsonl` and is not worth a run: where it cannot be written
that is said once, and the run goes on without.
"""

from collections.abc import Mapping
import pathlib
import re
import socket
import time

import tensorboardX
from tensorboardX import summary
from tensorboardX.proto import event_pb2

from nashmd_jax import files

STARTED = re.compile(r"events\.out\.tfevents\.(\d+)\.")
VERSION = "brain.Event:2"


class Events:
  """One event file of a stage, which hides later steps of a cut-off run."""

  def __init__(self, folder: pathlib.Path, *, start_step: int):
    """Opens a file that stands behind all others of the folder.

    Args:
      folder: of the events.
      start_step: step that the run continues from, 0 for a new one.
    """
    self._folder = folder
    self._records: tensorboardX.RecordWriter | None = None
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._records = tensorboardX.RecordWriter(str(_next_file(folder)))
    except OSError as error:
      self._give_up(error)
    self._add(
      event_pb2.Event(file_version=VERSION),
      event_pb2.Event(step=start_step + 1, session_log=start),
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds a row; it is on disk when this returns."""
    self._add(
      *(
        event_pb2.Event(step=step, summary=summary.scalar(name, float(value)))
        for name, value in scalars.items()
      )
    )

  def _add(self, *events: event_pb2.Event) -> None:
    if self._records is None:
      return
    try:
      for event in events:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
      self._records.flush()
    except OSError as error:
      self._give_up(error)

  def _give_up(self, error: OSError) -> None:
    self.close()
    print(
      f"{self._folder}: no more events are written ({files.reason(error)}); "
      "metrics.jsonl goes on",
      flush=True,
    )

  def close(self) -> None:
    """Closes the file."""
    records, self._records = self._records, None
    if records is not None:
      try:
        records.close()
      except OSError:
        pass  # what could not be written was told of


def _next_file(folder: pathlib.Path) -> pathlib.Path:
  """A name behind all others, as TensorBoard reads files in their order.

  The clock may have been set back since the last of them.
  """
  began = [STARTED.match(path.name) for path in folder.iterdir()]
  last = max((int(found[1]) for found in began if found), default=0)
  number = max(int(time.time()), last + 1)
  return folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
