"""Losses on single responses with a label: KTO, RDRO, UNA.

A label is 1 for a desired response, 0 for one that is not, and may lie
between. Nobody writes and nobody judges: both come with the records.
h(y) = log(π_θ(y|x) / μ(y|x)), `log_ratio`, nats of the whole response.
"""

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nashmd_jax import arrays

Mean = arrays.Mean
Metrics = dict[str, Mean]


def kto_loss(
  *,
  log_ratio: jax.Array,
  mismatched_log_ratio: jax.Array,
  label: jax.Array,
  kl_coef: float,
  desired_share: float,
) -> tuple[Mean, Metrics]:
  """Desired responses above a point of reference z₀, the others below it.

    mean_B [ λ_D l (1 − σ(τ (h − z₀))) + λ_U (1 − l) (1 − σ(τ (z₀ − h))) ]

  with z₀ = sg[max(0, mean_B h(y of another prompt))], an estimate of
  KL(π_θ, μ), and λ_D = 1/(2a), λ_U = 1/(2(1 − a)), so that both sides weigh
  the same.

  Args:
    log_ratio: f32[B] h, nats. Gradient flows through this argument only.
    mismatched_log_ratio: f32[B], log(π_θ(y′|x) / μ(y′|x)) of a response y′
      to another prompt, nats.
    label: f32[B] l in [0, 1].
    kl_coef: τ > 0, nats⁻¹, often called β.
    desired_share: a in (0, 1), of the desired among the records.
  Returns: loss: mean over B. metrics: those of `una_loss` and
    "reference_point", z₀ (nats).
  Raises: ValueError if shapes disagree.
  Source: Ethayarajh et al., ICML 2024.
  """
  _check(log_ratio, label)
  arrays.check_shapes(
    log_ratio=(log_ratio, "B"), mismatched_log_ratio=(mismatched_log_ratio, "B")
  )
  point = jnp.maximum(jnp.mean(lax.stop_gradient(mismatched_log_ratio)), 0)
  above = kl_coef * (log_ratio - point)
  chosen = label * jax.nn.sigmoid(-above) / (2 * desired_share)
  rejected = (1 - label) * jax.nn.sigmoid(above) / (2 * (1 - desired_share))
  loss, metrics = _told(chosen + rejected, log_ratio, label)
  return loss, metrics | {"reference_point": _mean(point[None])}


def rdro_loss(
  *, log_ratio: jax.Array, label: jax.Array, desired_share: float
) -> tuple[Mean, Metrics]:
  """Fits the desired part p⁺ of μ = a p⁺ + (1 − a) p⁻; there is no τ.

    mean_B [ l/a ((1 + a) softplus(h) − h) + (1 − l)/(1 − a) u ],
    u = (1 − a) softplus(h)

  Where a share a of what μ wrote is desired, this is the mean of the first
  over p⁺ and that of u over p⁻. Its optimum is π = p⁺, so that π/μ is at most
  1/a.

  Args:
    log_ratio: f32[B] h, nats. Gradient flows through this argument only.
    label: f32[B] l in [0, 1].
    desired_share: a in (0, 1), of the desired among the records.
  Returns: loss: mean over B. metrics: those of `una_loss`.
  Raises: ValueError if shapes disagree.
  """
  _check(log_ratio, label)
  soft = jax.nn.softplus(log_ratio)
  chosen = label / desired_share * ((1 + desired_share) * soft - log_ratio)
  return _told(chosen + (1 - label) * soft, log_ratio, label)


def una_loss(
  *, log_ratio: jax.Array, label: jax.Array, kl_coef: float
) -> tuple[Mean, Metrics]:
  """Cross-entropy of σ(τ h) against the label.

    −mean_B [ l log σ(τ h) + (1 − l) log σ(−τ h) ]

  τ h stands for a reward without its τ log Z(x): σ(τ h) = l everywhere needs
  Σ_y μ(y) (l/(1 − l))^{1/τ} = 1.

  Args:
    log_ratio: f32[B] h, nats. Gradient flows through this argument only.
    label: f32[B] l in [0, 1].
    kl_coef: τ > 0, nats⁻¹.
  Returns: loss: mean over B. metrics: "log_ratio" (nats a response); "margin",
    mean of (2l − 1) h (nats); "accuracy", the share of responses whose h has
    the sign of l − ½, a tie counting one half.
  Raises: ValueError if shapes disagree.
  Source: Wang et al., 2024 (UNA).
  """
  _check(log_ratio, label)
  nats = optax.sigmoid_binary_cross_entropy(kl_coef * log_ratio, label)
  return _told(nats, log_ratio, label)


def una_score_loss(
  *, log_ratio: jax.Array, label: jax.Array, kl_coef: float
) -> tuple[Mean, Metrics]:
  """Squared error of σ(τ h) against a score in [0, 1]: mean_B (σ(τ h) − l)².

  Args, Returns, Raises, Source: as `una_loss`.
  """
  _check(log_ratio, label)
  error = (jax.nn.sigmoid(kl_coef * log_ratio) - label) ** 2
  return _told(error, log_ratio, label)


def _check(log_ratio, label) -> None:
  arrays.check_shapes(log_ratio=(log_ratio, "B"), label=(label, "B"))


def _told(values, log_ratio, label) -> tuple[Mean, Metrics]:
  agreement = 0.5 + 0.5 * jnp.sign(log_ratio) * jnp.sign(label - 0.5)
  metrics = {
    "log_ratio": _mean(log_ratio),
    "margin": _mean((2 * label - 1) * log_ratio),
    "accuracy": _mean(agreement),
  }
  return _mean(values), lax.stop_gradient(metrics)


def _mean(values: jax.Array) -> Mean:
  return arrays.mean_over(values, jnp.ones(values.shape, bool))
