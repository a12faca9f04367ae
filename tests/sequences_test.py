"""The response space and its token-wise mixture against loops and by hand."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from tests import enumeration, games_oracle

SIZES = (
  dict(vocab_size=3, eos_id=0, max_response=4),
  dict(vocab_size=4, eos_id=2, max_response=3),
  dict(vocab_size=2, eos_id=1, max_response=3),
  dict(vocab_size=5, eos_id=4, max_response=1),
)


def random_game(space, seed, kl_coef):
  return games_oracle.random_game(seed, len(space.tokens), kl_coef)


@jax.jit(static_argnums=(0,))
def _fixed_point(sizes, game, mixture, start):
  return games.mixture_fixed_point(
    games.response_space(**dict(sizes)),
    game,
    mixture=mixture,
    tolerance=1e-12,
    max_iterations=2000,
    start=start,
  )


def fixed_point(sizes, game, mixture, start=None):
  start = game.log_reference if start is None else start
  return _fixed_point(tuple(sizes.items()), game, mixture, start)


def mixture_by_loops(space, policy, reference, mixture):
  """The token-wise mixture, prefix by prefix, on probabilities."""
  rows = [
    tuple(row[kept]) for row, kept in zip(space.tokens, space.mask, strict=True)
  ]

  def mass(probs, prefix):
    return sum(
      p for p, row in zip(probs, rows, strict=True)
      if row[: len(prefix)] == prefix
    )  # fmt: skip

  found = []
  for row in rows:
    prob = 1.0
    for n in range(len(row)):
      weights = {
        v: (mass(policy, (*row[:n], v)) / mass(policy, row[:n]))
        ** (1 - mixture)
        * (mass(reference, (*row[:n], v)) / mass(reference, row[:n])) ** mixture
        for v in range(space.vocab_size)
      }
      prob *= weights[row[n]] / sum(weights.values())
    found.append(prob)
  return np.array(found)


class SpaceTest(parameterized.TestCase):
  def test_by_hand(self):
    space = games.response_space(vocab_size=3, eos_id=1, max_response=2)
    np.testing.assert_array_equal(
      space.tokens, [[1, 0], [0, 1], [2, 1], [0, 0], [0, 2], [2, 0], [2, 2]]
    )
    np.testing.assert_array_equal(space.mask.sum(1), [1, 2, 2, 2, 2, 2, 2])
    np.testing.assert_array_equal(space.prefixes[:, 1], [0, 1, 2, 1, 1, 2, 2])

  def test_is_all_that_the_test_enumeration_lists(self):
    space = games.response_space(
      vocab_size=enumeration.VOCAB, eos_id=enumeration.EOS, max_response=4
    )
    expected, mask = enumeration.responses(4)

    def rows(tokens, mask):
      return {(*row, *kept) for row, kept in zip(tokens, mask, strict=True)}

    self.assertEqual(rows(space.tokens, space.mask), rows(expected, mask))
    self.assertLen(space.tokens, len(expected))

  @parameterized.parameters(*SIZES)
  def test_index_inverts_the_list(self, **sizes):
    space = games.response_space(**sizes)
    noise = np.random.default_rng(0).integers(0, 9, space.tokens.shape)
    # What stands behind EOS must not matter.
    tokens = np.where(space.mask, space.tokens, noise)
    index = jax.jit(lambda t, m: games.response_index(space, t, m))(
      tokens[None], space.mask[None]
    )
    np.testing.assert_array_equal(index, [np.arange(len(tokens))])

  def test_refuses_what_is_no_space(self):
    with self.assertRaisesRegex(ValueError, "eos_id 3"):
      games.response_space(vocab_size=3, eos_id=3, max_response=2)
    with self.assertRaisesRegex(ValueError, "max_response 0"):
      games.response_space(vocab_size=3, eos_id=0, max_response=0)
    space = games.response_space(vocab_size=3, eos_id=0, max_response=2)
    with self.assertRaisesRegex(ValueError, r"\{'R': 2\}"):
      games.response_index(space, jnp.zeros((4, 3), int), jnp.ones((4, 3)) > 0)

  @parameterized.parameters(*SIZES)
  def test_conditionals_lead_back(self, **sizes):
    space = games.response_space(**sizes)
    with jax.enable_x64(True):
      logits = games_oracle.random_logits(0, len(space.tokens))
      found = games.conditionals(space, logits + 3.0)
      np.testing.assert_allclose(jnp.exp(found).sum(1), 1, rtol=1e-14)
      np.testing.assert_allclose(
        games.sequence_log_probs(space, found),
        jax.nn.log_softmax(logits),
        atol=1e-13,
      )


class MixtureTest(parameterized.TestCase):
  def test_by_hand(self):
    # EOS; 1 EOS; 1 1. π says ½, ½ and μ says .1, .9 after both prefixes, so m
    # says 1, 3 in four; the sequence-level mixture is another one.
    space = games.response_space(vocab_size=2, eos_id=0, max_response=2)
    with jax.enable_x64(True):
      policy = jnp.log(jnp.array([0.5, 0.25, 0.25]))
      reference = jnp.log(jnp.array([0.1, 0.09, 0.81]))
      found = games.token_mixture(space, policy, reference, 0.5)
      np.testing.assert_allclose(jnp.exp(found), [1 / 4, 3 / 16, 9 / 16])
      sequence_level = jax.nn.softmax((policy + reference) / 2)
      self.assertGreater(abs(sequence_level[0] - 1 / 4), 0.02)

  @parameterized.product(sizes=SIZES[:3], mixture=[0.125, 0.5, 0.8])
  def test_against_loops(self, sizes, mixture):
    space = games.response_space(**sizes)
    with jax.enable_x64(True):
      game = random_game(space, 1, 0.1)
      logits = games_oracle.random_logits(2, len(space.tokens))
      found = games.token_mixture(space, logits, game.log_reference, mixture)
      policy, reference = (
        np.exp(x - np.log(np.exp(x).sum()))
        for x in (np.asarray(logits), np.asarray(game.log_reference))
      )
      expected = mixture_by_loops(space, policy, reference, mixture)
      np.testing.assert_allclose(jnp.exp(found), expected, rtol=1e-12)

  @parameterized.product(sizes=SIZES, mixture=[0.0, 1.0])
  def test_ends_are_the_policy_and_the_reference(self, sizes, mixture):
    space = games.response_space(**sizes)
    with jax.enable_x64(True):
      game = random_game(space, 1, 0.1)
      logits = games_oracle.random_logits(2, len(space.tokens))
      found = games.token_mixture(space, logits, game.log_reference, mixture)
      expected = game.log_reference if mixture else jax.nn.log_softmax(logits)
      np.testing.assert_allclose(found, expected, atol=1e-13)


class FixedPointTest(parameterized.TestCase):
  @parameterized.product(sizes=SIZES, kl_coef=[0.3, 0.05])
  def test_without_mixture_it_is_the_equilibrium(self, sizes, kl_coef):
    space = games.response_space(**sizes)
    with jax.enable_x64(True):
      game = random_game(space, 3, kl_coef)
      found = fixed_point(sizes, game, 0.0)
      np.testing.assert_allclose(
        found.log_policy, games_oracle.target(game), atol=1e-11
      )
      np.testing.assert_allclose(
        found.log_mixture, found.log_policy, atol=1e-13
      )

  @parameterized.parameters(0.125, 0.5, 0.75)
  def test_mixture_of_one_token_is_the_equilibrium(self, mixture):
    with jax.enable_x64(True):
      game = random_game(games.response_space(**SIZES[3]), 4, 0.1)
      found = fixed_point(SIZES[3], game, mixture)
      hotter = game._replace(kl_coef=game.kl_coef / (1 - mixture))
      np.testing.assert_allclose(
        found.log_mixture, games_oracle.target(hotter), atol=1e-9
      )
      # The policy itself is another one.
      distance = games.kl_divergence(found.log_policy, found.log_mixture)
      self.assertGreater(distance, 1e-3)

  def test_mixture_of_longer_ones_is_not(self):
    with jax.enable_x64(True):
      game = random_game(games.response_space(**SIZES[0]), 4, 0.1)
      found = fixed_point(SIZES[0], game, 0.5)
      hotter = game._replace(kl_coef=game.kl_coef / 0.5)
      distance = games.kl_divergence(
        games_oracle.target(hotter), found.log_mixture
      )
      self.assertGreater(distance, 1e-4)

  def test_all_reference_is_the_best_response_to_it(self):
    with jax.enable_x64(True):
      game = random_game(games.response_space(**SIZES[0]), 5, 0.1)
      found = fixed_point(SIZES[0], game, 1.0)
      expected = games.best_response(game, game.log_reference)
      np.testing.assert_allclose(
        found.log_policy, jax.nn.log_softmax(expected), atol=1e-12
      )

  @parameterized.product(sizes=SIZES[:3], mixture=[0.125, 0.5])
  def test_one_from_many_starts_and_slow_loops_find_it(self, sizes, mixture):
    space = games.response_space(**sizes)
    with jax.enable_x64(True):
      game = random_game(space, 6, 0.1)
      first = fixed_point(sizes, game, mixture)
      self.assertLess(first.residual, 1e-12)
      for seed in range(3):
        start = 3 * games_oracle.random_logits(seed, len(space.tokens))
        other = fixed_point(sizes, game, mixture, start)
        np.testing.assert_allclose(
          other.log_policy, first.log_policy, atol=1e-10
        )
      preference = np.asarray(game.preference)
      reference = np.exp(np.asarray(game.log_reference))
      policy = reference
      for _ in range(200):
        mixed = mixture_by_loops(space, policy, reference, mixture)
        ahead = reference * np.exp(preference @ mixed / 0.1)
        policy = policy**0.9 * (ahead / ahead.sum()) ** 0.1
        policy = policy / policy.sum()
      np.testing.assert_allclose(
        policy, np.exp(first.log_policy), rtol=1e-6, atol=1e-9
      )

  def test_without_newton_steps_it_still_arrives(self):
    # At a small τ the first leaps fail; the walk has to bring it near.
    with jax.enable_x64(True):
      game = random_game(games.response_space(**SIZES[0]), 7, 0.02)
      start = 5 * games_oracle.random_logits(8, 31)
      found = fixed_point(SIZES[0], game, 0.125, start)
      self.assertLess(found.residual, 1e-12)
      self.assertGreater(found.iterations, 20)


if __name__ == "__main__":
  absltest.main()
