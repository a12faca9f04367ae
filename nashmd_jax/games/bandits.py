"""Bandits that pay for leaving μ: what a wrong reward costs, in closed form.

The reverse KL gives μ exp(r/τ), the forward KL μ β/(λ − r). Policies are
logits f[Y], log π up to a constant, as in `preference_game`.
"""

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax.games import preference_game

HALVINGS = 100  # of an interval no wider than β: below any float's spacing


def gibbs(
  log_reference: jax.Array, rewards: jax.Array, kl_coef: jax.Array | float
) -> jax.Array:
  """argmax_π E_π r − τ KL(π, μ), logits f[Y].

  Args:
    log_reference: f[Y] log μ.
    rewards: f[Y] r.
    kl_coef: τ > 0.
  """
  return jax.nn.log_softmax(log_reference + rewards / kl_coef)


def gibbs_value(
  logits: jax.Array,
  log_reference: jax.Array,
  rewards: jax.Array,
  kl_coef: jax.Array | float,
) -> jax.Array:
  """J(π) = E_π r − τ KL(π, μ), a scalar.

  What the best policy for a wrong r̂ loses under r is exactly a KL:
  J(Gibbs(r)) − J(Gibbs(r̂)) = τ KL(Gibbs(r̂), Gibbs(r)).

  Args: as `gibbs`; logits f[Y] of π.
  """
  mean = jnp.sum(jax.nn.softmax(logits) * rewards)
  paid = preference_game.kl_divergence(logits, log_reference)
  return mean - kl_coef * paid


def forward_gibbs(
  log_reference: jax.Array, rewards: jax.Array, kl_coef: jax.Array | float
) -> jax.Array:
  """argmax_π E_π r − β KL(μ, π): π = β μ/(λ − r), logits f[Y].

  λ > max r makes it sum to one; by bisection of where it must lie,
  max_y (r + β μ) ≤ λ ≤ max r + β. No response is ever given up.

  Args:
    log_reference: f[Y] log μ, normalised.
    rewards: f[Y] r.
    kl_coef: β > 0.
  """
  reference, best = jnp.exp(log_reference), jnp.max(rewards)
  # Of λ − max r, so that nothing is lost where β is small beside r.
  short = best - rewards
  low = jnp.max(kl_coef * reference - short)
  high = jnp.asarray(kl_coef, reference.dtype)

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    above = jnp.sum(kl_coef * reference / (middle + short)) > 1
    return jnp.where(above, middle, low), jnp.where(above, high, middle)

  low, high = lax.fori_loop(0, HALVINGS, halve, (low, high))
  return log_reference + jnp.log(kl_coef / (high + short))


def forward_value(
  logits: jax.Array,
  log_reference: jax.Array,
  rewards: jax.Array,
  kl_coef: jax.Array | float,
) -> jax.Array:
  """E_π r − β KL(μ, π), a scalar; arguments as of `gibbs_value`."""
  mean = jnp.sum(jax.nn.softmax(logits) * rewards)
  paid = preference_game.kl_divergence(log_reference, logits)
  return mean - kl_coef * paid
