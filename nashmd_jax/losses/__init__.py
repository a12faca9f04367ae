"""Losses: functions of log-probs, masks and win probabilities, no model.

Symbols, the same in all of them:
  π_θ policy, `log_prob` · μ reference, `ref_log_prob` · y response of the
  learner · y′ response of the opponent · P(y ≻ y′) `win_prob` · τ `kl_coef` ·
  β `mixture`, the weight on the reference.
"""

from nashmd_jax.losses.group_relative import grpo_loss
from nashmd_jax.losses.iterated import dno_loss, egpo_loss, hold, sppo_loss
from nashmd_jax.losses.pairwise import (
  dpo_per_token_loss,
  ipo_loss,
  ipo_per_token_loss,
  online_dpo_loss,
  pepo_loss,
)
from nashmd_jax.losses.policy_gradient import (
  leave_one_out,
  nash_pg_exact_kl_loss,
  nash_pg_loss,
  nash_pg_off_policy_loss,
  nash_pg_sequence_kl_loss,
  rlhf_pg_exact_kl_loss,
  rlhf_pg_loss,
  rlhf_pg_sequence_kl_loss,
)
from nashmd_jax.losses.ratios import RATIOS
from nashmd_jax.losses.sequential import stackelberg_loss
from nashmd_jax.losses.supervised import (
  bradley_terry_loss,
  comparison_targets,
  preference_loss,
  sft_loss,
)
from nashmd_jax.losses.unary import (
  kto_loss,
  rdro_loss,
  una_loss,
  una_score_loss,
)

__all__ = [
  "RATIOS",
  "bradley_terry_loss",
  "comparison_targets",
  "dno_loss",
  "dpo_per_token_loss",
  "egpo_loss",
  "grpo_loss",
  "hold",
  "ipo_loss",
  "ipo_per_token_loss",
  "kto_loss",
  "leave_one_out",
  "nash_pg_exact_kl_loss",
  "nash_pg_loss",
  "nash_pg_off_policy_loss",
  "nash_pg_sequence_kl_loss",
  "online_dpo_loss",
  "pepo_loss",
  "preference_loss",
  "rdro_loss",
  "rlhf_pg_exact_kl_loss",
  "rlhf_pg_loss",
  "rlhf_pg_sequence_kl_loss",
  "sft_loss",
  "sppo_loss",
  "stackelberg_loss",
  "una_loss",
  "una_score_loss",
]
