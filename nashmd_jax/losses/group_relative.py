"""GRPO on a reward: a baseline of RLHF whose expected step is no gradient."""

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.losses import policy_gradient

Mean = arrays.Mean
Metrics = dict[str, Mean]


def grpo_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  reward: jax.Array,
  group_mean: jax.Array,
  group_spread: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Policy gradient of rewards in deviations of their group, a mean of tokens.

    −mean_B 1/|y| Σ_n [ log π_θ(y_n|·) sg[(r − mean) / deviation] − τ k_n ]
    k_n = μ/π_θ − log(μ/π_θ) − 1 at token n

  Dividing by the deviation, by |y|, and taking ∇k_n of sampled tokens alone
  each make it another direction than ∇(E r − τ KL): its bias is in
  docs/family.md. With one update a rollout its ratio to π_b is 1.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    ref_log_prob: f32[B, R] log μ(y_n | x, y_<n), nats, same temperature.
    reward: f32[B] r(x, y).
    group_mean: f32[B], of the K rewards of the prompt.
    group_spread: f32[B], their standard deviation, of K, not K − 1; where it
      is 0 nothing but the KL is learnt.
    mask: bool[B, R], true on response tokens; a row without one counts nowhere.
    kl_coef: τ ≥ 0, per nat.
  Returns: loss: mean over B. metrics, means over B: as `rlhf_pg_loss`.
  Raises: ValueError if shapes disagree.
  Source: Shao et al., 2024 (GRPO).
  """
  arrays.check_shapes(
    log_prob=(log_prob, "B R"),
    ref_log_prob=(ref_log_prob, "B R"),
    mask=(mask, "B R"),
    reward=(reward, "B"),
    group_mean=(group_mean, "B"),
    group_spread=(group_spread, "B"),
  )
  rows = jnp.any(mask, axis=-1)
  spread = jnp.where(group_spread > 0, group_spread, 1)
  score = jnp.where(group_spread > 0, (reward - group_mean) / spread, 0)
  score = lax.stop_gradient(jnp.where(rows, score, 0))
  ahead = jnp.where(mask, ref_log_prob - log_prob, 0)
  paid = jnp.exp(ahead) - ahead - 1
  gain = arrays.masked_sum(log_prob * score[:, None] - kl_coef * paid, mask)
  gain = gain / jnp.maximum(jnp.sum(mask, axis=-1), 1)
  _, metrics = policy_gradient.rlhf_pg_loss(
    log_prob=log_prob,
    ref_log_prob=ref_log_prob,
    reward=reward,
    baseline=group_mean,
    mask=mask,
    kl_coef=kl_coef,
  )
  return arrays.mean_over(-gain, rows), metrics
