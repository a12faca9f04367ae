"""Writers of services that keep runs: Weights & Biases, and Trackio.

A job is a run there, which a start after a cut goes on with: `wandb.jsonl` or
`trackio.jsonl` in the job's folder holds its id, and the steps that were told.
What was told before the cut is not told again, whatever the service makes of a
step that it has; what a killed process had not sent yet is lacking there, and
stands in `metrics.jsonl`. Keys and addresses are the services' own, from their
log-in or their variables in the environment; nothing of them is read here.
"""

from collections.abc import Iterator, Sequence
import contextlib
import importlib
import json
from typing import Any
import uuid

from nashmd_jax import files
from nashmd_jax.training import metrics, telling

WANDB, TRACKIO = "wandb.jsonl", "trackio.jsonl"


@contextlib.contextmanager
def to_wandb(run: telling.Run) -> Iterator[telling.Write]:
  """The writer "wandb": scalars, settings, and samples as a table.

  The run there has the name of the job, and the group of its workdir. Without
  a network, WANDB_MODE=offline leaves folders for `wandb sync` below `wandb/`
  in that of the job: one for each start, with its further steps, all of the
  same run.
  """
  wandb, there = importlib.import_module("wandb"), _Heard(run, WANDB)
  with contextlib.closing(there):
    tracked = wandb.init(
      project=run.project,
      group=run.group,
      name=run.job,
      id=there.id,
      resume="allow",
      dir=str(run.folder),
      config=dict(run.settings),
      settings=wandb.Settings(console="off"),
    )

    def write(step, scalars, samples):
      if there.hears(step):
        row = {**scalars}
        if samples:
          row["samples"] = wandb.Table(*_table(samples))
        tracked.log(row, step=step)

    try:
      yield write
    except BaseException:
      tracked.finish(exit_code=1)
      raise
    tracked.finish()


@contextlib.contextmanager
def to_trackio(run: telling.Run) -> Iterator[telling.Write]:
  """The writer "trackio": scalars, settings, and samples as Markdown.

  The run there has the name of the job and its id, by which it is resumed, and
  the group of its workdir. It stays on this machine, in TRACKIO_DIR, unless
  TRACKIO_SPACE_ID says otherwise.
  """
  trackio, there = importlib.import_module("trackio"), _Heard(run, TRACKIO)
  with contextlib.closing(there):
    tracked = trackio.init(
      project=run.project,
      group=run.group,
      name=f"{run.job.replace('/', '-')}-{there.id}",
      resume="allow",
      config=dict(run.settings),
    )

    def write(step, scalars, samples):
      if there.hears(step):
        row = {**scalars}
        if samples:
          row["samples"] = trackio.Markdown(telling.markdown(samples))
        tracked.log(row, step=step)

    try:
      yield write
    finally:
      tracked.finish()


def _table(
  samples: Sequence[telling.Sample],
) -> tuple[list[str], list[list[Any]]]:
  """Columns and rows of samples, which all have the same names."""
  columns = [*samples[0].texts, *samples[0].scores]
  return columns, [
    [*sample.texts.values(), *sample.scores.values()] for sample in samples
  ]


class _Heard:
  """What a service has been told of a run.

  Attributes:
    id: of the run there.
  """

  def __init__(self, run: telling.Run, name: str):
    """Goes on from the file of that name, or begins it."""
    self._path = run.folder / name
    rows = metrics.load_metrics(self._path)
    self.id = rows[0]["id"] if rows else uuid.uuid4().hex[:12]
    self._step = max((row["step"] for row in rows), default=0)
    files.save_text(self._path, self._line())
    self._file = self._path.open("ab", buffering=0)

  def _line(self) -> str:
    return json.dumps({"step": self._step, "id": self.id}) + "\n"

  def hears(self, step: int) -> bool:
    """Whether a step is to be told; it is noted as told when this returns."""
    if step <= self._step:
      return False
    self._step = step
    files.append(self._file, self._line().encode(), self._path)
    return True

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
