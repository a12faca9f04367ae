"""Maximum-likelihood losses: fine-tuning, preferences, Bradley-Terry."""

import jax
import jax.numpy as jnp
import optax

from nashmd_jax import arrays

Metrics = dict[str, jax.Array]


def sft_loss(
  *, log_prob: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Metrics]:
  """−mean_B Σ_n log π_θ(y_n | x, y_<n) over the written response y.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats. Gradient flows through.
    mask: bool[B, R], true on response tokens up to and including EOS.
  Returns: loss: scalar, nats a response, mean over B of sums over R.
    metrics: "nats_per_token", over all unmasked tokens of the batch.
  Raises: ValueError if shapes disagree.
  """
  arrays.check_shapes(log_prob=(log_prob, "B R"), mask=(mask, "B R"))
  loss = -jnp.mean(arrays.masked_sum(log_prob, mask))
  tokens = jnp.mean(jnp.sum(mask, axis=-1))
  return loss, {"nats_per_token": loss / jnp.maximum(tokens, 1)}


def preference_loss(
  *, logit: jax.Array, prob_a: jax.Array
) -> tuple[jax.Array, Metrics]:
  """Cross-entropy of σ(logit) against the stated preference for a over b.

    −mean_B [ p log σ(ℓ) + (1 − p) log σ(−ℓ) ]

  Args:
    logit: f32[B] log-odds that a is preferred. Gradient flows through.
    prob_a: f32[B] in [0, 1]; 1 where a was chosen, ½ for a tie.
  Returns: loss: scalar, nats a comparison, mean over B. metrics: "accuracy",
    the share of comparisons whose stated side is given more than ½; a tie on
    either side counts one half.
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  arrays.check_shapes(logit=(logit, "B"), prob_a=(prob_a, "B"))
  loss = jnp.mean(optax.sigmoid_binary_cross_entropy(logit, prob_a))
  agreement = jnp.sign(logit) * jnp.sign(prob_a - 0.5)
  return loss, {"accuracy": jnp.mean(0.5 + 0.5 * agreement)}


def bradley_terry_loss(
  *, reward_a: jax.Array, reward_b: jax.Array, prob_a: jax.Array
) -> tuple[jax.Array, Metrics]:
  """Cross-entropy of the Bradley-Terry model P(a ≻ b) = σ(r_a − r_b).

  Args:
    reward_a: f32[B] r(x, a). Gradient flows through both rewards.
    reward_b: f32[B] r(x, b).
    prob_a: f32[B] in [0, 1], as for `preference_loss`.
  Returns: loss and metrics of `preference_loss` at logit r_a − r_b.
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  arrays.check_shapes(reward_a=(reward_a, "B"), reward_b=(reward_b, "B"))
  return preference_loss(logit=reward_a - reward_b, prob_a=prob_a)
