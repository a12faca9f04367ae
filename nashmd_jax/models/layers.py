"""Building blocks: attention over [B, H, S, K] keys, relative positions, mlp.

Keys and values are plain arrays, so that a decode cache is an argument like
any other. Nothing here knows which architecture it is part of.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

initializers = jax.nn.initializers


def fan_in_init(scale: float = 1.0, in_axis: int | tuple[int, ...] = 0):
  """Normal with variance scale / fan_in, over the named input axes."""
  axes = (in_axis,) if isinstance(in_axis, int) else in_axis

  def init(key, shape, dtype=jnp.float32):
    fan_in = np.prod([shape[axis] for axis in axes])
    return jax.random.normal(key, shape, dtype) * np.sqrt(scale / fan_in)

  return init


class Attention(nn.Module):
  """Multi-head attention without biases, in three separate moves.

  `queries`, `keys_values` and `attend` are apart so that keys and values can
  be computed once (cross-attention) or one position at a time (decoding).
  """

  num_heads: int
  head_dim: int
  width: int
  query_scale: float

  def setup(self):
    shape = (self.width, self.num_heads, self.head_dim)
    self.query = self.param("query", fan_in_init(self.query_scale**2), shape)
    self.key = self.param("key", fan_in_init(), shape)
    self.value = self.param("value", fan_in_init(), shape)
    self.out = self.param(
      "out",
      fan_in_init(in_axis=(0, 1)),
      (self.num_heads, self.head_dim, self.width),
    )

  def keys_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Memory [B, S, D] -> keys and values, each [B, H, S, K]."""
    keys = jnp.einsum("bsd,dhk->bhsk", memory, self.key)
    values = jnp.einsum("bsd,dhk->bhsk", memory, self.value)
    return keys, values

  def attend(
    self, x: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array
  ) -> jax.Array:
    """Queries from x [B, T, D]; bias broadcasts to [B, H, T, S].

    Returns: [B, T, D].
    """
    queries = jnp.einsum("btd,dhk->bhtk", x, self.query)
    scores = jnp.einsum("bhtk,bhsk->bhts", queries, keys) + bias
    weights = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("bhts,bhsk->bthk", weights, values)
    return jnp.einsum("bthk,hkd->btd", mixed, self.out)


class RelativeBias(nn.Module):
  """A learned bias for each head and bucket of relative distance.

  Half of the buckets hold exact distances, the others grow with the logarithm
  up to `max_distance`. Source: Raffel et al., JMLR 2020, §2.1.
  """

  num_heads: int
  num_buckets: int
  max_distance: int
  bidirectional: bool

  @nn.compact
  def __call__(self, query_pos: jax.Array, key_pos: jax.Array) -> jax.Array:
    """Positions int[T] and int[S] -> bias f32[1, H, T, S]."""
    table = self.param(
      "table",
      initializers.normal(0.1),
      (self.num_buckets, self.num_heads),
    )
    distance = key_pos[None, :] - query_pos[:, None]
    bias = jnp.take(table, self._bucket(distance), axis=0)
    return jnp.transpose(bias, (2, 0, 1))[None]

  def _bucket(self, distance: jax.Array) -> jax.Array:
    buckets, offset = self.num_buckets, jnp.zeros_like(distance)
    if self.bidirectional:
      buckets //= 2
      offset = jnp.where(distance > 0, buckets, 0)
      distance = jnp.abs(distance)
    else:
      distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    scale = (buckets - exact) / np.log(self.max_distance / exact)
    ratio = jnp.maximum(distance, exact) / exact
    far = exact + (jnp.log(ratio) * scale).astype(jnp.int32)
    far = jnp.minimum(far, buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)


class GatedMlp(nn.Module):
  """gelu(x W_gate) ⊙ (x W_up), then W_down; no biases."""

  mlp_dim: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    gate = self.param("gate", fan_in_init(), (self.width, self.mlp_dim))
    up = self.param("up", fan_in_init(), (self.width, self.mlp_dim))
    down = self.param("down", fan_in_init(), (self.mlp_dim, self.width))
    hidden = jax.nn.gelu(x @ gate, approximate=True) * (x @ up)
    return hidden @ down


def mask_bias(mask: jax.Array) -> jax.Array:
  """bool[...] -> 0 where true, a large negative number where false."""
  return jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min / 2)
