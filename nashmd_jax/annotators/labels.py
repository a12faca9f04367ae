"""Votes of annotators as one label a pair, each by what it is worth."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Label(NamedTuple):
  """What the votes on a pair say together.

  Attributes:
    prob: that a is preferred, in [0, 1].
    votes: how many there are.
    weight: Σ e² / votes, 1 of votes of full effort.
  """

  prob: float
  votes: int
  weight: float


def pool(
  pairs: Sequence[str],
  annotators: Sequence[str],
  votes: np.ndarray,
  effort: Mapping[str, float],
) -> dict[str, Label]:
  """One label a pair.

    p = ½ + Σ_i e_i (z_i − ½) / Σ_i e_i²,  clipped to [0, 1]

  A vote z of effort e has the mean ½ + e (P − ½): of all unbiased linear
  estimates of P this one has the least variance where votes vary alike. With
  e = 1 of all it is the share of votes. A pair whose votes are all of effort 0
  has no label.

  Args:
    pairs: of each of N votes, the pair.
    annotators: of each, who it is of.
    votes: f64[N], 1 for a, 0 for b, ½ for a tie.
    effort: of each annotator, in [0, 1].
  """
  sums: dict[str, np.ndarray] = {}
  for pair, who, vote in zip(pairs, annotators, votes, strict=True):
    e = effort[who]
    one = np.array([e * (vote - 0.5), e**2, 1])
    sums[pair] = sums.get(pair, 0) + one
  return {
    pair: Label(
      prob=float(np.clip(0.5 + gain / square, 0, 1)),
      votes=int(count),
      weight=float(square / count),
    )
    for pair, (gain, square, count) in sums.items()
    if square > 0
  }
