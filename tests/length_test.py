"""Win rates at equal length: hand values, symmetry, and their coverage."""

from absl.testing import absltest, parameterized
import numpy as np
from scipy import optimize, special

from nashmd_jax.evaluation import length, win_rates

ROWS = [{"id": str(i), "prompt": f"p{i}", "response": "r"} for i in range(40)]


def rates(win_prob, more_words, confidence=0.95, seed=0, batch_size=40):
  return length.at_equal_length(
    np.asarray(win_prob, float),
    np.asarray(more_words, float),
    np.arange(len(win_prob)),
    confidence=confidence,
    seed=seed,
  )


def drawn(rng, count, *, quality, liking):
  """Votes of a judge of known quality effect and liking for length."""
  more_words = rng.integers(-4, 17, count).astype(float)
  scale = np.sqrt(np.mean(more_words**2))
  log_odds = quality + liking * np.tanh(more_words / scale)
  return rng.uniform(size=count) < special.expit(log_odds), more_words


class AtEqualLengthTest(parameterized.TestCase):
  @parameterized.parameters(
    # Two shares at ± the same difference: a = (logit p₁ + logit p₂) / 2, for
    # .9 and .5 σ(log 9 / 2) = 3/4, for .8 and .2 one half.
    ([0.9, 0.5], [4, -4], 0.75),
    ([0.8, 0.2], [4, -4], 0.5),
    # The longer one wins as often as it is longer: nothing but length.
    ([1.0, 0.0], [1, -1], 0.5),
    # All as long as one another, or a judge that length leaves cold: the
    # win rate itself.
    ([0.6, 0.9, 0.3], [0, 0, 0], 0.6),
    ([0.7, 0.7, 0.7], [5, 3, -1], 0.7),
  )
  def test_hand_values(self, win_prob, more_words, expected):
    repeats = 400
    rate, low, high = rates(np.tile(win_prob, repeats), more_words * repeats)
    self.assertAlmostEqual(rate, expected, delta=1e-4)
    self.assertBetween(rate, low, high)

  def test_raw_rate_overstates_the_side_that_is_longer(self):
    win_prob, more_words = drawn(
      np.random.default_rng(0), 4000, quality=0.0, liking=2.0
    )
    self.assertGreater(win_prob.mean(), 0.65)
    self.assertAlmostEqual(rates(win_prob, more_words)[0], 0.5, delta=0.05)

  def test_greatest_likelihood_by_another_optimiser(self):
    rng = np.random.default_rng(1)
    win_prob, more_words = rng.uniform(size=60), rng.integers(-9, 20, 60)
    feature = np.tanh(more_words / np.sqrt(np.mean(more_words**2)))

    def loss(x):
      log_odds = x[0] + x[1] * feature
      nats = win_prob * special.log_expit(log_odds)
      nats += (1 - win_prob) * special.log_expit(-log_odds)
      return -nats.sum() + length.RIDGE / 2 * x @ x

    best = optimize.minimize(loss, np.zeros(2), tol=1e-10).x
    rate, _, _ = rates(win_prob, more_words)
    self.assertAlmostEqual(rate, special.expit(best[0]), delta=1e-6)

  def test_both_readings_of_a_pair_sum_to_one(self):
    rng = np.random.default_rng(2)
    win_prob, more_words = rng.beta(2, 1, 80), rng.integers(-3, 30, 80)
    rate, low, high = rates(win_prob, more_words)
    other, other_low, other_high = rates(1 - win_prob, -more_words)
    np.testing.assert_allclose(
      [rate + other, low + other_high, high + other_low], 1, atol=1e-10
    )

  @parameterized.parameters(
    # Every prompt won; won where it is longer, and nowhere else.
    ([1.0] * 50, np.arange(50) - 10, 0.9),
    (np.arange(-25, 25) > 3, np.arange(-25, 25), 0.0),
    ([1.0], [0], 0.5),
    ([0.0, 1.0], [2, 7], 0.0),
  )
  def test_finite_on_data_that_can_be_parted(self, win_prob, words, least):
    with np.errstate(all="raise", under="ignore"):
      rate, low, high = rates(win_prob, words)
    self.assertTrue(np.isfinite([rate, low, high]).all())
    self.assertLessEqual(low, high)
    self.assertGreaterEqual(rate, least)
    self.assertBetween(rate, 0.0, 1.0)

  @parameterized.parameters(([], []), ([0.9] * 30, [4] * 30))
  def test_where_nothing_can_be_told(self, win_prob, more_words):
    self.assertEqual(rates(win_prob, more_words), (0.5, 0.0, 1.0))

  def test_a_runaway_response_does_not_turn_the_line(self):
    rng = np.random.default_rng(3)
    win_prob, more_words = drawn(rng, 400, quality=0.5, liking=1.0)
    before = rates(win_prob, more_words)[0]
    more_words[np.flatnonzero(~win_prob)[0]] = 60
    self.assertAlmostEqual(rates(win_prob, more_words)[0], before, delta=0.02)

  def test_same_draws_for_the_same_seed(self):
    data = drawn(np.random.default_rng(4), 100, quality=0.5, liking=1.0)
    self.assertEqual(rates(*data, seed=3), rates(*data, seed=3))
    self.assertNotEqual(rates(*data, seed=3)[1], rates(*data, seed=4)[1])

  def test_interval_holds_the_truth_as_often_as_it_says(self):
    # Of 600 repetitions a true 95 % gives 93.2 to 96.8 % (± 2 sd).
    rng, repeats, quality = np.random.default_rng(5), 600, 0.6
    hits, sum_of_rates = 0, 0.0
    for seed in range(repeats):
      votes, more_words = drawn(rng, 300, quality=quality, liking=1.2)
      rate, low, high = rates(votes, more_words, seed=seed)
      hits += low <= special.expit(quality) <= high
      sum_of_rates += rate
    self.assertBetween(hits / repeats, 0.93, 0.97)
    self.assertAlmostEqual(
      sum_of_rates / repeats, special.expit(quality), delta=0.01
    )


class PlayTest(absltest.TestCase):
  def test_unjudged_prompts_are_left_out_and_the_matrix_is_mirrored(self):
    lengths = np.arange(40) % 7 + 1
    responses = {
      "one": ["word"] * 40,
      "more": ["word " * n for n in lengths],
      "gone": ["word " * 3] * 20 + ["word " * 300] * 20,
    }
    unknown = np.arange(40) >= 20

    def judge(rows, first, second):
      more = length.count_words(first) - length.count_words(second)
      said = special.expit(more / 4)
      return np.where(unknown, np.nan, said)

    found, _ = win_rates.play(
      responses, ROWS, judge, confidence=0.95, seed=0, batch_size=40
    )
    equal = found["at_equal_length"]
    rate, low, high = (
      np.array(equal[name]) for name in ("win_rate", "low", "high")
    )
    np.testing.assert_allclose(rate + rate.T, 1)
    np.testing.assert_allclose((low + high.T)[~np.eye(3, dtype=bool)], 1)
    # What the judge likes is length alone: far nearer to one half than raw.
    self.assertGreater(found["win_rate"][1][0], 0.64)
    self.assertAlmostEqual(rate[1, 0], 0.5, delta=0.06)
    # Its lines of 300 words are among those that were not judged.
    known = length.at_equal_length(
      special.expit((3 - lengths[:20]) / 4), 3.0 - lengths[:20], np.arange(20),
      confidence=0.95, seed=0,
    )  # fmt: skip
    found = [equal[name][2][1] for name in ("win_rate", "low", "high")]
    np.testing.assert_allclose(found, known)


if __name__ == "__main__":
  absltest.main()
