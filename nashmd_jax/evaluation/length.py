"""Win rates at equal length: what of a win rate longer responses do not buy.

Arrays in, numbers out; `win_rates.play` counts the words and asks the judge.
"""

from collections.abc import Sequence

import numpy as np
import scipy

from nashmd_jax.evaluation import clusters

RESAMPLES = 1000
# λ, a belief that log-odds have a standard deviation of 10; among 500 prompts
# it moves a win rate of .7 by 2e-5.
RIDGE = 1e-2
MOST_STEPS = 200


def count_words(texts: Sequence[str]) -> np.ndarray:
  """Words of each text, parted by white space, f64[N]."""
  return np.array([len(text.split()) for text in texts], np.float64)


def at_equal_length(
  win_prob: np.ndarray,
  more_words: np.ndarray,
  prompts: np.ndarray,
  *,
  confidence: float,
  seed: int,
) -> tuple[float, float, float]:
  """P(y ≻ y′) where both have as many words, and a bootstrap interval.

    logit P = a + b tanh(d / s),  s² = mean_N d²,  P at equal length = σ(a)

  The regression maximises Σ_N [p log σ(·) + (1 − p) log σ(−·)] − λ (a² + b²)/2
  over records. Exchanging y and y′ turns (p, d, a) into (1 − p, −d, −a) and
  keeps b: the two readings of a pair sum to one. s is the standard deviation
  of d over both readings, whose mean is 0. tanh, as in length-controlled
  AlpacaEval, lets a judge's liking for length saturate, so that one runaway
  response does not turn the line. λ = `RIDGE`, so small that it shows only
  where the likelihood has no maximum: a side that wins everywhere, or wherever
  it is longer.

  Where all are equally long this is the mean of `win_prob`, but for λ. Where
  the difference is the same in every record, and not 0, nothing tells length
  from quality. The interval is the percentile one over `RESAMPLES` draws of
  the prompts, see `clusters.interval`, each with all of its records, with s as
  it is; of one prompt it is [0, 1]. Where all prompts agree their draws agree
  too: it is then too narrow, which the one of the win rate is not.

  Args:
    win_prob: f64[N] p in [0, 1], votes or probabilities.
    more_words: f64[N] d, words of y minus those of y′.
    prompts: [N], what tells prompts apart, which are independent.
    confidence: level of the two-sided interval.
    seed: of the draws; the same ones for the same seed and number of prompts.
  Returns: (σ(a), low, high); (½, 0, 1) if nothing can be told.
  Source: Dubois et al., 2024 (arXiv 2404.04475), without its terms of the
    instruction; Efron and Tibshirani 1993, ch. 13, for the interval.
  """
  values, which = np.unique(more_words, return_inverse=True)
  if not len(values) or (len(values) == 1 and values[0]):
    return 0.5, 0.0, 1.0
  scale = np.sqrt(np.mean(np.square(more_words)))
  feature = np.tanh(values / scale) if scale else values
  # All that the likelihood reads: records and wins at each difference.
  at = which[:, None] == np.arange(len(values))
  columns = np.concatenate([at, at * win_prob[:, None]], axis=1)
  every = dict(enumerate(columns.T.astype(np.float64)))
  sums = clusters.resample(every, prompts, resamples=RESAMPLES, seed=seed)
  table = np.stack(
    [np.append(one.whole, one.drawn) for one in sums.values()], axis=1
  )
  seen, won = np.split(table, 2, axis=1)
  intercept, _ = fit(seen, won, feature)
  rates = scipy.special.expit(intercept)
  known = len(np.unique(prompts))
  if known < 2:
    return float(rates[0]), 0.0, 1.0
  low, high = clusters.interval(rates[1:], known, confidence)
  return float(rates[0]), low, high


def fit(
  seen: np.ndarray, won: np.ndarray, feature: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """S logistic regressions on one feature, by Newton's method.

  A step is cut to log(1 + c) / c of its length, c the most that it changes any
  log-odds, which the bounded third derivative of log σ makes an ascent from
  anywhere.

  Args:
    seen: f64[S, K], prompts at each value of the feature.
    won: f64[S, K], their win probabilities added up.
    feature: f64[K] in [−1, 1].
  Returns: a and b, f64[S] each.
  """
  a, b = np.zeros((2, len(seen)))
  for _ in range(MOST_STEPS):
    mean = scipy.special.expit(a[:, None] + b[:, None] * feature)
    error, spread = won - seen * mean, seen * mean * (1 - mean)
    slope_a = error.sum(1) - RIDGE * a
    slope_b = error @ feature - RIDGE * b
    both = spread @ feature
    of_a, of_b = spread.sum(1) + RIDGE, spread @ feature**2 + RIDGE
    area = of_a * of_b - both**2
    step_a = (of_b * slope_a - both * slope_b) / area
    step_b = (of_a * slope_b - both * slope_a) / area
    change = np.abs(step_a) + np.abs(step_b)
    if change.max() <= 1e-12:
      break
    shorter = np.log1p(change) / np.maximum(change, 1e-300)
    a, b = a + shorter * step_a, b + shorter * step_b
  return a, b
