"""What a run leaves behind: rows of metrics, and checkpoints beside them.

A row tells of several steps. A run that is stopped within one, or in the
evaluation that belongs to it, saves what of it is measured, the window, with
the state.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple, NoReturn

import grain
import numpy as np

from nashmd_jax.training import (
  checkpoints,
  distributed,
  finite,
  keeping,
  memory,
  telling,
  warned,
)
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import state as state_lib
from nashmd_jax.training import writers as writers_lib

Window = Sequence[finite.Taken]


class Trail(NamedTuple):
  """An open one.

  Attributes:
    name: of the run, in what is said.
    checkpointer: saves.
    writer: of rows and samples, in JSON.
    writers: the others.
    teller: warns of them.
    progress: shows them.
    watch: makes a row of a window.
    window: steps that were taken before a cut, and that no row tells of.
  """

  name: str
  checkpointer: checkpoints.Checkpointer
  writer: metrics_lib.MetricWriter
  writers: writers_lib.Writers
  teller: warned.Teller
  progress: metrics_lib.Progress
  watch: finite.Watch
  window: list[finite.Taken]

  def begin(self, step: int, seconds: float) -> None:
    """Says what the first step took to compile, and gives that back."""
    self.progress.begin(step, f"compiled its step in {seconds:.0f} s")
    memory.give_back()

  def row(self, window: Window) -> dict[str, float]:
    """The row of a window, with the tokens of responses learnt from a second.

    Raises: as `finite.Watch.row`.
    """
    row, pace = self.watch.row(window), self.progress.pace(window[-1].step)
    tokens = [count for one in window if (count := one.tokens())]
    if tokens and pace:
      row[metrics_lib.TOKENS] = pace * float(np.mean(tokens))
    return row

  def write(
    self,
    step: int,
    row: Mapping[str, float],
    evaluation: telling.Evaluation = telling.NOTHING,
  ) -> Mapping[str, float]:
    """Writes a row and an evaluation, shows them, and returns its scores.

    Raises: Fault if a save behind has failed.
    """
    self.checkpointer.check()
    row = self.teller.row(step, {**row, **evaluation.scores})
    self.writer.write(step, row, evaluation.samples)
    self.writers.write(step, row, evaluation.samples)
    self.progress.say(telling.lines(self.name, step, evaluation.samples))
    self.progress.update(step, metrics_lib.note(row))
    return evaluation.scores

  def save(
    self,
    step: int,
    state: state_lib.TrainState,
    batches: grain.DatasetIterator,
    *,
    window: Window = (),
    scores: Mapping[str, float] | None = None,
  ) -> None:
    """Saves the state; see `checkpoints.save`.

    Args:
      scores: of its evaluation, if there was one.
    """
    checkpoints.save(
      self.checkpointer,
      step,
      state,
      batches,
      window=[one.plain() for one in window],
      scores=self.checkpointer.keep.scores(scores or {}),
    )

  def stop(
    self,
    step: int,
    state: state_lib.TrainState,
    batches: grain.DatasetIterator,
    *,
    window: Window = (),
  ) -> NoReturn:
    """Saves the state and raises Preempted."""
    self.save(step, state, batches, window=window)
    raise distributed.Preempted(f"{self.name}: saved at step {step}") from None


@contextlib.contextmanager
def opened(
  name: str,
  folder: pathlib.Path,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
  *,
  rules: Mapping[str, warned.Rule],
  steps: int,
  seed: int,
  nonfinite_steps: int,
  keep: Mapping[str, Any],
  log: writers_lib.Log,
) -> Iterator[tuple[Trail, state_lib.TrainState]]:
  """The trail of a run, and the state that it goes on from.

  Args:
    state: at step 0.
    batches: whose place is set to the saved one.
    rules: of warnings, see `warned`.
    steps: in all.
    others: see `loop.train`.
  """
  with contextlib.ExitStack() as stack:
    writers = stack.enter_context(writers_lib.Writers(log))
    checkpointer = stack.enter_context(
      checkpoints.make_checkpointer(folder, keep=keeping.Keep(**keep))
    )
    state = checkpoints.restore(checkpointer, state, batches)
    memory.give_back()
    checkpoints.check_space(checkpointer, state)
    start = int(state.step)
    if start:
      print(f"{name}: goes on from step {start}", flush=True)
    writer = stack.enter_context(
      metrics_lib.MetricWriter(folder, start_step=start)
    )
    writers.open(name, folder, start_step=start)
    teller = warned.Teller(name, folder, rules, start_step=start)
    progress = stack.enter_context(
      metrics_lib.Progress(name, start=start, total=steps, unit="step")
    )
    watch = finite.Watch(
      name, checkpointer, folder, seed=seed, nonfinite_steps=nonfinite_steps
    )
    saved = checkpoints.load_window(checkpointer)
    window = [finite.Taken.of_plain(one) for one in saved]
    trail = Trail(
      name, checkpointer, writer, writers, teller, progress, watch, window
    )
    yield trail, state
