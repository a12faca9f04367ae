"""Where a token stands: rotary frequencies, and T5's relative buckets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Yarn(NamedTuple):
  """Settings of YaRN beside its factor.

  Attributes:
    fast, slow: turns over the original length above which a wavelength is
      kept, and below which it is slowed by the whole factor.
    length: tokens of the texts that were trained on.
    stretch: what rotated queries and keys are multiplied by.
  """

  fast: float
  slow: float
  length: int
  stretch: float


def rotary_frequencies(
  head_dim: int,
  *,
  base: float,
  factor: float,
  bands: tuple[float, float, int] | None = None,
  yarn: Yarn | None = None,
) -> np.ndarray:
  """base^(−2i/K), slowed down for texts longer than those trained on.

  Args:
    head_dim: K.
    base: of the wavelengths.
    factor: ≥ 1; frequencies are divided by it, all of them, or with `bands`
      or `yarn` the low ones.
    bands: None, or (low, high, original length) of Llama 3.1: wavelengths
      beyond original length / low are divided, those below original length /
      high are kept, and between them the frequency is interpolated.
    yarn: None, or what else YaRN says.
  Returns: f32[K/2], radians a token.
  Source: Peng et al., ICLR 2024 (YaRN), §3.2.
  """
  powers = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  frequencies = (1 / np.float32(base) ** powers).astype(np.float32)
  slowed = frequencies / np.float32(factor)
  if yarn is not None:
    low, high = (
      head_dim * np.log(yarn.length / (turns * 2 * np.pi)) / 2 / np.log(base)
      for turns in (yarn.fast, yarn.slow)
    )
    low, high = max(np.floor(low), 0), min(np.ceil(high), head_dim - 1)
    steps = np.arange(head_dim // 2) - low
    keep = 1 - np.clip(steps / max(high - low, 1e-3), 0, 1)
    return ((1 - keep) * slowed + keep * frequencies).astype(np.float32)
  if bands is None:
    return slowed
  low, high, length = bands
  wavelength = 2 * np.pi / frequencies
  keep = np.clip((length / wavelength - low) / (high - low), 0, 1)
  mixed = (1 - keep) * slowed + keep * frequencies
  return mixed.astype(np.float32)


def rotate(
  x: jax.Array,
  positions: jax.Array,
  frequencies: jax.Array,
  stretch: jax.Array | None = None,
) -> jax.Array:
  """Turns each pair (x_i, x_{i+K/2}) by position · frequency_i.

  Args:
    x: [B, T, H, K].
    positions: int[B or 1, T].
    frequencies: f32[K/2], radians a token.
    stretch: f32 scalar that the result is multiplied by; None for 1.
  Returns: as x.
  """
  angles = positions[..., None].astype(jnp.float32) * frequencies[None, None]
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  if stretch is not None:
    cos, sin = cos * stretch, sin * stretch
  cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
  first, second = jnp.split(x, 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1)


def relative_buckets(
  distance: jax.Array,
  *,
  num_buckets: int,
  max_distance: int,
  bidirectional: bool,
) -> jax.Array:
  """The bucket of key position − query position.

  Half of the buckets hold exact distances, the others grow with the logarithm
  up to `max_distance`; keys behind the query have their own if bidirectional.

  Args:
    distance: int[...], tokens.
  Returns: int32[...] below `num_buckets`.
  Source: Raffel et al., JMLR 2020, §2.1.
  """
  if bidirectional:
    num_buckets //= 2
    offset = jnp.where(distance > 0, num_buckets, 0)
    size = jnp.abs(distance)
  else:
    offset = jnp.zeros_like(distance)
    size = jnp.maximum(-distance, 0)
  exact = num_buckets // 2
  # Tabulated on the host in float32, so that a distance on the edge of a
  # bucket falls where checkpoints learned it, whatever the device's log is.
  far = np.arange(max(max_distance, exact) + 1, dtype=np.float32)
  ratio = np.log(np.maximum(far, exact) / np.float32(exact))
  ratio = ratio / np.float32(np.log(max_distance / exact))
  table = exact + (ratio * np.float32(num_buckets - exact)).astype(np.int32)
  table = np.minimum(table, num_buckets - 1)
  table[:exact] = np.arange(exact)
  inside = jnp.minimum(size, len(table) - 1)
  return (offset + jnp.asarray(table)[inside]).astype(jnp.int32)
