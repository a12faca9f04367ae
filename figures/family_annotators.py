"""Rows on annotators: estimators against simulations, and the page.

  python -m figures.family_annotators

writes out/family_annotators.json, in about three minutes on 2 CPU cores.
"""

from collections.abc import Iterator
import math
import pathlib
import sys

import numpy as np

from figures import family_votes
from figures import rows as rows_lib
from nashmd_jax.annotators import (
  contracts,
  golden,
  repeats,
  response_times,
  simulated,
)
from tests import annotators_test

OUT = pathlib.Path("out") / "family_annotators.json"
POPULATIONS, DECISIONS = 2000, 400
LEAST, MOST = 0.93, 0.97  # of intervals at 95 %
ROUGH = 0.9  # of those that lack what drift takes from the boundary
BOUNDARY = annotators_test.BOUNDARY
DRIFTS = annotators_test.DRIFTS
MIXED = (1.0, 0.5, -0.2)
REPEATS = 500
EXAMINED = 100_000
BOUGHT, CERTAIN = 0.8, 0.95  # effort of contracts, certainty of questions
COUNTS = (100, 10_000, 1_000_000)
CAREFUL = contracts.Annotator(cost=1.0, exponent=2.0, aversion=1.0)


def paper_rows() -> Iterator[rows_lib.Row]:
  """Golden values, by exact Laplace transforms and probabilities."""
  agreed = repeats.agreement(np.array([0.8]), 0.6)
  exact = annotators_test.log_laplace(0.7, BOUNDARY)
  share = np.mean(1 / (1 + np.exp(-2 * np.array(DRIFTS) * BOUNDARY)))
  for claim, found, told, bar in (
    ("agreement of p = .8 and e = .6", agreed, 0.5648, 1e-6),
    (
      "boundary from two scales, b = 1.25, v = .7, λ = 60",
      response_times.two_scales(exact, 60),
      1.2487,
      5e-5,
    ),
    (
      "boundary from one scale, of the same",
      -exact(60) / math.sqrt(120),
      1.1580,
      5e-5,
    ),
    (
      f"pooled log-odds of the drifts {DRIFTS}, whose mean is .375",
      math.log(share / (1 - share)),
      -0.336,
      5e-4,
    ),
  ):
    claim = f"{claim}: {found:.6g}, off {told:g} by"
    yield rows_lib.row(claim, abs(found - told), "≤", bar)


def drift_rows(seed: int = 0) -> Iterator[rows_lib.Row]:
  """How often intervals hold the mean drift of a simulated population."""
  rng = np.random.default_rng(seed)
  for drifts in ((0.7,), MIXED, DRIFTS):
    held, held_too, wrong, pooled_wrong = 0, 0, 0, 0
    mean = float(np.mean(drifts))
    for _ in range(POPULATIONS):
      drawn = rng.choice(drifts, DECISIONS)
      choices, times = simulated.decide(drawn, BOUNDARY, rng)
      value, low, high = response_times.mean_drift(
        choices, times, BOUNDARY, 0.95
      )
      held += low <= mean <= high
      wrong += value <= 0
      pooled_wrong += response_times.pooled_log_odds(choices) <= 0
      rate = response_times.rate(times)
      _, low, high = response_times.estimate(choices, times, rate, 0.95)
      held_too += low <= mean <= high
    of = f"drifts {drifts}, {DECISIONS} decisions, {POPULATIONS} populations"
    claim = f"{of}: 95 % intervals that hold their mean"
    yield rows_lib.row(claim, held / POPULATIONS, "≥", LEAST)
    yield rows_lib.row(claim, held / POPULATIONS, "≤", MOST)
    if drifts is DRIFTS:
      yield rows_lib.row(
        f"{of}: pooled log-odds of the wrong sign",
        pooled_wrong / POPULATIONS,
        "≥",
        0.95,
      )
      claim = f"{of}: mean drifts of the wrong sign"
      yield rows_lib.row(claim, wrong / POPULATIONS, "≤", 0.01)
    else:
      claim = f"{of}, boundary from the times: intervals that hold their mean"
      yield rows_lib.row(claim, held_too / POPULATIONS, "≥", ROUGH)


def scale_rows(seed: int = 1) -> Iterator[rows_lib.Row]:
  """Boundary and non-decision time from simulated times."""
  rng = np.random.default_rng(seed)
  drawn = simulated.decide(np.full(200_000, 0.4), BOUNDARY, rng, 0.3)[1]
  plain = response_times.two_scales(
    response_times.empirical(drawn), response_times.rate(drawn)
  )
  bound, time = response_times.three_scales(
    response_times.empirical(drawn), 2.0
  )
  of = "200,000 decisions of drift .4, b = 1.25 and .3 s besides"
  claim = f"{of}: what two scales are off b by"
  yield rows_lib.row(claim, abs(plain - BOUNDARY), "≥", 0.2)
  claim = f"{of}: what three scales are off b by"
  yield rows_lib.row(claim, abs(bound - BOUNDARY), "≤", 0.05)
  claim = f"{of}: and the .3 s, seconds"
  yield rows_lib.row(claim, abs(time - 0.3), "≤", 0.02)


def effort_rows(seed: int = 2) -> Iterator[rows_lib.Row]:
  """Effort from repeats, against that of simulated annotators."""
  rng = np.random.default_rng(seed)
  for effort, p in ((0.6, 1.0), (0.8, 0.98), (0.9, 0.95)):
    prob = np.full(REPEATS, p)
    found = []
    for _ in range(POPULATIONS):
      one, two = (simulated.answer(prob, effort, rng) for _ in range(2))
      found.append(repeats.estimate_effort(one == two, prob, 0.95))
    value, low, high = np.array(found).T
    of = f"effort {effort:g}, p = {p:g}, {REPEATS} repeats"
    error = float(np.sqrt(np.mean((value - effort) ** 2)))
    yield rows_lib.row(f"{of}: root mean square error", error, "≤", 0.05)
    held = float(np.mean((low <= effort) & (effort <= high)))
    yield rows_lib.row(f"{of}: intervals that hold it", held, "≥", LEAST)


def exam_rows(seed: int = 3) -> Iterator[rows_lib.Row]:
  """Who passes, beside the tail of the binomial."""
  rng, worst = np.random.default_rng(seed), 0.0
  for count in (10, 20, 40):
    exam = golden.make_exam(
      count, level=0.05, careless=golden.CHANCE, careful=0.9
    )
    for effort, told in ((0.0, exam.level), (1.0, exam.power)):
      prob = np.full((EXAMINED, count), 0.9)
      right = simulated.answer(prob, effort, rng).sum(-1)
      error = abs(np.mean(right >= exam.needed) - told)
      worst = max(worst, error / math.sqrt(told * (1 - told) / EXAMINED))
    yield rows_lib.row(
      f"{count} golden questions, {exam.needed} needed: chance to pass by coin",
      exam.level,
      "≤",
      0.05,
    )
    claim = f"{count} golden questions, {exam.needed} needed: power at .9"
    yield rows_lib.row(claim, exam.power, "≥", 0.7)
  yield rows_lib.row(
    f"who passes of {EXAMINED:,} simulated, off the tail by standard errors",
    worst,
    "≤",
    4,
  )


def contract_rows(seed: int = 4) -> Iterator[rows_lib.Row]:
  """Effort under contracts, and what they cost above it, by golden questions.

  In the limit n times the premium of linear ones is B² q (1 − q)/2, where B is
  c′/q′; √(n log n) times the variance of who passes binary ones is σ c′/(B q′)
  and B the whole cost c.
  """
  rate, slope = 0.5 + BOUGHT * (CERTAIN - 0.5), CERTAIN - 0.5
  spread = rate * (1 - rate)
  bounds = (
    (BOUGHT / slope) ** 2 * spread / 2,
    math.sqrt(spread) * BOUGHT / (BOUGHT**2 / 2 * slope),
  )
  rng, best, passed = np.random.default_rng(seed), 0.0, 0.0
  for count in COUNTS:
    marked = contracts.golden_questions(count, CERTAIN)
    linear = contracts.linear_contract(marked, CAREFUL, BOUGHT)
    binary = contracts.binary_contract(marked, CAREFUL, BOUGHT, most=2.0)
    for one in (linear, binary):
      found = contracts.rational_effort(one, marked, CAREFUL)
      best = max(best, abs(found - BOUGHT))
    chance = golden.pass_probability(count, binary.needed, rate)
    right = rng.binomial(count, rate, EXAMINED)
    error = abs(np.mean(right >= binary.needed) - chance)
    varies = chance * (1 - chance)
    passed = max(passed, error / math.sqrt(varies / EXAMINED))
    premium = contracts.premium(linear, marked, CAREFUL, BOUGHT)
    shares = (count * premium, math.sqrt(count * math.log(count)) * varies)
    of = f"contracts for effort {BOUGHT:g}, {count:,} golden questions"
    names = ("n × premium of the linear one", "√(n log n) × variance of passes")
    for name, share, bound, least in zip(
      names, shares, bounds, (0.99, 0.6), strict=True
    ):
      claim = f"{of}: {name} over its limit"
      yield rows_lib.row(claim, share / bound, "≥", least)
      yield rows_lib.row(claim, share / bound, "≤", 1.0)
  claim = f"rational effort under the contracts, off {BOUGHT:g}"
  yield rows_lib.row(claim, best, "≤", 1e-6)
  claim = f"who passes of {EXAMINED:,} simulated, off by standard errors"
  yield rows_lib.row(f"binary contracts: {claim}", float(passed), "≤", 4)


def rows() -> Iterator[rows_lib.Row]:
  """All rows on annotators."""
  for part in (paper_rows, drift_rows, scale_rows, effort_rows, exam_rows,
               contract_rows, family_votes.page_rows):  # fmt: skip
    yield from part()


if __name__ == "__main__":
  sys.exit(rows_lib.report(OUT, list(rows())))
