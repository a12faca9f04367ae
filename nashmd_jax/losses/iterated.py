"""What an iteration learns of the responses of the last iterate π_t.

The policy is held to what `hold` makes: μ, the last iterates, or both. IPO
held so, on pairs that π_t wrote, is INPO; with several anchors it is MNPO.
SPPO and DNO learn from P(y ≻ π_t), which the other responses to the prompt
estimate.
"""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nashmd_jax import arrays
from nashmd_jax.losses import pairwise

Mean = arrays.Mean
Metrics = dict[str, Mean]


def hold(
  *, kl_coef: float, anchor_coef: float, anchor_weights: Sequence[float]
) -> tuple[float, float, list[float]]:
  """One KL in place of several: what is paid for leaving μ and the anchors.

    τ KL(π, μ) + κ Σ_j w_j KL(π, π_j)
      = η E_π[log π − λ_0 log μ − Σ_j λ_j log π_j]

  with η = τ + κ, λ_0 = τ/η and λ_j = κ w_j/η, w summing to 1.

  Args:
    kl_coef: τ ≥ 0, of μ.
    anchor_coef: κ ≥ 0, of the anchors together; τ + κ > 0.
    anchor_weights: w > 0 up to a constant factor, of each anchor.
  Returns: η, λ_0, and λ_j of each anchor.
  """
  price, total = kl_coef + anchor_coef, sum(anchor_weights)
  shares = [anchor_coef / price * one / total for one in anchor_weights]
  return price, kl_coef / price, shares


def sppo_loss(
  *,
  log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Squared error of log(π_θ/π_t) against what mirror descent would make it.

    mean over responses of ( log(π_θ(y)/π_t(y)) − (P̂(y ≻ π_t) − ½) / η )²

  The step of mirror descent is meant; it leaves out log E_π_t exp((P − ½)/η),
  without which it is exact only where that is 0.

  Args:
    log_ratio: f32[B, K] log(π_θ(y)/π_t(y)), nats, of K ≥ 2 responses of π_t
      to each prompt. Gradient flows through this argument.
    win_prob: f32[B, K, K] P(y_i ≻ y_j|x); only i < j is read.
    judged: bool[B, K, K]; only i < j is read. A response of no judged pair
      counts nowhere.
    kl_coef: η > 0, nats⁻¹, the inverse of the step size.
  Returns: loss: mean over the responses that count. metrics: those of
    `ipo_loss`.
  Raises: ValueError if shapes disagree or K < 2.
  Source: Wu et al., 2024 (SPPO).
  """
  wins, known, metrics = _against_the_rest(log_ratio, win_prob, judged)
  error = (log_ratio - (wins - 0.5) / kl_coef) ** 2
  return arrays.mean_over(error, known), metrics


def dno_loss(
  *,
  log_ratio: jax.Array,
  win_prob: jax.Array,
  judged: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Cross-entropy of σ(η margin) against σ(r_i − r_j), r = P̂(y ≻ π_t).

    −mean_{i<j} [ σ(r_i − r_j) log σ(Δ) + σ(r_j − r_i) log σ(−Δ) ]
    Δ = η ( log(π_θ(y_i)/π_t(y_i)) − log(π_θ(y_j)/π_t(y_j)) )

  Args: as `sppo_loss`; every pair of responses that both count is learnt.
  Returns, Raises: as `sppo_loss`, a mean over those pairs.
  Source: Rosset et al., 2024 (DNO).
  """
  wins, known, metrics = _against_the_rest(log_ratio, win_prob, judged)
  i, j = pairwise.numbers(log_ratio.shape[1])
  target = jax.nn.sigmoid(wins[:, i] - wins[:, j])
  margin = kl_coef * (log_ratio[:, i] - log_ratio[:, j])
  nats = optax.sigmoid_binary_cross_entropy(margin, target)
  return arrays.mean_over(nats, known[:, i] & known[:, j]), metrics


def egpo_loss(
  *,
  log_ratio: jax.Array,
  wins: jax.Array,
  wins_known: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Squared error of the margin against what another policy π″ says of it.

    mean_B mean_{i<j} [ h(y_i) − h(y_j)
        − (P̂(y_i ≻ π″) − P̂(y_j ≻ π″)) / τ ]²

  with h(y) = log(π_θ(y|x) / μ(y|x)) and pairs that π_t wrote, the last iterate.
  At θ_t, with π″ = π_t, its gradient is that of online IPO; EGPO takes it twice
  from θ_t, the second time with π″ as the first has made it.

  Args:
    log_ratio: f32[B, K] h(y_k), nats, of K ≥ 2 responses to each prompt.
      Gradient flows through this argument.
    wins: f32[B, K] P̂(y_k ≻ π″|x), by responses of π″ that are none of these.
    wins_known: bool[B, K], false where nothing was judged.
    kl_coef: τ > 0, nats⁻¹.
  Returns: loss: mean over the pairs of known ones. metrics: those of
    `ipo_loss`, with ½ + ½ (P̂(y_i ≻ π″) − P̂(y_j ≻ π″)) for P(y_i ≻ y_j).
  Raises: ValueError if shapes disagree or K < 2.
  Source: Zhou et al., 2025 (EGPO).
  """
  arrays.check_shapes(wins=(wins, "B K"), wins_known=(wins_known, "B K"))
  wins = lax.stop_gradient(jnp.where(wins_known, wins, 0.5))
  prob = 0.5 + 0.5 * (wins[:, :, None] - wins[:, None, :])
  known = wins_known[:, :, None] & wins_known[:, None, :]
  found = pairwise.compared(log_ratio, prob, known)
  error = (found.margin - (2 * found.prob - 1) / kl_coef) ** 2
  counted = found.weight > 0
  return arrays.mean_over(error, counted), pairwise.told(log_ratio, found)


def _against_the_rest(log_ratio, win_prob, judged):
  """P̂(y ≻ π_t) f32[B, K], the mean over the judged others; which there are."""
  pairs = pairwise.compared(log_ratio, win_prob, judged)
  size = log_ratio.shape[1]
  i, j = pairwise.numbers(size)
  won = jnp.zeros(log_ratio.shape, pairs.prob.dtype)
  count = won.at[:, i].add(pairs.weight).at[:, j].add(pairs.weight)
  won = won.at[:, i].add(pairs.weight * pairs.prob)
  won = won.at[:, j].add(pairs.weight * (1 - pairs.prob))
  wins = won / jnp.where(count > 0, count, 1)
  return lax.stop_gradient(wins), count > 0, pairwise.told(log_ratio, pairs)
