"""Non-transitivity: do majorities go in a ring more often than noise would?

A triple is three responses to one prompt all of whose pairs were compared. It
is cyclic if each beats the next. Votes are noisy, so that some triples are
cyclic though every rater has the same order in mind: what counts is how many
there are against a Bradley-Terry model that votes as often.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from nashmd_jax.data import records

# Imagined votes on each compared pair, half of them each way, so that every
# fit is finite; few enough to leave a fit that is finite without them as it is.
IMAGINED = 1e-3
# Deciding votes that there have to be on average: on a pair, and a response is
# in. With fewer the fit follows the noise, and no correction mends its null.
LEAST_ON_PAIR, LEAST_OF_RESPONSE = 3, 15
BLOCK = 1_000_000  # cells of simulated matrices that are held at a time
TIED = 1e-6  # of a share; shares may have passed through float32


class Compared(NamedTuple):
  """Responses to one prompt that are joined by comparisons.

  Attributes:
    wins: f64[Y, Y], deciding votes for i against j, ties left out.
    ahead: f64[Y, Y], sign of the majority of i against j; 0 for a tied pair
      or one that was not compared.
    pairs: bool[Y, Y], whether i and j were compared.
    rows: int[N], places of the comparisons.
    first, second: int[N], the responses of each.
  """

  wins: np.ndarray
  ahead: np.ndarray
  pairs: np.ndarray
  rows: np.ndarray
  first: np.ndarray
  second: np.ndarray


def gather(rows: Sequence[records.Record]) -> list[Compared]:
  """Comparisons by prompt, as far as there are triples in them.

  Equal texts are one response; a text compared with itself says nothing. All
  votes on a pair count together.

  Args:
    rows: comparison records.
  """
  by_prompt: dict[str, list[int]] = {}
  for place, row in enumerate(rows):
    if row["response_a"] != row["response_b"]:
      by_prompt.setdefault(row["prompt"], []).append(place)
  found = []
  for places in by_prompt.values():
    texts: dict[str, int] = {}
    ends = np.array(
      [
        [texts.setdefault(rows[i][name], len(texts)) for i in places]
        for name in ("response_a", "response_b")
      ]
    )
    joined = np.zeros((len(texts), len(texts)), bool)
    joined[ends[0], ends[1]] = joined[ends[1], ends[0]] = True
    if _triangles(joined):
      found += _parts(rows, np.array(places), ends, joined)
  return found


def _parts(rows, places, ends, joined) -> list[Compared]:
  """The responses to a prompt, taken apart where no comparison joins them."""
  _, part = scipy.sparse.csgraph.connected_components(joined)
  found = []
  for number in range(part.max() + 1):
    members = np.flatnonzero(part == number)
    own = part[ends[0]] == number
    if _triangles(joined[np.ix_(members, members)]):
      first, second = np.searchsorted(members, ends[:, own])
      found.append(_compared(rows, places[own], first, second, len(members)))
  return found


def _compared(rows, places, first, second, count: int) -> Compared:
  wins, votes = np.zeros((2, count, count))
  pairs = np.zeros((count, count), bool)
  for place, i, j in zip(places, first, second, strict=True):
    total, ties = records.votes_of(rows[place])
    won = float(
      np.clip(rows[place]["prob_a"] * total - ties / 2, 0, total - ties)
    )
    wins[i, j] += won
    wins[j, i] += total - ties - won
    votes[i, j] += total
    votes[j, i] += total
    pairs[i, j] = pairs[j, i] = True
  more = wins - wins.T
  ahead = np.where(np.abs(more) > TIED * votes, np.sign(more), 0)
  return Compared(wins, ahead, pairs, places, first, second)


def _triangles(joined: np.ndarray) -> int:
  """Triples all of whose pairs are joined, by a symmetric bool[..., Y, Y]."""
  return np.rint(_trace_of_cube(joined.astype(np.float32)) / 6).astype(int)


def rings(ahead: np.ndarray) -> np.ndarray:
  """Triples each of which beats the next, by signs [..., Y, Y]."""
  ahead = (ahead > 0).astype(np.float32)
  return np.rint(_trace_of_cube(ahead) / 3).astype(int)


def _trace_of_cube(matrix: np.ndarray) -> np.ndarray:
  return np.sum(
    (matrix @ matrix) * np.swapaxes(matrix, -1, -2), axis=(-2, -1), dtype=float
  )


def fit(wins: np.ndarray, pairs: np.ndarray, start: np.ndarray) -> np.ndarray:
  """Bradley-Terry scores of greatest likelihood; see `IMAGINED`.

  The Newton steps of `payoffs.fit_scores`, for many counts at once.

  Args:
    wins: f64[..., Y, Y], votes for i against j.
    pairs: bool[Y, Y], which join all responses.
    start: f64[Y], scores to begin with.
  Returns: f64[..., Y], nats, mean 0.
  """
  wins = wins + IMAGINED / 2 * pairs
  total, count = wins + np.swapaxes(wins, -1, -2), wins.shape[-1]
  scores, diagonal = np.zeros(wins.shape[:-1]) + start, np.arange(count)
  for _ in range(200):
    prob = scipy.special.expit(scores[..., :, None] - scores[..., None, :])
    gradient = (wins - total * prob).sum(-1)
    curvature = total * prob * (1 - prob)
    hessian = -curvature
    hessian[..., diagonal, diagonal] += curvature.sum(-1)
    # The constant direction, in which the likelihood is flat, is filled in.
    hessian += hessian.max((-2, -1), keepdims=True) / count
    step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    spread = np.ptp(step, axis=-1, keepdims=True)
    if spread.max() < 1e-6:
      break
    scores += step * np.log1p(spread) / np.maximum(spread, 1e-300)
  return scores - scores.mean(-1, keepdims=True)


def expected(scores: np.ndarray, one: Compared) -> np.ndarray:
  """The expected rings and untied triples of Bradley-Terry scores, exactly.

  The votes on the three pairs of a triple are independent, so that products
  of the probabilities to be ahead are summed.

  Args:
    scores: f64[..., Y].
    one: how often the pairs are voted on.
  Returns: f64[2, ...].
  """
  i, j = np.nonzero(np.triu(one.pairs))
  votes = _votes(one)[i, j]
  prob = scipy.special.expit(scores[..., i] - scores[..., j])
  half = (votes // 2).astype(float)
  ahead = np.zeros((*scores.shape, scores.shape[-1]))
  ahead[..., i, j] = scipy.special.bdtrc(half, votes, prob)
  ahead[..., j, i] = scipy.special.bdtrc(half, votes, 1 - prob)
  untied = ahead + np.swapaxes(ahead, -1, -2)
  return np.stack([_trace_of_cube(ahead) / 3, _trace_of_cube(untied) / 6])


def _votes(one: Compared) -> np.ndarray:
  return np.rint(one.wins + one.wins.T).astype(int)


def simulate(
  one: Compared, scores: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
  """Deciding votes of a Bradley-Terry model, f64[R, Y, Y], i against j.

  Args:
    one: how often the pairs are voted on.
    scores: f64[Y].
    count: R.
    rng: draws the votes.
  """
  i, j = np.nonzero(np.triu(one.pairs))
  votes = _votes(one)[i, j]
  prob = scipy.special.expit(scores[i] - scores[j])
  wins = np.zeros((count, *one.pairs.shape))
  wins[:, i, j] = rng.binomial(votes, prob, (count, len(i)))
  wins[:, j, i] = votes - wins[:, i, j]
  return wins


def report(
  rows: Sequence[records.Record],
  logits: Mapping[str, np.ndarray],
  *,
  simulations: int,
  seed: int,
) -> dict[str, Any]:
  """Cyclic triples of the raters, of the null, and of judges.

  A tied pair takes its triples out, of the data and of each simulation. The
  null is a parametric bootstrap: Bradley-Terry scores fitted to the deciding
  votes of each prompt, ties left out, which vote as often on each pair. Fitted
  scores lie further apart than true ones, so that the null has somewhat too
  few cycles; the p-value is of the share less that expected of the scores
  fitted to the same votes, for which every simulation is fitted again.

  Args:
    rows: N comparison records.
    logits: by judge f64[N], its log-odds that a is preferred.
    simulations: R, of the null.
    seed: of them.
  Returns: "triples", all of whose pairs were compared; "tied", those of them
    taken out by a tied pair; "cyclic" and "share", of those left;
    "votes_per_pair", deciding ones; "judges", by name the "cyclic" ones and
    their "share" of the same triples. "null": "cyclic" and "share" in the
    simulations, "mean", "sd", "low" and "high" (95 %); "fit_bias", the mean
    share in them less that expected of their own fits; "p_value", (1 +
    simulations that reach the data) / (1 + R). It is None where no triple is
    left, or on average a pair has fewer than `LEAST_ON_PAIR` or a response
    fewer than `LEAST_OF_RESPONSE` deciding votes.
  """
  found = gather(rows)
  triples = sum(int(_triangles(one.pairs)) for one in found)
  left = sum(int(_triangles(one.ahead != 0)) for one in found)
  cyclic = sum(int(rings(one.ahead)) for one in found)
  votes = sum(one.wins.sum() for one in found)
  pairs = sum(one.pairs.sum() / 2 for one in found)
  responses = sum(len(one.wins) for one in found)
  enough = left and (
    votes >= LEAST_ON_PAIR * pairs
    and 2 * votes >= LEAST_OF_RESPONSE * responses
  )
  return {
    "triples": triples,
    "tied": triples - left,
    "cyclic": cyclic,
    "share": _share(cyclic, left),
    "votes_per_pair": float(votes / pairs) if pairs else None,
    "null": _null(found, cyclic / left, simulations, seed) if enough else None,
    "judges": {
      name: _of_judge(found, np.asarray(said, float), left)
      for name, said in logits.items()
    },
  }


def _share(cyclic: int, triples: int) -> float | None:
  return float(cyclic / triples) if triples else None


def _null(found, share: float, simulations: int, seed: int) -> dict[str, Any]:
  rng = np.random.default_rng(seed)
  drawn, refitted = np.zeros((2, 2, simulations))
  of_fit = np.zeros(2)
  for one in found:
    scores = fit(one.wins, one.pairs, np.zeros(len(one.wins)))
    of_fit += expected(scores, one)
    size = max(1, BLOCK // one.wins.size)
    for start in range(0, simulations, size):
      block = slice(start, min(start + size, simulations))
      wins = simulate(one, scores, block.stop - start, rng)
      ahead = np.sign(wins - np.swapaxes(wins, -1, -2))
      drawn[:, block] += np.stack([rings(ahead), _triangles(ahead != 0)])
      refitted[:, block] += expected(fit(wins, one.pairs, scores), one)
  shares = drawn[0] / np.maximum(drawn[1], 1)
  excess = shares - refitted[0] / refitted[1]
  reached = np.sum(excess >= share - of_fit[0] / of_fit[1] - 1e-12)
  return {
    "simulations": simulations,
    "cyclic": _law(drawn[0]),
    "share": _law(shares),
    "fit_bias": float(excess.mean()),
    "p_value": float((1 + reached) / (1 + simulations)),
  }


def _law(drawn: np.ndarray) -> dict[str, float]:
  low, high = np.quantile(drawn, [0.025, 0.975])
  return {
    "mean": float(drawn.mean()),
    "sd": float(drawn.std(ddof=1)),
    "low": float(low),
    "high": float(high),
  }


def _of_judge(found, logit: np.ndarray, left: int) -> dict[str, Any]:
  """Rings of a judge among the triples that the raters left untied."""
  cyclic = 0
  for one in found:
    total = np.zeros_like(one.wins)
    np.add.at(total, (one.first, one.second), logit[one.rows])
    ahead = np.where(one.ahead != 0, total - total.T, 0)
    cyclic += int(rings(ahead))
  return {"cyclic": cyclic, "share": _share(cyclic, left)}
