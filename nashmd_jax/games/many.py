"""One against many: a response against n others at once, by Plackett-Luce.

    P(y ≻ y_1 … y_n) = exp s(y) / (exp s(y) + Σ_j exp s(y_j))

Every player's response is the best of all with the share of its exponential,
so that a game of n + 1 has winning probabilities that sum to one. With n = 1
it is Bradley-Terry.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nashmd_jax.games import preference_game

MOST = 10**6  # combinations of opponents' responses


def many_win_probs(
  scores: jax.Array, opponents: Sequence[jax.Array]
) -> jax.Array:
  """P(y ≻ π_1 … π_n), the opponents' responses drawn independently, f[Y].

  Args:
    scores: f[Y] s, log-odds.
    opponents: n ≥ 1 policies, logits f[Y]; every combination of their
      responses is listed.
  Raises: ValueError for more than `MOST` combinations.
  """
  size, count = scores.shape[0], len(opponents)
  if not count or size**count > MOST:
    raise ValueError(
      f"opponents: got {count} with {size} responses each, expected from 1 to "
      f"{MOST} combinations"
    )
  weight, strength = jnp.exp(scores - jnp.max(scores)), None
  probability = jnp.ones((1,), scores.dtype)
  for logits in opponents:
    one = jax.nn.softmax(logits)
    probability = (probability[:, None] * one[None, :]).reshape(-1)
    strength = (
      weight
      if strength is None
      else (strength[:, None] + weight[None, :]).reshape(-1)
    )
  shares = weight[:, None] / (weight[:, None] + strength[None, :])
  return shares @ probability


def many_best_response(
  log_reference: jax.Array,
  scores: jax.Array,
  opponents: Sequence[jax.Array],
  kl_coef: jax.Array | float,
) -> jax.Array:
  """argmax_π P(π ≻ π_1 … π_n) − τ KL(π, μ), logits f[Y].

  Args: as `many_win_probs`; log_reference f[Y] log μ, kl_coef τ > 0.
  """
  wins = many_win_probs(scores, opponents)
  return jax.nn.log_softmax(log_reference + wins / kl_coef)


def many_gap(
  log_reference: jax.Array,
  scores: jax.Array,
  logits: jax.Array,
  players: int,
  kl_coef: jax.Array | float,
) -> jax.Array:
  """What the best reply to n copies of π gains over π, a scalar, 0 at rest.

  In closed form τ KL(π, best reply).

  Args:
    logits: f[Y] of π.
    players: n + 1 ≥ 2 of them.
    log_reference, scores, kl_coef: as `many_best_response`.
  """
  reply = many_best_response(
    log_reference, scores, [logits] * (players - 1), kl_coef
  )
  return kl_coef * preference_game.kl_divergence(logits, reply)
