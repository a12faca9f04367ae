"""The simulated raters: exact preferences, cycles, drawn comparisons."""

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax.judges import raters, scorers

SHARES = {"coverage": 0.5, "brevity": 0.3, "grounding": 0.2}
WEIGHTS = {**SHARES, "plainness": 0.0}
SHARPNESS = {
  "coverage": 2.0, "brevity": 1.0, "grounding": 3.0, "plainness": 4.0,
}  # fmt: skip
TYPES = {"short": 5, "panel": {"size": 0, "spread": 0.0}}
RECORD = {
  "id": "r",
  "prompt": "sort(items): sorted list of items in order",
  "response": "sort items",
}


class RatersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.population = raters.make_population(
      weights=WEIGHTS, sharpness=SHARPNESS, **TYPES
    )

  def test_hand_value(self):
    # a "sort items": coverage 1 (both words, the pair), 2 words count as 5,
    # grounded 1. b "sort all other good new things": words 1/2, pairs 0:
    # coverage 1/4; 6 words; sort is grounded, 1 of 5 content words (all,
    # other are stop words, leaving sort good new things): 1/4.
    scores = raters.score_matrix(
      self.population,
      RECORD["prompt"],
      RECORD["response"],
      ["sort items", "sort all other good new things"],
    )
    np.testing.assert_allclose(
      scores, [[2 * 1.0, -5.0, 3 * 1.0], [2 * 0.25, -6.0, 3 * 0.25]]
    )
    chance = 1 / (1 + np.exp(-np.array([1.5, 1.0, 2.25])))
    expected = chance @ [0.5, 0.3, 0.2]
    np.testing.assert_allclose(
      raters.win_prob(self.population, scores[0], scores[1]), expected
    )

  @parameterized.parameters(
    ("a set of sizes", -11 / 4),
    ("set_of: 12 sizes!", -10 / 3),
    ("interoperabilities", -12),
    ("12", -12),
    ("", -12),
  )
  def test_plain_words_are_short(self, response, expected):
    found = raters.plainness("p", "written", response)
    self.assertAlmostEqual(found, expected)

  def test_antisymmetric(self):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 3)) * 30
    total = raters.win_prob(self.population, a, b) + raters.win_prob(
      self.population, b, a
    )
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)

  @parameterized.parameters("", "   ", "!?")
  def test_odd_responses_have_finite_scores(self, response):
    scores = raters.score_matrix(self.population, "p", "", [response])
    self.assertTrue(np.isfinite(scores).all())

  @parameterized.parameters(
    # Types that rank abc, bca, cab, a third each: P(a ≻ b) = 2/3, a ring.
    ([[3, 1, 2], [2, 3, 1], [1, 2, 3]], True),
    # Types that rank abc, abc, cab: b never beats a, so there is no ring.
    ([[3, 3, 2], [2, 2, 1], [1, 1, 3]], False),
  )
  def test_cycles(self, scores, cyclic):
    texts = ["a", "b", "c"]
    population = {
      f"type {i}": raters.Rater(
        weight=1 / 3,
        sharpness=100.0,
        score=lambda prompt, written, y, i=i: scores[texts.index(y)][i],
      )
      for i in range(3)
    }
    self.assertEqual(raters.has_cycle(population, RECORD, texts), cyclic)

  def test_candidates_are_distinct_real_texts(self):
    record = RECORD | {"response": "sort items by key and order"}
    found = raters.candidates(
      record, "another thing", ["another thing", "x"], np.random.default_rng(0)
    )
    self.assertTrue(record["response"].startswith(found["truncated"] + " "))
    self.assertEqual(found["lead"], "sorted list of items in order")
    self.assertEqual(
      sorted(found["shuffled"].split()), sorted(record["response"].split())
    )
    self.assertNotIn("sample 0", found)
    self.assertLen(set(found.values()), len(found))

  def test_votes_follow_the_exact_preference(self):
    # 4,000 panels of 3: the mean share has deviation ≤ 1/2 / √12000 = 0.0046.
    drawn = list(
      raters.draw_comparisons(
        self.population,
        RECORD,
        ["sort items", "sort all other good new things"],
        pairs=4_000,
        votes=3,
        rng=np.random.default_rng(0),
      )
    )
    first = [row["response_a"] == "sort items" for row in drawn]
    self.assertAlmostEqual(np.mean(first), 0.5, delta=0.04)
    voted = np.array([row["prob_a"] for row in drawn])
    exact = np.array([row["population_prob_a"] for row in drawn])
    self.assertAlmostEqual(np.mean(voted - exact), 0, delta=0.02)
    self.assertEqual(set(np.round(3 * voted)), {0, 1, 2, 3})
    self.assertEqual({row["votes"] for row in drawn}, {3})
    best = np.mean((exact > 0.5) == (voted > 0.5))
    self.assertAlmostEqual(raters.best_accuracy(exact, 3), best, delta=0.03)

  def test_best_accuracy_by_hand(self):
    # Three votes of .8: .8³ + 3 · .8² · .2 = .896; two: .64 + ½ · .32 = .8.
    exact = np.array([0.8, 0.2])
    self.assertAlmostEqual(raters.best_accuracy(exact, 3), 0.896)
    self.assertAlmostEqual(raters.best_accuracy(exact, 2), 0.8)

  def test_rater_judge_is_the_population(self):
    judge = scorers.make_rater_judge(self.population)
    both = judge([RECORD] * 2, ["sort items", "x"], ["x", "sort items"])
    np.testing.assert_allclose(both.sum(), 1.0)
    self.assertGreater(both[0], 0.5)

  def test_shares_must_sum_to_one(self):
    with self.assertRaisesRegex(ValueError, "shares that sum to 1"):
      raters.make_population(
        weights=WEIGHTS | {"brevity": 0.4}, sharpness=SHARPNESS, **TYPES
      )
    with self.assertRaisesRegex(ValueError, "raters.sharpness: missing"):
      raters.make_population(
        weights=WEIGHTS, sharpness={"coverage": 1.0}, **TYPES
      )

  def test_a_panel_has_the_shares_of_the_types_and_single_raters(self):
    # Shares of 7 raters are 3.5, 2.1, 1.4: the first has the seventh.
    panel = raters.make_population(
      weights=WEIGHTS, sharpness=SHARPNESS, short=5,
      panel={"size": 7, "spread": 0.5},
    )  # fmt: skip
    self.assertEqual(
      [name.split()[0] for name in panel],
      ["coverage"] * 4 + ["brevity"] * 2 + ["grounding"],
    )
    of = {name: [r for n, r in panel.items() if name in n] for name in SHARES}
    for name, share in SHARES.items():
      self.assertAlmostEqual(sum(r.weight for r in of[name]), share)
      logs = np.log([r.sharpness for r in of[name]])
      self.assertAlmostEqual(np.mean(logs), np.log(SHARPNESS[name]))
    # The middles of two halves of a normal law are ±.67449.
    np.testing.assert_allclose(
      [r.sharpness for r in of["brevity"]], np.exp([-0.337245, 0.337245]),
      rtol=1e-5,
    )  # fmt: skip
    with self.assertRaisesRegex(ValueError, "too few for a rater of grounding"):
      raters.make_population(
        weights=WEIGHTS, sharpness=SHARPNESS, short=5,
        panel={"size": 2, "spread": 0.5},
      )  # fmt: skip

  def test_a_half_votes_and_two_halves_differ(self):
    panel = raters.make_population(
      weights=WEIGHTS, sharpness=SHARPNESS, short=5,
      panel={"size": 20, "spread": 0.5},
    )  # fmt: skip
    halves = [
      raters.half(panel, np.random.default_rng(seed)) for seed in range(9)
    ]
    for one in halves:
      self.assertLen(one, 10)
      self.assertAlmostEqual(sum(r.weight for r in one.values()), 1)
    self.assertGreater(len({frozenset(one) for one in halves}), 5)

  def test_what_is_short_is_a_setting(self):
    population = raters.make_population(
      weights=WEIGHTS, sharpness=SHARPNESS, short=2, panel=TYPES["panel"]
    )
    scores = raters.score_matrix(population, "p", "w", ["a", "a b", "a b c"])
    np.testing.assert_array_equal(scores[:, 1], [-2, -2, -3])


if __name__ == "__main__":
  absltest.main()
