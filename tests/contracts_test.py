"""What annotators are paid: hand values, enumeration, simulated annotators."""

import itertools
import math

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax.annotators import contracts, golden, simulated

PLAIN = contracts.Annotator(cost=1.0, exponent=2.0, aversion=0.0)
CAREFUL = contracts.Annotator(cost=1.0, exponent=2.0, aversion=1.0)
LINEAR = contracts.Contract(0.0, 2.0, None)


def enumerated(contract, marked, annotator, effort: float) -> float:
  """Worth of an effort from every number of right answers."""
  q = 0.5 + effort**marked.power * (marked.sure - 0.5)
  n, r, total = marked.count, annotator.aversion, 0.0
  for right in range(n + 1):
    chance = math.comb(n, right) * q**right * (1 - q) ** (n - right)
    if contract.needed is None:
      pay = contract.base + contract.bonus * right / n
    else:
      pay = contract.base + contract.bonus * (right >= contract.needed)
    total += chance * (math.exp(-r * pay) if r else pay)
  sure = -math.log(total) / r if r else total
  return sure - annotator.cost * effort**annotator.exponent / annotator.exponent


class EffortTest(parameterized.TestCase):
  def test_linear_by_hand(self):
    # 2 (.9 − ½) = .8 of each bit of effort, whose last costs e.
    marked = contracts.golden_questions(10, 0.9)
    found = contracts.rational_effort(LINEAR, marked, PLAIN)
    self.assertAlmostEqual(found, 0.8, delta=1e-12)
    # The rate is ½ + .8 · .4 = .82.
    pay = contracts.mean_pay(LINEAR, marked, 0.8)
    self.assertAlmostEqual(pay, 1.64, delta=1e-12)
    worth = contracts.worth(LINEAR, marked, PLAIN, 0.8)
    self.assertAlmostEqual(worth, 1.64 - 0.32, delta=1e-12)

  def test_of_repeats_by_hand(self):
    # e² of agreement beside a half: 2 · ½ · 2 e of pay, 2 e² of cost.
    marked = contracts.repeated_pairs(6, np.array([1.0, 0.0]))
    once = contracts.Contract(0.0, 1.0, None)
    found = contracts.rational_effort(
      once, marked, contracts.Annotator(2.0, 3.0, 0.0)
    )
    self.assertAlmostEqual(found, 0.5, delta=1e-12)

  def test_repeats_are_all_or_nothing_where_the_cost_is_quadratic(self):
    # Both grow as e²: B (s − ½) against cost/2.
    marked = contracts.repeated_pairs(6, np.array([1.0]))
    for bonus, effort in ((0.99, 0.0), (1.01, 1.0)):
      paid = contracts.Contract(0.0, bonus, None)
      self.assertEqual(contracts.rational_effort(paid, marked, PLAIN), effort)
    self.assertIsNone(contracts.linear_contract(marked, PLAIN, 0.5))

  def test_binary_by_hand(self):
    # Both of two right: ((1 + e)/2)² of 1, at a cost of e²; e = 1/(4 − 1).
    marked = contracts.golden_questions(2, 1.0)
    both = contracts.Contract(0.0, 1.0, 2)
    annotator = contracts.Annotator(2.0, 2.0, 0.0)
    found = contracts.rational_effort(both, marked, annotator)
    self.assertAlmostEqual(found, 1 / 3, delta=1e-12)
    self.assertAlmostEqual(contracts.mean_pay(both, marked, found), 4 / 9)
    self.assertEqual(contracts.payments(both, 2).tolist(), [0, 0, 1])
    self.assertEqual(contracts.payments(LINEAR, 2).tolist(), [0, 1, 2])

  def test_a_bonus_below_what_effort_costs_buys_none(self):
    # Of the last of 400 the slope is right, the whole is not worth it.
    marked = contracts.golden_questions(400, 0.95)
    steep = contracts.Contract(0.0, 0.2, 344)
    self.assertLess(contracts.rational_effort(steep, marked, PLAIN), 0.01)
    more = steep._replace(bonus=0.8)
    self.assertGreater(contracts.rational_effort(more, marked, PLAIN), 0.7)

  @parameterized.product(
    needed=(None, 1, 4, 7), power=(1, 2), aversion=(0.0, 0.5, 40.0)
  )
  def test_against_every_outcome(self, needed, power, aversion):
    marked = contracts.Marked(7, 0.9, power)
    annotator = contracts.Annotator(0.8, 2.5, aversion)
    contract = contracts.Contract(0.3, 1.7, needed)
    efforts = np.linspace(0, 1, 501)
    exact = [enumerated(contract, marked, annotator, e) for e in efforts]
    worth = contracts.worth(contract, marked, annotator, efforts)
    np.testing.assert_allclose(worth, exact, rtol=0, atol=1e-10)
    best = contracts.rational_effort(contract, marked, annotator)
    top = enumerated(contract, marked, annotator, best)
    self.assertGreaterEqual(top, max(exact) - 1e-9)
    self.assertAlmostEqual(best, efforts[np.argmax(exact)], delta=0.01)

  def test_what_is_no_setting(self):
    fine = contracts.golden_questions(4, 0.9)
    for marked, annotator, told in (
      (fine._replace(sure=0.5), PLAIN, "marked: got"),
      (fine._replace(count=0), PLAIN, "marked: got"),
      (fine, PLAIN._replace(exponent=1.0), "annotator: got"),
      (fine, PLAIN._replace(cost=0.0), "annotator: got"),
    ):
      with self.assertRaisesRegex(ValueError, told):
        contracts.rational_effort(LINEAR, marked, annotator)


class DesignTest(parameterized.TestCase):
  @parameterized.product(
    effort=(0.3, 0.8, 0.95), aversion=(0.0, 1.0), power=(1, 2)
  )
  def test_effort_is_best_and_worth_nothing_more(self, effort, aversion, power):
    marked = contracts.Marked(60, 0.95, power)
    annotator = contracts.Annotator(1.0, 3.0, aversion)
    made = (
      contracts.linear_contract(marked, annotator, effort),
      contracts.binary_contract(marked, annotator, effort, most=3.0),
    )
    for contract in made:
      best = contracts.rational_effort(contract, marked, annotator)
      self.assertAlmostEqual(best, effort, delta=1e-6)
      worth = enumerated(contract, marked, annotator, effort)
      self.assertAlmostEqual(worth, 0.0, delta=1e-9)
      premium = contracts.premium(contract, marked, annotator, effort)
      spent = effort**3 / 3
      pay = contracts.mean_pay(contract, marked, effort)
      self.assertAlmostEqual(premium, pay - spent, delta=1e-9)

  def test_no_other_number_needed_is_cheaper(self):
    marked = contracts.golden_questions(40, 0.95)
    found = contracts.binary_contract(marked, CAREFUL, 0.8, most=2.0)
    least = contracts.premium(found, marked, CAREFUL, 0.8)
    efforts = np.linspace(0, 1, 201)
    for needed, bonus in itertools.product(
      range(1, 41), np.linspace(0.02, 2.0, 100)
    ):
      other = contracts.Contract(0.0, float(bonus), needed)
      worth = contracts.worth(other, marked, CAREFUL, efforts)
      if abs(efforts[np.argmax(worth)] - 0.8) < 1e-9:  # to half a hundredth
        premium = contracts.premium(other, marked, CAREFUL, 0.8)
        self.assertGreater(premium, 0.97 * least)

  def test_premium_of_linear_contracts_falls_as_one_over_n(self):
    # B = .8/.45, q = .86: n times it is r B² q (1 − q)/2 but for O(1/n).
    limit = (0.8 / 0.45) ** 2 * 0.86 * 0.14 / 2
    for count, close in ((100, 0.01), (10_000, 1e-4)):
      marked = contracts.golden_questions(count, 0.95)
      paid = contracts.linear_contract(marked, CAREFUL, 0.8)
      premium = contracts.premium(paid, marked, CAREFUL, 0.8)
      self.assertAlmostEqual(count * premium / limit, 1, delta=close)

  def test_who_passes_varies_as_one_over_the_root_of_n_log_n(self):
    # c′(e) = φ(k) B q′ √n/σ, and φ(k)/k fail: in the limit of large n and
    # B = c(e) their share times √(n log n) is σ c′/(B q′).
    limit = math.sqrt(0.86 * 0.14) * 0.8 / (0.32 * 0.45)
    found = []
    for count in (100, 10_000, 1_000_000):
      marked = contracts.golden_questions(count, 0.95)
      paid = contracts.binary_contract(marked, CAREFUL, 0.8, most=2.0)
      passes = golden.pass_probability(count, paid.needed, 0.86)
      rate = math.sqrt(count * math.log(count))
      found.append(rate * passes * (1 - passes) / limit)
    self.assertTrue(all(0.6 < one < 1 for one in found), found)
    self.assertEqual(found, sorted(found))
    self.assertGreater(found[-1], 0.85)


class SimulatedTest(absltest.TestCase):
  def test_simulated_annotators_earn_most_by_the_rational_effort(self):
    rng, many = np.random.default_rng(0), 60_000
    marked = contracts.golden_questions(20, 0.9)
    for needed in (None, 14):
      paid = contracts.Contract(0.1, 1.5, needed)
      best = contracts.rational_effort(paid, marked, PLAIN)
      self.assertBetween(best, 0.5, 0.95)
      table, gained = contracts.payments(paid, 20), []
      for effort in (best - 0.3, best, min(1.0, best + 0.3)):
        prob = np.full((many, 20), 0.9)
        right = simulated.answer(prob, effort, rng).sum(-1)
        pay = table[right]
        exact = contracts.mean_pay(paid, marked, effort)
        error = 4 * pay.std() / math.sqrt(many)
        self.assertAlmostEqual(pay.mean(), exact, delta=error)
        gained.append(pay.mean() - effort**2 / 2)
      self.assertEqual(np.argmax(gained), 1)


class GoldenTest(absltest.TestCase):
  def votes(self, rng, count, trust):
    """A judge's probabilities, and votes: as it says, or trust of it."""
    prob = rng.uniform(size=count)
    return prob, rng.uniform(size=count) < 0.5 + trust * (prob - 0.5)

  def test_a_judge_that_is_too_sure_is_found_out(self):
    rng = np.random.default_rng(1)
    prob, label = self.votes(rng, 20_000, 1.0)
    least = golden.least_confidence(prob, label, 0.9, 0.95)
    # From c on the mean is (1 + c)/2: .9 of it needs c of .8 or more.
    self.assertBetween(least, 0.8, 0.9)
    prob, label = self.votes(rng, 20_000, 0.7)  # ½ + .7 · ½ = .85 at most
    self.assertIsNone(golden.least_confidence(prob, label, 0.9, 0.95))
    self.assertIsNone(golden.least_confidence(prob[:9], label[:9], 0.6, 0.95))

  def test_what_is_chosen_is_seldom_less_certain_than_told(self):
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(200):
      least = golden.least_confidence(*self.votes(rng, 800, 1.0), 0.85, 0.95)
      wrong += least is not None and (1 + least) / 2 < 0.85
    self.assertLessEqual(wrong, 10)


if __name__ == "__main__":
  absltest.main()
