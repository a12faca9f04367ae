"""Intervals and the win-rate matrix against hand values."""

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from nashmd_jax.evaluation import win_rates

ROWS = [{"id": str(i), "prompt": f"p{i}", "response": "r"} for i in range(10)]


def length_judge(rows, responses, opponents):
  del rows
  longer = np.array([len(r) for r in responses], float)
  return 0.5 + 0.5 * np.sign(longer - [len(o) for o in opponents])


class IntervalTest(parameterized.TestCase):
  def test_no_win_in_ten(self):
    # (α/2)^(1/n) by hand: high = 1 - .025^(1/10) = .3085.
    rate, low, high = win_rates.win_rate_interval(np.zeros(10), 0.95)
    self.assertEqual((rate, low), (0.0, 0.0))
    self.assertAlmostEqual(high, 1 - 0.025**0.1)

  def test_whole_wins_are_clopper_pearson(self):
    wins = np.array([1.0] * 7 + [0.0] * 3)
    _, low, high = win_rates.win_rate_interval(wins, 0.95)
    self.assertAlmostEqual(low, stats.beta.ppf(0.025, 7, 4))
    self.assertAlmostEqual(high, stats.beta.ppf(0.975, 8, 3))

  def test_fractions_are_rounded_outwards(self):
    rate, low, high = win_rates.win_rate_interval(np.full(10, 0.55), 0.95)
    self.assertAlmostEqual(rate, 0.55)
    self.assertAlmostEqual(low, stats.beta.ppf(0.025, 5, 6))
    self.assertAlmostEqual(high, stats.beta.ppf(0.975, 7, 4))

  def test_coverage_is_at_least_nominal(self):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
      scores = rng.beta(0.6, 0.4, size=50)
      _, low, high = win_rates.win_rate_interval(scores, 0.95)
      hits += low <= 0.6 <= high
    self.assertGreaterEqual(hits, 380)

  @parameterized.parameters(np.nan, 1.5, -0.1)
  def test_what_is_no_probability_is_named(self, odd):
    with self.assertRaisesRegex(ValueError, f"got {odd} at 1"):
      win_rates.win_rate_interval(np.array([0.5, odd]), 0.95)

  @parameterized.parameters(1.0, 0.05)
  def test_coverage_where_prompts_repeat(self, spread):
    rng, prompts = np.random.default_rng(0), np.repeat(np.arange(20), 10)
    hits = 0
    for _ in range(400):
      scores = rng.beta(spread, spread, size=20)[prompts]
      means = win_rates.by_prompt(scores, prompts)
      _, low, high = win_rates.win_rate_interval(means, 0.95)
      hits += low <= 0.5 <= high
    self.assertGreaterEqual(hits, 380)


class PlayTest(parameterized.TestCase):
  def test_records_of_one_prompt_count_as_one(self):
    rows = [row | {"id": f"{row['id']}-{i}"} for i in range(6) for row in ROWS]
    words = np.arange(1, 11)

    def judge(rows, first, second):
      favoured = np.array([int(row["prompt"][1:]) for row in rows]) < 7
      ours = np.array([text.startswith("a") for text in first])
      del second
      return np.where(favoured == ours, 0.7, 0.4)

    def play(rows):
      times = len(rows) // 10
      responses = {"a": [f"a{' a' * n}" for n in words] * times}
      responses["b"] = ["b b b"] * 10 * times
      found = win_rates.play(responses, rows, judge, confidence=0.95, seed=0)
      return [
        part[name][0][1]
        for part in (found, found["at_equal_length"])
        for name in ("win_rate", "low", "high")
      ]

    once, often = play(ROWS), play(rows)
    np.testing.assert_allclose(often[:3], once[:3])
    # Taken for 60 prompts, its interval would be narrower by √6.
    np.testing.assert_allclose(often[3], once[3], atol=0.01)
    self.assertGreater(often[5] - often[4], 0.9 * (once[5] - once[4]))

  def test_matrix_is_antisymmetric_and_reads_row_against_column(self):
    responses = {
      "short": ["a"] * 10,
      "long": ["aaa"] * 10,
      "mixed": ["aaaa"] * 4 + [""] * 6,
    }
    table = win_rates.play(
      responses, ROWS, length_judge, confidence=0.95, seed=0
    )
    expected = [[0.5, 0, 0.6], [1, 0.5, 0.6], [0.4, 0.4, 0.5]]
    np.testing.assert_allclose(table["win_rate"], expected)
    low, high = np.array(table["low"]), np.array(table["high"])
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose((low + high.T)[off], 1.0)
    self.assertTrue((low <= table["win_rate"]).all())
    self.assertEqual(table["order_gap"], 0.0)

  def test_a_judge_that_likes_the_first_place_is_averaged_and_shown(self):
    table = win_rates.play(
      {"a": ["x"] * 10, "b": ["y"] * 10},
      ROWS,
      lambda rows, responses, opponents: np.full(10, 0.7),
      confidence=0.95,
      seed=0,
    )
    np.testing.assert_allclose(table["win_rate"], 0.5)
    self.assertAlmostEqual(table["order_gap"], 0.4)

  @parameterized.parameters((False, 10, 0.7), (True, 8, 0.7), (True, 0, 0.5))
  def test_what_could_not_be_judged_is_left_out(self, absent, known, rate):
    def judge(rows, responses, opponents):
      del opponents
      won = np.full(len(rows), 0.7 if responses[0] == "x" else 0.3)
      # One order alone is enough to leave a prompt out.
      return np.where(np.arange(10) < known, won, np.nan if absent else won)

    table = win_rates.play(
      {"a": ["x"] * 10, "b": ["y"] * 10}, ROWS, judge, confidence=0.95, seed=0
    )
    expected = win_rates.win_rate_interval(np.full(known, 0.7), 0.95)
    found = [table[name][0][1] for name in ("win_rate", "low", "high")]
    np.testing.assert_allclose(found, expected)
    self.assertAlmostEqual(found[0], rate)
    self.assertAlmostEqual(table["judged"], known / 10)
    self.assertAlmostEqual(table["order_gap"], 0.0)


if __name__ == "__main__":
  absltest.main()
