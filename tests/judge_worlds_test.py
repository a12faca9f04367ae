"""A preference model learns a ring and a score cannot; the bounds behind it.

The quick version of `figures.judges_worlds`, with panels for single votes.
"""

from absl.testing import absltest, parameterized
import jax
import numpy as np
import pytest

from nashmd_jax import games, models
from tests import judge_worlds

TRAINING = dict(batch_size=64, learning_rate=5e-3, seed=0)


def held_out(count: int, seed: int = 9) -> judge_worlds.Texts:
  kinds = np.arange(count) % judge_worlds.KINDS
  return judge_worlds.draw_texts(np.random.default_rng(seed), kinds)


class TextsTest(absltest.TestCase):
  def test_a_text_has_tokens_of_its_own_kind_and_shared_ones(self):
    texts = held_out(600)
    own = (texts.tokens >= judge_worlds.FIRST_OWN) & (
      texts.tokens < judge_worlds.FIRST_SHARED
    )
    kinds = (texts.tokens - judge_worlds.FIRST_OWN) // judge_worlds.OWN
    np.testing.assert_array_equal(
      kinds[own], np.broadcast_to(texts.kinds[:, None], own.shape)[own]
    )
    self.assertEqual(set(own.sum(1)), {1, 2})
    self.assertEqual(set(texts.mask.sum(1)), {5, 6, 7})
    self.assertFalse(texts.tokens[~texts.mask].any())
    self.assertGreater(len(np.unique(texts.tokens, axis=0)), 590)

  def test_votes_are_as_frequent_as_the_population_says(self):
    rng = np.random.default_rng(0)
    first, second = (
      judge_worlds.draw_texts(rng, rng.integers(3, size=30_000))
      for _ in range(2)
    )
    ring = judge_worlds.cycle()
    prob = ring.win_prob(first, second)
    np.testing.assert_allclose(np.unique(prob), [1 / 3, 1 / 2, 2 / 3])
    for world in (ring, judge_worlds.bradley_terry(0)):
      prob = world.win_prob(first, second)
      votes = world.vote(rng, first, second)
      self.assertEqual(set(votes), {0.0, 1.0})
      for low in (0.2, 0.4, 0.6):
        some = (prob >= low) & (prob < low + 0.2)
        # Some 10,000 votes: a standard deviation of .005.
        error = votes[some].mean() - prob[some].mean()
        self.assertAlmostEqual(error, 0, delta=0.025)


class BoundsTest(parameterized.TestCase):
  @parameterized.parameters(range(5))
  def test_no_score_orders_more_than_two_thirds_of_a_ring(self, seed):
    texts = held_out(60)
    score = np.random.default_rng(seed).normal(size=60)
    if seed == 0:
      score = np.round(score)  # ties
    first, second = np.nonzero(
      (texts.kinds[:, None] + 1) % 3 == texts.kinds[None, :]
    )
    found = judge_worlds.agreement(
      judge_worlds.cycle(),
      score[first] - score[second],
      *judge_worlds.between_kinds(texts),
    )
    self.assertLessEqual(found, 2 / 3 + 1e-12)

  def test_bounds_are_reached(self):
    texts = held_out(60)
    ring, pairs = judge_worlds.cycle(), judge_worlds.between_kinds(texts)
    score = [-pair.kinds.astype(float) for pair in pairs]
    self.assertAlmostEqual(
      judge_worlds.agreement(ring, score[0] - score[1], *pairs), 2 / 3
    )
    exact = ring.win_prob(*pairs) - 0.5
    self.assertEqual(judge_worlds.agreement(ring, exact, *pairs), 1.0)
    self.assertEqual(judge_worlds.agreement(ring, 0 * exact, *pairs), 0.5)

  def test_moments_of_the_fit_under_a_sampling_policy(self):
    for responses, seed in ((3, 0), (8, 1)):
      error = judge_worlds.moment_error(responses=responses, seed=seed)
      self.assertLessEqual(error, 1e-12)

  def test_cycles_by_chance_and_cycles_that_are_not(self):
    rng = np.random.default_rng(0)
    score, count = rng.normal(size=60), 60
    line = (score[:, None] - score[None, :])[np.triu_indices(count, 1)]
    noise = 0.2 * rng.normal(size=len(line))
    kinds = np.arange(count) % 3
    turn = (kinds[None, :] - kinds[:, None] + 1) % 3 - 1
    ring = 0.6 * turn[np.triu_indices(count, 1)]
    for said, chance in ((line + noise, True), (0.2 * line + ring, False)):
      matrix = judge_worlds.square(said, count)
      share = judge_worlds.cyclic_share(matrix)
      most = judge_worlds.cyclic_by_chance(matrix, draws=100, seed=0)
      self.assertEqual(share <= most, chance, msg=f"{share} {most}")
    # By hand: three texts in a ring, and one below them all:
    # of four triples one is cyclic.
    four = games.from_order([0, 1, 2, 3])
    four[0, 2], four[2, 0] = 0, 1
    self.assertEqual(games.cyclic_share(four), 0.25)


class JudgesTest(parameterized.TestCase):
  @parameterized.parameters(("float32", 1e-6), ("bfloat16", 1e-3))
  def test_both_readings_sum_to_one(self, dtype, bar):
    model = models.make_language_model(**judge_worlds.SIZES)
    params = model.init(jax.random.key(0))
    pairs = judge_worlds.all_pairs(held_out(40))
    error = judge_worlds.antisymmetry_error(params, *pairs, dtype=dtype)
    self.assertLessEqual(error, bar)
    said, exact = (
      judge_worlds.log_odds("preference", params, *pairs, dtype=one)
      for one in (dtype, "float32")
    )
    self.assertGreater(np.abs(said).max(), 1e-3)
    self.assertEqual(np.array_equal(said, exact), dtype == "float32")

  @pytest.mark.slow
  def test_a_ring_is_learned_by_the_preference_model_alone(self):
    ring = judge_worlds.panels(judge_worlds.cycle())
    pairs, share = judge_worlds.between_kinds(held_out(48)), {}
    for kind, steps in (("preference", 220), ("reward", 60)):
      params = judge_worlds.train(ring, kind, steps=steps, **TRAINING)
      said = judge_worlds.log_odds(kind, params, *pairs)
      share[kind] = judge_worlds.agreement(ring, said, *pairs)
    self.assertGreater(share["preference"], 0.95)
    self.assertLessEqual(share["reward"], 0.67)


if __name__ == "__main__":
  absltest.main()
