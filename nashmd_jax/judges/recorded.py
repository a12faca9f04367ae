"""Choices that people have made, as a judge of the pairs that they saw."""

from collections.abc import Iterable

import numpy as np

from nashmd_jax.data import records


def make_judge(comparisons: Iterable[records.Record]):
  """A text judge that knows what was recorded, and nothing else.

  Several comparisons of one pair count by their votes, in either order.

  Args:
    comparisons: comparison records.
  Returns: (records, responses, opponents) -> f64[N], the share of votes for
    the response; NaN for a pair that nobody compared. Two responses of the
    same text are ½.
  """
  found: dict[tuple[str, str, str], tuple[float, float]] = {}
  for row in comparisons:
    votes, share = float(row.get("votes", 1)), float(row["prob_a"])
    sides = row["response_a"], row["response_b"]
    for (a, b), wins in ((sides, share), (sides[::-1], 1 - share)):
      won, cast = found.get((row["prompt"], a, b), (0.0, 0.0))
      found[row["prompt"], a, b] = (won + votes * wins, cast + votes)

  def said(prompt: str, response: str, opponent: str) -> float:
    won, cast = found.get((prompt, response, opponent), (0.0, 0.0))
    if response == opponent:
      return 0.5
    return won / cast if cast else float("nan")

  def judge(rows, responses, opponents):
    pairs = zip(rows, responses, opponents, strict=True)
    return np.array([said(row["prompt"], y, other) for row, y, other in pairs])

  return judge
