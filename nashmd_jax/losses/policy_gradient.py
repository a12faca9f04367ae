"""Policy gradients on sampled responses: Nash-MD-PG and its kin, and RLHF.

Who the opponent is, and who judges, is decided elsewhere: these functions see
only log-probs and scores.
"""

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays

Metrics = dict[str, jax.Array]


def nash_pg_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[jax.Array, Metrics]:
  """Surrogate whose gradient ascends P_τ(π_θ ≻ opponent), KL to go per token.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ P(y ≻ y′|x) − ½
        − τ Σ_{m ≥ n} log(π_θ(y_m|·) / μ(y_m|·)) ]

  The log-ratio of tokens before n has zero mean against the score of token n
  only when it is left out: the KL of the same token alone is biased.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    ref_log_prob: f32[B, R] log μ(y_n | x, y_<n), nats, same temperature.
    win_prob: f32[B] P(y ≻ y′|x), one opponent response for each row.
    mask: bool[B, R], true on response tokens up to and including EOS.
    kl_coef: τ ≥ 0, nats⁻¹.
  Returns: loss: scalar, mean over B of sums over R; its value has no meaning.
    metrics: "win_prob"; "kl" (nats a response, the sampled estimate);
    "objective", win_prob − τ kl; "response_tokens".
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, §7.
  """
  arrays.check_shapes(
    log_prob=(log_prob, "B R"),
    ref_log_prob=(ref_log_prob, "B R"),
    mask=(mask, "B R"),
    win_prob=(win_prob, "B"),
  )
  loss, metrics = _regularised_pg_loss(
    log_prob, ref_log_prob, win_prob - 0.5, mask, kl_coef
  )
  metrics["win_prob"] = jnp.mean(win_prob)
  metrics["objective"] = metrics["win_prob"] - kl_coef * metrics["kl"]
  return loss, metrics


def rlhf_pg_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  reward: jax.Array,
  baseline: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[jax.Array, Metrics]:
  """Surrogate whose gradient ascends E r(x, y) − τ KL(π_θ, μ), KL to go.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ r(x, y) − b
        − τ Σ_{m ≥ n} log(π_θ(y_m|·) / μ(y_m|·)) ]

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    ref_log_prob: f32[B, R] log μ(y_n | x, y_<n), nats, same temperature.
    reward: f32[B] r(x, y), Bradley-Terry log-odds.
    baseline: f32[B], any number that does not depend on y given x, such as
      the reward of an independent response to x.
    mask: bool[B, R], true on response tokens up to and including EOS.
    kl_coef: τ ≥ 0, reward units a nat.
  Returns: loss: scalar, mean over B of sums over R; its value has no meaning.
    metrics: "reward"; "kl" (nats a response, the sampled estimate);
    "objective", reward − τ kl; "response_tokens".
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, §8 (the RLHF baseline).
  """
  arrays.check_shapes(
    log_prob=(log_prob, "B R"),
    ref_log_prob=(ref_log_prob, "B R"),
    mask=(mask, "B R"),
    reward=(reward, "B"),
    baseline=(baseline, "B"),
  )
  loss, metrics = _regularised_pg_loss(
    log_prob, ref_log_prob, reward - baseline, mask, kl_coef
  )
  metrics["reward"] = jnp.mean(reward)
  metrics["objective"] = metrics["reward"] - kl_coef * metrics["kl"]
  return loss, metrics


def _regularised_pg_loss(
  log_prob, ref_log_prob, score, mask, kl_coef
) -> tuple[jax.Array, Metrics]:
  kl_to_go = arrays.sum_to_go(log_prob - ref_log_prob, mask)
  advantage = lax.stop_gradient(score[:, None] - kl_coef * kl_to_go)
  loss = -jnp.mean(arrays.masked_sum(log_prob * advantage, mask))
  metrics = {
    "kl": jnp.mean(kl_to_go[:, 0]),
    "response_tokens": jnp.mean(jnp.sum(mask, axis=-1)),
  }
  return loss, lax.stop_gradient(metrics)
