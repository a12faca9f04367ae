"""Whom to trust with a vote: golden values, oracles, simulated annotators."""

import itertools
import math

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax.annotators import (
  golden,
  labels,
  repeats,
  response_times,
  simulated,
)

BOUNDARY = 1.25
DRIFTS = (3.0, -0.5, -0.5, -0.5)


def log_laplace(drift, boundary, non_decision=0.0):
  """λ -> log L(λ), exactly."""

  def at(rate):
    root = boundary * math.sqrt(2 * rate + drift**2)
    logs = math.log(math.cosh(drift * boundary)) - math.log(math.cosh(root))
    return logs - rate * non_decision

  return at


def density(times, drift, boundary, terms=60):
  """Density of leaving (−b, b) at b at a time, by images; not for late ones."""
  k = np.arange(-terms, terms + 1)
  place = (4 * k + 1) * boundary
  kernel = place * np.exp(-(place**2) / (2 * times[:, None]))
  bare = kernel.sum(-1) / np.sqrt(2 * np.pi * times**3)
  return bare * np.exp(drift * boundary - drift**2 * times / 2)


class RepeatsTest(parameterized.TestCase):
  def test_agreement_of_the_paper(self):
    self.assertAlmostEqual(
      repeats.agreement(np.array([0.8]), 0.6), 0.5648, delta=1e-12
    )

  @parameterized.parameters(0.0, 0.3, 1.0)
  def test_agreement_by_enumeration(self, effort):
    prob = np.array([0.9, 0.2, 0.5])
    total = 0.0
    for p in prob:
      reads = {True: effort, False: 1 - effort}
      for one, other in itertools.product(reads, repeat=2):
        a, b = (p if read else 0.5 for read in (one, other))
        total += reads[one] * reads[other] * (a * b + (1 - a) * (1 - b))
    self.assertAlmostEqual(
      repeats.agreement(prob, effort), total / len(prob), delta=1e-12
    )

  def test_moments_turn_agreement_back_into_effort(self):
    prob = np.full(10_000, 0.8)
    agreed = np.arange(10_000) < 5648
    value, low, high = repeats.estimate_effort(agreed, prob, 0.95)
    self.assertAlmostEqual(value, 0.6, delta=1e-9)
    self.assertBetween(0.6, low, high)
    self.assertLess(high - low, 0.1)

  def test_ends_of_what_can_be_known(self):
    certain = np.ones(8)
    all_of_it = repeats.estimate_effort(np.ones(8), certain, 0.95)
    self.assertEqual(all_of_it[0], 1.0)
    self.assertEqual(all_of_it[2], 1.0)
    none_of_it = repeats.estimate_effort(np.zeros(8), certain, 0.95)
    self.assertEqual(none_of_it[:2], (0.0, 0.0))
    self.assertIsNone(repeats.estimate_effort(np.ones(8), certain / 2, 0.95))
    self.assertIsNone(repeats.estimate_effort([], [], 0.95))
    with self.assertRaisesRegex(ValueError, "agreed: expected one for each"):
      repeats.estimate_effort(np.ones(3), certain, 0.95)
    with self.assertRaisesRegex(ValueError, "each in"):
      repeats.sharpness(np.array([1.2]))

  def test_simulated_annotators_are_known_by_their_repeats(self):
    rng = np.random.default_rng(0)
    prob = rng.choice([0.02, 0.95], 20_000)
    for effort in (0.2, 0.7):
      one, two = (simulated.answer(prob, effort, rng) for _ in range(2))
      value, low, high = repeats.estimate_effort(one == two, prob, 0.999)
      self.assertBetween(effort, low, high)
      self.assertAlmostEqual(value, effort, delta=0.05)


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters((5, 3, 0.8), (7, 7, 0.5), (4, 0, 0.1))
  def test_pass_probability_is_the_tail_of_a_binomial(self, n, needed, q):
    tail = sum(
      math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(needed, n + 1)
    )
    found = golden.pass_probability(n, needed, q)
    self.assertAlmostEqual(found, tail, delta=1e-12)

  def test_exam_asks_for_as_little_as_its_level_allows(self):
    exam = golden.make_exam(20, level=0.05, careless=0.5, careful=0.9)
    self.assertEqual(exam.needed, 15)
    # Of 2^20 coins Σ_{k ≥ 15} C(20, k) = 21,700 have 15 heads or more.
    self.assertAlmostEqual(exam.level, 21_700 / 2**20, delta=1e-12)
    self.assertGreater(golden.pass_probability(20, 14, 0.5), 0.05)
    self.assertAlmostEqual(
      exam.power, golden.pass_probability(20, 15, 0.9), delta=1e-12
    )
    few = golden.make_exam(4, level=0.05, careless=0.5, careful=0.9)
    self.assertEqual(few, golden.Exam(4, 5, 0.0, 0.0))

  def test_careful_and_careless_pass_as_often_as_told(self):
    rng = np.random.default_rng(1)
    exam = golden.make_exam(12, level=0.05, careless=0.5, careful=0.9)
    for effort, told in ((0.0, exam.level), (1.0, exam.power)):
      right = simulated.answer(np.full((40_000, 12), 0.9), effort, rng).sum(-1)
      rate = np.mean(right >= exam.needed)
      self.assertAlmostEqual(rate, told, delta=4 * math.sqrt(told / 40_000))

  def test_most_certain_first_whichever_response_it_is(self):
    prob = np.array([0.6, 0.02, np.nan, 0.95, 0.1])
    self.assertEqual(golden.most_certain(prob, 0.9).tolist(), [1, 3, 4])
    self.assertEqual(golden.most_certain(prob, 0.99).tolist(), [])

  def test_effort_from_golden_questions(self):
    self.assertAlmostEqual(golden.accuracy(0.6, 0.9), 0.74)
    prob = np.array([0.9, 0.1] * 50)
    value, low, high = golden.estimate_effort(np.arange(100) < 74, prob, 0.95)
    self.assertAlmostEqual(value, 0.6, delta=1e-9)
    self.assertBetween(value, low, high)
    self.assertIsNone(golden.estimate_effort([], [], 0.95))


class ResponseTimesTest(parameterized.TestCase):
  def test_boundary_of_the_paper(self):
    exact = log_laplace(0.7, BOUNDARY)
    found = response_times.two_scales(exact, 60)
    self.assertAlmostEqual(found, 1.2487, delta=5e-5)
    one_scale = -exact(60) / math.sqrt(2 * 60)
    self.assertAlmostEqual(one_scale, 1.1580, delta=1e-4)

  def test_three_scales_find_the_non_decision_time_too(self):
    exact = log_laplace(0.7, BOUNDARY, non_decision=0.3)
    bound, time = response_times.three_scales(exact, 60)
    self.assertAlmostEqual(bound, BOUNDARY, delta=3e-3)
    self.assertAlmostEqual(time, 0.3, delta=1e-3)
    self.assertGreater(response_times.two_scales(exact, 60), 3)

  @parameterized.parameters(0.7, 1.0, 2.0)
  def test_weights_by_their_own_series(self, boundary):
    # Both series, far beyond and below where they change places.
    times = np.array([0.02, 0.1, 0.59, 0.61, 1.0, 2.0]) * boundary**2
    c = (2 * np.arange(60) + 1) * boundary
    e = np.exp(-(c**2 - boundary**2) / (2 * times[:, None]))
    sign = (-1.0) ** np.arange(60)
    plain = ((c**2 / times[:, None] - 1) * e).sum(-1) / (sign * c * e).sum(-1)
    np.testing.assert_allclose(
      response_times.weights(times, boundary), plain, rtol=1e-12
    )

  def test_weights_at_the_ends(self):
    early, late = response_times.weights(np.array([1e-9, 80.0]), 1.0)
    self.assertAlmostEqual(early / 1e9, 1.0, delta=1e-6)
    self.assertBetween(late, 0, 1e-100)
    with self.assertRaisesRegex(ValueError, "above 0"):
      response_times.weights(np.array([0.0]), 1.0)

  @parameterized.parameters(0.0, 0.5, -2.0)
  def test_weighted_choice_is_the_drift_by_quadrature(self, drift):
    # After 8 b² nothing is left: e^{−π² 8/8} of the rest, and that by 1/5000.
    times = (np.arange(40_000) + 0.5) * 3e-4
    up, down = (density(times, sign * drift, 1.0) for sign in (1, -1))
    self.assertAlmostEqual((up + down).sum() * 3e-4, 1.0, delta=1e-5)
    weighted = (up - down) * response_times.weights(times, 1.0)
    self.assertAlmostEqual(weighted.sum() * 3e-4, drift, delta=1e-6)

  def test_simulated_decisions_have_the_moments_of_drift_diffusion(self):
    rng = np.random.default_rng(2)
    for drift in (0.0, 0.7, -2.0):
      drifts = np.full(60_000, drift)
      choices, times = simulated.decide(drifts, BOUNDARY, rng, 0.25)
      mean = np.tanh(drift * BOUNDARY) / drift * BOUNDARY if drift else 1.5625
      self.assertAlmostEqual(times.mean(), mean + 0.25, delta=0.02)
      self.assertAlmostEqual(
        choices.mean(), np.tanh(drift * BOUNDARY), delta=0.015
      )
      for rate in (0.5, 3.0):
        found = response_times.empirical(times)(rate)
        exact = log_laplace(drift, BOUNDARY, 0.25)(rate)
        self.assertAlmostEqual(found, exact, delta=0.03)

  def test_pooled_choices_have_the_wrong_sign_and_times_the_right_one(self):
    share = np.mean(1 / (1 + np.exp(-2 * np.array(DRIFTS) * BOUNDARY)))
    self.assertAlmostEqual(math.log(share / (1 - share)), -0.336, delta=5e-4)
    self.assertAlmostEqual(np.mean(DRIFTS), 0.375)
    rng = np.random.default_rng(3)
    decided = simulated.decide(np.tile(DRIFTS, 10_000), BOUNDARY, rng)
    pooled = response_times.pooled_log_odds(decided[0])
    self.assertAlmostEqual(pooled, -0.336, delta=0.04)
    _, low, high = response_times.mean_drift(*decided, BOUNDARY, 0.999)
    self.assertGreater(low, 0)
    self.assertBetween(0.375, low, high)

  def test_interval_holds_the_drift_where_the_boundary_is_estimated(self):
    rng, drift, found = np.random.default_rng(4), 0.9, []
    for _ in range(200):
      decided = simulated.decide(np.full(1000, drift), BOUNDARY, rng)
      rate = response_times.rate(decided[1])
      found.append(response_times.estimate(*decided, rate, 0.95))
    value, low, high = np.array(found).T
    # The half-width is 1.96 deviations, which 200 draws tell to 5 %.
    deviations = np.mean(high - low) / 2 / np.std(value)
    self.assertBetween(deviations, 1.96 * 0.85, 1.96 * 1.15)
    held = np.mean((low <= drift) & (drift <= high))
    self.assertBetween(held, 0.85, 1.0)


class LabelsTest(absltest.TestCase):
  def test_full_effort_is_the_share_of_votes(self):
    found = labels.pool(
      list("ppppq"), list("abcda"), np.array([1, 1, 0, 0.5, 0]),
      dict.fromkeys("abcd", 1.0),
    )  # fmt: skip
    self.assertEqual(found["p"], labels.Label(0.625, 4, 1.0))
    self.assertEqual(found["q"], labels.Label(0.0, 1, 1.0))

  def test_who_throws_coins_counts_for_nothing(self):
    effort = {"a": 1.0, "b": 0.0}
    found = labels.pool("ppq", "abb", np.array([1.0, 0, 0]), effort)
    self.assertEqual(found, {"p": labels.Label(1.0, 2, 0.5)})

  def test_what_effort_takes_from_votes_is_given_back(self):
    rng, many = np.random.default_rng(5), 4000
    effort = {"a": 0.9, "b": 0.5, "c": 0.1}
    who = np.repeat(list(effort), many)
    votes = np.concatenate(
      [simulated.answer(np.full(many, 0.8), e, rng) for e in effort.values()]
    )
    found = labels.pool(["p"] * len(who), who, votes.astype(float), effort)
    self.assertAlmostEqual(found["p"].prob, 0.8, delta=0.02)
    self.assertLess(votes.mean(), 0.68)  # their plain share


if __name__ == "__main__":
  absltest.main()
