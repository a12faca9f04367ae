"""Win rates of policies against one another, with intervals."""

from collections.abc import Mapping, Sequence
import functools
import itertools
from typing import Any

import numpy as np

from nashmd_jax.data import records
from nashmd_jax.evaluation import intervals, length, standings
from nashmd_jax.judges import scorers
from nashmd_jax.training import journal


def prompt_numbers(rows: Sequence[records.Record]) -> np.ndarray:
  """int[N], the same for records of the same prompt, in order."""
  numbers: dict[str, int] = {}
  return np.array(
    [numbers.setdefault(row["prompt"], len(numbers)) for row in rows], int
  )


def by_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
  """The mean of each prompt's records, f64[prompts], which are independent.

  Args:
    values: f64[N], of each record.
    prompts: [N], what tells prompts apart.
  """
  _, which = np.unique(prompts, return_inverse=True)
  return np.bincount(which, values) / np.bincount(which)


def play(
  responses: Mapping[str, Sequence[str]],
  rows: Sequence[records.Record],
  judge: scorers.TextJudge,
  *,
  confidence: float,
  seed: int,
  batch_size: int,
  once: journal.Once = journal.anew,
) -> tuple[dict[str, Any], list[np.ndarray]]:
  """All pairs of policies under one judge.

  Args:
    responses: by policy, one for each of N records.
    rows: N summary records; those of one prompt count as one.
    judge: of strings; a pair with NaN in either order counts nowhere.
    confidence: of the intervals.
    seed: of the draws behind the intervals at equal length and of standings.
    batch_size: records asked about at a time.
    once: does, or has done, each of these batches; see `journal`.
  Returns: a table for JSON, and for each pair i < j, in the order of
    `itertools.combinations`, f64[N]: the probability over both orders that i is
    preferred, NaN where it was not judged. The table has "win_rate", "low",
    "high": [M, M] lists, row against column; "at_equal_length": the same, see
    `length`; "order_gap", the mean |P(a ≻ b) + P(b ≻ a) − 1|; "standings", see
    there; "prompts": [M, M], how many a win rate rests on; "judged", the share
    of pairs judged, "not_judged", how many are not.
  """
  names = list(responses)
  prompts = prompt_numbers(rows)
  words = {name: length.count_words(responses[name]) for name in names}
  drawn = {"confidence": confidence, "seed": seed}
  table = np.full((2, 3, len(names), len(names)), 0.5)
  gaps, of_prompts, said = [], [], {}
  ask = functools.partial(
    _ask, judge, rows, responses, batch_size=batch_size, once=once
  )
  for i, j in itertools.combinations(range(len(names)), 2):
    forward, backward = ask(names[i], names[j]), ask(names[j], names[i])
    said[i, j] = 0.5 * (forward + 1 - backward)
    known = np.isfinite(said[i, j])
    if known.any():
      gaps.append(np.mean(np.abs(forward + backward - 1)[known]))
    win_prob, of = said[i, j][known], prompts[known]
    more_words = (words[names[i]] - words[names[j]])[known]
    of_prompts.append(np.full(prompts.max(initial=-1) + 1, np.nan))
    of_prompts[-1][np.unique(of)] = means = by_prompt(win_prob, of)
    ends = (
      intervals.win_rate_interval(means, confidence),
      length.at_equal_length(win_prob, more_words, of, **drawn),
    )
    for one, (rate, low, high) in zip(table, ends, strict=True):
      one[:, i, j] = rate, low, high
      one[:, j, i] = 1 - rate, 1 - high, 1 - low
  return _lists(table[0]) | {
    "at_equal_length": _lists(table[1]),
    "order_gap": float(np.mean(gaps)) if gaps else 0.0,
    "standings": standings.of_pairs(of_prompts, len(names), **drawn),
    **_counts(said, prompts, len(names)),
  }, list(said.values())


def _lists(table: np.ndarray) -> dict[str, list[list[float]]]:
  return dict(zip(("win_rate", "low", "high"), table.tolist(), strict=True))


def _ask(judge, rows, responses, name, other, *, batch_size, once):
  """What the judge says of two policies in one order, f64[N]."""
  texts, said = (rows, responses[name], responses[other]), []

  def answer(start):
    some = [column[start : start + batch_size] for column in texts]
    return np.asarray(judge(*some), np.float64).tolist()

  for start in range(0, len(rows), batch_size):
    asked = functools.partial(answer, start)
    said += once(f"{name} against {other}, records from {start}", asked)
  return np.array(said, np.float64)


def _counts(
  said: Mapping[tuple[int, int], np.ndarray], prompts: np.ndarray, size: int
) -> dict[str, Any]:
  """What the win rates of `play` rest on.

  Args:
    said: f64[N] for each pair of policies, NaN where it was not judged.
    prompts: [N], what tells prompts apart.
    size: M.
  """
  judged = {pair: np.isfinite(one) for pair, one in said.items()}
  rests = np.full((size, size), len(np.unique(prompts)))
  for (i, j), known in judged.items():
    rests[i, j] = rests[j, i] = len(np.unique(prompts[known]))
  every = list(judged.values())
  return {
    "prompts": rests.tolist(),
    "judged": float(np.mean(every)) if every else 1.0,
    "not_judged": int(np.sum(np.logical_not(every))) if every else 0,
  }


def told_not_judged(table: Mapping[str, Any]) -> str:
  """What to say of pairs that a judge did not judge; empty if there is none."""
  if not table["not_judged"]:
    return ""
  fewest = min(min(row) for row in table["prompts"])
  return (
    f"{table['not_judged']} pairs ({1 - table['judged']:.1%}) were not judged "
    f"and count nowhere; the win rate of fewest prompts rests on {fewest}"
  )


def against(
  results: Mapping[str, Any], name: str, other: str, judge: str
) -> tuple[float, float, float]:
  """Win rate of a policy against another by a judge, low and high end."""
  names, table = results["policies"], results["judges"][judge]
  i, j = names.index(name), names.index(other)
  return table["win_rate"][i][j], table["low"][i][j], table["high"][i][j]


def verdict(low: float, high: float) -> str:
  """What an interval says of a win rate."""
  if low > 0.5:
    return "above one half"
  return "below one half" if high < 0.5 else "not told apart from one half"
