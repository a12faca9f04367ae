"""Steps that changed nothing, their numbers not being finite: counted, told.

The step itself leaves such an update out, see `step`; here it is decided when
there are too many, and said which records they were of.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from nashmd_jax.training import checkpoints, dumps
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import step as step_lib

SHOWN = 16  # ids
GIVEN = re.compile(r"responses(_\w+)?_mask")  # in a batch
WRITTEN = "response_tokens"  # the metric of responses that a rollout wrote


class Taken(NamedTuple):
  """A step that was taken.

  Attributes:
    step: its number.
    ids: of the examples that it was of.
    metrics: still on the devices.
    rows: that it learnt from, on the devices, without the large ones.
    given: tokens of responses in its batch.
  """

  step: int
  ids: Sequence[int]
  metrics: Mapping[str, step_lib.Mean]
  rows: Mapping[str, jax.Array]
  given: int = 0

  @classmethod
  def of(
    cls,
    step: int,
    batch: Mapping[str, np.ndarray],
    metrics: Mapping[str, step_lib.Mean],
    rows: Mapping[str, jax.Array],
  ) -> "Taken":
    """Of a step on a batch."""
    ids = batch.get("record_ids", batch.get("example_ids", ()))
    masks = [x for name, x in batch.items() if GIVEN.fullmatch(name)]
    given = sum(int(np.count_nonzero(mask)) for mask in masks)
    return cls(step, ids, metrics, rows, given)

  def tokens(self) -> float:
    """Tokens of responses that it learnt from; 0 where nobody tells."""
    written = self.metrics.get(WRITTEN)
    return self.given if written is None else float(written.total)

  def plain(self) -> dict[str, Any]:
    """It as JSON, exactly."""
    metrics = jax.device_get(self.metrics)
    return {
      "step": self.step,
      "ids": np.asarray(self.ids).tolist(),
      "metrics": {
        name: [float(mean.total), float(mean.count)]
        for name, mean in metrics.items()
      },
    }

  @classmethod
  def of_plain(cls, found: Mapping[str, Any]) -> "Taken":
    """What `plain` gave; its rows are gone."""
    metrics = {name: step_lib.Mean(*x) for name, x in found["metrics"].items()}
    return cls(found["step"], found["ids"], metrics, rows={})


class Watch:
  """Watches the steps of a run, row of metrics by row."""

  def __init__(
    self,
    name: str,
    checkpointer: checkpoints.Checkpointer,
    folder: pathlib.Path,
    *,
    seed: int,
    nonfinite_steps: int,
  ):
    """Starts with no step.

    Args:
      name: in front of what is said.
      checkpointer: tells the last good checkpoint.
      folder: of the stage; the first steps left out are kept there, and the
        one at which the run stops, see `dumps`.
      seed: of the run.
      nonfinite_steps: left out in a row, at which the run stops.
    """
    self._name, self._most = name, nonfinite_steps
    self._checkpointer = checkpointer
    self._folder, self._seed = folder, seed
    self._in_a_row = 0

  def row(self, window: Sequence[Taken]) -> dict[str, float]:
    """The row of metrics of some steps, see `metrics.means`.

    It has "left_out", a share of the updates, only where that is not 0.

    Args:
      window: each of them, in order.
    Raises: FloatingPointError at too many steps in a row that were left out.
    """
    row = metrics_lib.means([one.metrics for one in window])
    left_out = [one.metrics[step_lib.LEFT_OUT].total for one in window]
    for one, updates in zip(window, jax.device_get(left_out), strict=True):
      self._in_a_row = self._in_a_row + 1 if updates else 0
      stops = self._in_a_row == self._most
      if updates and one.rows:
        dumps.save(
          self._folder, one.step, one.rows, seed=self._seed, must=stops
        )
      if stops:
        self._stop(one)
    if not row[step_lib.LEFT_OUT]:
      del row[step_lib.LEFT_OUT]
    return row

  def _stop(self, last: Taken) -> None:
    shown = ", ".join(str(int(one)) for one in last.ids[:SHOWN])
    more = ", …" if len(last.ids) > SHOWN else ""
    raise FloatingPointError(
      f"{self._name}: loss or gradient was not finite in {self._in_a_row} "
      "steps in a row, which changed nothing; the last of them was step "
      f"{last.step} on the examples [{shown}{more}], "
      f"{self._kept(last)}and {self._checkpointer.last_good()}"
    )

  def _kept(self, last: Taken) -> str:
    return f"kept for --replay={self._name}:{last.step}, " if last.rows else ""
