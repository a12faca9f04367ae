"""One regularised preference game, and what is known of it in closed form.

A policy is given by logits f[Y], log π up to a constant, so that everything
stays in log space. All functions are pure and hold for one context; `jax.vmap`
makes them hold for many contexts, games, τ and policies.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.games import payoffs


class Game(NamedTuple):
  """P_τ(π ≻ π′) = P(π ≻ π′) − τ KL(π, μ) + τ KL(π′, μ).

  Attributes:
    preference: f[Y, Y], P(y ≻ y′).
    log_reference: f[Y], log μ, normalised, nats.
    kl_coef: f[], τ; 0 is the game without regularisation.
  """

  preference: jax.Array
  log_reference: jax.Array
  kl_coef: jax.Array


def make_game(
  *,
  preference: np.ndarray,
  reference: np.ndarray,
  kl_coef: float | np.ndarray,
) -> Game:
  """A checked game, or one for each context.

  Args:
    preference: [..., Y, Y]; see `payoffs`.
    reference: [..., Y], μ, every entry above 0; broadcast over contexts.
    kl_coef: [...], τ, 0 or more; broadcast over contexts.
  Returns: the game in JAX's default float type (float64 where that is
    enabled), with the leading axes of `preference` on every part.
  Raises: ValueError that names the cell or entry that is wrong.
  """
  preference = payoffs.check_preference(preference)
  reference = payoffs.check_distribution(reference, "reference")
  kl_coef = np.asarray(kl_coef)
  if not (np.isfinite(kl_coef) & (kl_coef >= 0)).all():
    raise ValueError(f"kl_coef: expected 0 or more, got {kl_coef}")
  contexts = preference.shape[:-2]
  try:
    log_reference = np.broadcast_to(
      np.log(reference), (*contexts, preference.shape[-1])
    )
    kl_coef = np.broadcast_to(kl_coef, contexts)
  except ValueError:
    raise ValueError(
      f"reference, kl_coef: shapes {reference.shape} and {kl_coef.shape} do "
      f"not fit a preference of shape {preference.shape}"
    ) from None
  dtype = jnp.result_type(float)
  return Game(
    preference=jnp.asarray(preference, dtype),
    log_reference=jax.nn.log_softmax(jnp.asarray(log_reference, dtype)),
    kl_coef=jnp.asarray(kl_coef, dtype),
  )


def win_probs(game: Game, logits: jax.Array) -> jax.Array:
  """P(y ≻ π) for every response y.

  Args:
    logits: f[Y] of the opponent π.
  Returns: f[Y].
  """
  weight = jnp.exp(logits - jnp.max(logits))
  against = jnp.matmul(game.preference, weight, precision=lax.Precision.HIGHEST)
  return against / jnp.sum(weight)


def win_rate(game: Game, logits: jax.Array, opponent: jax.Array) -> jax.Array:
  """P(π ≻ π′), a scalar, of two policies given by logits f[Y]."""
  return jnp.sum(jax.nn.softmax(logits) * win_probs(game, opponent))


def kl_divergence(logits: jax.Array, other: jax.Array) -> jax.Array:
  """KL(π, π′) in nats, never negative, small values to full relative accuracy.

  With δ = log π − log π′ it sums π (e^−δ − 1 + δ), which adds Σ π′ − Σ π = 0
  to the usual Σ π δ and leaves terms without sign change to sum.

  Args:
    logits: f[Y] of π; −inf is a response never given.
    other: f[Y] of π′.
  """
  log_prob = jax.nn.log_softmax(logits)
  log_other = jax.nn.log_softmax(other)
  prob, difference = jnp.exp(log_prob), log_prob - log_other
  small = jnp.abs(difference) < 0.02
  d = jnp.where(small, difference, 0)
  # e^−d − 1 + d, to the sixth order
  series = d**2 / 2 * (1 - d / 3 * (1 - d / 4 * (1 - d / 5 * (1 - d / 6))))
  large = jnp.where(prob > 0, prob * difference - prob, 0) + jnp.exp(log_other)
  return jnp.sum(jnp.where(small, prob * series, large))


def regularised_win_rate(
  game: Game, logits: jax.Array, opponent: jax.Array
) -> jax.Array:
  """P_τ(π ≻ π′), a scalar; see `Game`."""
  return win_rate(game, logits, opponent) + game.kl_coef * (
    kl_divergence(opponent, game.log_reference)
    - kl_divergence(logits, game.log_reference)
  )


def best_response(game: Game, logits: jax.Array) -> jax.Array:
  """Logits f[Y] of argmax_π′ P_τ(π′ ≻ π).

  For τ > 0 it is μ exp(P(y ≻ π) / τ), up to a constant; for τ = 0 it puts
  everything on the first of the responses that win most often.
  """
  wins = win_probs(game, logits)
  one = jax.nn.one_hot(jnp.argmax(wins), wins.shape[-1], dtype=bool)
  smooth = game.log_reference + wins / _above_zero(game.kl_coef)
  return jnp.where(game.kl_coef > 0, smooth, jnp.where(one, 0, -jnp.inf))


def duality_gap(game: Game, logits: jax.Array) -> jax.Array:
  """max_π′ P_τ(π′ ≻ π) − ½, the exploitability of π; 0 only at equilibrium.

  For τ > 0 it is τ log Σ_y μ(y) exp(P(y ≻ π) / τ) + τ KL(π, μ) − ½, computed
  as the equal τ KL(π, best response), which keeps its relative accuracy down
  to the smallest gaps; for τ = 0 it is max_y P(y ≻ π) − ½.

  Returns: scalar; the sum over both players of the symmetric game is twice
    this.
  """
  wins = win_probs(game, logits)
  response = game.log_reference + wins / _above_zero(game.kl_coef)
  return jnp.where(
    game.kl_coef > 0,
    game.kl_coef * kl_divergence(logits, response),
    jnp.max(wins) - 0.5,
  )


def _above_zero(kl_coef: jax.Array) -> jax.Array:
  return jnp.where(kl_coef > 0, kl_coef, 1)
