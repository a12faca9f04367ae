"""What a matrix of win rates says of all its policies together.

A preference may be cyclic, so that no order need hold: shares of the Nash
average stand beside mean win rates and Bradley-Terry scores, and whether there
are more cycles, or worse fits of scores, than the noise of the matrix makes is
asked of resampled prompts.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
from typing import Any

import numpy as np
import scipy

from nashmd_jax.evaluation import cycles, intervals
from nashmd_jax.games import equilibrium

RESAMPLES = 400
ELO = 400 / np.log(10)  # for one nat of Bradley-Terry score
SURE = 50  # halvings of a probability
DIGITS = 6  # to which games are played
FEWEST = 3  # policies; two have no more to them than their win rate
REJECTED = 0.05


def of_pairs(
  pairs: Sequence[np.ndarray], size: int, *, confidence: float, seed: int
) -> dict[str, Any] | None:
  """Standings of M policies by one judge.

  Args:
    pairs: for each of the M (M − 1) / 2 pairs i < j, in the order of
      `itertools.combinations`, f64[P]: the probability that i is preferred on
      each of the independent prompts, NaN where it was not judged.
    size: M.
    confidence: of intervals, and of all that `beats` says together.
    seed: of the resamples.
  Returns: "nash_average", the share of each policy in the equilibrium of the
    matrix, of several that of maximum entropy; "mean", its mean win rate
    against the others; "elo", its Bradley-Terry score, of mean 0; each with
    "low" and "high", percentiles of resampled prompts. "condorcet", the place
    of the policy that wins more often than not against every other, or None,
    and "condorcet_share", in how many resamples it does. "beats", places
    [i, j] of those that beat another, all of them together with `confidence`
    (Holm). "triples"; "cyclic", those of them that go in a ring; "cyclic_sure",
    by `beats` alone; "cyclic_null", the mean of Bradley-Terry policies as noisy
    as these; "cyclic_p_value". "chi_square" of the Bradley-Terry fit, its
    "degrees" of freedom and "chi_square_p_value"; p-values are shares of
    resamples about the fit. None if there are fewer than two policies, or a
    pair was judged on no prompt.
  Source: Balduzzi et al. 2018, for the Nash average; Holm 1979.
  """
  known = np.isfinite(pairs)
  if size < 2 or not known.any(axis=1).all():
    return None
  values, ends = np.where(known, pairs, 0), _ends(size)
  rng = np.random.default_rng(seed)
  drawn = _resampled(values, known, rng)
  rate = values.sum(1) / known.sum(1)
  votes = np.array([intervals.votes(x[np.isfinite(x)]) for x in pairs])
  scores = _scores(rate, votes, size)
  fitted = _probs(scores, ends)
  noise = np.clip(fitted + drawn - rate, 0, 1)
  misfit = _misfit(rate, fitted, votes)
  null = _misfit(noise, _probs(_scores(noise, votes, size), ends), votes)
  winner, winners = (_condorcet(_ahead(x, size)) for x in (rate, drawn))
  beats = _beats(pairs, rate, ends, confidence)
  degrees = len(rate) - (size - 1)
  return {
    "nash_average": _law(nash_average, rate, drawn, size, confidence),
    "mean": _law(_means, rate, drawn, size, confidence),
    "elo": _law(
      lambda x, size: ELO * _scores(x, votes, size),
      rate, drawn, size, confidence,
    ),
    "condorcet": int(winner) if winner >= 0 else None,
    "condorcet_share": float(np.mean(winners == winner)),
    "beats": beats,
    **_rings(rate, noise, beats, size),
    "chi_square": float(misfit),
    "degrees": degrees,
    "chi_square_p_value": _p_value(null, misfit) if degrees else None,
  }  # fmt: skip


def sentences(names: Sequence[str], found: Mapping[str, Any]) -> list[str]:
  """Who wins against all, whether there are rings, whether scores explain.

  Args:
    names: of `FEWEST` policies or more.
    found: what `of_pairs` gave.
  """
  first = found["condorcet"]
  winner = (
    f"{names[first]} wins more often than not against every other, in "
    f"{found['condorcet_share']:.0%} of the resamples"
    if first is not None
    else "No policy wins more often than not against every other"
  )
  rings = (
    f"{found['cyclic']} of {found['triples']} triples go in a ring, "
    f"{found['cyclic_sure']} of them beyond doubt; policies that scores order, "
    f"with as much noise, have {found['cyclic_null']:.1f} on average (p = "
    f"{found['cyclic_p_value']:.2g})"
  )
  degrees = found["degrees"]
  rejected = found["chi_square_p_value"] < REJECTED
  scores = (
    f"Bradley-Terry scores {'do not explain' if rejected else 'may explain'} "
    f"these win rates: χ² is {found['chi_square']:.0f} on {degrees} "
    f"degree{'s' * (degrees != 1)} of freedom "
    f"(p = {found['chi_square_p_value']:.2g})"
  )
  return [f"{winner}.", f"{rings}.", f"{scores}."]


def _ends(size: int) -> np.ndarray:
  """Places of the first and the second of all pairs, int[2, pairs]."""
  return np.array(list(itertools.combinations(range(size), 2))).T


def _resampled(values, known, rng) -> np.ndarray:
  """Win rates over prompts drawn with replacement, f64[R, pairs].

  As in `intervals.votes`, each pair has one vote more than prompts, for or
  against: prompts that are all alike are no proof that others are.
  """
  prompts = values.shape[1]
  times = rng.multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)
  count = known.sum(1)
  chance = (values.sum(1) + 0.5) / (count + 1)
  vote = rng.random((RESAMPLES, len(values))) < chance
  return (times @ values.T + vote) / (times @ known.T + 1)


def _matrix(rate: np.ndarray, size: int) -> np.ndarray:
  """Of rates [..., pairs] the matrix f64[..., M, M], ½ on its diagonal."""
  i, j = _ends(size)
  matrix = np.full((*rate.shape[:-1], size, size), 0.5)
  matrix[..., i, j], matrix[..., j, i] = rate, 1 - rate
  return matrix


def _ahead(rate: np.ndarray, size: int) -> np.ndarray:
  return np.sign(_matrix(rate, size) - 0.5)


def _scores(rate, votes, size) -> np.ndarray:
  """Bradley-Terry scores in nats, of so many votes on each pair."""
  i, j = _ends(size)
  wins = np.zeros((*rate.shape[:-1], size, size))
  wins[..., i, j], wins[..., j, i] = rate * votes, (1 - rate) * votes
  return cycles.fit(wins, ~np.eye(size, dtype=bool), np.zeros(size))


def _probs(scores, ends) -> np.ndarray:
  return scipy.special.expit(scores[..., ends[0]] - scores[..., ends[1]])


def _misfit(rate, fitted, votes) -> np.ndarray:
  """Pearson's χ²."""
  of_vote = fitted * (1 - fitted)
  return (votes * np.square(rate - fitted) / of_vote).sum(-1)


def _condorcet(ahead: np.ndarray) -> np.ndarray:
  """The place of the one that is ahead of all others, −1 if there is none."""
  first = (ahead > 0).sum(-1) == ahead.shape[-1] - 1
  return np.where(first.any(-1), first.argmax(-1), -1)


def _rings(rate, noise, beats, size) -> dict[str, Any]:
  """Triples that go in a ring: here, by `beats` alone, and by noise."""
  sure = np.zeros((size, size))
  for i, j in beats:
    sure[i, j], sure[j, i] = 1, -1
  found, null = (cycles.rings(_ahead(x, size)) for x in (rate, noise))
  return {
    "triples": math.comb(size, 3),
    "cyclic": int(found),
    "cyclic_sure": int(cycles.rings(sure)),
    "cyclic_null": float(null.mean()),
    "cyclic_p_value": _p_value(null, found) if size > 2 else None,
  }


def _means(rate: np.ndarray, size: int) -> np.ndarray:
  return (_matrix(rate, size).sum(-1) - 0.5) / (size - 1)


def nash_average(rate: np.ndarray, size: int) -> np.ndarray:
  """The shares of M policies in the equilibrium of their win rates.

  Of several equilibria that of maximum entropy.

  Args:
    rate: f64[..., pairs], of each pair i < j the win rate of i.
    size: M.
  Returns: f64[..., M].
  """
  games = np.round(_matrix(rate, size), DIGITS).reshape(-1, size, size)
  uniform = np.full(size, 1 / size)
  found = [
    equilibrium.nash_equilibrium(game, reference=uniform).policy
    for game in games
  ]
  return np.reshape(found, (*rate.shape[:-1], size))


def _law(figure, rate, drawn, size, confidence) -> dict[str, list[float]]:
  tails = [(1 - confidence) / 2, (1 + confidence) / 2]
  low, high = np.quantile(figure(drawn, size), tails, axis=0)
  value = figure(rate, size)
  return {
    "value": value.tolist(),
    "low": np.minimum(low, value).tolist(),
    "high": np.maximum(high, value).tolist(),
  }


def _beats(pairs, rate, ends, confidence) -> list[list[int]]:
  """Who beats whom, at a level that holds for all that is said."""
  sure = [1 - _probability(x[np.isfinite(x)]) for x in pairs]
  found = []
  for place in np.flatnonzero(intervals.holm(sure) <= 1 - confidence):
    i, j = ends[:, place] if rate[place] > 0.5 else ends[::-1, place]
    found.append([int(i), int(j)])
  return sorted(found)


def _probability(win_prob: np.ndarray) -> float:
  """The confidence at which the interval of a win rate reaches ½."""
  low, high = 0.0, 1.0
  for _ in range(SURE):
    middle = (low + high) / 2
    _, bottom, top = intervals.win_rate_interval(win_prob, middle)
    low, high = (low, middle) if bottom <= 0.5 <= top else (middle, high)
  return low


def _p_value(null: np.ndarray, found: float) -> float:
  return float((1 + np.sum(null >= found - 1e-9)) / (1 + len(null)))
