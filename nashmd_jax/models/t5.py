"""T5 v1.1 and Flan-T5: encoder-decoder, relative positions, gated GELU.

The head is its own matrix (untied), and attention scores are not divided by
√K: the query's initialiser carries that factor. No dropout.
Source: Raffel et al., JMLR 2020; the v1.1 release of its authors.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import attention, language_model, layers, positions

START_ID = 0


class T5Config(NamedTuple):
  """An architecture.

  Attributes:
    vocab_size: V.
    width: D.
    num_heads: H.
    head_dim: K.
    mlp_dim: F.
    encoder_layers: N of the encoder.
    decoder_layers: N of the decoder.
    num_buckets: of relative positions.
    max_distance: tokens; all beyond share a bucket.
    norm_epsilon: under the root of every norm.
    dtype, param_dtype, remat, attention, loop: see `layers.Numerics`.
  """

  vocab_size: int
  width: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  encoder_layers: int
  decoder_layers: int
  num_buckets: int
  max_distance: int
  norm_epsilon: float = 1e-6
  dtype: str = "float32"
  param_dtype: str = "float32"
  remat: str = "none"
  attention: str = "auto"
  loop: str = "auto"

  @property
  def numerics(self) -> layers.Numerics:
    return layers.Numerics(
      *(getattr(self, name) for name in layers.Numerics._fields)
    )


class T5Cache(NamedTuple):
  """What decoding one token needs besides the parameters.

  Attributes:
    fed: int32 scalar, how many tokens each row has been fed.
    cross: keys and values of the prompts, each [N, B, H, P, K]; or a list of
      N of both.
    prompt_mask: bool[B, P].
    keys: of what was fed so far, [N, B·L, H, R, K]; or a list of N.
    values: likewise.
  """

  fed: jax.Array
  cross: tuple[jax.Array, jax.Array] | list[tuple[jax.Array, jax.Array]]
  prompt_mask: jax.Array
  keys: jax.Array | list[jax.Array]
  values: jax.Array | list[jax.Array]


def _attention(config: T5Config) -> layers.Attention:
  return layers.Attention(
    width=config.width,
    num_heads=config.num_heads,
    num_kv_heads=config.num_heads,
    head_dim=config.head_dim,
    query_init=config.head_dim**-0.5,
    biases=False,
    numerics=config.numerics,
  )


def _mlp(config: T5Config) -> layers.GatedMlp:
  return layers.GatedMlp(config.width, config.mlp_dim, "gelu", config.numerics)


def _norm(config: T5Config) -> layers.RMSNorm:
  return layers.RMSNorm(config.width, config.norm_epsilon, 0.0, config.numerics)


class RelativeBias(nn.Module):
  """A learned bias for each head and bucket of relative distance."""

  config: T5Config
  bidirectional: bool

  @nn.compact
  def __call__(self, query_pos: jax.Array, key_pos: jax.Array) -> jax.Array:
    """Positions int[T] and int[S] -> bias [1, H, T, S]."""
    table = self.param(
      "table",
      nn.initializers.normal(0.1),
      (self.config.num_buckets, self.config.num_heads),
      self.config.param_dtype,
    )
    buckets = positions.relative_buckets(
      key_pos[None, :] - query_pos[:, None],
      num_buckets=self.config.num_buckets,
      max_distance=self.config.max_distance,
      bidirectional=self.bidirectional,
    )
    bias = jnp.take(table, buckets, axis=0).astype(self.config.dtype)
    return jnp.transpose(bias, (2, 0, 1))[None]


class EncoderBlock(nn.Module):
  """Self-attention and mlp, each behind a norm."""

  config: T5Config

  def setup(self):
    self.attention, self.mlp = _attention(self.config), _mlp(self.config)
    self.attention_norm, self.mlp_norm = _norm(self.config), _norm(self.config)

  def all_positions(self, x, per_layer, shared):
    """x [B, P, D] -> [B, P, D]."""
    bias, mask = shared
    h = self.attention_norm(x)
    mixed = attention.attend(
      self.attention.queries(h),
      *self.attention.keys_values(h),
      scale=1.0,
      bias=bias,
      mask=mask,
      kernel=self.config.attention,
    )
    x = x + self.attention.output(mixed)
    return x + self.mlp(self.mlp_norm(x)), None


class DecoderBlock(nn.Module):
  """Self-attention, cross-attention and mlp, each behind a norm."""

  config: T5Config

  def setup(self):
    config = self.config
    self.attention, self.cross = _attention(config), _attention(config)
    self.mlp = _mlp(config)
    self.attention_norm, self.cross_norm = _norm(config), _norm(config)
    self.mlp_norm = _norm(config)

  def all_positions(self, x, per_layer, shared):
    """x [B·K, T, D] -> [B·K, T, D], teacher forced, K to each prompt."""
    encoded, mask, bias = shared
    h = self.attention_norm(x)
    mixed = attention.attend(
      self.attention.queries(h),
      *self.attention.keys_values(h),
      scale=1.0,
      causal=True,
      bias=bias,
      kernel=self.config.attention,
    )
    x = x + self.attention.output(mixed)
    # The rows of a prompt are so many queries to the same keys.
    by_prompt = (len(encoded), -1, x.shape[-1])
    mixed = attention.attend(
      self.cross.queries(self.cross_norm(x).reshape(by_prompt)),
      *self.cross.keys_values(encoded),
      scale=1.0,
      mask=mask,
      kernel=self.config.attention,
    )
    x = x + self.cross.output(mixed).reshape(x.shape)
    return x + self.mlp(self.mlp_norm(x)), None

  def cross_keys_values(self, nothing, per_layer, encoded):
    """Keys and values of the prompts [B, P, D], as a cache holds them."""
    keys, values = self.cross.keys_values(encoded)
    cached = layers.cache_layout(keys), layers.cache_layout(values)
    return nothing, cached

  def one_position(self, carry, per_layer, shared):
    """x [B·L, 1, D] at one position of all rows, which joins the cache."""
    (x, all_keys, all_values), (layer, cross) = carry, per_layer
    fed, prompt_mask, bias, seen = shared
    h = self.attention_norm(x)
    keys, values = self.attention.keys_values(h)
    all_keys, keys = layers.write_cache(all_keys, layer, keys, fed)
    all_values, values = layers.write_cache(all_values, layer, values, fed)
    mixed = attention.attend_cached(
      self.attention.queries(h), keys, values, scale=1.0, bias=bias, mask=seen
    )
    x = x + self.attention.output(mixed)
    # The lanes of a prompt are so many queries to the same keys.
    by_prompt = (prompt_mask.shape[0], -1, x.shape[-1])
    queries = self.cross.queries(self.cross_norm(x).reshape(by_prompt))
    mixed = attention.attend_cached(
      queries, *cross, scale=1.0, mask=prompt_mask[:, None, None]
    )
    x = x + self.cross.output(mixed).reshape(x.shape)
    return (x + self.mlp(self.mlp_norm(x)), all_keys, all_values), None


class T5(nn.Module):
  """Parameters and the ways through them; see `make_t5`."""

  config: T5Config

  def setup(self):
    config = self.config
    dtype = config.param_dtype
    self.embedding = self.param(
      "embedding",
      nn.initializers.normal(1.0),
      (config.vocab_size, config.width),
      dtype,
    )
    self.encoder = layers.scan_layers(
      EncoderBlock, config.encoder_layers, ("all_positions",), config.numerics
    )(config)
    self.decoder = layers.scan_layers(
      DecoderBlock,
      config.decoder_layers,
      ("all_positions", "cross_keys_values", "one_position"),
      config.numerics,
    )(config)
    self.encoder_bias = RelativeBias(config, bidirectional=True)
    self.decoder_bias = RelativeBias(config, bidirectional=False)
    self.encoder_norm, self.decoder_norm = _norm(config), _norm(config)
    self.head = self.param(
      "head", layers.fan_in_init(), (config.width, config.vocab_size), dtype
    )

  def encode(self, prompts, prompt_mask):
    """int[B, P] -> [B, P, D]."""
    arrays.check_shapes(
      prompts=(prompts, "B P"), prompt_mask=(prompt_mask, "B P")
    )
    where = jnp.arange(prompts.shape[1])
    shared = self.encoder_bias(where, where), prompt_mask[:, None, None]
    x, _ = self.encoder.all_positions(self._embed(prompts), (), shared)
    return self.encoder_norm(x)

  def prefill(self, prompts, prompt_mask, lanes_per_prompt, max_response):
    encoded = self.encode(prompts, prompt_mask)
    config, rows = self.config, prompts.shape[0] * lanes_per_prompt
    _, cross = self.decoder.cross_keys_values((), (), encoded)
    shape = (
      config.decoder_layers,
      rows,
      config.num_heads,
      max_response,
      config.head_dim,
    )
    cache = T5Cache(
      fed=jnp.int32(0),
      cross=cross,
      prompt_mask=prompt_mask,
      keys=jnp.zeros(shape, config.dtype),
      values=jnp.zeros(shape, config.dtype),
    )
    return cache, jnp.full((rows,), START_ID, jnp.int32)

  def decode(self, cache, tokens):
    slots = jnp.arange(cache.keys[0].shape[2])
    bias = self.decoder_bias(cache.fed[None], slots)
    seen = (slots <= cache.fed)[None, None, None]
    carry = (self._embed(tokens[:, None]), cache.keys, cache.values)
    shared = (cache.fed, cache.prompt_mask, bias, seen)
    if isinstance(cache.keys, list):
      x, keys, values = layers.one_by_one(
        DecoderBlock(self.config, parent=None),
        self.get_variable("params", "decoder"),
        carry,
        list(enumerate(cache.cross)),
        shared,
      )
    else:
      numbers = jnp.arange(self.config.decoder_layers)
      (x, keys, values), _ = self.decoder.one_position(
        carry, (numbers, cache.cross), shared
      )
    cache = cache._replace(fed=cache.fed + 1, keys=keys, values=values)
    return self.logits(x[:, 0], None), cache

  def response_states(self, prompts, prompt_mask, responses):
    start = jnp.full_like(responses[:, :1], START_ID)
    fed = jnp.concatenate([start, responses[:, :-1]], axis=1)
    return self._decoded(prompts, prompt_mask, fed)

  def next_states(self, prompts, prompt_mask, responses, lengths):
    start = jnp.full((responses.shape[0], 1), START_ID, responses.dtype)
    fed = jnp.concatenate([start, responses], axis=1)
    x = self._decoded(prompts, prompt_mask, fed)
    return jnp.take_along_axis(x, lengths[:, None, None], axis=1)[:, 0]

  def _decoded(self, prompts, prompt_mask, fed):
    """Decoder inputs int[B·K, T] -> [B·K, T, D], all positions at once."""
    language_model.each(prompts, fed)
    where = jnp.arange(fed.shape[1])
    shared = (
      self.encode(prompts, prompt_mask),
      prompt_mask[:, None, None],
      self.decoder_bias(where, where),
    )
    x, _ = self.decoder.all_positions(self._embed(fed), (), shared)
    return x

  def _embed(self, tokens):
    return layers.embed(self.embedding, tokens, self.config.dtype)

  def logits(self, x, tokens):
    return layers.head_logits(
      self.decoder_norm(x), self.head, tokens, soft_cap=None
    )


def _apart(params, cache):
  params = params | {"decoder": layers.apart(params["decoder"])}
  return params, cache._replace(
    cross=layers.apart(cache.cross),
    keys=list(cache.keys),
    values=list(cache.values),
  )


def _take(cache, prompts, lanes_per_prompt):
  rows = layers.rows_of(prompts, lanes_per_prompt)
  keys, values = layers.take_rows((cache.keys, cache.values), rows)
  return cache._replace(
    cross=layers.take_rows(cache.cross, prompts),
    prompt_mask=cache.prompt_mask[prompts],
    keys=keys,
    values=values,
  )


def make_t5(config: T5Config) -> language_model.LanguageModel:
  """A T5 v1.1 as a LanguageModel.

  Raises: ValueError for a setting of the numerics that does not exist.
  """
  layers.check_numerics(config.numerics)
  return language_model.from_module(
    T5(config),
    one_sequence=False,
    apart=_apart if config.loop == "unroll" else None,
    take=_take,
  )
