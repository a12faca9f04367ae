"""Preference from choices and the time that they took: drift-diffusion.

A decision is a Brownian motion of drift v from 0, which ends at b for the first
response, Z = 1, or at −b for the second, Z = −1, at time T. A weight of T alone
makes the choice an unbiased answer, whatever the drift:

  E[Z w_b(T) given v] = v

so that the mean over annotators of unlike drifts is their mean drift, where the
pooled log-odds of choices can have the other sign. The boundary follows from
the Laplace transform of the times, L(λ) = E exp(−λ T), at two scales, and at
three where each time holds a fixed non-decision time besides. Time in seconds,
drift a second^½, boundary in second^½. NumPy functions that run once, on the
host.
"""

from collections.abc import Callable

import numpy as np
import scipy

from nashmd_jax.evaluation import intervals

# Terms of a series; the first neglected one is below 1e-40 of the first.
TERMS = 5
# Of t/b²: below, the series in exp(−c²/2t) is the faster one, above its dual.
MIDDLE = 0.6
# λ of `rate` in units of 1/E T: b √(2λ) of 3 where drift is small. Less has
# more bias by drift, more has more noise.
SCALE = 4.5
STEP = 1e-4  # of the derivative by the boundary, as a share of it

LogLaplace = Callable[[float], float]


def weights(times: np.ndarray, boundary: float) -> np.ndarray:
  """w_b(t) of `mean_drift`, a second^½.

    w_b(t) = Σ_k (c_k²/t − 1) e^{−c_k²/2t} / Σ_k (−1)^k c_k e^{−c_k²/2t},
    c_k = (2k + 1) b

  Both sums alternate slowly for t of b² and above, where their Poisson duals
  stand instead.

  Args:
    times: f64[N], above 0.
    boundary: b, above 0.
  Returns: f64[N], which falls from b/t to 0.
  """
  times = np.asarray(times, np.float64)
  if not ((times > 0) & np.isfinite(times)).all() or not boundary > 0:
    raise ValueError("times, boundary: expected finite ones above 0")
  share = times / boundary**2
  small = np.minimum(share, MIDDLE)[..., None]
  large = np.maximum(share, MIDDLE)[..., None]
  order = np.arange(TERMS)
  odd, sign = 2 * order + 1.0, (-1.0) ** order
  # e^{−1/2t} is taken out of both sums.
  decay = np.exp(-(odd**2 - 1) / (2 * small))
  early = ((odd**2 / small - 1) * decay).sum(-1) / (sign * odd * decay).sum(-1)
  # e^{−π²t/8} is taken out of both.
  whole = order + 1.0
  above = sign * whole**2 * np.exp(-(4 * whole**2 - 1) * np.pi**2 * large / 8)
  below = sign * odd * np.exp(-(odd**2 - 1) * np.pi**2 * large / 8)
  late = 2 * np.pi * above.sum(-1) / below.sum(-1)
  return np.where(share < MIDDLE, early, late) / boundary


def mean_drift(
  choices: np.ndarray, times: np.ndarray, boundary: float, confidence: float
) -> tuple[float, float, float]:
  """The mean drift E v of all who chose, by choices and times.

  Args:
    choices: f64[N], Z of each, 1 or −1; N of 2 or more.
    times: f64[N], T of each, without non-decision time.
    boundary: b, known.
    confidence: level of the interval, 0.95 for one.
  Returns: (mean, low, high), Student's interval.
  """
  return intervals.mean_interval(choices * weights(times, boundary), confidence)


def estimate(
  choices: np.ndarray, times: np.ndarray, rate: float, confidence: float
) -> tuple[float, float, float]:
  """`mean_drift` with the boundary from the same times, at two scales.

  The interval holds what the boundary is uncertain by too, by the delta method.
  What drift adds to L, see `two_scales`, is not in it.

  Args:
    rate: λ, see `rate`.
  """
  log_laplace = empirical(times)
  bound = two_scales(log_laplace, rate)
  drift = choices * weights(times, bound)
  near, far = (
    np.mean(choices * weights(times, bound * (1 + step)))
    for step in (STEP, -STEP)
  )
  slope = (near - far) / (2 * STEP * bound)
  one, four = (
    np.exp(-scale * times - log_laplace(scale)) for scale in (rate, 4 * rate)
  )
  moved = (one - four) / np.sqrt(2 * rate)  # the boundary, by each time
  return intervals.mean_interval(drift + slope * moved, confidence)


def rate(times: np.ndarray) -> float:
  """The scale λ, a second, that suits times; see `SCALE`."""
  return SCALE / float(np.mean(times))


def empirical(times: np.ndarray) -> LogLaplace:
  """λ -> log of the mean of exp(−λ T) over times f64[N]."""

  def at(rate):
    total = scipy.special.logsumexp(-rate * times)
    return float(total - np.log(len(times)))

  return at


def two_scales(log_laplace: LogLaplace, rate: float) -> float:
  """The boundary b, of times that hold the decision alone.

    b̂ = (log L(λ) − log L(4λ)) / √(2λ)

  By L(λ) = cosh(v b) / cosh(b √(2λ + v²)) it is low by a share of v²/8λ of
  drift; choices and cosh(v b), which one scale would be off by, cancel.

  Args:
    log_laplace: λ -> log L(λ), `empirical` of times or an exact one.
    rate: λ, a second.
  """
  return (log_laplace(rate) - log_laplace(4 * rate)) / np.sqrt(2 * rate)


def three_scales(log_laplace: LogLaplace, rate: float) -> tuple[float, float]:
  """Boundary and non-decision time, of times T + t₀.

    D₁ = log L(λ) − log L(4λ) = 3 λ t₀ + b √(2λ)
    D₂ = log L(4λ) − log L(16λ) = 12 λ t₀ + 2 b √(2λ)

  Args: as `two_scales`.
  Returns: b and t₀ in seconds.
  """
  logs = [log_laplace(scale * rate) for scale in (1, 4, 16)]
  first, second = logs[0] - logs[1], logs[1] - logs[2]
  bound = (4 * first - second) / (2 * np.sqrt(2 * rate))
  return bound, (second - 2 * first) / (6 * rate)


def pooled_log_odds(choices: np.ndarray) -> float:
  """The log-odds of Z = 1 among all choices, Bradley-Terry's score of a pair.

  Args:
    choices: f64[N], 1 or −1, of both.
  """
  return float(scipy.special.logit(np.mean(np.asarray(choices) > 0)))
