"""Off-policy ratios: what a token counts that another policy π_b wrote.

δ_n = log π_θ(y_n|·) − log π_b(y_n|·). Only the product over the whole response
makes the expected gradient exact when the score comes at its end; the others
are biased, and vary less once π_θ has moved far. Each has the clip that its
source gives it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays


class Ratio(NamedTuple):
  """What the tokens of B responses count, f32[B, R] each, or [B, 1] for all.

  Attributes:
    weight: the ratio.
    low, high: where it is clipped.
  """

  weight: jax.Array
  low: jax.Array | float
  high: jax.Array | float


def product(delta: jax.Array, mask: jax.Array, clip: float) -> Ratio:
  """exp(Σ_m δ_m) for every token, clipped to [1 − ε, 1 + ε]: exact unclipped.

  Args:
    delta: f32[B, R] δ, nats.
    mask: bool[B, R], true on response tokens.
    clip: ε > 0.
  """
  weight = jnp.exp(arrays.masked_sum(delta, mask))
  return Ratio(weight[:, None], 1 - clip, 1 + clip)


def token(delta: jax.Array, mask: jax.Array, clip: float) -> Ratio:
  """exp(δ_n), clipped to [1 − ε, 1 + ε]: PPO's and GRPO's.

  Args: as `product`.
  Source: Schulman et al., 2017.
  """
  return Ratio(jnp.exp(jnp.where(mask, delta, 0)), 1 - clip, 1 + clip)


def mean(delta: jax.Array, mask: jax.Array, clip: float) -> Ratio:
  """exp(mean_m δ_m) for every token, clipped to [1 − ε, 1 + ε]: GSPO's.

  Args: as `product`.
  Source: Zheng et al., 2025 (GSPO).
  """
  tokens = jnp.maximum(jnp.sum(mask, axis=-1), 1)
  weight = jnp.exp(arrays.masked_sum(delta, mask) / tokens)
  return Ratio(weight[:, None], 1 - clip, 1 + clip)


def prefix(delta: jax.Array, mask: jax.Array, clip: float) -> Ratio:
  """exp(Σ_{m ≤ n} δ_m), its log clipped to [−ε √n / 2, ε √n]: CTPO's.

  Args: as `product`; ε is .05 in the source, and n counts from 1.
  """
  kept = jnp.where(mask, delta, 0)
  weight = jnp.exp(jnp.cumsum(kept, axis=-1))
  number = jnp.maximum(jnp.cumsum(mask, axis=-1), 1)
  wide = clip * jnp.sqrt(number.astype(delta.dtype))
  return Ratio(weight, jnp.exp(-wide / 2), jnp.exp(wide))


RATIOS: dict[str, Callable[[jax.Array, jax.Array, float], Ratio]] = {
  "product": product,
  "token": token,
  "mean": mean,
  "prefix": prefix,
}
