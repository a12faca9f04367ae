"""Whether people read what they compare: effort, from repeats.

An annotator of effort e answers a pair from its preference P with probability
e, and else throws a coin. Two answers to one pair, which the annotator does not
know again, then agree with probability

  e² E[p² + (1 − p)²] + (1 − e²)/2,

from which e follows by moments. NumPy functions that run once, on the host.
"""

import numpy as np

from nashmd_jax.evaluation import intervals


def agreement(prob: np.ndarray, effort: float) -> float:
  """The probability that two answers of an annotator to one pair agree.

  Args:
    prob: f64[N], P(a ≻ b) of N pairs, each as likely to be repeated.
    effort: e in [0, 1].
  """
  return _agreement(sharpness(prob), effort)


def sharpness(prob: np.ndarray) -> float:
  """E[p² + (1 − p)²], the agreement of full effort: ½ of toss-ups, at most 1.

  Args:
    prob: f64[N], P(a ≻ b) of N pairs, N above 0.
  Raises: ValueError for what are no probabilities.
  """
  prob = np.asarray(prob, np.float64)
  if not prob.size or not ((prob >= 0) & (prob <= 1)).all():
    raise ValueError("prob: expected one probability or more, each in [0, 1]")
  return float(np.mean(prob**2 + (1 - prob) ** 2))


def estimate_effort(
  agreed: np.ndarray, prob: np.ndarray, confidence: float
) -> tuple[float, float, float] | None:
  """Effort by moments from pairs that an annotator answered twice.

    ê = √((2a − 1) / (2 E[p² + (1 − p)²] − 1)),  0 for a below ½, at most 1

  a is the share that agreed. It grows with a, so that the ends of the interval
  are ê at those of a's.

  Args:
    agreed: bool[N], whether the two answers to a pair were the same.
    prob: f64[N], P(a ≻ b) of those pairs.
    confidence: level of the interval, 0.95 for one.
  Returns: (ê, low, high); None where nothing is known: without a repeat, and
    where all pairs are toss-ups, which nobody answers alike.
  Source: the moment equation of the top.
  """
  if np.shape(agreed) != np.shape(prob):
    raise ValueError(
      f"agreed: expected one for each of prob, {np.shape(prob)}, got shape "
      f"{np.shape(agreed)}"
    )
  if not len(agreed) or sharpness(prob) <= 0.5:
    return None
  share = np.asarray(agreed, np.float64)
  found = intervals.win_rate_interval(share, confidence)
  return tuple(_effort(one, sharpness(prob)) for one in found)


def _agreement(sharp: float, effort: float) -> float:
  return effort**2 * sharp + (1 - effort**2) / 2


def _effort(agreed: float, sharp: float) -> float:
  """The effort in [0, 1] whose agreement is nearest."""
  square = (2 * agreed - 1) / (2 * sharp - 1)
  return float(np.sqrt(np.clip(square, 0, 1)))
