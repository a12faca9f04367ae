"""Losses on pairs of responses: online IPO, IPO-MD, online DPO.

Who wrote the pairs decides the algorithm: π_θ itself gives online IPO, the
mixture IPO-MD. No gradient flows to who wrote them.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays

Mean = arrays.Mean
Metrics = dict[str, Mean]


def ipo_loss(
  *,
  log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Squared error of the margin m = h(y) − h(y′) for soft preferences.

    mean_B mean_{i<j} [ p (m − 1/(2τ))² + (1 − p) (−m − 1/(2τ))² ]

  with h(y) = log(π_θ(y|x) / μ(y|x)). Written by π_θ its expected gradient is
  −4/τ times the ascent direction of self-play; written by the mixture, with
  h centred under it, −4/τ times that of Nash-MD-PG against the mixture.

  Args:
    log_ratio: f32[B, K] h(y_k), nats, of K ≥ 2 responses to each prompt, at
      the temperature that sampled them. Gradient flows through this argument.
    win_prob: f32[B, K, K] P(y_i ≻ y_j|x); only i < j is read.
    judged: bool[B, K, K], true on the pairs that count; only i < j is read.
    kl_coef: τ > 0, nats⁻¹.
  Returns: loss: mean over the judged of the B K (K − 1) / 2 pairs. metrics:
    "log_ratio" (nats a response); "margin", the mean of (2p − 1) m (nats);
    "accuracy", the share of pairs whose margin has the sign of p − ½, a tie
    counting one half.
  Raises: ValueError if shapes disagree or K < 2.
  Source: Calandriello et al., ICML 2024, §4 and §5.
  """
  margin, prob, mask = _pairs(log_ratio, win_prob, judged)
  half = 1 / (2 * kl_coef)
  won, lost = (margin - half) ** 2, (-margin - half) ** 2
  loss = arrays.mean_over(prob * won + (1 - prob) * lost, mask)
  return loss, _metrics(log_ratio, margin, prob, mask)


def online_dpo_loss(
  *,
  log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Cross-entropy of σ(τ m) against soft preferences, m = h(y) − h(y′).

    −mean_B mean_{i<j} [ p log σ(τ m) + (1 − p) log σ(−τ m) ]

  Args, Returns, Raises: as `ipo_loss`.
  Source: Rafailov et al., 2023; Guo et al., 2024 (online).
  """
  margin, prob, mask = _pairs(log_ratio, win_prob, judged)
  nats = optax.sigmoid_binary_cross_entropy(kl_coef * margin, prob)
  loss = arrays.mean_over(nats, mask)
  return loss, _metrics(log_ratio, margin, prob, mask)


def _pairs(log_ratio, win_prob, judged):
  """Margins, probabilities and mask of all pairs i < j, [B, K (K − 1) / 2]."""
  sizes = arrays.check_shapes(
    log_ratio=(log_ratio, "B K"),
    win_prob=(win_prob, "B K K"),
    judged=(judged, "B K K"),
  )
  if sizes["K"] < 2:
    raise ValueError(
      f"log_ratio: got {sizes['K']} response to each prompt, expected two or "
      "more to make pairs"
    )
  i, j = np.triu_indices(sizes["K"], 1)
  mask = judged[:, i, j]
  margin = log_ratio[:, i] - log_ratio[:, j]
  # A pair that was not judged may hold NaN, which no gradient must meet.
  return margin, jnp.where(mask, win_prob[:, i, j], 0.5), mask


def _metrics(log_ratio, margin, prob, mask) -> Metrics:
  agreement = 0.5 + 0.5 * jnp.sign(margin) * jnp.sign(prob - 0.5)
  own = np.arange(log_ratio.shape[1])[:, None]
  i, j = np.triu_indices(len(own), 1)
  among = ((own == i) | (own == j))[None]
  paired = jnp.any(mask[:, None, :] & among, axis=2)
  metrics = {
    "log_ratio": arrays.mean_over(log_ratio, paired),
    "margin": arrays.mean_over((2 * prob - 1) * margin, mask),
    "accuracy": arrays.mean_over(agreement, mask),
  }
  return lax.stop_gradient(metrics)
