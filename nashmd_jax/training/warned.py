"""Warnings of a run: each once, in the log, a row of metrics and a file.

What is worth a warning is decided by rules, pure functions of the rows so far,
so that a run that was cut off warns of the same at the same step.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import math
import pathlib
from typing import NamedTuple

from nashmd_jax import files
from nashmd_jax.training import distributed
from nashmd_jax.training import metrics as metrics_lib

FILE, PREFIX, EVALUATION = "warnings.jsonl", "warned/", "eval/"
ROWS, EVALUATIONS = 20, 16  # that rules compare
Row = Mapping[str, float]


class History(NamedTuple):
  """What rules look at of the rows so far; a bounded part of them.

  Attributes:
    first: the first `ROWS`.
    last: the last 2 · `ROWS`.
    judged: the last `EVALUATIONS` that hold an evaluation.
  """

  first: Sequence[Row] = ()
  last: Sequence[Row] = ()
  judged: Sequence[Row] = ()

  def then(self, row: Row) -> "History":
    """With one more row; one whose steps were all left out adds nothing."""
    if not math.isfinite(row.get("loss", 0.0)):
      return self
    first = self.first if len(self.first) == ROWS else (*self.first, row)
    judged = self.judged
    if any(name.startswith(EVALUATION) for name in row):
      judged = (*judged, row)[-EVALUATIONS:]
    return History(first, (*self.last, row)[-2 * ROWS :], judged)


# (history, whose last row is the newest) -> what was seen and what to do.
Rule = Callable[[History], str | None]


class Teller:
  """Says what rules find in the rows of a run, each rule once."""

  def __init__(
    self,
    name: str,
    folder: pathlib.Path,
    rules: Mapping[str, Rule],
    *,
    start_step: int,
  ):
    """Goes on from the rows that are there.

    Args:
      name: in front of what is said.
      folder: of the stage; gets `warnings.jsonl` when there is one to say.
      rules: by the name of the warning.
      start_step: that the run continues from; later warnings are dropped.
    Raises: Mistake for a file that is damaged.
    """
    self._name, self._path = name, folder / FILE
    self._rules = rules if distributed.is_first() else {}
    self._said, self._history = [], History()
    if not self._rules:
      return
    there = metrics_lib.load_metrics(self._path)
    self._said = [one for one in there if one["step"] <= start_step]
    if len(there) > len(self._said):
      self._save()
    for row in metrics_lib.load_metrics(folder / "metrics.jsonl"):
      self._history = self._history.then(row)

  def row(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
    """A row of metrics, with 1 below the name of each warning that is due."""
    self._history = self._history.then(metrics_lib.as_row(step, scalars))
    for name, rule in self._rules.items():
      if name in {one["warning"] for one in self._said}:
        continue
      sentence = rule(self._history)
      if sentence is not None:
        print(f"{self._name}: warning: {sentence}", flush=True)
        said = {"step": step, "warning": name, "sentence": sentence}
        self._said = [*self._said, said]
        self._save()
    due = [one["warning"] for one in self._said if one["step"] == step]
    return {**scalars, **{f"{PREFIX}{name}": 1.0 for name in due}}

  def _save(self) -> None:
    lines = (json.dumps(one) + "\n" for one in self._said)
    files.save_text(self._path, "".join(lines))
