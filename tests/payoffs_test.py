"""Preference matrices: hand values, votes, scores, and bad input."""

import itertools

from absl.testing import absltest, parameterized
import jax
import numpy as np

from nashmd_jax import games


class ExamplesTest(absltest.TestCase):
  def test_all_are_antisymmetric(self):
    matrices = {
      "raters": games.three_raters(-0.2),
      "dice": games.from_dice([[1, 1, 4], [2, 2, 2]]),
      "order": games.from_order([2, 0, 1, 3]),
      "scores": games.from_scores([[0.0, 800.0], [-3.0, 1.0]]),
      "random": games.random_preferences(
        jax.random.key(0), contexts=5, responses=7
      ),
    }
    for name, matrix in matrices.items():
      np.testing.assert_allclose(
        matrix + np.swapaxes(matrix, -1, -2), 1, atol=3e-16, err_msg=name
      )
      games.check_preference(matrix)

  def test_equal_faces_are_a_tie(self):
    # 1 < 2 twice, 4 > 2 once; 2 = 2 always.
    np.testing.assert_allclose(
      games.from_dice([[1, 1, 4], [2, 2, 2]]), [[0.5, 1 / 3], [2 / 3, 0.5]]
    )

  def test_order_puts_the_best_first(self):
    np.testing.assert_array_equal(
      games.from_order([2, 0, 1]), [[0.5, 1, 0], [0, 0.5, 0], [1, 1, 0.5]]
    )

  def test_each_of_rock_scissors_paper_beats_the_next(self):
    for first in range(3):
      self.assertEqual(games.ROCK_SCISSORS_PAPER[first, (first + 1) % 3], 1)

  def test_raters_over_contexts(self):
    matrices = games.random_preferences(
      jax.random.key(1), contexts=6, responses=4
    ).reshape(2, 3, 4, 4)
    np.testing.assert_allclose(
      games.from_raters([0.25, 0.75], matrices),
      0.25 * matrices[0] + 0.75 * matrices[1],
      atol=1e-15,
    )

  def test_random_matrices_depend_on_the_key_alone(self):
    draw = [
      games.random_preferences(jax.random.key(seed), contexts=2, responses=3)
      for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draw[0], draw[1])
    self.assertFalse(np.array_equal(draw[0], draw[2]))
    with jax.enable_x64(True):
      wide = games.random_preferences(
        jax.random.key(0), contexts=2, responses=3
      )
    np.testing.assert_array_equal(draw[0], wide)

  def test_cyclic_share_against_loops(self):
    self.assertEqual(games.cyclic_share(games.ROCK_SCISSORS_PAPER), 1)
    self.assertEqual(games.cyclic_share(games.from_order([2, 0, 1, 3])), 0)
    matrices = games.random_preferences(
      jax.random.key(3), contexts=2, responses=7
    )
    for matrix, found in zip(
      matrices, games.cyclic_share(matrices), strict=True
    ):
      beats = matrix > 0.5
      triples = list(itertools.combinations(range(7), 3))
      cycles = sum(
        beats[i, j] == beats[j, k] == beats[k, i] for i, j, k in triples
      )
      self.assertAlmostEqual(found, cycles / len(triples), places=12)

  def test_what_float32_leaves_is_shared(self):
    single = np.array([[0.5, 0.1], [0.9, 0.5]], np.float32)
    matrix = games.check_preference(single)
    np.testing.assert_array_equal(matrix + matrix.T, np.ones((2, 2)))
    np.testing.assert_allclose(matrix, single, atol=1e-7)


class VotesTest(parameterized.TestCase):
  def test_counts_with_ties(self):
    # 0 beats 1 twice, 1 beats 0 once, 0 and 1 tie once, 2 beats 1 once.
    wins = games.count_votes(
      [0, 0, 1, 1, 1], [1, 1, 0, 0, 2], [1, 1, 1, 0.5, 0], 3
    )
    np.testing.assert_array_equal(wins, [[0, 2.5, 0], [1.5, 0, 0], [0, 1, 0]])

  def test_smoothing_by_hand(self):
    wins = np.array([[0, 3.0, 0], [1, 0, 0], [0, 0, 0]])
    half = np.full((3, 3), 0.5)
    matrix = games.from_votes(wins, pseudo_votes=2.0, prior=half)
    self.assertAlmostEqual(matrix[0, 1], (3 + 1) / (4 + 2))
    self.assertAlmostEqual(matrix[0, 2], 0.5)
    wins[0, 2] = wins[2, 1] = 1
    plain = games.from_votes(wins, pseudo_votes=0.0, prior=half)
    np.testing.assert_allclose(
      plain, [[0.5, 0.75, 1], [0.25, 0.5, 0], [0, 1, 0.5]]
    )

  def test_smoothing_has_the_greatest_likelihood(self):
    wins, prior = np.array([[0, 7.0], [2.0, 0]]), games.from_scores([1.0, 0])
    best = games.from_votes(wins, pseudo_votes=3.0, prior=prior)[0, 1]

    def log_likelihood(p):
      won, lost = wins[0, 1] + 3 * prior[0, 1], wins[1, 0] + 3 * prior[1, 0]
      return won * np.log(p) + lost * np.log(1 - p)

    for other in (best - 1e-4, best + 1e-4):
      self.assertGreater(log_likelihood(best), log_likelihood(other))

  def test_missing_pair_is_filled_by_scores(self):
    true = games.from_scores([0.0, 1.0, 2.5])
    wins = 100 * true
    wins[0, 2] = wins[2, 0] = 0
    scores = games.fit_scores(wins)
    filled = games.from_votes(
      wins, pseudo_votes=1e-9, prior=games.from_scores(scores)
    )
    np.testing.assert_allclose(filled, true, atol=1e-9)


class ScoresTest(absltest.TestCase):
  def test_scores_of_a_transitive_matrix_come_back(self):
    scores = np.array([-9.0, 0.3, 0.0, 4.0, 12.0])
    weights = np.outer(*2 * [np.array([0.1, 0.3, 0.2, 0.3, 0.1])])
    fitted = games.fit_scores(weights * games.from_scores(scores))
    np.testing.assert_allclose(fitted, scores - scores.mean(), atol=1e-7)

  def test_stationary_for_a_cyclic_matrix(self):
    matrix = games.random_preferences(
      jax.random.key(0), contexts=1, responses=12
    )[0]
    fitted = games.from_scores(games.fit_scores(matrix))
    np.testing.assert_allclose(fitted.sum(1), matrix.sum(1), atol=1e-12)

  def test_scores_depend_on_the_sampling_policy_when_cyclic(self):
    sampling = np.array([0.6, 0.3, 0.1])
    matrix = games.three_raters(0.1)
    uniform = games.fit_scores(matrix)
    other = games.fit_scores(np.outer(sampling, sampling) * matrix)
    self.assertNotEqual(np.argmax(uniform), np.argmax(other))

  def test_never_beaten_has_no_finite_score(self):
    with self.assertRaisesRegex(ValueError, "wins: responses .* infinite"):
      games.fit_scores(games.from_order([0, 1, 2]))


class BadInputTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (
      "not_antisymmetric",
      [[0.5, 0.7], [0.4, 0.5]],
      r"0\.7 at \[0, 1\] and 0\.4 at \[1, 0\]",
    ),
    ("nan", [[0.5, np.nan], [0.4, 0.5]], r"a number at \[0, 1\]"),
    ("above_one", [[0.5, 1.2], [-0.2, 0.5]], r"0 to 1 at \[0, 1\], got 1\.2"),
    ("diagonal", [[0.6, 0.5], [0.5, 0.5]], r"0\.6 at \[0, 0\]"),
    ("not_square", [[0.5, 0.5]], r"expected \[\.\.\., Y, Y\], got shape"),
    ("context", [[[0.5]], [[0.1]]], r"0\.1 at \[1, 0, 0\]"),
  )
  def test_matrix(self, matrix, message):
    with self.assertRaisesRegex(ValueError, f"preference: .*{message}"):
      games.make_game(
        preference=np.array(matrix), reference=[0.5, 0.5], kl_coef=0.1
      )

  @parameterized.named_parameters(
    ("zero_in_reference", [1.0, 0.0], 0.1, r"reference: .*above 0 at \[1\]"),
    ("sum", [0.5, 0.6], 0.1, "reference, sum: expected 1"),
    ("tau", [0.5, 0.5], -0.1, "kl_coef: expected 0 or more, got -0.1"),
    ("tau_nan", [0.5, 0.5], np.nan, "kl_coef: expected 0 or more, got nan"),
    ("sizes", [0.2, 0.3, 0.5], 0.1, r"\(3,\) .* shape \(2, 2\)"),
  )
  def test_game(self, reference, kl_coef, message):
    with self.assertRaisesRegex(ValueError, message):
      games.make_game(
        preference=np.full((2, 2), 0.5), reference=reference, kl_coef=kl_coef
      )

  @parameterized.named_parameters(
    ("mixture", lambda: games.fixed_mixture(1.5), "mixture: .* got 1.5"),
    ("decay", lambda: games.nash_ema(-0.1), "decay: .* got -0.1"),
    ("order", lambda: games.from_order([0, 2]), "order: .*0 to 1 once"),
    ("epsilon", lambda: games.three_raters(0.5), "epsilon: .* got 0.5"),
    (
      "unvoted",
      lambda: games.from_votes(
        np.zeros((2, 2)), pseudo_votes=0, prior=np.full((2, 2), 0.5)
      ),
      r"no vote on the pair \[0, 1\]",
    ),
    (
      "negative_votes",
      lambda: games.fit_scores([[0, -1], [1, 0]]),
      r"wins: .* at \[0, 1\], got -1",
    ),
    (
      "vote_for_itself",
      lambda: games.count_votes([0, 1], [1, 1], [1, 1], 2),
      r"second: .* at \[1\]",
    ),
    (
      "outcome",
      lambda: games.count_votes([0], [1], [2], 2),
      r"outcome: .* from 0 to 1 at \[0\], got 2",
    ),
    (
      "unknown_response",
      lambda: games.count_votes([0], [5], [1], 2),
      r"second: .* from 0 to 1 at \[0\], got 5",
    ),
    (
      "shares",
      lambda: games.from_raters([1.0], np.full((2, 3, 3), 0.5)),
      "shares: expected one for each of 2 raters",
    ),
  )
  def test_other(self, call, message):
    with self.assertRaisesRegex(ValueError, message):
      call()


if __name__ == "__main__":
  absltest.main()
