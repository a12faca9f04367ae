"""T5 v1.1: encoder-decoder, relative positions, RMS norm, gated GELU.

The head is its own matrix (untied) and attention scores are not divided by
√K: the query initialiser carries that factor. No dropout.
Source: Raffel et al., JMLR 2020; the v1.1 release of its authors.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import language_model, layers

START_ID = 0


class T5Cache(NamedTuple):
  """What decoding one token needs besides the parameters.

  Attributes:
    position: int32 scalar, how many tokens each row has been fed.
    cross: for each decoder layer keys and values of the prompt, [B, H, P, K].
    cross_bias: f32[B, 1, 1, P], masks the padding of the prompts.
    past: for each decoder layer keys and values fed so far, [B·L, H, R, K].
  """

  position: jax.Array
  cross: tuple[tuple[jax.Array, jax.Array], ...]
  cross_bias: jax.Array
  past: tuple[tuple[jax.Array, jax.Array], ...]


class EncoderBlock(nn.Module):
  """Pre-norm self-attention and mlp."""

  attention: dict[str, int | float]
  mlp_dim: int

  @nn.compact
  def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
    attention = layers.Attention(**self.attention, name="self_attention")
    h = nn.RMSNorm(name="self_norm")(x)
    x = x + attention.attend(h, *attention.keys_values(h), bias)
    h = nn.RMSNorm(name="mlp_norm")(x)
    return x + layers.GatedMlp(self.mlp_dim, x.shape[-1], name="mlp")(h)


class DecoderBlock(nn.Module):
  """Pre-norm self-attention, cross-attention and mlp."""

  attention: dict[str, int | float]
  mlp_dim: int

  def setup(self):
    self.self_attention = layers.Attention(**self.attention)
    self.cross_attention = layers.Attention(**self.attention)
    self.mlp = layers.GatedMlp(self.mlp_dim, self.attention["width"])
    self.self_norm = nn.RMSNorm()
    self.cross_norm = nn.RMSNorm()
    self.mlp_norm = nn.RMSNorm()

  def cross_keys_values(self, encoded: jax.Array):
    return self.cross_attention.keys_values(encoded)

  def all_positions(self, x, cross, cross_bias, bias):
    """x [B, T, D] -> [B, T, D], teacher forced."""
    h = self.self_norm(x)
    keys, values = self.self_attention.keys_values(h)
    x = x + self.self_attention.attend(h, keys, values, bias)
    x = x + self.cross_attention.attend(self.cross_norm(x), *cross, cross_bias)
    return x + self.mlp(self.mlp_norm(x))

  def one_position(self, x, cross, cross_bias, past, bias, position):
    """x [B·L, 1, D] -> [B·L, 1, D] and the past with this position in it."""
    h = self.self_norm(x)
    new = self.self_attention.keys_values(h)
    past = tuple(
      lax.dynamic_update_slice(old, one.astype(old.dtype), (0, 0, position, 0))
      for old, one in zip(past, new, strict=True)
    )
    x = x + self.self_attention.attend(h, *past, bias)
    by_prompt = (cross_bias.shape[0], -1, x.shape[-1])
    h = self.cross_norm(x).reshape(by_prompt)
    h = self.cross_attention.attend(h, *cross, cross_bias)
    x = x + h.reshape(x.shape)
    return x + self.mlp(self.mlp_norm(x)), past


class T5(nn.Module):
  """Parameters and the three ways through them; see `make_t5`."""

  vocab_size: int
  width: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  encoder_layers: int
  decoder_layers: int
  num_buckets: int
  max_distance: int

  def setup(self):
    attention = dict(
      num_heads=self.num_heads,
      head_dim=self.head_dim,
      width=self.width,
      query_scale=self.head_dim**-0.5,
    )
    bias = dict(
      num_heads=self.num_heads,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )
    self.embedding = nn.Embed(
      self.vocab_size,
      self.width,
      embedding_init=layers.initializers.normal(1.0),
    )
    self.encoder = [
      EncoderBlock(attention, self.mlp_dim) for _ in range(self.encoder_layers)
    ]
    self.decoder = [
      DecoderBlock(attention, self.mlp_dim) for _ in range(self.decoder_layers)
    ]
    self.encoder_bias = layers.RelativeBias(bidirectional=True, **bias)
    self.decoder_bias = layers.RelativeBias(bidirectional=False, **bias)
    self.encoder_norm = nn.RMSNorm()
    self.decoder_norm = nn.RMSNorm()
    self.head = self.param(
      "head", layers.fan_in_init(), (self.width, self.vocab_size)
    )

  def encode(self, prompts, prompt_mask):
    """int[B, P] -> [B, P, D]."""
    arrays.check_shapes(
      prompts=(prompts, "B P"), prompt_mask=(prompt_mask, "B P")
    )
    positions = jnp.arange(prompts.shape[1])
    bias = self.encoder_bias(positions, positions)
    bias = bias + layers.mask_bias(prompt_mask)[:, None, None, :]
    x = self.embedding(prompts)
    for block in self.encoder:
      x = block(x, bias)
    return self.encoder_norm(x)

  def prefill(self, prompts, prompt_mask, lanes_per_prompt, max_response):
    encoded = self.encode(prompts, prompt_mask)
    rows = prompts.shape[0] * lanes_per_prompt
    empty = jnp.zeros((rows, self.num_heads, max_response, self.head_dim))
    cache = T5Cache(
      position=jnp.int32(0),
      cross=tuple(b.cross_keys_values(encoded) for b in self.decoder),
      cross_bias=layers.mask_bias(prompt_mask)[:, None, None, :],
      past=tuple((empty, empty) for _ in self.decoder),
    )
    return cache, jnp.full((rows,), START_ID, jnp.int32)

  def decode(self, cache, tokens):
    length = cache.past[0][0].shape[2]
    keys = jnp.arange(length)
    bias = self.decoder_bias(cache.position[None], keys)
    bias = bias + layers.mask_bias(keys <= cache.position)[None, None, None, :]
    x = self.embedding(tokens)[:, None, :]
    past = []
    for block, cross, old in zip(
      self.decoder, cache.cross, cache.past, strict=True
    ):
      x, new = block.one_position(
        x, cross, cache.cross_bias, old, bias, cache.position
      )
      past.append(new)
    logits = self._logits(x)[:, 0]
    cache = cache._replace(position=cache.position + 1, past=tuple(past))
    return logits, cache

  def response_logits(self, prompts, prompt_mask, responses):
    start = jnp.full_like(responses[:, :1], START_ID)
    fed = jnp.concatenate([start, responses[:, :-1]], axis=1)
    return self._logits(self._decoded(prompts, prompt_mask, fed))

  def next_logits(self, prompts, prompt_mask, responses, lengths):
    start = jnp.full((responses.shape[0], 1), START_ID, responses.dtype)
    fed = jnp.concatenate([start, responses], axis=1)
    x = self._decoded(prompts, prompt_mask, fed)
    x = jnp.take_along_axis(x, lengths[:, None, None], axis=1)
    return self._logits(x)[:, 0]

  def _decoded(self, prompts, prompt_mask, fed):
    """Decoder inputs int[B, T] -> [B, T, D], all positions at once."""
    arrays.check_shapes(
      prompts=(prompts, "B P"),
      prompt_mask=(prompt_mask, "B P"),
      decoder_inputs=(fed, "B T"),
    )
    encoded = self.encode(prompts, prompt_mask)
    cross_bias = layers.mask_bias(prompt_mask)[:, None, None, :]
    positions = jnp.arange(fed.shape[1])
    causal = positions[None, :] <= positions[:, None]
    bias = self.decoder_bias(positions, positions)
    bias = bias + layers.mask_bias(causal)[None, None]
    x = self.embedding(fed)
    for block in self.decoder:
      cross = block.cross_keys_values(encoded)
      x = block.all_positions(x, cross, cross_bias, bias)
    return x

  def _logits(self, x):
    return (self.decoder_norm(x) @ self.head).astype(
      jnp.promote_types(x.dtype, jnp.float32)
    )


def make_t5(**sizes) -> language_model.LanguageModel:
  """A T5 v1.1 as a LanguageModel.

  Args:
    **sizes: the fields of `T5`: vocab_size V, width D, num_heads H,
      head_dim K, mlp_dim F, encoder_layers, decoder_layers, num_buckets,
      max_distance (tokens).
  """
  module = T5(**sizes)
  one = jnp.zeros((1, 1), jnp.int32)

  def init(rng):
    variables = module.init(rng, one, one == 0, one, method=T5.response_logits)
    return variables["params"]

  def run(method):
    return lambda params, *args: module.apply(
      {"params": params}, *args, method=method
    )

  return language_model.LanguageModel(
    init=init,
    prefill=run(T5.prefill),
    decode=run(T5.decode),
    response_logits=run(T5.response_logits),
    next_logits=run(T5.next_logits),
    vocab_size=module.vocab_size,
  )
