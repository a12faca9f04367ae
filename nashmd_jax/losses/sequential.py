"""A game of two turns: the follower reads what the leader wrote, and answers.

The same policy plays both, from two prompts; see `nash.second_turn`.
"""

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.losses import policy_gradient

Mean = arrays.Mean
Metrics = dict[str, Mean]


def stackelberg_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  follower_log_prob: jax.Array,
  follower_ref_log_prob: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  follower_mask: jax.Array,
  kl_coef: float,
  follower_kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Surrogate of one step of both players of a Stackelberg game.

    max_π min_ω E_{y ~ π, y′ ~ ω(·|x, y)} P(y ≻ y′|x)
      + τ_F E_{y ~ π} KL(ω(·|x, y), ω_0(·|x, y)) − τ_L KL(π, μ)

  The leader ascends and the follower descends it, each with the other fixed:
  `nash_pg_loss` of y with P(y ≻ y′) + τ_F log(ω/ω_0)(y′|x, y), since by its y
  the leader also chooses what the follower pays, and of y′ with P(y′ ≻ y). If
  one policy plays both it is the sum of two gradients, of no single objective.

  Args:
    log_prob, ref_log_prob: f32[B, R] log π(y_n|·) and log μ(y_n|·), nats.
      Gradient flows through the former.
    follower_log_prob, follower_ref_log_prob: f32[B, R] the same of y′, after
      x and y: log ω(y′_n|·) and log ω_0(y′_n|·).
    win_prob: f32[B] P(y ≻ y′|x).
    mask, follower_mask: bool[B, R], of y and y′; a row without a token in the
      former was not judged, and counts nowhere.
    kl_coef: τ_L ≥ 0, nats⁻¹.
    follower_kl_coef: τ_F ≥ 0, nats⁻¹.
  Returns: loss: the sum of the two means over B; its value has no meaning.
    metrics, means over B: the leader's; "follower_kl", nats; "game", the
    estimate of the objective above.
  Raises: ValueError if shapes disagree.
  Source: Pásztor et al., 2025 (Stackelberg learning from human feedback).
  """
  counted = jnp.any(mask, axis=1)
  answered = follower_mask & counted[:, None]
  ratio = follower_log_prob - follower_ref_log_prob
  paid = lax.stop_gradient(arrays.masked_sum(ratio, answered))
  led, metrics = policy_gradient.nash_pg_loss(
    log_prob=log_prob,
    ref_log_prob=ref_log_prob,
    win_prob=win_prob + follower_kl_coef * paid,
    mask=mask,
    kl_coef=kl_coef,
  )
  followed, _ = policy_gradient.nash_pg_loss(
    log_prob=follower_log_prob,
    ref_log_prob=follower_ref_log_prob,
    win_prob=1 - win_prob,
    mask=answered,
    kl_coef=follower_kl_coef,
  )
  metrics["game"] = metrics["objective"]
  metrics["win_prob"] = arrays.mean_over(win_prob, counted)
  metrics["follower_kl"] = arrays.mean_over(paid, counted)
  return led._replace(total=led.total + followed.total), metrics
