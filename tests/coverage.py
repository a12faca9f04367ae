"""How often a 95 % interval holds the truth, and how wide it is."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np
from scipy import stats

from nashmd_jax.evaluation import crossed, intervals, looks, win_rates

Draw = Callable[[np.random.Generator, int], np.ndarray]
CONFIDENCE = 0.95


class World(NamedTuple):
  """Where win rates are drawn from.

  Attributes:
    rate: the true one.
    prompts: N of a tournament.
    records: of each prompt.
    draw: (rng, N) -> f64[N], the win rate of each prompt.
    votes: whether a record is a vote of that rate, or the rate itself.
  """

  rate: float
  prompts: int
  records: int
  draw: Draw
  votes: bool


def _same(rate: float) -> Draw:
  return lambda rng, count: np.full(count, rate)


def _evenly(rng, count):
  return rng.uniform(size=count)


def _nearly_sure(rng, count):
  return rng.beta(0.05, 0.05, size=count)


def _low(rng, count):
  return rng.beta(0.1, 4.9, size=count)


def _high(rng, count):
  return 1 - _low(rng, count)


WORLDS = {
  "200 prompts, votes": World(0.5, 200, 1, _same(0.5), True),
  "20 prompts, votes": World(0.5, 20, 1, _same(0.5), True),
  "200 prompts, votes, rate .02": World(0.02, 200, 1, _same(0.02), True),
  "200 prompts, votes, rate .98": World(0.98, 200, 1, _same(0.98), True),
  "20 prompts, votes, rate .02": World(0.02, 20, 1, _same(0.02), True),
  "200 prompts, rates spread evenly": World(0.5, 200, 1, _evenly, False),
  "20 prompts, rates spread evenly": World(0.5, 20, 1, _evenly, False),
  "200 prompts, a judge nearly sure": World(0.5, 200, 1, _nearly_sure, False),
  "200 prompts, rates about .02": World(0.02, 200, 1, _low, False),
  "200 prompts, rates about .98": World(0.98, 200, 1, _high, False),
  "40 prompts 5 times": World(0.5, 40, 5, _evenly, False),
  "20 prompts 10 times": World(0.5, 20, 10, _evenly, False),
  "20 prompts 10 times, votes": World(0.5, 20, 10, _evenly, True),
  "40 prompts 5 times, votes": World(0.5, 40, 5, _evenly, True),
}


def measure(world: World, *, draws: int, seed: int) -> tuple[float, float]:
  """The share of intervals that hold the truth, and how wide they are.

  Returns: the share; the mean width over that of the Student-t intervals of the
    means of the prompts.
  """
  rng, held, width, student = np.random.default_rng(seed), 0, 0.0, 0.0
  which = np.repeat(np.arange(world.prompts), world.records)
  out = stats.t.ppf((1 + CONFIDENCE) / 2, world.prompts - 1)
  for _ in range(draws):
    found = world.draw(rng, world.prompts)[which]
    if world.votes:
      found = rng.binomial(1, found).astype(np.float64)
    means = win_rates.by_prompt(found, which)
    _, low, high = intervals.win_rate_interval(means, CONFIDENCE)
    held += low <= world.rate <= high
    width += high - low
    student += 2 * out * np.std(means, ddof=1) / np.sqrt(world.prompts)
  return held / draws, width / student


def _said(found: np.ndarray, places: np.ndarray) -> np.ndarray:
  return np.stack([found[places], 1 - found[places]])


def measure_looks(
  world: World, *, width: float, draws: int, seed: int
) -> tuple[float, float]:
  """The same where judging ends once an interval is narrow enough.

  Returns: the share of intervals that hold the truth; the share of the prompts
    that were judged.
  """
  rng, held, asked = np.random.default_rng(seed), 0, 0
  which = np.repeat(np.arange(world.prompts), world.records)
  for draw in range(draws):
    found = world.draw(rng, world.prompts)[which]
    if world.votes:
      found = rng.binomial(1, found).astype(np.float64)
    parts = looks.parts(which, width, draw)
    level = looks.level(CONFIDENCE, parts)
    said = win_rates.ask_until(
      functools.partial(_said, found),
      parts,
      which,
      width=width,
      level=level,
    )
    means = win_rates.by_prompt(said.win_prob[said.known], which[said.known])
    _, low, high = intervals.win_rate_interval(means, level)
    held += low <= world.rate <= high
    asked += said.asked.mean()
  return held / draws, asked / draws


LOOKS = {
  "400 prompts, votes": World(0.5, 400, 1, _same(0.5), True),
  "400 prompts, rate .9": World(0.9, 400, 1, _same(0.9), True),
  "400 prompts, rates spread evenly": World(0.5, 400, 1, _evenly, False),
  "200 prompts 3 times, votes": World(0.5, 200, 3, _evenly, True),
}


class Crossed(NamedTuple):
  """Win rates of seeds and prompts, normal or votes of such a rate.

  Attributes:
    rate: the true mean.
    of_seed, of_prompt, rest: standard deviations; the rest is that of votes
      where it is None.
    seeds, prompts: S and N.
  """

  rate: float
  of_seed: float
  of_prompt: float
  rest: float | None
  seeds: int = 5
  prompts: int = 500


CROSSED = {
  "seeds matter most": Crossed(0.5, 0.05, 0.0, 0.1),
  "prompts matter most": Crossed(0.5, 0.005, 0.3, 0.1),
  "both": Crossed(0.5, 0.02, 0.2, 0.3),
  "no seed matters": Crossed(0.5, 0.0, 0.1, 0.3),
  "votes": Crossed(0.5, 0.02, 0.1, None),
  "votes, rate .95": Crossed(0.95, 0.01, 0.01, None),
  "8 seeds": Crossed(0.5, 0.02, 0.2, 0.3, seeds=8),
}


def measure_crossed(
  world: Crossed, *, draws: int, seed: int, resamples: int = 0
) -> tuple[float, float | None]:
  """The shares of intervals over seeds and prompts that hold the truth.

  Args:
    draws: of the world, a multiple of 100, which are drawn together.
    resamples: of each draw; 0 leaves out the second share.
  Returns: the share of `crossed.estimate`, and that of the percentiles of
    `crossed.resampled`.
  """
  rng, held, held_drawn = np.random.default_rng(seed), [], []
  for _ in range(draws // 100):
    size = (world.seeds, world.prompts, 100)
    rate = world.rate + world.of_seed * rng.normal(size=(size[0], 1, size[2]))
    rate = rate + world.of_prompt * rng.normal(size=(1, *size[1:]))
    if world.rest is None:
      values = (rng.random(size) < rate).astype(np.float64)
    else:
      values = rate + world.rest * rng.normal(size=size)
    found = crossed.estimate(values, CONFIDENCE)
    held.append((found.low <= world.rate) & (world.rate <= found.high))
    if resamples:
      drawn = crossed.resampled(values, resamples=resamples, seed=seed)
      tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
      low, high = np.quantile(drawn, tails, axis=0)
      held_drawn.append((low <= world.rate) & (world.rate <= high))
  return float(np.mean(held)), float(np.mean(held_drawn)) if resamples else None
