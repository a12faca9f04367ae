"""Means over seeds and prompts against hand values and known variances."""

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from nashmd_jax.evaluation import crossed, intervals
from tests import coverage


class EstimateTest(parameterized.TestCase):
  def test_two_seeds_and_three_prompts_by_hand(self):
    # Mean 4. Seeds 3 and 5: A = 3 (1 + 1) / 1 = 6. Prompts 2, 4, 6:
    # B = 2 (4 + 0 + 4) / 2 = 8. Left are 1, -1, 0 and -1, 1, 0:
    # E = 4 / 2 = 2, so that v = (6 + 8 - 2) / 6 = 2 and
    # d = 12^2 / (36 / 1 + 64 / 2 + 4 / 2) = 144 / 70.
    values = np.array([[2.0, 2.0, 5.0], [2.0, 6.0, 7.0]])[..., None]
    got = crossed.estimate(values, 0.9, against=3.0)
    half = stats.t.ppf(0.95, 144 / 70) * np.sqrt(2)
    p_value = 2 * stats.t.sf(1 / np.sqrt(2), 144 / 70)
    for found, expected in zip(
      got, (4, 4 - half, 4 + half, p_value, 144 / 70), strict=True
    ):
      np.testing.assert_allclose(found, [expected], rtol=1e-9)

  def test_one_seed_has_students_interval_of_its_prompts(self):
    values = np.random.default_rng(0).random((1, 20, 2))
    got = crossed.estimate(values, 0.95)
    for place in range(2):
      expected = intervals.mean_interval(values[0, :, place], 0.95)
      ends = [one[place] for one in got[:3]]
      np.testing.assert_allclose(ends, expected, rtol=1e-9)

  def test_the_order_of_seeds_and_of_prompts_is_nothing(self):
    values = np.random.default_rng(0).random((4, 9, 3))
    got, turned = (
      crossed.estimate(x, 0.95) for x in (values, values[::-1, ::-1])
    )
    np.testing.assert_allclose(got, turned)

  def test_what_varies_alike_cancels_in_a_difference(self):
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(5, 1, 1)) + rng.normal(size=(1, 50, 1))
    values = alike + 0.01 * rng.normal(size=(5, 50, 2))
    wide, narrow = (
      crossed.estimate(x, 0.95) for x in (values, values[..., :1] - values)
    )
    width, of_difference = (x.high - x.low for x in (wide, narrow))
    self.assertLess(of_difference[1], width[1] / 50)
    self.assertEqual((narrow.value[0], of_difference[0]), (0, 0))

  def test_a_mean_beyond_doubt_and_one_that_is_what_it_may_be(self):
    values = np.stack([np.full((5, 9), 0.75), np.full((5, 9), 0.5)], axis=-1)
    np.testing.assert_array_equal(
      crossed.estimate(values, 0.95).p_value, [0.0, 1.0]
    )

  @parameterized.parameters(*coverage.CROSSED)
  def test_coverage(self, name):
    held, _ = coverage.measure_crossed(
      coverage.CROSSED[name], draws=1000, seed=0
    )
    self.assertBetween(held, 0.93, 0.97)

  @parameterized.parameters(
    (np.zeros((5, 1, 1)), "two prompts"),
    (np.zeros((0, 5, 1)), "a seed"),
    (np.zeros((5, 4)), r"got shape \(5, 4\)"),
    (np.full((2, 2, 1), np.nan), "not finite"),
  )
  def test_values_that_are_none(self, values, said):
    with self.assertRaisesRegex(ValueError, said):
      crossed.estimate(values, 0.95)


class ResampledTest(absltest.TestCase):
  def test_all_columns_share_the_draws(self):
    values = np.random.default_rng(0).random((3, 7, 1))
    drawn = crossed.resampled(
      np.concatenate([values, 1 - values], axis=-1), resamples=100, seed=0
    )
    np.testing.assert_allclose(drawn.sum(1), 1)
    self.assertGreater(np.std(drawn[:, 0]), 0)

  def test_seeds_and_prompts_are_drawn_as_wholes(self):
    # Every draw is a mean of seeds plus a mean of prompts.
    values = np.array([0.0, 9.0])[:, None, None] + np.array([0, 1])[:, None]
    drawn = crossed.resampled(values, resamples=1000, seed=0)[:, 0]
    expected = {a + b for a in (0, 4.5, 9) for b in (0, 0.5, 1)}
    self.assertEqual(set(drawn.tolist()), expected)

  def test_it_spreads_as_the_mean_does_but_for_few_seeds(self):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 1, 1)) + rng.normal(size=(1, 90, 1))
    spread = np.std(crossed.resampled(values, resamples=4000, seed=0))
    variance = np.var(values.mean(1)) / 40 + np.var(values.mean(0)) / 90
    np.testing.assert_allclose(spread, np.sqrt(variance), rtol=0.05)


if __name__ == "__main__":
  absltest.main()
