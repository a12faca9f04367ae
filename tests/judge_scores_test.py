"""Scores of judges by hand; what their intervals cover."""

import time

from absl.testing import absltest, parameterized
import numpy as np
from scipy import special

from nashmd_jax.evaluation import clusters, judge_scores


def judged(probs, prob_a, words=None, prompts=None):
  probs = np.asarray(probs, float)
  count = len(probs)
  return judge_scores.Judged(
    logit=special.logit(probs),
    prob_a=np.asarray(prob_a, float),
    words=np.zeros(count, int) if words is None else np.asarray(words),
    prompts=np.arange(count) if prompts is None else np.asarray(prompts),
  )


def describe(*args, **kwargs):
  return judge_scores.describe(judged(*args, **kwargs), resamples=200, seed=0)


class HandValuesTest(parameterized.TestCase):
  def test_a_tie_on_either_side_is_half_right(self):
    right = judge_scores.agreement(
      np.array([2.0, -2.0, 0.0, 1.0, 0.0]), np.array([0.6, 0.6, 1.0, 0.5, 0.5])
    )
    np.testing.assert_array_equal(right, [1, 0, 0.5, 0.5, 0.5])

  def test_scores(self):
    # P .8, .4, .5 against shares 1, .6, 0: right, wrong, a tie.
    found = describe([0.8, 0.4, 0.5], [1.0, 0.6, 0.0])
    self.assertAlmostEqual(found["accuracy"]["value"], 1.5 / 3)
    nats = -(np.log(0.8) + 0.6 * np.log(0.4) + 0.4 * np.log(0.6) + np.log(0.5))
    self.assertAlmostEqual(found["log_loss"]["value"], nats / 3)
    self.assertAlmostEqual(
      found["brier"]["value"], (0.2**2 + 0.2**2 + 0.5**2) / 3
    )
    self.assertEqual(found["accuracy"]["n"], 3)

  def test_calibration_is_of_the_favoured_side(self):
    # Confidences .8, .6, .82, .5; the favoured sides' shares 1, .4, .2, ½.
    found = describe([0.8, 0.4, 0.18, 0.5], [1.0, 0.6, 0.8, 0.9])
    got = [
      (row["label"], row["n"], row["confidence"], row["value"])
      for row in found["calibration"]
    ]
    expected = [
      ("50 to 55 %", 1, 0.5, 0.5),
      ("60 to 65 %", 1, 0.6, 0.4),
      ("80 to 85 %", 2, 0.81, 0.6),
    ]
    for one, other in zip(got, expected, strict=True):
      self.assertEqual(one[:2], other[:2])
      np.testing.assert_allclose(one[2:], other[2:])
    # Weighted by comparisons: (1 · 0 + 1 · .2 + 2 · .21) / 4.
    self.assertAlmostEqual(found["calibration_error"]["value"], 0.62 / 4)

  def test_order_in_a_pair_is_arbitrary(self):
    rng = np.random.default_rng(0)
    probs, shares = rng.uniform(size=(2, 300))
    words = rng.integers(-30, 30, 300)
    swap = rng.uniform(size=300) < 0.5
    one = describe(probs, shares, words)
    other = describe(
      np.where(swap, 1 - probs, probs),
      np.where(swap, 1 - shares, shares),
      np.where(swap, -words, words),
    )
    self.assertEqual(list(one), list(other))
    for name in ("accuracy", "log_loss", "brier", "calibration_error",
                 "favours_longer", "longer_wins"):  # fmt: skip
      for end in ("value", "low", "high"):
        self.assertAlmostEqual(one[name][end], other[name][end], msg=name)
    for name in ("calibration", "length", "margin", "agreement"):
      self.assertEqual(
        [row["n"] for row in one[name]], [row["n"] for row in other[name]]
      )

  def test_groups(self):
    # Favoured: a (1 word longer, right), b (b is 6 longer, wrong), a (21 words
    # shorter, right), none.
    found = describe(
      [0.9, 0.3, 0.99, 0.5],
      np.float32([0.8, 0.6, 0.6, 0.5]),
      [1, -6, -21, 5],
    )
    self.assertEqual(
      [(row["label"], row["value"]) for row in found["length"]],
      [("shorter by 21 words and more", 1.0), ("longer by 1 to 5", 1.0),
       ("longer by 6 to 20", 0.0)],
    )  # fmt: skip
    self.assertEqual(
      [(row["label"], row["n"], row["value"]) for row in found["agreement"]],
      [("a tie", 1, 0.5), ("to 60 %", 2, 0.5), ("to 80 %", 1, 1.0)],
    )
    # Log-odds 2.2, −.85, 4.6, 0.
    self.assertEqual(
      [(row["label"], row["value"]) for row in found["margin"]],
      [("below 0.25", 0.5), ("0.5 to 1", 0.0), ("2 to 4", 1.0),
       ("4 and more", 1.0)],
    )  # fmt: skip
    # The longer: a favoured, b favoured, b not, a tie; its shares .8 .4 .4 .5.
    self.assertAlmostEqual(found["favours_longer"]["value"], 2.5 / 4)
    self.assertAlmostEqual(found["longer_wins"]["value"], 2.1 / 4, places=6)

  def test_words_at_the_ends_of_groups(self):
    words = [-21, -20, -6, -5, -1, 0, 1, 5, 6, 20, 21]
    found = describe([0.9] * 11, [1.0] * 11, words)
    self.assertEqual(
      [row["n"] for row in found["length"]], [1, 2, 2, 1, 2, 2, 1]
    )

  def test_saturated_and_calibrated_judges(self):
    sure = judge_scores.Judged(
      np.array([800.0, -800.0]), np.array([1.0, 1.0]), np.zeros(2), np.arange(2)
    )
    found = judge_scores.describe(sure, resamples=9, seed=0)
    self.assertAlmostEqual(found["log_loss"]["value"], 400)
    perfect = describe([0.7, 0.2], [0.7, 0.2])
    self.assertAlmostEqual(perfect["calibration_error"]["value"], 0)
    self.assertAlmostEqual(perfect["brier"]["value"], 0)

  def test_position_bias(self):
    # Both orders name a; both name the first place; both name b; both the
    # second place; the raters prefer a, a, a, b.
    first, second = np.array([[1, 2, -1, -1], [-2, 1, 1, -3]], float)
    found = judge_scores.position_bias(
      first, second, np.array([1, 1, 0.8, 0]), np.arange(4),
      resamples=50, seed=0,
    )  # fmt: skip
    values = {name: one["value"] for name, one in found.items()}
    self.assertEqual(values["disagree"], 0.5)
    # Readings that the first place wins: 1 of 2; both; 1; none.
    self.assertEqual(values["first_wins"], 4 / 8)
    # Right in both orders; in one; in none; in one.
    self.assertEqual(values["accuracy_one_order"], (1 + 0.5 + 0 + 0.5) / 4)
    # Differences 3, 1, −2, 2.
    self.assertEqual(values["accuracy_both_orders"], (1 + 1 + 0 + 0) / 4)
    self.assertAlmostEqual(values["gain"], 0.0)
    self.assertAlmostEqual(
      values["first_prob"],
      special.expit(np.array([1, 2, -1, -1, -2, 1, 1, -3])).mean(),
    )

  def test_what_cannot_be_scored_is_named(self):
    with self.assertRaisesRegex(ValueError, "logit: expected finite"):
      judge_scores.describe(judged([1.0, 0.5], [1, 1]), resamples=9, seed=0)
    with self.assertRaisesRegex(ValueError, "clusters: got 0 rows"):
      describe([], [])

  def test_same_number_for_the_same_prompt(self):
    np.testing.assert_array_equal(
      judge_scores.numbered(["b", "a", "b", "c"]), [0, 1, 0, 2]
    )


def clustered(rng, count):
  """Ratios of sums over `count` clusters of 1 to 8 rows; the truth is .6.

  Rows of a cluster share their chance, Beta(1.2, .8), so that they resemble
  one another; sizes do not depend on it.
  """
  sizes = rng.integers(1, 9, count)
  of_row = np.repeat(np.arange(count), sizes)
  return rng.uniform(size=len(of_row)) < rng.beta(1.2, 0.8, count)[
    of_row
  ], of_row


class IntervalsTest(absltest.TestCase):
  def coverage(self, repetitions, by_row=False):
    covered = 0
    for number in range(repetitions):
      right, of_row = clustered(np.random.default_rng(number), 150)
      sums = clusters.resample(
        {"right": right, "one": np.ones(len(right))},
        np.arange(len(right)) if by_row else of_row,
        resamples=400,
        seed=number,
      )
      found = clusters.ratio(sums["right"], sums["one"])
      covered += found["low"] <= 0.6 <= found["high"]
    return covered / repetitions

  def test_intervals_cover_as_often_as_they_say(self):
    # Of 2,000 the deviation of a share of .95 is .005.
    self.assertBetween(self.coverage(2000), 0.93, 0.97)
    # The rows are not independent; taken as such they promise too much.
    self.assertLess(self.coverage(300, by_row=True), 0.85)

  def test_linearised_deviation(self):
    # Of a ratio of sums, √Σ (S − r n)² / Σ n; a tenth of it is the tolerance.
    right, of_row = clustered(np.random.default_rng(1), 2000)
    sums = clusters.resample(
      {"right": right, "one": np.ones(len(right))}, of_row,
      resamples=2000, seed=0,
    )  # fmt: skip
    found = clusters.ratio(sums["right"], sums["one"])
    residual = np.bincount(of_row, right - found["value"])
    deviation = np.sqrt(np.sum(residual**2)) / len(right)
    width = found["high"] - found["low"]
    self.assertBetween(width / (2 * 1.96 * deviation), 0.9, 1.1)

  def test_blocks_do_not_matter_to_the_law_and_seeds_repeat(self):
    rows = np.arange(1_500)
    ones = np.ones(len(rows))

    def drawn(seed):
      sums = clusters.resample(
        {"one": ones}, rows // 3, resamples=5000, seed=seed
      )
      return sums["one"].drawn

    self.assertEqual(drawn(0).shape, (5000,))
    np.testing.assert_array_equal(drawn(0), drawn(0))
    np.testing.assert_array_equal(drawn(0), 1500.0)

  def test_one_prompt_has_no_interval(self):
    found = describe([0.9, 0.8], [1, 0], prompts=[3, 3])
    self.assertEqual(found["accuracy"]["value"], 0.5)
    self.assertIsNone(found["accuracy"]["low"])
    self.assertIsNone(found["calibration"][0]["high"])
    nothing = describe([0.9, 0.8], [1, 0])["longer_wins"]
    self.assertEqual(
      nothing, {"value": None, "low": None, "high": None, "n": 0}
    )

  def test_twenty_thousand_comparisons_take_no_time(self):
    rng = np.random.default_rng(0)
    many = judged(
      rng.uniform(0.01, 0.99, 20_000), rng.integers(0, 6, 20_000) / 5,
      rng.integers(-40, 40, 20_000), rng.integers(0, 8000, 20_000),
    )  # fmt: skip
    began = time.process_time()
    judge_scores.describe(many, resamples=1000, seed=0)
    # About a second; the limit leaves room for a machine that is busy.
    self.assertLess(time.process_time() - began, 10)


if __name__ == "__main__":
  absltest.main()
