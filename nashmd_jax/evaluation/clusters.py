"""Intervals of ratios of sums over clustered data, by resampling the clusters.

Comparisons of one prompt resemble one another, so that the prompts are the
independent draws: a resample takes as many of them as there are, with
replacement, each with all that belongs to it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

CONFIDENCE = 0.95
BLOCK = 2_000_000  # draws that are held at a time
Estimate = dict[str, Any]


class Sum(NamedTuple):
  """The sum of a column.

  Attributes:
    whole: over all rows.
    drawn: f64[R], over those of each resample.
    clusters: how many have a row in the column that is not 0.
  """

  whole: float
  drawn: np.ndarray
  clusters: int


def resample(
  columns: Mapping[str, np.ndarray],
  clusters: np.ndarray,
  *,
  resamples: int,
  seed: int,
) -> dict[str, Sum]:
  """The sums of columns, over all rows and over resampled clusters.

  Args:
    columns: f64[N] by name.
    clusters: [N], what each row belongs to.
    resamples: R, the same ones for all columns.
    seed: of the draws.
  Raises: ValueError if there is no row, or lengths differ.
  """
  names, rows = list(columns), len(clusters)
  lengths = {name: len(columns[name]) for name in names}
  if not rows or set(lengths.values()) != {rows}:
    raise ValueError(
      f"clusters: got {rows} rows and columns of {lengths}, expected one or "
      "more, as many in each"
    )
  found, of_row = np.unique(clusters, return_inverse=True)
  count = len(found)
  table = np.stack(
    [np.bincount(of_row, columns[name], count) for name in names], axis=1
  )
  rng = np.random.default_rng(seed)
  drawn = [
    _times_drawn(rng, count, size) @ table
    for size in _blocks(resamples, max(1, BLOCK // count))
  ]
  drawn = np.concatenate(drawn)
  return {
    name: Sum(
      float(table[:, i].sum()), drawn[:, i], int((table[:, i] != 0).sum())
    )
    for i, name in enumerate(names)
  }


def _blocks(total: int, most: int) -> list[int]:
  return [min(most, total - start) for start in range(0, total, most)]


def _times_drawn(rng, count: int, size: int) -> np.ndarray:
  """How often each of `count` clusters is drawn, f64[size, count]."""
  place = np.arange(size)[:, None] * count + rng.integers(
    count, size=(size, count)
  )
  times = np.bincount(place.ravel(), minlength=size * count)
  return times.reshape(size, count).astype(np.float64)


def ratio(over: Sum, under: Sum) -> Estimate:
  """The ratio of two sums, with a percentile interval.

  A resample in which the lower sum is 0 counts nowhere.

  Returns: "value", None where the lower sum is 0; "low", "high", the ends of
    the interval of level `CONFIDENCE`, None for fewer than two clusters, whose
    spread is not known; "n", the lower sum.
  """
  if not under.whole:
    return {"value": None, "low": None, "high": None, "n": 0}
  there = under.drawn != 0
  drawn = over.drawn[there] / under.drawn[there]
  return estimate(over.whole / under.whole, drawn, under)


def estimate(value: float, drawn: np.ndarray, under: Sum) -> Estimate:
  """A value with the percentile interval of its resamples; see `ratio`."""
  low = high = None
  if under.clusters > 1:
    low, high = interval(drawn, under.clusters, CONFIDENCE)
  return {
    "value": float(value), "low": low, "high": high, "n": round(under.whole)
  }  # fmt: skip


def interval(
  drawn: np.ndarray, clusters: int, confidence: float
) -> tuple[float, float]:
  """The ends of the expanded percentile interval of resamples.

  Resamples of n clusters vary less than their mean does, by √((n − 1) / n), and
  their spread is not known but estimated, for which Student's t stands in
  place of the normal quantile: the percentiles are as far out as makes up for
  both. The ends remain values that resamples have.

  Args:
    drawn: f64[R].
    clusters: n, two or more.
    confidence: level of the two-sided interval.
  Source: Hesterberg 2015 (arXiv 1411.5279), §4.2.
  """
  out = scipy.special.stdtrit(clusters - 1, (1 + confidence) / 2)
  tail = scipy.special.ndtr(-out * np.sqrt(clusters / (clusters - 1)))
  low, high = np.quantile(drawn, [tail, 1 - tail])
  return float(low), float(high)
