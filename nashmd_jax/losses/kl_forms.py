"""What a response pays for leaving μ, in three forms of one expectation.

All give the exact gradient of τ KL(π_θ, μ) on average: `to_go` leaves out of
the sampled log-ratios those that a token cannot change, `whole` leaves out
none, `exact` sums over the vocabulary instead of sampling. A form that charges
token n its own log-ratio alone is biased and is not here.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays

Mean = arrays.Mean
Metrics = dict[str, Mean]


class Payment(NamedTuple):
  """A KL form of B responses.

  Attributes:
    owed: f32[B, R], nats that the score of token n is charged, or [B, 1] when
      all tokens are charged the same.
    direct: f32[B], nats; the part of KL(π_θ, μ) whose gradient is taken
      directly. Gradient flows through it.
    kl: f32[B], nats, the estimate of KL(π_θ, μ) that the form makes.
  """

  owed: jax.Array
  direct: jax.Array
  kl: jax.Array


def to_go(
  log_prob: jax.Array, ref_log_prob: jax.Array, mask: jax.Array
) -> Payment:
  """Token n pays Σ_{m ≥ n} log(π_θ(y_m|·) / μ(y_m|·)); arrays [B, R]."""
  owed = arrays.sum_to_go(log_prob - ref_log_prob, mask)
  return Payment(owed, jnp.zeros_like(owed[:, 0]), owed[:, 0])


def whole(
  log_prob: jax.Array, ref_log_prob: jax.Array, mask: jax.Array
) -> Payment:
  """Token n pays log(π_θ(y|x) / μ(y|x)) of all of y; arrays [B, R]."""
  kl = arrays.masked_sum(log_prob - ref_log_prob, mask)
  return Payment(kl[:, None], jnp.zeros_like(kl), kl)


def exact(token_kl: jax.Array, mask: jax.Array) -> Payment:
  """Token n pays Σ_{m > n} KL_m, and −∇KL_n is taken directly.

  KL_n = Σ_v π_θ(v | x, y_<n) log(π_θ(v | x, y_<n) / μ(v | x, y_<n)).

  Args:
    token_kl: f32[B, R], KL_n.
    mask: bool[B, R].
  """
  kl = jnp.where(mask, token_kl, 0)
  to_come = arrays.sum_to_go(kl, mask) - kl
  total = jnp.sum(kl, axis=-1)
  return Payment(to_come, total, total)


def pg_loss(
  log_prob: jax.Array,
  score: jax.Array,
  payment: Payment,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """−mean_B [ Σ_n log π_θ(y_n|·) · sg[s − τ owed_n] − τ direct ].

  Args:
    log_prob: f32[B, R]. Gradient flows through it and `payment.direct`.
    score: f32[B] s, what the response is worth before the KL.
    payment: of a KL form.
    mask: bool[B, R]; a row without a true token counts nowhere.
    kl_coef: τ.
  Returns: loss: mean over the counted rows of sums over R. metrics: "kl"
    (nats a response), "response_tokens".
  """
  rows = jnp.any(mask, axis=-1)
  owed = kl_coef * payment.owed
  charged = lax.stop_gradient(jnp.where(mask, score[:, None] - owed, 0))
  gain = arrays.masked_sum(log_prob * charged, mask)
  loss = arrays.mean_over(kl_coef * payment.direct - gain, rows)
  tokens = jnp.sum(mask, axis=-1).astype(gain.dtype)
  metrics = {
    "kl": arrays.mean_over(payment.kl, rows),
    "response_tokens": arrays.mean_over(tokens, rows),
  }
  return loss, lax.stop_gradient(metrics)
