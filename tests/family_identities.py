"""Identities of the family's games on many random cases, each as an error.

Call in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from tests import games_oracle

CASES, SIZE, TAU = 500, 8, 0.1


def _cases() -> tuple[jax.Array, jax.Array, jax.Array]:
  """log μ, rewards and wrong rewards, f64[CASES, SIZE] each."""
  rng = np.random.default_rng(0)
  mu = games_oracle.random_policies(0, CASES, SIZE)
  right, wrong = rng.normal(size=(2, CASES, SIZE))
  return jnp.log(mu), jnp.asarray(right), jnp.asarray(wrong)


def wrong_reward() -> float:
  """Largest |J(π*) − J(Gibbs(r̂)) − τ KL(Gibbs(r̂), Gibbs(r))|."""

  def one(mu, right, wrong):
    best, fitted = (games.gibbs(mu, r, TAU) for r in (right, wrong))
    lost = games.gibbs_value(best, mu, right, TAU)
    lost -= games.gibbs_value(fitted, mu, right, TAU)
    return jnp.abs(lost - TAU * games.kl_divergence(fitted, best))

  return float(jnp.max(jax.jit(jax.vmap(one))(*_cases())))


def forward_kl() -> float:
  """Largest |Σ π − 1| and spread of r + β μ/π of the bisection."""

  def one(mu, rewards):
    policy = games.forward_gibbs(mu, rewards, TAU)
    level = rewards + TAU * jnp.exp(mu - policy)
    total = jnp.abs(jnp.sum(jnp.exp(policy)) - 1)
    return jnp.maximum(total, jnp.max(level) - jnp.min(level))

  mu, rewards, _ = _cases()
  return float(jnp.max(jax.jit(jax.vmap(one))(mu, rewards)))


def somebody_wins(players: int) -> float:
  """Largest |Σ_i P(player i wins) − 1| of a game of so many."""

  def one(scores, policies):
    won = [
      jnp.exp(policies[i])
      @ games.many_win_probs(
        scores, [policies[j] for j in range(players) if j != i]
      )
      for i in range(players)
    ]
    return jnp.abs(sum(won) - 1)

  mu, scores, _ = _cases()
  count = CASES // players
  policies = mu[: count * players].reshape(count, players, SIZE)
  return float(jnp.max(jax.jit(jax.vmap(one))(scores[:count], policies)))


def optimistic_walk(game, target, *, step_size: float, iterations: int):
  """KL to the equilibrium under `omwu`, and its bound, f64[iterations + 1].

  Args:
    game: of one context.
    target: log π*_τ.
    step_size: η.
    iterations: steps.
  """
  _, curves = games.solve(
    game,
    step=games.omwu,
    step_size=games.constant(step_size),
    query=games.exact_query,
    logits=game.log_reference,
    iterations=iterations,
    key=jax.random.key(0),
    measures={"kl": games.kl_to(target)},
    measure_every=1,
    judged="logits",
  )
  bound = games.linear_bound(
    curves["kl"][0],
    name="omwu",
    step_size=step_size,
    kl_coef=game.kl_coef,
    iteration=jnp.arange(iterations + 1.0),
  )
  return curves["kl"], bound


def optimistic_excess(iterations: int) -> float:
  """Largest KL over its linear bound of `omwu`, on random games."""
  matrices = games.random_preferences(
    jax.random.key(0), contexts=50, responses=SIZE
  )
  reference = games_oracle.random_policies(0, 50, SIZE)
  eta = min(1 / (1 + 2 * TAU), 0.5)

  def one(game):
    target = games.regularised_equilibrium(
      game, tolerance=1e-12, max_iterations=20_000
    ).log_policy
    kl, bound = optimistic_walk(
      game, target, step_size=eta, iterations=iterations
    )
    return jnp.max((kl / (bound + 1e-20))[1:])

  game = games.make_game(preference=matrices, reference=reference, kl_coef=TAU)
  return float(jnp.max(jax.jit(jax.vmap(one))(game)))
