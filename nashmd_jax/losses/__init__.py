"""Losses: functions of log-probs, masks and win probabilities, no model.

Symbols, the same in all of them:
  π_θ policy, `log_prob` · μ reference, `ref_log_prob` · y response of the
  learner · y′ response of the opponent · P(y ≻ y′) `win_prob` · τ `kl_coef` ·
  β `mixture`, the weight on the reference.
"""

from nashmd_jax.losses.policy_gradient import nash_pg_loss, rlhf_pg_loss
from nashmd_jax.losses.supervised import (
  bradley_terry_loss,
  preference_loss,
  sft_loss,
)

__all__ = [
  "bradley_terry_loss",
  "nash_pg_loss",
  "preference_loss",
  "rlhf_pg_loss",
  "sft_loss",
]
