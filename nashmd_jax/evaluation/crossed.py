"""Means over seeds and prompts, where every seed answered the same prompts.

What one seed gives on one prompt varies with the seed, with the prompt and
with both together, so that neither seeds nor prompts alone say how far a mean
is from that of further seeds and prompts. Arrays in, numbers out; every column
is treated alike, so that a difference of two columns is a column too.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

BLOCK = 64  # resamples at a time


class Estimate(NamedTuple):
  """Means of C columns.

  Attributes:
    value: f64[C].
    low, high: f64[C], the ends of the interval.
    p_value: f64[C], two-sided, of the mean being the one that was asked about.
    degrees: f64[C], degrees of freedom of the interval.
  """

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray
  p_value: np.ndarray
  degrees: np.ndarray


def estimate(
  values: np.ndarray, confidence: float, *, against: float = 0.5
) -> Estimate:
  """The mean over seeds and prompts, with Student's t interval of both.

    v = (A + B − E) / (S N),  d = v² (S N)² / (A²/a + B²/b + E²/(a b))

  A, B and E are the mean squares of seeds, of prompts and of what is left in
  the analysis of variance of two random factors, a = S − 1 and b = N − 1 their
  degrees of freedom: v is an unbiased estimate of the variance of the mean, d
  Satterthwaite's degrees of freedom of it. The ends are m ∓ t_d √v. v is never
  below E / (S N), nor d below the smaller of a and b. In simulations with five
  seeds it holds the truth in 93 to 97 % of draws at 95 %, and in 98 % where
  neither seeds nor prompts matter by themselves (tests/coverage.py).

  One seed alone tells nothing of further seeds: its interval is that of the
  prompts, as mean squares of N alone.

  Args:
    values: f64[S, N, C], of each seed and prompt; N of 2 or more.
    confidence: level of the interval.
    against: the mean that the p-value asks about.
  Raises: ValueError for values that are not such.
  Source: Satterthwaite 1946; Searle, Casella and McCulloch 1992, ch. 4.
  """
  _check(values)
  seeds, prompts, _ = values.shape
  mean = values.mean((0, 1))
  variance, degrees = _variance(values, mean, seeds, prompts)
  deviation = np.sqrt(variance)
  half = special.stdtrit(degrees, 0.5 + confidence / 2) * deviation
  with np.errstate(divide="ignore", invalid="ignore"):
    out = np.abs(mean - against) / deviation
  out = np.where(mean == against, 0.0, out)
  p_value = 2 * special.stdtr(degrees, -out)
  return Estimate(mean, mean - half, mean + half, p_value, degrees)


def _variance(values, mean, seeds: int, prompts: int):
  """The variance of the mean and its degrees of freedom, f64[C] each."""
  of_seed, of_prompt = values.mean(1), values.mean(0)
  b = prompts - 1
  by_prompt = seeds * np.square(of_prompt - mean).sum(0) / b
  if seeds == 1:
    return by_prompt / prompts, np.full(len(mean), float(b))
  a = seeds - 1
  by_seed = prompts * np.square(of_seed - mean).sum(0) / a
  left = values - of_seed[:, None] - of_prompt[None] + mean
  rest = np.square(left).sum((0, 1)) / (a * b)
  whole = np.maximum(by_seed + by_prompt - rest, rest)
  spread = by_seed**2 / a + by_prompt**2 / b + rest**2 / (a * b)
  degrees = whole**2 / np.where(spread > 0, spread, 1.0)
  return whole / (seeds * prompts), np.maximum(degrees, min(a, b))


def resampled(values: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
  """Means over seeds and prompts drawn with replacement, f64[R, C].

  As many seeds as there are, and apart from them as many prompts, the same for
  all seeds and all columns, so that what is computed of several columns is
  computed of the same draws. It serves for figures that are no means, such as
  the equilibrium of a table. Of few seeds it spreads too little, by
  √((S − 1) / S) and by what Student's t is wider than the normal law.

  Args:
    values: f64[S, N, C].
    resamples: R.
    seed: of the draws.
  Source: Owen 2007, the pigeonhole bootstrap.
  """
  _check(values)
  seeds, prompts, columns = values.shape
  rng = np.random.default_rng(seed)
  times = [
    rng.multinomial(count, np.full(count, 1 / count), resamples) / count
    for count in (seeds, prompts)
  ]
  found = np.empty((resamples, columns))
  for start in range(0, resamples, BLOCK):
    part = slice(start, start + BLOCK)
    of_seed, of_prompt = (one[part] for one in times)
    means = np.stack([of_prompt @ one for one in values], axis=1)
    found[part] = np.einsum("rs,rsc->rc", of_seed, means)
  return found


def _check(values: np.ndarray) -> None:
  if values.ndim != 3 or not values.shape[0] or values.shape[1] < 2:
    raise ValueError(
      f"values: got shape {values.shape}, expected [S, N, C] with a seed or "
      "more and two prompts or more"
    )
  if not np.isfinite(values).all():
    raise ValueError("values: got what is not finite; expected every cell")
