"""Which checkpoints are kept, when time asks for one, what room they take."""

from collections.abc import Mapping
import math
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from nashmd_jax import declare, mistakes
from nashmd_jax.training import distributed

SETTINGS = {
  "last": declare.whole(
    "Newest checkpoints that are kept; of two the older stands in for a newest "
    "that is damaged.",
    least=1,
    unit="checkpoints",
  ),
  "best": declare.whole(
    "Checkpoints of the best evaluations that are kept besides, for which each "
    "evaluation is saved; 0 keeps none.",
    least=0,
    unit="checkpoints",
  ),
  "metric": declare.text(
    "What is best: a metric of the evaluation, such as loss.", optional=True
  ),
  "highest": declare.flag("Whether a higher metric is better, not a lower."),
}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Keep(NamedTuple):
  """The checkpoints that are kept; see `SETTINGS`."""

  last: int = 2
  best: int = 0
  metric: str | None = None
  highest: bool = False

  def policy(self) -> Any:
    """What orbax asks."""
    policies = ocp.training.preservation_policies
    newest = policies.LatestN(self.last)
    if not self.best:
      return newest
    best = policies.BestN(
      n=self.best,
      get_metric_fn=self._worth,
      keep_checkpoints_without_metrics=False,
    )
    return policies.AnyPreservationPolicy([newest, best])

  def _worth(self, scores: Mapping[str, float]) -> float:
    value = scores.get(self.metric, math.nan)
    if math.isnan(value):
      return -math.inf
    return value if self.highest else -value

  def scores(self, evaluation: Mapping[str, float]) -> dict[str, float] | None:
    """What a checkpoint tells of an evaluation; None where no best are kept.

    Raises: Mistake for a metric that it has not.
    """
    if not self.best or not evaluation:
      return None
    names = [name.removeprefix("eval/") for name in evaluation]
    if self.metric not in names:
      raise mistakes.Mistake(
        f"train.keep.metric: got {self.metric!r}, expected one of {names}, "
        "which the evaluation gives"
      )
    return {self.metric: float(evaluation[f"eval/{self.metric}"])}


TWO = Keep()


def check(keep: Mapping[str, Any]) -> None:
  """Raises Mistake for the best of nothing."""
  if keep["best"] and not keep["metric"]:
    raise mistakes.Mistake(
      f"train.keep.best: got {keep['best']} without train.keep.metric; name "
      "the metric of the evaluation that says which is best"
    )


class Clock:
  """Tells when a save is due by time, by the clock of process 0."""

  def __init__(self, minutes: float):
    """Starts it; 0 minutes are never over."""
    self._seconds = 60 * minutes
    self._since = time.monotonic()

  def due(self) -> bool:
    """Whether it is time; all processes ask together, and hear the same."""
    if not self._seconds:
      return False
    over = time.monotonic() - self._since >= self._seconds
    return distributed.anywhere(over and distributed.is_first())

  def saved(self) -> None:
    """Starts it anew."""
    self._since = time.monotonic()


def check_space(
  directory: pathlib.Path, pieces: Any, keep: Keep, *, there: int
) -> None:
  """Raises Fault if a disk cannot hold the checkpoints of a run.

  Args:
    directory: of the checkpoints.
    pieces: arrays, or their shapes, that each will hold.
    keep: how many there will be; one more while it is written.
    there: how many there are.
  """
  each = sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(pieces)
  )
  more = max(keep.last + keep.best + 1 - there, 1)
  try:
    free = shutil.disk_usage(directory).free
  except OSError:
    return  # a file system that does not say
  if more * each > free:
    raise mistakes.Fault(
      f"{directory}: {more} more checkpoints of {shown(each)} will stand here "
      f"at a time, and the disk has {shown(free)} free; make room, or keep "
      "fewer (train.keep)"
    )


def shown(count: float) -> str:
  """Bytes in their largest unit: "1.2 GB"."""
  power = sum(count >= 1000**n for n in range(1, len(UNITS)))
  return f"{count / 1000**power:.3g} {UNITS[power]}"
