"""Intervals and the win-rate matrix against hand values."""

import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from nashmd_jax.evaluation import intervals, looks, win_rates
from nashmd_jax.training import distributed, ending, journal
from tests import coverage

ROWS = [{"id": str(i), "prompt": f"p{i}", "response": "r"} for i in range(10)]


def length_judge(rows, responses, opponents):
  del rows
  longer = np.array([len(r) for r in responses], float)
  return 0.5 + 0.5 * np.sign(longer - [len(o) for o in opponents])


class IntervalTest(parameterized.TestCase):
  def by_hand(self, mean, votes, prompts, side):
    """Midway between Wilson's end with Student's t and Jeffreys' of votes."""
    out = stats.t.ppf(0.975, prompts - 1)
    roots = np.roots([1 + out**2 / votes, -2 * mean - out**2 / votes, mean**2])
    ends = stats.beta.ppf(
      [0.025, 0.975], mean * votes + 0.5, (1 - mean) * votes + 0.5
    )
    return (sorted(roots)[side] + ends[side]) / 2

  def test_no_win_in_ten(self):
    rate, low, high = intervals.win_rate_interval(np.zeros(10), 0.95)
    self.assertEqual((rate, low), (0.0, 0.0))
    self.assertAlmostEqual(high, self.by_hand(0.0, 10, 10, 1))
    _, low, high = intervals.win_rate_interval(np.ones(10), 0.95)
    self.assertEqual(high, 1.0)
    self.assertAlmostEqual(low, self.by_hand(1.0, 10, 10, 0))

  def test_votes_count_as_they_are(self):
    wins = np.array([1.0] * 7 + [0.0] * 3)
    _, *ends = intervals.win_rate_interval(wins, 0.95)
    for side, end in enumerate(ends):
      self.assertAlmostEqual(end, self.by_hand(0.7, 10, 10, side))

  def test_prompts_that_are_all_alike_are_no_point(self):
    rate, *ends = intervals.win_rate_interval(np.full(10, 0.55), 0.95)
    self.assertAlmostEqual(rate, 0.55)
    for side, end in enumerate(ends):  # φ = 1 / 10
      self.assertAlmostEqual(end, self.by_hand(0.55, 100, 10, side))

  def test_probabilities_count_as_more_votes(self):
    rates = np.array([0.4, 0.6] * 50)  # φ = (100 · 0.01 / 0.25 + 1) / 100
    _, *ends = intervals.win_rate_interval(rates, 0.95)
    for side, end in enumerate(ends):
      self.assertAlmostEqual(end, self.by_hand(0.5, 2000, 100, side))

  def test_one_prompt_says_next_to_nothing(self):
    _, low, high = intervals.win_rate_interval(np.array([0.7]), 0.95)
    self.assertLess(low, 0.1)
    self.assertGreater(high, 0.9)

  @parameterized.parameters(*coverage.WORLDS)
  def test_coverage(self, name):
    world = coverage.WORLDS[name]
    held, width = coverage.measure(world, draws=2000, seed=0)
    self.assertBetween(held, 0.93, 0.97)
    if 0.1 < world.rate < 0.9:
      self.assertLess(width, 1.05)

  @parameterized.parameters(np.nan, 1.5, -0.1)
  def test_what_is_no_probability_is_named(self, odd):
    with self.assertRaisesRegex(ValueError, f"got {odd} at 1"):
      intervals.win_rate_interval(np.array([0.5, odd]), 0.95)

  @parameterized.parameters((0, 10), (3, 10), (9, 40), (40, 40))
  def test_exact_interval_of_votes(self, won, count):
    wins = np.repeat([1.0, 0.0], [won, count - won])
    found = intervals.clopper_pearson(wins, 0.95)
    exact = stats.binomtest(won, count).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(found, exact)
    self.assertEqual(intervals.clopper_pearson(np.zeros(0), 0.95), (0.0, 1.0))

  def test_mean_interval_is_students(self):
    values = np.array([3.0, -1.0, 2.5, 7.0])
    found = intervals.mean_interval(values, 0.9)
    expected = stats.t.interval(
      0.9, 3, loc=values.mean(), scale=stats.sem(values)
    )
    np.testing.assert_allclose(found, (values.mean(), *expected))
    one = intervals.mean_interval(values[:1], 0.9)
    self.assertEqual(one, (3.0, None, None))

  def test_p_values_that_hold_together_by_hand(self):
    # 4 · .01, then 3 · .02 and 2 · .025 that may not be less, then .9.
    found = intervals.holm([0.9, 0.02, 0.01, 0.025])
    np.testing.assert_allclose(found, [0.9, 0.06, 0.04, 0.06])
    self.assertEqual(intervals.holm([0.6, 0.7]).tolist(), [1.0, 1.0])


class LooksTest(parameterized.TestCase):
  def test_parts_double_and_hold_each_record_once(self):
    prompts = np.repeat(np.arange(230), 2)
    parts = looks.parts(prompts, 0.1, seed=0)
    self.assertEqual([len(part) for part in parts], [114, 116, 230])
    np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), np.arange(460)
    )
    for part in parts:
      np.testing.assert_array_equal(part[::2] + 1, part[1::2])
    self.assertAlmostEqual(looks.level(0.95, parts), 1 - 0.05 / 3)

  @parameterized.parameters((99, 0.1), (400, 0.0))
  def test_all_at_once(self, count, width):
    (part,) = looks.parts(np.arange(count), width, seed=0)
    np.testing.assert_array_equal(part, np.arange(count))

  @parameterized.product(name=list(coverage.LOOKS), width=[0.15, 0.2])
  def test_coverage_holds_whenever_one_stops(self, name, width):
    world = coverage.LOOKS[name]
    held, asked = coverage.measure_looks(world, width=width, draws=500, seed=0)
    self.assertGreaterEqual(held, 0.95)
    if width == 0.2:
      self.assertLess(asked, 0.6)

  def test_a_cell_that_is_clear_costs_less(self):
    rows = [
      {"id": str(i), "prompt": str(i), "response": ""} for i in range(400)
    ]
    asked, words = [], {"short": "a", "long": "a b", "also": "a c"}

    def judge(rows, first, second):
      asked.append(len(rows))
      return length_judge(rows, first, second)

    found, said = win_rates.play(
      {name: [text] * 400 for name, text in words.items()},
      rows,
      judge,
      confidence=0.95,
      seed=0,
      batch_size=64,
      width=0.2,
    )
    self.assertEqual(found["looks"], 4)
    self.assertEqual(found["prompts"][0][1], 50)
    self.assertEqual(found["ties"][1][2], 1.0)
    self.assertEqual(found["ties"][0][1], 0.0)
    self.assertEqual(sum(asked), 2 * 3 * 50)
    self.assertEqual(found["not_judged"], 0)
    self.assertEqual([np.isfinite(one).sum() for one in said], [50] * 3)


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
      found, _ = win_rates.play(
        responses, rows, judge, confidence=0.95, seed=0, batch_size=10
      )
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
    table, _ = win_rates.play(
      responses, ROWS, length_judge, confidence=0.95, seed=0, batch_size=4
    )
    expected = [[0.5, 0, 0.6], [1, 0.5, 0.6], [0.4, 0.4, 0.5]]
    np.testing.assert_allclose(table["win_rate"], expected)
    low, high = np.array(table["low"]), np.array(table["high"])
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose((low + high.T)[off], 1.0)
    self.assertTrue((low <= table["win_rate"]).all())
    self.assertEqual(table["order_gap"], 0.0)

  def test_a_judge_that_likes_the_first_place_is_averaged_and_shown(self):
    table, _ = win_rates.play(
      {"a": ["x"] * 10, "b": ["y"] * 10},
      ROWS,
      lambda rows, responses, opponents: np.full(10, 0.7),
      confidence=0.95,
      seed=0,
      batch_size=10,
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

    table, _ = win_rates.play(
      {"a": ["x"] * 10, "b": ["y"] * 10},
      ROWS,
      judge,
      confidence=0.95,
      seed=0,
      batch_size=10,
    )
    expected = intervals.win_rate_interval(np.full(known, 0.7), 0.95)
    found = [table[name][0][1] for name in ("win_rate", "low", "high")]
    np.testing.assert_allclose(found, expected)
    self.assertAlmostEqual(found[0], rate)
    self.assertAlmostEqual(table["judged"], known / 10)
    self.assertEqual(table["not_judged"], 10 - known)
    self.assertEqual(table["prompts"], [[10, known], [known, 10]])
    told = win_rates.told_not_judged(table)
    if known == 8:
      self.assertEqual(
        told,
        "2 pairs (20.0%) were not judged and count nowhere; the win rate of "
        "fewest prompts rests on 8",
      )
    self.assertEqual(bool(told), known < 10)
    self.assertAlmostEqual(table["order_gap"], 0.0)


class CutTest(absltest.TestCase):
  def test_wherever_it_is_cut_no_pair_is_judged_twice(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "pieces.jsonl"
    responses = {name: [name * (n + 1) for n in range(10)] for name in "abc"}
    asked = []

    def judge(rows, first, second):
      asked.extend(
        (row["id"], *texts)
        for row, *texts in zip(rows, first, second, strict=True)
      )
      return length_judge(rows, first, second)

    def play():
      found, said = win_rates.play(
        responses, ROWS, judge, confidence=0.95, seed=0, batch_size=4,
        once=journal.keep(path, of="1"),
      )  # fmt: skip
      return found, [one.tolist() for one in said]

    cuts, stop = 0, iter([*[False, False, True] * 6, *[False] * 18])
    with mock.patch.object(distributed, "must_stop", lambda: next(stop)):
      while True:
        try:
          found = play()
          break
        except ending.Preempted:
          cuts += 1
    self.assertEqual(cuts, 6)
    # 3 pairs of policies in both orders, of 10 records each.
    self.assertLen(asked, 60)
    self.assertLen(set(asked), 60)
    path.unlink()
    self.assertEqual(play(), found)


if __name__ == "__main__":
  absltest.main()
