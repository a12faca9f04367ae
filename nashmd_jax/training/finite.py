"""Steps that changed nothing, their numbers not being finite: counted, told.

The step itself leaves such an update out, see `step`; here it is decided when
there are too many, and said which records they were of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nashmd_jax.training import checkpoints
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import step as step_lib

SHOWN = 16  # ids


class Watch:
  """Watches the steps of a run, row of metrics by row."""

  def __init__(
    self,
    name: str,
    checkpointer: checkpoints.Checkpointer,
    *,
    nonfinite_steps: int,
  ):
    """Starts with no step.

    Args:
      name: in front of what is said.
      checkpointer: tells the last good checkpoint.
      nonfinite_steps: left out in a row, at which the run stops.
    """
    self._name, self._most = name, nonfinite_steps
    self._checkpointer = checkpointer
    self._taken: list[tuple[int, Any]] = []
    self._in_a_row = 0

  def note(self, step: int, batch: Mapping[str, np.ndarray]) -> None:
    """Remembers which examples a step was of."""
    ids = batch.get("record_ids", batch.get("example_ids", ()))
    self._taken.append((step, ids))

  def row(
    self, window: Sequence[Mapping[str, step_lib.Mean]]
  ) -> dict[str, float]:
    """The row of metrics of the steps noted, see `metrics.means`.

    It has "left_out", a share of the updates, only where that is not 0.

    Args:
      window: metrics of each of them, still on the devices.
    Raises: FloatingPointError at too many steps in a row that were left out.
    """
    row = metrics_lib.means(window)
    left_out = jax.device_get([one[step_lib.LEFT_OUT].total for one in window])
    taken, self._taken = self._taken, []
    for (step, ids), updates in zip(taken, left_out, strict=True):
      self._in_a_row = self._in_a_row + 1 if updates else 0
      if self._in_a_row == self._most:
        self._stop(step, ids)
    if not row[step_lib.LEFT_OUT]:
      del row[step_lib.LEFT_OUT]
    return row

  def _stop(self, step: int, ids: Any) -> None:
    shown = ", ".join(str(int(one)) for one in ids[:SHOWN])
    more = ", …" if len(ids) > SHOWN else ""
    raise FloatingPointError(
      f"{self._name}: loss or gradient was not finite in {self._in_a_row} "
      "steps in a row, which changed nothing; the last of them was step "
      f"{step} on the examples [{shown}{more}], and "
      f"{self._checkpointer.last_good()}"
    )
