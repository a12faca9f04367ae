"""Golden questions: pairs of which the answer is certain, among the others.

They look like all others, so that who answers them right may be trusted with
the rest. Of n golden questions an annotator who is right with probability q
answers k or more right by the tail of a binomial. NumPy functions that run
once, on the host.
"""

from typing import NamedTuple

import numpy as np
import scipy

from nashmd_jax.evaluation import intervals

CHANCE = 0.5  # of a coin
STEPS = 20  # confidences of a judge that are tried


class Exam(NamedTuple):
  """How golden questions are marked.

  Attributes:
    count: golden questions.
    needed: right answers that pass.
    level: probability that a careless annotator passes.
    power: probability that a careful one passes.
  """

  count: int
  needed: int
  level: float
  power: float


def accuracy(effort: float, certainty: float) -> float:
  """e c + (1 − e)/2, how often an annotator of effort e is right.

  Args:
    effort: e in [0, 1], see `effort`.
    certainty: c, the probability of the likelier answer.
  """
  return effort * certainty + (1 - effort) / 2


def pass_probability(count: int, needed: int, accuracy: float) -> float:
  """P(X ≥ needed) of X ~ Binomial(count, accuracy).

  Args:
    count: golden questions.
    needed: right answers that pass, 0 or more.
    accuracy: q in [0, 1], of one answer.
  """
  return float(scipy.special.bdtrc(needed - 1, count, accuracy))


def make_exam(
  count: int, *, level: float, careless: float, careful: float
) -> Exam:
  """The exam that asks for as few right answers as its level allows.

  Args:
    count: golden questions, n.
    level: most that the probability to pass of a careless annotator may be.
    careless, careful: how often either is right.
  Returns: needed is count + 1, which nobody passes, where n are too few.
  """
  tails = (
    pass_probability(count, needed, careless) for needed in range(count + 1)
  )
  passing = [needed for needed, tail in enumerate(tails) if tail <= level]
  needed = passing[0] if passing else count + 1
  return Exam(
    count,
    needed,
    pass_probability(count, needed, careless),
    pass_probability(count, needed, careful),
  )


def most_certain(prob: np.ndarray, certainty: float) -> np.ndarray:
  """Places of the pairs that may be golden, the most certain first.

  Args:
    prob: f64[N], P(a ≻ b) by a preference model; NaN where it said nothing.
    certainty: least probability of the likelier answer.
  """
  sure = np.maximum(prob, 1 - np.asarray(prob))
  sure = np.where(np.isnan(sure), -np.inf, sure)
  order = np.argsort(-sure, kind="stable")
  return order[sure[order] >= certainty]


def least_confidence(
  prob: np.ndarray, label: np.ndarray, certainty: float, confidence: float
) -> float | None:
  """From which confidence on a judge is as certain as golden questions are.

  A judge that calls a pair certain may be wrong of it: people's votes on other
  pairs tell. Of `STEPS` quantiles of its confidence max(p, 1 − p) there it is
  the least from which on the side that it favours has so many of the votes.

  Args:
    prob: f64[N], P(a ≻ b) by the judge of pairs that it has not learnt from.
    label: f64[N], share of people's votes for a.
    certainty: least share of votes for the side that the judge favours.
    confidence: that the answer is right, by Clopper and Pearson and Bonferroni.
  Returns: `certainty` of `most_certain`; None where the votes show none.
  """
  sure = np.maximum(prob, 1 - np.asarray(prob))
  agreed = np.where(np.asarray(prob) > CHANCE, label, 1 - np.asarray(label))
  level = 1 - 2 * (1 - confidence) / STEPS  # of one end
  for least in np.quantile(sure, np.arange(STEPS) / STEPS):
    low, _ = intervals.clopper_pearson(agreed[sure >= least], level)
    if low >= certainty:
      return float(least)
  return None


def estimate_effort(
  right: np.ndarray, prob: np.ndarray, confidence: float
) -> tuple[float, float, float] | None:
  """Effort by moments from golden questions, clipped to [0, 1].

    ê = (2a − 1) / (2c − 1)

  a is the share of right answers and c the mean certainty of the questions.

  Args:
    right: f64[N], 1 for a right answer, 0 for a wrong one, ½ for a tie.
    prob: f64[N], P(a ≻ b) of those pairs.
    confidence: level of the interval, 0.95 for one.
  Returns: (ê, low, high); None without a question, and where all of them are
    toss-ups.
  """
  prob = np.asarray(prob, np.float64)
  sure = float(np.mean(np.maximum(prob, 1 - prob))) if len(prob) else CHANCE
  if sure <= CHANCE:
    return None
  found = intervals.win_rate_interval(np.asarray(right, float), confidence)
  ends = ((2 * one - 1) / (2 * sure - 1) for one in found)
  return tuple(float(np.clip(one, 0, 1)) for one in ends)
