"""The event file that TensorBoard reads, written row by row.

There is no thread and no queue behind it: a row that is written is on disk. It
stands beside `metrics.jsonl` and is not worth a run: where it cannot be written
that is said once, and the run goes on without.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import pathlib
import re
import socket
import time
from typing import Any

import tensorboardX
from tensorboardX import summary
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from nashmd_jax import files
from nashmd_jax.training import telling

# Beside the settings of a run in the table of runs.
COMPARED = ("loss", "kl", "eval/loss", "eval/win_prob_against_reference")
STARTED = re.compile(r"events\.out\.tfevents\.(\d+)\.")
VERSION = "brain.Event:2"


@contextlib.contextmanager
def to_tensorboard(run: telling.Run) -> Iterator[telling.Write]:
  """The writer "tensorboard": scalars, samples as text, settings as hparams."""
  settings = {} if run.start_step else run.settings
  with contextlib.closing(
    Events(run.folder / "events", start_step=run.start_step, settings=settings)
  ) as events:
    yield events.write


class Events:
  """One event file of a stage, which hides later steps of a cut-off run."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    start_step: int,
    settings: Mapping[str, Any] | None = None,
  ):
    """Opens a file that stands behind all others of the folder.

    Args:
      folder: of the events.
      start_step: step that the run continues from, 0 for a new one.
      settings: of a new run, by name.
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
      # At the step that a run hides which starts anew.
      *(
        event_pb2.Event(step=start_step + 1, summary=one)
        for one in (_hparams(settings) if settings else ())
      ),
    )

  def write(
    self,
    step: int,
    scalars: Mapping[str, float],
    samples: Sequence[telling.Sample] = (),
  ) -> None:
    """Adds a row, and samples; they are on disk when this returns."""
    said = [summary.scalar(name, float(x)) for name, x in scalars.items()]
    if samples:
      said.append(summary.text("samples", telling.markdown(samples)))
    self._add(*(event_pb2.Event(step=step, summary=one) for one in said))

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


def _hparams(settings: Mapping[str, Any]) -> Sequence[Any]:
  """Summaries of settings; what is no scalar is told as it is written."""
  plain = {
    name: x if isinstance(x, str | int | float) else str(x)
    for name, x in settings.items()
  }
  made = summary.hparams(plain, dict.fromkeys(COMPARED))[:2]  # not its end
  for one in made:
    told = one.value[0].metadata.plugin_data
    said = plugin_hparams_pb2.HParamsPluginData.FromString(told.content)
    told.content = said.SerializeToString(deterministic=True)
  return made


def _next_file(folder: pathlib.Path) -> pathlib.Path:
  """A name behind all others, as TensorBoard reads files in their order.

  The clock may have been set back since the last of them.
  """
  began = [STARTED.match(path.name) for path in folder.iterdir()]
  last = max((int(found[1]) for found in began if found), default=0)
  number = max(int(time.time()), last + 1)
  return folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
