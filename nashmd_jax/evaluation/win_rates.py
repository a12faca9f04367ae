"""Win rates of policies against one another, with intervals."""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax.data import records
from nashmd_jax.evaluation import (
  clusters,
  intervals,
  length,
  looks,
  standings,
)
from nashmd_jax.judges import scorers
from nashmd_jax.training import journal

# Of a cell: by itself, at equal length, and two intervals besides.
ENDS = ("", "at_equal_length", "clopper_pearson", "bootstrap")
TIE = 1e-9


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


class Said(NamedTuple):
  """What a judge says of two policies on N records.

  Attributes:
    win_prob: f64[N], the mean of both orders, NaN where it is not known.
    asked, known: bool[N], of which records it was asked, and has judged both.
    gap: f64, |P(a ≻ b) + P(b ≻ a) − 1| of those that are known.
  """

  win_prob: np.ndarray
  asked: np.ndarray
  known: np.ndarray
  gap: np.ndarray

  def tied(self) -> float:
    """The share of the records that are known of which the judge has ½."""
    known = self.win_prob[self.known]
    return float(np.mean(np.abs(known - 0.5) <= TIE)) if len(known) else 0.0

  def by_prompt(self, prompts: np.ndarray) -> np.ndarray:
    """The mean of each prompt, f64[prompts], NaN where none is known."""
    means = np.full(prompts.max(initial=-1) + 1, np.nan)
    of = prompts[self.known]
    means[np.unique(of)] = by_prompt(self.win_prob[self.known], of)
    return means


def play(
  responses: Mapping[str, Sequence[str]],
  rows: Sequence[records.Record],
  judge: scorers.TextJudge,
  *,
  confidence: float,
  seed: int,
  batch_size: int,
  width: float = 0.0,
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
    width: of an interval that is narrow enough to end, see `looks`; or 0.
    once: does, or has done, each of these batches; see `journal`.
  Returns: what `results_of` tells, and for each pair i < j, in the order of
    `itertools.combinations`, f64[N]: the probability over both orders that i is
    preferred, NaN where it was not judged.
  """
  names = list(responses)
  prompts = prompt_numbers(rows)
  parts = looks.parts(prompts, width, seed)
  level = looks.level(confidence, parts)
  ask = functools.partial(
    _ask, judge, rows, responses, batch_size=batch_size, once=once
  )
  pairs = {
    (i, j): ask_until(
      functools.partial(_both, ask, names[i], names[j]),
      parts,
      prompts,
      width=width,
      level=level,
    )
    for i, j in itertools.combinations(range(len(names)), 2)
  }
  found = results_of(pairs, responses, prompts, confidence=level, seed=seed)
  said = [one.win_prob for one in pairs.values()]
  return found | {"looks": len(parts)}, said


def results_of(
  pairs: Mapping[tuple[int, int], Said],
  responses: Mapping[str, Sequence[str]],
  prompts: np.ndarray,
  *,
  confidence: float,
  seed: int,
) -> dict[str, Any]:
  """What is told of all pairs of M policies.

  Args:
    pairs: what was said of each pair i < j.
    responses: by policy, one for each of N records.
    prompts: int[N], what tells prompts apart.
    confidence: of the intervals.
    seed: of draws.
  Returns: "win_rate", "low", "high": [M, M] lists, row against column;
    "at_equal_length": the same, see `length`; "clopper_pearson" and
    "bootstrap", the exact interval and that of resampled prompts; "ties",
    [M, M], the share of records of which the judge has ½; "order_gap", the
    mean |P(a ≻ b) + P(b ≻ a) − 1|; "standings", see there; "prompts": [M, M],
    how many a win rate rests on; "judged", the share judged of the pairs that
    were asked about, "not_judged", how many are not.
  """
  drawn = {"confidence": confidence, "seed": seed}
  words = [length.count_words(texts) for texts in responses.values()]
  tables, ties = _tables(pairs, prompts, words, drawn)
  raw, *others = map(_lists, tables)
  gaps = [np.mean(one.gap) for one in pairs.values() if len(one.gap)]
  of_prompts = [said.by_prompt(prompts) for said in pairs.values()]
  return raw | {
    **dict(zip(ENDS[1:], others, strict=True)),
    "ties": ties.tolist(),
    "order_gap": float(np.mean(gaps)) if gaps else 0.0,
    "standings": standings.of_pairs(of_prompts, len(words), **drawn),
    **_counts(pairs, prompts, len(words)),
  }


def _tables(pairs, prompts, words, drawn) -> tuple[np.ndarray, np.ndarray]:
  """f64[ENDS, 3, M, M] of rate, low and high, and the ties f64[M, M]."""
  size = len(words)
  tables, ties = np.full((len(ENDS), 3, size, size), 0.5), np.ones((size, size))
  for (i, j), said in pairs.items():
    found = _ends(said, prompts, words[i] - words[j], drawn)
    for one, (rate, low, high) in zip(tables, found, strict=True):
      one[:, i, j] = rate, low, high
      one[:, j, i] = 1 - rate, 1 - high, 1 - low
    ties[i, j] = ties[j, i] = said.tied()
  return tables, ties


def _ends(said, prompts, more_words, drawn) -> list[tuple[float, ...]]:
  """Of a cell each of `ENDS`, (rate, low, high)."""
  win_prob, of = said.win_prob[said.known], prompts[said.known]
  means, level = by_prompt(win_prob, of), drawn["confidence"]
  raw = intervals.win_rate_interval(means, level)
  equal = length.at_equal_length(win_prob, more_words[said.known], of, **drawn)
  exact = intervals.clopper_pearson(means, level)
  return [raw, equal, (raw[0], *exact), (raw[0], *_resampled(means, **drawn))]


def _resampled(means, *, confidence, seed) -> tuple[float, float]:
  """The percentile interval of resampled prompts; (0, 1) of fewer than two."""
  count = len(means)
  if count < 2:
    return 0.0, 1.0
  size = {"resamples": length.RESAMPLES, "seed": seed}
  won = clusters.resample({"won": means}, np.arange(count), **size)["won"]
  return clusters.interval(won.drawn / count, count, confidence)


def most_batches(
  rows: Sequence[records.Record], batch_size: int, width: float, seed: int
) -> int:
  """The batches of `play` for a pair in one order, at most. Args as there."""
  parts = looks.parts(prompt_numbers(rows), width, seed)
  return sum(math.ceil(len(part) / batch_size) for part in parts)


def ask_until(
  both: Callable[[np.ndarray], np.ndarray],
  parts: Sequence[np.ndarray],
  prompts: np.ndarray,
  *,
  width: float,
  level: float,
) -> Said:
  """Asks about one part of the records after another, until that is enough.

  Args:
    both: (places) -> f64[2, n], what is said of those records in both orders.
    parts: see `looks.parts`.
    prompts: int[N].
    width: see `play`.
    level: of the interval of a look, see `looks.level`.
  """
  said = np.full((2, len(prompts)), np.nan)
  asked = np.zeros(len(prompts), bool)
  for part in parts:
    said[:, part], asked[part] = both(part), True
    win_prob = 0.5 * (said[0] + 1 - said[1])
    known = np.isfinite(win_prob)
    means = by_prompt(win_prob[known], prompts[known])
    _, low, high = intervals.win_rate_interval(means, level)
    if high - low <= width:
      break
  gap = np.abs(said[0] + said[1] - 1)[known]
  return Said(win_prob, asked, known, gap)


def _lists(table: np.ndarray) -> dict[str, list[list[float]]]:
  return dict(zip(("win_rate", "low", "high"), table.tolist(), strict=True))


def _both(ask, name: str, other: str, places: np.ndarray) -> np.ndarray:
  return np.stack([ask(name, other, places), ask(other, name, places)])


def _ask(judge, rows, responses, name, other, places, *, batch_size, once):
  """What the judge says of two policies in one order, f64[n] of the places."""
  texts, said = (rows, responses[name], responses[other]), []

  def answer(some):
    columns = ([column[place] for place in some] for column in texts)
    return np.asarray(judge(*columns), np.float64).tolist()

  for start in range(0, len(places), batch_size):
    some = places[start : start + batch_size]
    asked = functools.partial(answer, some)
    said += once(f"{name} against {other}, records from {some[0]}", asked)
  return np.array(said, np.float64)


def _counts(
  pairs: Mapping[tuple[int, int], Said], prompts: np.ndarray, size: int
) -> dict[str, Any]:
  """What the win rates of `play` rest on.

  Args:
    pairs: what was said of each pair of policies.
    prompts: [N], what tells prompts apart.
    size: M.
  """
  rests = np.full((size, size), len(np.unique(prompts)))
  for (i, j), said in pairs.items():
    rests[i, j] = rests[j, i] = len(np.unique(prompts[said.known]))
  asked = sum(int(said.asked.sum()) for said in pairs.values())
  known = sum(int(said.known.sum()) for said in pairs.values())
  return {
    "prompts": rests.tolist(),
    "judged": known / asked if asked else 1.0,
    "not_judged": asked - known,
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
