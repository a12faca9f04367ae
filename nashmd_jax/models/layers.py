"""Building blocks that encoder-decoder and decoder-only models share.

Keys and values are plain arrays, so that a decode cache is an argument like
any other. Nothing here knows which architecture it is part of.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.models import attention, lora

DTYPES = ("float32", "bfloat16")
LOOPS = ("auto", "scan", "unroll")
# Numbers of a model whose layers are worth compiling one by one on a CPU.
LARGE = 2**20
REMAT = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
ACTIVATIONS = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=True),
  "silu": jax.nn.silu,
}


class Numerics(NamedTuple):
  """How a model is computed, apart from what it computes.

  Attributes:
    dtype: of activations; logits are at least float32 all the same.
    param_dtype: of the parameters that `init` makes.
    remat: what the backward pass computes again: "none", "full" (every
      layer), or "dots" (all but the matrix products with parameters).
    attention: "auto", a platform, or the kernel to prefer; see `attention`.
    loop: over the layers, as it is compiled: "scan", which compiles a layer
      once, "unroll", which copies none out of its stack, or "auto"; see
      `loop_on`.
  """

  dtype: str
  param_dtype: str
  remat: str
  attention: str
  loop: str


def loop_on(
  requested: str, *, platform: str, devices: int, numbers: int
) -> str:
  """The loop over layers that a model asks for on given devices.

  Args:
    requested: one of `LOOPS`.
    platform: of the devices, such as "cpu".
    devices: how many.
    numbers: that the model has.
  """
  if requested != "auto":
    return requested
  large = platform == "cpu" and devices == 1 and numbers >= LARGE
  return "unroll" if large else "scan"


def check_numerics(numerics: Numerics) -> None:
  """Raises ValueError for a setting that does not exist."""
  choices = {
    "dtype": DTYPES,
    "param_dtype": DTYPES,
    "remat": tuple(REMAT),
    "attention": (*attention.ORDER, *attention.KERNELS),
    "loop": LOOPS,
  }
  for name, allowed in choices.items():
    value = getattr(numerics, name)
    if value not in allowed:
      raise ValueError(
        f"model.{name}: got {value!r}, expected one of {allowed}"
      )


def fan_in_init(scale: float = 1.0, in_axes: int = 1):
  """Normal with variance scale / fan_in, over the first `in_axes` axes."""

  def init(key, shape, dtype):
    fan_in = np.prod(shape[:in_axes])
    draw = jax.random.normal(key, shape, jnp.float32)
    return (draw * np.sqrt(scale / fan_in)).astype(dtype)

  return init


def scan_layers(
  block: type[nn.Module],
  depth: int,
  methods: Sequence[str],
  numerics: Numerics,
) -> type[nn.Module]:
  """The block repeated, its parameters stacked on a leading axis of depth.

  Args:
    block: its methods take (carry, per_layer, shared) and return (carry,
      out); the leaves of `per_layer` have the axis of depth, and what they
      return as `out` is stacked along it.
    depth: N.
    methods: of the block.
    numerics: how; `remat` is of all but "one_position", which does not train.
  """
  unroll = numerics.loop == "unroll"
  if numerics.remat != "none":
    block = nn.remat(
      block,
      policy=REMAT[numerics.remat],
      prevent_cse=unroll,
      methods=[name for name in methods if name != "one_position"],
    )
  return nn.scan(
    block,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=(0, nn.broadcast),
    length=depth,
    unroll=depth if unroll else 1,
    methods=list(methods),
  )


def apart(tree: Any) -> list[Any]:
  """What is stacked on a leading axis of depth, as one tree a layer.

  A loop that reads a layer out of a stack copies it each time.
  """
  depth = len(jax.tree.leaves(tree)[0])
  return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(depth)]


def one_by_one(
  block: nn.Module,
  weights: Sequence[Any],
  carry: Any,
  per_layer: Sequence[Any],
  shared: Any,
) -> Any:
  """The method "one_position" of `scan_layers`, of layers that lie apart.

  Args:
    block: without a parent.
    weights: parameters of each layer.
    carry, shared: of the method.
    per_layer: of each layer.
  Returns: the last carry.
  """
  for params, of_layer in zip(weights, per_layer, strict=True):
    carry, _ = block.apply(
      {"params": params}, carry, of_layer, shared, method="one_position"
    )
  return carry


def take_rows(caches: Any, rows: jax.Array) -> Any:
  """Some rows of arrays [B, G, S, K], stacked or not."""
  return jax.tree.map(lambda x: jnp.take(x, rows, axis=-4), caches)


def rows_of(prompts: jax.Array, lanes_per_prompt: int) -> jax.Array:
  """Rows int[n·L] of the prompts int[n], which have L rows each."""
  lanes = jnp.arange(lanes_per_prompt)[None]
  return (prompts[:, None] * lanes_per_prompt + lanes).reshape(-1)


class RMSNorm(nn.Module):
  """x / √(mean x² + ε) ⊙ (offset + scale), in float32.

  The offset is 1 where checkpoints hold the difference from 1 (Gemma).
  """

  size: int
  epsilon: float
  offset: float
  numerics: Numerics

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    start = nn.initializers.constant(1.0 - self.offset)
    scale = self.param("scale", start, (self.size,), self.numerics.param_dtype)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    scale = (self.offset + scale.astype(wide.dtype)).reshape(
      (1,) * (x.ndim - 1) + (-1,)
    )
    return (wide * lax.rsqrt(square + self.epsilon) * scale).astype(x.dtype)


class Attention(nn.Module):
  """Projections of grouped-query attention; H query heads, G key heads.

  They are apart from the attention itself, so that keys and values can be
  computed once (cross-attention) or one position at a time (decoding).

  Attributes:
    query_init: factor on the standard deviation of the query's initialiser.
    biases: whether queries, keys and values have biases.
  """

  width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  query_init: float
  biases: bool
  numerics: Numerics

  def setup(self):
    heads, groups, size = self.num_heads, self.num_kv_heads, self.head_dim
    dtype = self.numerics.param_dtype
    into = fan_in_init()
    query = fan_in_init(self.query_init**2)
    self.query = self.param("query", query, (self.width, heads, size), dtype)
    self.key = self.param("key", into, (self.width, groups, size), dtype)
    self.value = self.param("value", into, (self.width, groups, size), dtype)
    out = fan_in_init(in_axes=2)
    self.out = self.param("out", out, (heads, size, self.width), dtype)
    if self.biases:
      zeros = nn.initializers.zeros
      self.query_bias = self.param("query_bias", zeros, (heads, size), dtype)
      self.key_bias = self.param("key_bias", zeros, (groups, size), dtype)
      self.value_bias = self.param("value_bias", zeros, (groups, size), dtype)

  def queries(self, x: jax.Array) -> jax.Array:
    """[B, T, D] -> [B, T, H, K]."""
    queries = lora.project(x, self.query)
    return self._plus(queries, "query_bias")

  def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, S, D] -> keys and values, each [B, S, G, K]."""
    keys = lora.project(x, self.key)
    values = lora.project(x, self.value)
    return self._plus(keys, "key_bias"), self._plus(values, "value_bias")

  def output(self, mixed: jax.Array) -> jax.Array:
    """What the heads have read, [B, T, H, K] -> [B, T, D]."""
    return lora.project(mixed, self.out, inputs=2)

  def _plus(self, x, name):
    if not self.biases:
      return x
    return x + getattr(self, name).astype(x.dtype)[None, None]


class GatedMlp(nn.Module):
  """activation(x W_gate) ⊙ (x W_up), then W_down; no biases."""

  width: int
  mlp_dim: int
  activation: str
  numerics: Numerics

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dtype, init = self.numerics.param_dtype, fan_in_init()
    into, back = (self.width, self.mlp_dim), (self.mlp_dim, self.width)
    gate = self.param("gate", init, into, dtype)
    up = self.param("up", init, into, dtype)
    down = self.param("down", init, back, dtype)
    gate = ACTIVATIONS[self.activation](lora.project(x, gate))
    hidden = gate * lora.project(x, up)
    return lora.project(hidden, down)


def embed(table: jax.Array, tokens: jax.Array, dtype: str) -> jax.Array:
  """Rows of the table [V, D] for int[B, T] -> [B, T, D]."""
  return jnp.take(table, tokens, axis=0).astype(dtype)


def head_logits(
  x: jax.Array,
  head: jax.Array,
  tokens: Sequence[int] | None,
  *,
  soft_cap: float | None,
) -> jax.Array:
  """x [..., D] times a head [D, V] -> logits [..., V], at least float32.

  Args:
    tokens: ids of the columns that are wanted, None for all.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  if tokens is not None:
    head = jnp.take(head, jnp.array(tokens), axis=1)
  # Of two matrices, as in `lora.project`.
  flat = jnp.matmul(
    x.reshape(-1, x.shape[-1]),
    head.astype(x.dtype),
    preferred_element_type=wide,
  )
  logits = flat.reshape(*x.shape[:-1], -1)
  if soft_cap is not None:
    logits = soft_cap * jnp.tanh(logits / soft_cap)
  return logits


def cache_layout(x: jax.Array) -> jax.Array:
  """[B, S, G, K] -> [B, G, S, K], in which one more query reads it fastest."""
  return jnp.swapaxes(x, 1, 2)


def write_cache(
  cache: jax.Array | list[jax.Array],
  layer: jax.Array,
  new: jax.Array,
  slot: jax.Array,
) -> tuple[jax.Array | list[jax.Array], jax.Array]:
  """Puts one position of one layer into a cache, in place where it can.

  Args:
    cache: [N, B, G, S, K], the carry of a scan over layers; or a list of N.
    layer: int scalar below N, a number of Python's for a list.
    new: [B, 1, G, K].
    slot: int scalar below S.
  Returns: the cache, and the layer of it [B, G, S, K].
  """
  if isinstance(cache, list):
    one = cache[layer]
    new = cache_layout(new).astype(one.dtype)
    one = lax.dynamic_update_slice(one, new, (0, 0, slot, 0))
    return [*cache[:layer], one, *cache[layer + 1 :]], one
  new = cache_layout(new)[None].astype(cache.dtype)
  cache = lax.dynamic_update_slice(cache, new, (layer, 0, 0, slot, 0))
  return cache, lax.dynamic_index_in_dim(cache, layer, keepdims=False)
