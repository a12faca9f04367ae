"""Games and bandits of the family: identities in closed form."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from tests import family_identities, games_oracle

SIZE = 6


def policies(count: int, seed: int = 0) -> np.ndarray:
  """log π of policies drawn at random, f64[count, SIZE]."""
  return np.log(games_oracle.random_policies(seed, count, SIZE))


class Exact(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.rng = np.random.default_rng(0)


class BanditTest(Exact):
  @parameterized.parameters(0.05, 1.0)
  def test_what_a_wrong_reward_costs_is_a_kl(self, tau):
    mu, other = policies(2)
    right, wrong = self.rng.normal(size=(2, SIZE))

    @jax.jit
    def measured(mu, right, wrong, other):
      best, fitted = (games.gibbs(mu, r, tau) for r in (right, wrong))
      return (
        *(games.gibbs_value(x, mu, right, tau) for x in (best, fitted, other)),
        tau * games.kl_divergence(fitted, best),
      )

    best, fitted, others, cost = measured(mu, right, wrong, other)
    np.testing.assert_allclose(best - fitted, cost, rtol=1e-9)
    self.assertGreater(best, others)

  @parameterized.parameters(1e-3, 0.3, 100.0)
  def test_the_forward_kl_is_solved_by_bisection(self, beta):
    (mu,), rewards = policies(1), self.rng.normal(size=SIZE)
    policy = jax.jit(games.forward_gibbs)(mu, rewards, beta)
    prob = np.exp(policy)
    np.testing.assert_allclose(prob.sum(), 1, rtol=1e-12)
    # r + β μ/π is the same λ at every response.
    level = rewards + beta * np.exp(mu) / prob
    np.testing.assert_allclose(level, level[0], rtol=1e-9)
    self.assertGreater(level[0], rewards.max())

    @jax.jit
    def slope(logits):
      return jax.grad(
        lambda x: games.forward_value(
          jax.nn.log_softmax(x), jnp.asarray(mu), jnp.asarray(rewards), beta
        )
      )(logits)

    np.testing.assert_allclose(slope(policy), 0, atol=1e-9 * max(beta, 1))
    self.assertGreater(np.abs(slope(jnp.asarray(mu))).max(), 1e-2)


class ManyTest(Exact):
  def test_one_opponent_is_bradley_terry(self):
    scores, (pi,) = self.rng.normal(size=SIZE), policies(1)
    game = games.make_game(
      preference=games.from_scores(scores),
      reference=np.exp(pi),
      kl_coef=1.0,
    )
    many = jax.jit(lambda s, x: games.many_win_probs(s, [x]))(scores, pi)
    alone = games.win_probs(game, jnp.asarray(pi))
    np.testing.assert_allclose(many, alone, rtol=1e-12)

  def test_somebody_wins(self):
    scores, players = self.rng.normal(size=SIZE), policies(3)

    @jax.jit
    def won(scores, players):
      return [
        jnp.exp(players[i])
        @ games.many_win_probs(scores, [players[j] for j in range(3) if j != i])
        for i in range(3)
      ]

    shares = won(scores, players)
    np.testing.assert_allclose(sum(shares), 1, rtol=1e-12)
    self.assertGreater(np.ptp(shares), 1e-3)
    alike = won(scores, np.broadcast_to(players[0], (3, SIZE)))
    np.testing.assert_allclose(alike, 1 / 3, rtol=1e-12)

  def test_a_point_of_rest_is_its_own_best_reply(self):
    scores, (mu, start) = self.rng.normal(size=SIZE), policies(2)

    @jax.jit
    def settled(scores, mu, start):
      def walk(_, logits):
        reply = games.many_best_response(mu, scores, [logits] * 2, 0.5)
        return 0.5 * (logits + reply)

      rest = jax.lax.fori_loop(0, 200, walk, start)
      return [
        games.many_gap(mu, scores, logits, 3, 0.5) for logits in (rest, start)
      ]

    rest, before = settled(scores, mu, start)
    self.assertLess(rest, 1e-20)
    self.assertGreater(before, 1e-3)

  def test_too_many_are_refused(self):
    for count in (0, 8):
      with self.assertRaisesRegex(ValueError, f"opponents: got {count} with 6"):
        games.many_win_probs(jnp.zeros(6), [jnp.zeros(6)] * count)


class OptimisticTest(Exact):
  @parameterized.parameters(0.02, 0.5)
  def test_it_comes_to_the_equilibrium_at_its_linear_rate(self, tau):
    steps, eta = 400, min(1 / (1 + 2 * tau), 0.5)
    game = games_oracle.random_game(5, 8, tau)
    target = games_oracle.target(game)

    kl, bound = jax.jit(
      functools.partial(
        family_identities.optimistic_walk, step_size=eta, iterations=steps
      )
    )(game, target)
    self.assertLess(np.max(kl / (bound + 1e-18)), 1 + 1e-9)
    self.assertLess(kl[-1], kl[0] * 0.05)


if __name__ == "__main__":
  absltest.main()
