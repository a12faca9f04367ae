"""The paper's tables from what its trials have found: statistics, no words.

All of it is computed of texts, whose preference by a simulated population is
known exactly, and of log π/μ of each. The independent draws are seeds and
prompts, see `evaluation.crossed`.
"""

from collections.abc import Iterable, Sequence
import pathlib
from typing import NamedTuple

import numpy as np
from scipy import stats

from figures import paper_found
from figures.paper_found import MIXED, MIXTURES, POLICIES, RLHF, SELF_PLAY
from nashmd_jax.evaluation import (
  crossed,
  intervals,
  standings,
  win_rates,
)
from nashmd_jax.judges import raters

CONFIDENCE = 0.95
RESAMPLES = 400
BEST_RESPONSE, START = "best_response", paper_found.START
WIN_RATES, REGULARISED = "table1_win_rates.csv", "table2_regularised.csv"
# Half of the 95 % interval of a cell of the paper's, of 2,000 and of 1,000.
NOISE = {WIN_RATES: 0.022, REGULARISED: 0.031}


class Judged(NamedTuple):
  """What a population says of M policies on N distinct prompts, by S seeds.

  Attributes:
    names: of those that every seed has, in the order of the paper.
    win_prob: f64[S, N, M, M], P(row ≻ column).
  """

  names: list[str]
  win_prob: np.ndarray


class Cells(NamedTuple):
  """A table of M policies, row against column, with intervals of 95 %.

  Attributes:
    names: of the policies.
    value, low, high: f64[M, M].
    p_value: f64[M, M], of the row being as good as the column.
  """

  names: list[str]
  value: np.ndarray
  low: np.ndarray
  high: np.ndarray
  p_value: np.ndarray


class Figure(NamedTuple):
  """A number with its interval."""

  value: float
  low: float
  high: float


class Comparison(NamedTuple):
  """One policy against another.

  Attributes:
    value, low, high: its win rate.
    p_value: that holds with those of all other comparisons (Holm).
  """

  value: float
  low: float
  high: float
  p_value: float

  def decided(self) -> int:
    """1 if it wins for sure, −1 if it loses, 0 if it cannot be told."""
    sure = self.p_value <= 1 - CONFIDENCE
    return int(np.sign(self.value - 0.5)) if sure else 0


class Point(NamedTuple):
  """A point of the paper's shape.

  Attributes:
    title: what it says.
    pairs: who wins against whom.
    strict: whether it says so, and not merely that none of them loses.
  """

  title: str
  pairs: Sequence[tuple[str, str]]
  strict: bool


POINTS = (
  Point(
    "Best response loses to Nash-MD of β = .125 and to self-play",
    [("md_125", BEST_RESPONSE), (SELF_PLAY, BEST_RESPONSE)],
    True,
  ),
  Point(
    "β of .625 and more falls behind β = .125 and self-play",
    [(a, b) for a in ("md_125", SELF_PLAY) for b in ("md_625", "md_750")],
    True,
  ),
  Point(
    "A small β is not worse than self-play",
    [(name, SELF_PLAY) for name in MIXED[:3]],
    False,
  ),
)
# What the paper does not have: the mixture that is deployed, the last policy.
OF_MIXTURES = Point(
  "The deployed mixture against the last policy of the same run",
  list(zip(MIXTURES, MIXED, strict=True)),
  False,
)


def common(seeds: Sequence[paper_found.Seed]) -> list[str]:
  """The policies that every seed has, in the order of the paper."""
  return [
    name
    for name in (*POLICIES, *MIXTURES)
    if seeds and all(name in seed.texts for seed in seeds)
  ]


def judge(found: paper_found.Found, population: str) -> Judged:
  """What one of the populations of a game says of all texts.

  Args:
    found: with a seed or more.
    population: `paper_found.HELD_OUT` or `paper_found.SECOND`.
  """
  made = raters.make_population(**found.game[population])
  names = common(found.seeds)
  said = [
    [
      raters.preference(made, row, some)
      for row, *some in zip(
        found.prompts, *(seed.texts[name] for name in names), strict=True
      )
    ]
    for seed in found.seeds
  ]
  return Judged(names, by_prompt(found, np.array(said)))


def by_prompt(found: paper_found.Found, values: np.ndarray) -> np.ndarray:
  """Means of the records of each prompt, f64[S, prompts, ...].

  Args:
    values: f64[S, N, ...], of each record.
  """
  which = win_rates.prompt_numbers(found.prompts)
  count = np.bincount(which)
  total = np.zeros((len(values), len(count), *values.shape[2:]))
  np.add.at(total, (slice(None), which), values)
  return total / count.reshape(-1, *[1] * (values.ndim - 2))


def regularised(judged: Judged, found: paper_found.Found) -> Judged:
  """P_τ(π ≻ π′) = P(π ≻ π′) − τ log π/μ(y) + τ log π′/μ(y′), of single texts.

  Its mean is that of the regularised game. Only policies whose log-ratios every
  seed has are in it.
  """
  known = [
    name
    for name in judged.names
    if all(name in seed.log_ratios for seed in found.seeds)
  ]
  part = of(judged, known)
  if not known:
    return part
  ratio = log_ratios(found, known)
  dearer = ratio[..., :, None] - ratio[..., None, :]
  return Judged(known, part.win_prob - found.game["kl_coef"] * dearer)


def of(judged: Judged, names: Iterable[str]) -> Judged:
  """The part of a table that is of some policies, in its own order."""
  names = [name for name in judged.names if name in set(names)]
  kept = [judged.names.index(name) for name in names]
  return Judged(names, judged.win_prob[:, :, kept][..., kept])


def log_ratios(found: paper_found.Found, names: Sequence[str]) -> np.ndarray:
  """Mean log π/μ of the texts of each prompt, f64[S, prompts, M], nats."""
  every = [
    np.stack([seed.log_ratios[name] for name in names], axis=-1)
    for seed in found.seeds
  ]
  return by_prompt(found, np.array(every))


def cells(judged: Judged) -> Cells:
  """Every mean over seeds and prompts."""
  size = len(judged.names)
  flat = judged.win_prob.reshape(*judged.win_prob.shape[:2], size * size)
  made = crossed.estimate(flat, CONFIDENCE)
  square = [part.reshape(size, size) for part in made[:4]]
  return Cells(judged.names, *square)


def stated(names: Iterable[str]) -> list[tuple[str, str]]:
  """All comparisons that are stated of some policies, each pair once.

  Those of the points, and every policy against self-play and against RLHF.
  """
  names, found = set(names), {}
  every = [pair for point in (*POINTS, OF_MIXTURES) for pair in point.pairs]
  every += [
    (name, other)
    for other in (SELF_PLAY, RLHF)
    for name in (*POLICIES, *MIXTURES)
    if name != other
  ]
  for pair in every:
    if set(pair) <= names:
      found.setdefault(frozenset(pair), pair)
  return list(found.values())


def compare(table: Cells) -> dict[tuple[str, str], Comparison]:
  """The stated comparisons of a table, whichever side is asked about first."""
  place = {name: number for number, name in enumerate(table.names)}
  pairs = stated(table.names)
  p_values = intervals.holm(
    [table.p_value[place[one], place[other]] for one, other in pairs]
  )
  found = {}
  for (one, other), p_value in zip(pairs, p_values, strict=True):
    for a, b in ((one, other), (other, one)):
      i, j = place[a], place[b]
      found[a, b] = Comparison(
        float(table.value[i, j]),
        float(table.low[i, j]),
        float(table.high[i, j]),
        float(p_value),
      )
  return found


def standing(judged: Judged) -> dict[str, dict[str, Figure]]:
  """Nash average and exploitability of each policy within a table.

  "nash_average" is its share in the equilibrium of the table, "exploitability"
  max_π′ P(π′ ≻ π) − ½ over the table's own policies, at least 0. The intervals
  are percentiles of resampled seeds and prompts.
  """
  size, names = len(judged.names), judged.names
  i, j = np.triu_indices(size, 1)
  values = judged.win_prob[..., i, j]
  drawn = crossed.resampled(values, resamples=RESAMPLES, seed=0)
  mean, found = values.mean((0, 1)), {}
  for title, figure in FIGURES.items():
    low, high = np.quantile(figure(drawn, size), TAILS, axis=0)
    ends = zip(figure(mean, size), low, high, strict=True)
    found[title] = {
      name: Figure(*map(float, one))
      for name, one in zip(names, ends, strict=True)
    }
  return found


def exploitability(rate: np.ndarray, size: int) -> np.ndarray:
  """max_j P(j ≻ i) − ½ of each i, f64[..., M], 0 for one that none beats.

  Args:
    rate: f64[..., pairs], of each pair i < j the win rate of i.
    size: M.
  """
  i, j = np.triu_indices(size, 1)
  loses = np.zeros((*rate.shape[:-1], size, size))
  loses[..., i, j], loses[..., j, i] = 0.5 - rate, rate - 0.5
  return loses.max(-1)


TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
FIGURES = {
  "nash_average": standings.nash_average,
  "exploitability": exploitability,
}


def published(folder: pathlib.Path, name: str) -> np.ndarray | None:
  """A table of the paper, row against column in the order of `POLICIES`.

  Returns: f64[14, 14]; None if the folder has none.
  """
  path = folder / name
  if not path.exists():
    return None
  return np.loadtxt(path, delimiter=",").T  # there a column against a row


class Agreement(NamedTuple):
  """How alike two tables are.

  Attributes:
    rank: Spearman's correlation of mean win rates against the others, with
      percentiles of resampled seeds and prompts.
    pairs: that are decided in both.
    agree: those of them that the same policy wins.
    policies: that both have.
  """

  rank: Figure
  pairs: int
  agree: int
  policies: int


def agreement(judged: Judged, theirs: np.ndarray, noise: float) -> Agreement:
  """Of our table and the paper's.

  Args:
    judged: ours.
    theirs: f64[14, 14].
    noise: half of the interval of its cells.
  """
  part = of(judged, POLICIES)
  names = part.names
  other = [POLICIES.index(name) for name in names]
  theirs = theirs[np.ix_(other, other)]
  means = part.win_prob.mean(-1)
  drawn = crossed.resampled(means, resamples=RESAMPLES, seed=0)
  mean = theirs.mean(-1)
  low, high = np.quantile([_rank(one, mean) for one in drawn], TAILS)
  rank = Figure(_rank(means.mean((0, 1)), mean), float(low), float(high))
  table = cells(part)
  i, j = np.triu_indices(len(names), 1)
  sure = (table.low > 0.5) | (table.high < 0.5)
  both = sure[i, j] & (np.abs(theirs[i, j] - 0.5) > noise)
  same = np.sign(table.value[i, j] - 0.5) == np.sign(theirs[i, j] - 0.5)
  return Agreement(rank, int(both.sum()), int(same[both].sum()), len(names))


def _rank(one: np.ndarray, other: np.ndarray) -> float:
  """Spearman's correlation, 0 where one side has no order."""
  if not (np.ptp(one) and np.ptp(other)):
    return 0.0
  return float(stats.spearmanr(one, other).statistic)
