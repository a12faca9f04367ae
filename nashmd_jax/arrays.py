"""Shape checks, masked reductions and token log-probs that all layers share.

Dimension letters are the house ones: B batch, L lanes, P prompt, R response,
T any sequence, V vocabulary. Nothing here knows a model, a loss or a device.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp


class Mean(NamedTuple):
  """A mean that is not divided yet.

  Sums and counts add up over micro-batches, devices, updates and steps, where
  the mean of means would be wrong: counts may differ.

  Attributes:
    total: f32 scalar, the sum. Gradient flows through it.
    count: f32 scalar, what it is divided by.
  """

  total: jax.Array
  count: jax.Array

  @property
  def value(self) -> jax.Array:
    """The mean; 0 of nothing."""
    return self.total / self.divisor

  @property
  def divisor(self) -> jax.Array:
    """The count, which may be a sum of weights; 1 of nothing."""
    return jnp.where(self.count > 0, self.count, 1)


def mean_over(values: jax.Array, mask: jax.Array) -> Mean:
  """The mean of the entries where `mask` is true.

  Args:
    values: f32[...]; may be non-finite where the mask is false.
    mask: bool[...], of the same shape.
  """
  total = jnp.sum(jnp.where(mask, values, 0))
  return Mean(total, jnp.sum(mask).astype(total.dtype))


def check_shapes(**named) -> dict[str, int]:
  """Checks that arrays agree with their dimension letters and one another.

  Args:
    **named: name = (array, "B R"), one letter for each dimension; the same
      letter means the same size throughout the call.
  Returns: the size of every letter.
  Raises: ValueError that names the array, what was expected and what was got.
  """
  sizes: dict[str, int] = {}
  for name, (array, spec) in named.items():
    letters, shape = spec.split(), tuple(array.shape)
    fits = len(letters) == len(shape) and all(
      sizes.get(letter, size) == size
      for letter, size in zip(letters, shape, strict=True)
    )
    if not fits:
      known = {k: sizes[k] for k in letters if k in sizes}
      raise ValueError(
        f"{name}: expected [{', '.join(letters)}] with {known}, got shape "
        f"{shape}"
      )
    sizes.update(zip(letters, shape, strict=True))
  return sizes


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Sum over the last axis of the entries where `mask` is true.

  Args:
    values: f32[..., T]; may be non-finite where the mask is false.
    mask: bool[..., T].
  Returns: f32[...].
  """
  return jnp.sum(jnp.where(mask, values, 0), axis=-1)


def sum_to_go(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Σ_{m ≥ n} values_m over unmasked m, for every position n of the last axis.

  Args:
    values: f32[..., T]; may be non-finite where the mask is false.
    mask: bool[..., T].
  Returns: f32[..., T], finite also where the mask is false.
  """
  kept = jnp.where(mask, values, 0)
  return lax.cumsum(kept, axis=kept.ndim - 1, reverse=True)


def log_softmax(logits: jax.Array, temperature: float) -> jax.Array:
  """log softmax(logits / temperature) over the last axis, at least float32."""
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  return jax.nn.log_softmax(logits.astype(dtype) / temperature, axis=-1)


def token_log_probs(
  logits: jax.Array, tokens: jax.Array, temperature: float
) -> jax.Array:
  """log softmax(logits / temperature) at the given tokens, in nats.

  Args:
    logits: [..., T, V], any float dtype. Gradient flows through it.
    tokens: int[..., T].
    temperature: of the distribution that is scored, > 0.
  Returns: f32[..., T] (float64 for float64 logits).
  """
  log_probs = log_softmax(logits, temperature)
  return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def left_justify(
  tokens: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Moves the unmasked tokens of each row to its front, order kept.

  Args:
    tokens: int[B, T].
    mask: bool[B, T], true on tokens to keep, with gaps anywhere.
  Returns: tokens int[B, T], zero behind the kept ones, and their mask.
  """
  check_shapes(tokens=(tokens, "B T"), mask=(mask, "B T"))
  order = jnp.argsort(~mask, axis=-1, stable=True)
  mask = jnp.take_along_axis(mask, order, axis=-1)
  tokens = jnp.take_along_axis(tokens, order, axis=-1)
  return jnp.where(mask, tokens, 0), mask
