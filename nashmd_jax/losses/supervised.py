"""Maximum-likelihood losses: fine-tuning, preferences, Bradley-Terry."""

import jax
import jax.numpy as jnp
import optax

from nashmd_jax import arrays

Mean = arrays.Mean
Metrics = dict[str, Mean]


def sft_loss(*, log_prob: jax.Array, mask: jax.Array) -> tuple[Mean, Metrics]:
  """−mean_B Σ_n log π_θ(y_n | x, y_<n) over the written response y.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats. Gradient flows through.
    mask: bool[B, R], true on response tokens up to and including EOS; a row
      without one counts nowhere.
  Returns: loss: nats a response, mean over B of sums over R. metrics:
    "nats_per_token", mean over all unmasked tokens.
  Raises: ValueError if shapes disagree.
  """
  arrays.check_shapes(log_prob=(log_prob, "B R"), mask=(mask, "B R"))
  nats = -arrays.masked_sum(log_prob, mask)
  loss = arrays.mean_over(nats, jnp.any(mask, axis=-1))
  tokens = jnp.sum(mask).astype(nats.dtype)
  return loss, {"nats_per_token": Mean(loss.total, tokens)}


KINDS, TIES = ("soft", "hard"), ("half", "skip")


def comparison_targets(
  prob_a: jax.Array,
  weight: jax.Array,
  *,
  kind: str,
  ties: str,
  smoothing: float,
) -> tuple[jax.Array, jax.Array]:
  """What a judge is trained towards, and with which weight.

  Args:
    prob_a: f32[B] in [0, 1], the stated preference for a over b.
    weight: f32[B] ≥ 0, of each comparison.
    kind: "soft", the stated share; or "hard", 1 for the side that more
      than half prefer.
    ties: what a share of just ½ is: "half", a target of ½; or "skip", nothing
      that is learned from.
    smoothing: ε, the share of a target that is replaced by ½:
      (1 − ε) p + ε/2.
  Returns: targets f32[B] and weights f32[B].
  """
  if kind == "hard":
    prob_a = 0.5 + 0.5 * jnp.sign(prob_a - 0.5)
  if ties == "skip":
    weight = jnp.where(prob_a == 0.5, 0, weight)
  if smoothing:
    prob_a = (1 - smoothing) * prob_a + 0.5 * smoothing
  return prob_a, weight


def preference_loss(
  *, logit: jax.Array, prob_a: jax.Array, weight: jax.Array, mask: jax.Array
) -> tuple[Mean, Metrics]:
  """Cross-entropy of σ(logit) against the stated preference for a over b.

    −Σ_B w [ p log σ(ℓ) + (1 − p) log σ(−ℓ) ] / Σ_B w

  Args:
    logit: f32[B] log-odds that a is preferred. Gradient flows through.
    prob_a: f32[B] in [0, 1]; 1 where a was chosen, ½ for a tie.
    weight: f32[B] ≥ 0, of each comparison in the loss.
    mask: bool[B], true on the comparisons that count.
  Returns: loss: nats a comparison, weighted mean over B. metrics: "accuracy",
    the share of comparisons, each counted once, whose stated side is given
    more than ½; a tie on either side counts one half.
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  arrays.check_shapes(
    logit=(logit, "B"),
    prob_a=(prob_a, "B"),
    weight=(weight, "B"),
    mask=(mask, "B"),
  )
  logit, prob_a = jnp.where(mask, logit, 0), jnp.where(mask, prob_a, 0.5)
  weight = jnp.where(mask, weight, 0)
  nats = optax.sigmoid_binary_cross_entropy(logit, prob_a)
  agreement = 0.5 + 0.5 * jnp.sign(logit) * jnp.sign(prob_a - 0.5)
  return Mean(jnp.sum(weight * nats), jnp.sum(weight)), {
    "accuracy": arrays.mean_over(agreement, mask)
  }


def bradley_terry_loss(
  *,
  reward_a: jax.Array,
  reward_b: jax.Array,
  prob_a: jax.Array,
  weight: jax.Array,
  mask: jax.Array,
) -> tuple[Mean, Metrics]:
  """Cross-entropy of the Bradley-Terry model P(a ≻ b) = σ(r_a − r_b).

  Args:
    reward_a: f32[B] r(x, a). Gradient flows through both rewards.
    reward_b: f32[B] r(x, b).
    prob_a: f32[B] in [0, 1], as for `preference_loss`.
    weight: f32[B], as for `preference_loss`.
    mask: bool[B], as for `preference_loss`.
  Returns: loss and metrics of `preference_loss` at logit r_a − r_b.
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  arrays.check_shapes(reward_a=(reward_a, "B"), reward_b=(reward_b, "B"))
  return preference_loss(
    logit=reward_a - reward_b, prob_a=prob_a, weight=weight, mask=mask
  )
