"""Choices among N responses: hand values, an oracle, and what is not known."""

import itertools

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import games
from nashmd_jax.evaluation import selection

NAN = np.nan
# 0 beats 1, 1 beats 2, 2 beats 0; 3 loses to all.
RING = [1, 0, 0.9, 1, 0.8, 0.7]


def matrices(*said):
  return selection.win_probs(np.array(said, float))


def random_games(count, samples, seed=0):
  rng = np.random.default_rng(seed)
  pairs = samples * (samples - 1) // 2
  return matrices(*rng.uniform(size=(count, pairs)))


class WinProbsTest(absltest.TestCase):
  def test_pairs_are_asked_once_and_mirrored(self):
    np.testing.assert_array_equal(selection.pairs(3), [[0, 0, 1], [1, 2, 2]])
    np.testing.assert_array_equal(
      matrices([0.9, NAN, 0.25])[0],
      [[0.5, 0.9, NAN], [1 - 0.9, 0.5, 0.25], [NAN, 0.75, 0.5]],
    )

  def test_a_number_of_pairs_that_cannot_be(self):
    with self.assertRaisesRegex(ValueError, "said: got 4 pairs a prompt"):
      matrices([0.5] * 4)


class BestTest(parameterized.TestCase):
  @parameterized.parameters(
    # Means of 0, 1, 2 against the others: .55, .6, .35; .9, .5, .1.
    ([0.7, 0.4, 0.9], 1),
    ([1.0, 0.8, 0.2], 0),
    # All ties, and 0.1 + 0.7 against 0.3 + 0.5 in floating point: the first.
    ([0.5, 0.5, 0.5], 0),
    ([1.0, 0.0, 1.0], 0),
    # 0 has .6 of one pair, 1 (.4 + .7) / 2, 2 .3.
    ([0.6, NAN, 0.7], 0),
    # 2 has .8 of one pair; a response without any has one half.
    ([NAN, NAN, 0.2], 2),
    ([0.2, NAN, NAN], 1),
    ([NAN, NAN, NAN], 0),
  )
  def test_hand_values(self, said, expected):
    self.assertEqual(selection.best(matrices(said)).tolist(), [expected])

  def test_ties_in_any_order_of_the_sums_go_to_the_first(self):
    # The same numbers in another order: means that differ in their last bits.
    orders = itertools.permutations([0.1, 0.2, 0.3])
    for one, other in itertools.product(list(orders), repeat=2):
      game = np.zeros((1, 4, 4))
      game[0, 0, 1:], game[0, 1, [0, 2, 3]] = one, other
      self.assertEqual(selection.best(game).tolist(), [0])

  def test_agrees_with_a_loop_over_responses(self):
    win_prob = random_games(200, 6)
    said = np.random.default_rng(1).uniform(size=win_prob.shape) < 0.3
    win_prob[said | said.swapaxes(1, 2)] = NAN
    for game, found in zip(win_prob, selection.best(win_prob), strict=True):
      means = []
      for i in range(6):
        known = [p for j, p in enumerate(game[i]) if j != i and p == p]
        means.append(np.mean(known) if known else 0.5)
      self.assertEqual(found, int(np.argmax(means)))


class EquilibriumTest(parameterized.TestCase):
  @parameterized.parameters(
    (RING[:1], [1, 0]),
    ([1, 0, 1], [1 / 3] * 3),
    # What beats all is given alone, ring or not.
    ([0.6, 0.6, 0.9], [1, 0, 0]),
    # Two copies of the best share what it is given.
    ([0.5, 0.8, 0.8], [0.5, 0.5, 0]),
    # A pair that was not judged is a tie.
    ([NAN, 0.8, 0.8], [0.5, 0.5, 0]),
    ([NAN, NAN, NAN], [1 / 3] * 3),
  )
  def test_hand_values(self, said, expected):
    found = selection.equilibria(matrices(said))
    np.testing.assert_allclose(found, [expected], atol=1e-9)

  def test_no_response_wins_against_it(self):
    win_prob = random_games(50, 7)
    policy = selection.equilibria(win_prob)
    np.testing.assert_allclose(policy.sum(1), 1)
    against = np.einsum("xij,xj->xi", win_prob, policy)
    # Played to a thousandth.
    self.assertLessEqual(against.max(), 0.5 + 1e-3)

  def test_noise_in_the_last_bits_of_a_judge_changes_nothing(self):
    # Copies and scores, where P differs from a tie by round-off alone.
    rng = np.random.default_rng(2)
    for _ in range(40):
      scores = 0.3 * rng.integers(4, size=8)
      exact = games.from_scores(scores)[np.triu_indices(8, 1)]
      noisy = np.clip(exact + 1e-7 * rng.normal(size=28), 0, 1)
      policy = selection.equilibria(matrices(noisy))[0]
      best = np.isclose(scores, scores.max())
      np.testing.assert_allclose(policy, best / best.sum(), atol=1e-9)

  def test_draws_follow_the_policy_and_never_leave_it(self):
    policy = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    uniform = (np.arange(4000) + 0.5) / 4000
    drawn = selection.draw(np.tile(policy, (4000, 1)), uniform)
    np.testing.assert_array_equal(
      np.bincount(drawn, minlength=5) / 4000, policy
    )
    ends = selection.draw(np.tile(policy, (2, 1)), np.array([0, 1 - 1e-16]))
    self.assertEqual(ends.tolist(), [1, 3])

  def test_names_of_a_config(self):
    win_prob, uniform = matrices(RING), np.array([0.99])
    best = selection.CHOICES["best"](win_prob, uniform)
    drawn = selection.CHOICES["equilibrium"](win_prob, uniform)
    np.testing.assert_array_equal(best, selection.best(win_prob))
    np.testing.assert_array_equal(
      drawn, selection.draw(selection.equilibria(win_prob), uniform)
    )


if __name__ == "__main__":
  absltest.main()
