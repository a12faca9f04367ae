"""Losses on pairs of responses: IPO, DPO and PEPO's margin.

Who wrote the pairs decides the algorithm: π_θ itself gives online IPO, the
mixture IPO-MD, the last iterate INPO (see `iterated`), and records of
comparisons offline IPO and DPO. No gradient flows to who wrote them.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays

Mean = arrays.Mean
Metrics = dict[str, Mean]


class Pairs(NamedTuple):
  """All pairs i < j of K responses, each [B, K (K − 1) / 2].

  Attributes:
    margin: h(y_i) − h(y_j), nats.
    prob: P(y_i ≻ y_j|x), ½ where it is not known.
    weight: what a pair counts; 0 where it was not judged.
  """

  margin: jax.Array
  prob: jax.Array
  weight: jax.Array


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
    judged: bool[B, K, K], true on the pairs that count, or f32 ≥ 0, what each
      counts; only i < j is read.
    kl_coef: τ > 0, nats⁻¹.
  Returns: loss: mean over the judged of the B K (K − 1) / 2 pairs. metrics:
    "log_ratio" (nats a response); "margin", the mean of (2p − 1) m (nats);
    "accuracy", the share of pairs whose margin has the sign of p − ½, a tie
    counting one half.
  Raises: ValueError if shapes disagree or K < 2.
  Source: Azar et al., 2024 (offline); Calandriello et al., ICML 2024, §4, §5.
  """
  pairs = compared(log_ratio, win_prob, judged)
  half = 1 / (2 * kl_coef)
  won, lost = (pairs.margin - half) ** 2, (-pairs.margin - half) ** 2
  return _mean(won, lost, pairs), told(log_ratio, pairs)


def ipo_per_token_loss(
  *,
  mean_log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """`ipo_loss` with h(y)/|y| for h(y): another loss, not a scale of it.

  Args:
    mean_log_ratio: f32[B, K] h(y_k) over the tokens of y_k, nats a token.
    win_prob, judged, kl_coef: as `ipo_loss`.
  Returns, Raises: as `ipo_loss`, "log_ratio" and "margin" in nats a token.
  """
  return ipo_loss(
    log_ratio=mean_log_ratio, win_prob=win_prob, judged=judged, kl_coef=kl_coef
  )


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
  return pepo_loss(
    log_ratio=log_ratio,
    win_prob=win_prob,
    judged=judged,
    kl_coef=kl_coef,
    pessimism=0.0,
  )


def dpo_per_token_loss(
  *,
  mean_log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """`online_dpo_loss` with h(y)/|y| for h(y).

  Args, Returns, Raises: as `ipo_per_token_loss`.
  """
  return online_dpo_loss(
    log_ratio=mean_log_ratio, win_prob=win_prob, judged=judged, kl_coef=kl_coef
  )


def pepo_loss(
  *,
  log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
  pessimism: float,
) -> tuple[Mean, Metrics]:
  """DPO whose winner has to win by log(1 + a) nats: PEPO's margin loss.

    −mean_B mean_{i<j} [ p log σ(τ (m − log(1 + a)))
        + (1 − p) log σ(τ (−m − log(1 + a))) ]

  Args:
    log_ratio, win_prob, judged, kl_coef: as `ipo_loss`.
    pessimism: a ≥ 0; 0 is DPO.
  Returns, Raises: as `ipo_loss`.
  """
  pairs = compared(log_ratio, win_prob, judged)
  least = np.log1p(pessimism)
  won, lost = (
    jax.nn.softplus(-kl_coef * (margin - least))
    for margin in (pairs.margin, -pairs.margin)
  )
  return _mean(won, lost, pairs), told(log_ratio, pairs)


def numbers(count: int) -> tuple[np.ndarray, np.ndarray]:
  """Numbers i < j of all pairs of so many responses."""
  return np.triu_indices(count, 1)


def compared(
  log_ratio: jax.Array, win_prob: jax.Array, judged: jax.Array
) -> Pairs:
  """The pairs that arguments as those of `ipo_loss` are of."""
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
  i, j = numbers(sizes["K"])
  weight = judged[:, i, j].astype(log_ratio.dtype)
  margin = log_ratio[:, i] - log_ratio[:, j]
  # A pair that was not judged may hold NaN, which no gradient must meet.
  return Pairs(margin, jnp.where(weight > 0, win_prob[:, i, j], 0.5), weight)


def told(log_ratio: jax.Array, found: Pairs) -> Metrics:
  """The metrics of a loss of pairs; see `ipo_loss`."""
  margin, prob, _ = found
  agreement = 0.5 + 0.5 * jnp.sign(margin) * jnp.sign(prob - 0.5)
  own = np.arange(log_ratio.shape[1])[:, None]
  i, j = numbers(len(own))
  among = ((own == i) | (own == j))[None]
  paired = jnp.any((found.weight > 0)[:, None, :] & among, axis=2)
  metrics = {
    "log_ratio": arrays.mean_over(log_ratio, paired),
    "margin": _weighted((2 * prob - 1) * margin, found),
    "accuracy": _weighted(agreement, found),
  }
  return lax.stop_gradient(metrics)


def _mean(won, lost, found: Pairs) -> Mean:
  """The mean loss of pairs, from that of each side winning."""
  return _weighted(found.prob * won + (1 - found.prob) * lost, found)


def _weighted(values, found: Pairs) -> Mean:
  kept = jnp.where(found.weight > 0, values, 0)
  return Mean(jnp.sum(found.weight * kept), jnp.sum(found.weight))
