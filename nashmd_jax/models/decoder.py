"""Llama, Mistral, SmolLM, Qwen, OLMo, Phi 4 and Gemma: one block.

What tells them apart is data, see `decoder_config`. A prompt's padding is taken
out before attention, so that a causal mask is all that whole sequences need.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import (
  attention,
  decoder_config,
  language_model,
  layers,
  positions,
)


class DecoderCache(NamedTuple):
  """What decoding one token needs besides the parameters.

  Slots below P hold the prompt without its last token, which is the first
  that is fed; token t of those fed is in slot P + t of every row.

  Attributes:
    fed: int32 scalar t, how many tokens each row has been fed.
    prompt: bool[B·L, P], the slots of the prompt that are seen.
    keys: [N, B·L, G, P + R, K], rotated; or a list of N.
    values: [N, B·L, G, P + R, K]; or a list of N.
  """

  fed: jax.Array
  prompt: jax.Array
  keys: jax.Array | list[jax.Array]
  values: jax.Array | list[jax.Array]


class Block(nn.Module):
  """Attention and mlp, each behind a norm, with what the config adds."""

  config: decoder_config.DecoderConfig

  def setup(self):
    config = self.config

    def norm(size=config.width):
      return layers.RMSNorm(
        size, config.norm_epsilon, config.norm_offset, config.numerics
      )

    self.attention = layers.Attention(
      width=config.width,
      num_heads=config.num_heads,
      num_kv_heads=config.num_kv_heads,
      head_dim=config.head_dim,
      query_init=1.0,
      biases=config.qkv_bias,
      numerics=config.numerics,
    )
    self.mlp = layers.GatedMlp(
      config.width, config.mlp_dim, config.activation, config.numerics
    )
    if config.pre_norms:
      self.attention_norm, self.mlp_norm = norm(), norm()
    if config.post_norms:
      self.post_attention_norm, self.post_mlp_norm = norm(), norm()
    if config.query_key_norm:
      whole = config.query_key_norm == "width"
      heads = (config.num_heads, config.num_kv_heads) if whole else (1, 1)
      self.query_norm, self.key_norm = (
        norm(config.head_dim * count) for count in heads
      )

  def all_positions(self, x, data: decoder_config.LayerData, shared):
    """x [B, T, D], a causal sequence in every row -> [B, T, D]."""
    x, _ = self.prompt(x, data, shared)
    return x, None

  def prompt(self, x, data: decoder_config.LayerData, shared):
    """As `all_positions`, and the keys and values as a cache holds them."""
    del shared
    where = jnp.arange(x.shape[1])[None]
    queries, keys, values = self._projections(x, where, data)
    local = all(self.config.local_layers)
    if data.window is not None and not local:
      local = data.window < decoder_config.NO_WINDOW
    mixed = attention.attend(
      queries,
      keys,
      values,
      causal=True,
      window=None if data.window is None else self.config.window,
      local=local,
      kernel=self.config.attention,
      **self._scores(),
    )
    cached = layers.cache_layout(keys), layers.cache_layout(values)
    return self._residuals(x, mixed), cached

  def after_prompt(self, x, per_layer, shared):
    """x [B·K, T, D], K rows behind each of the prompts, which are given."""
    (data, prompt), (where, stands, seen) = per_layer, shared
    queries, keys, values = self._projections(x, where, data)
    if data.window is not None:
      near = where[:, :, None] - stands[:, None] < data.window
      seen = seen & near
    mixed = attention.attend_after(
      queries, keys, values, prompt=prompt, mask=seen, **self._scores()
    )
    return self._residuals(x, mixed), None

  def one_position(self, carry, data: decoder_config.LayerData, shared):
    """x [B·L, 1, D] at one position a row, which joins the cache first."""
    (x, all_keys, all_values), (where, slots, seen, slot) = carry, shared
    queries, keys, values = self._projections(x, where, data)
    all_keys, keys = layers.write_cache(all_keys, data.index, keys, slot)
    all_values, values = layers.write_cache(
      all_values, data.index, values, slot
    )
    if data.window is not None:
      seen = seen & (where - slots < data.window)
    mixed = attention.attend_cached(
      queries, keys, values, mask=seen[:, None, None], **self._scores()
    )
    return (self._residuals(x, mixed), all_keys, all_values), None

  def _projections(self, x, where, data):
    h = self.attention_norm(x) if self.config.pre_norms else x
    queries = self.attention.queries(h)
    keys, values = self.attention.keys_values(h)
    if self.config.query_key_norm == "head":
      queries, keys = self.query_norm(queries), self.key_norm(keys)
    if self.config.query_key_norm == "width":
      queries, keys = (
        norm(heads.reshape(*x.shape[:2], -1)).reshape(heads.shape)
        for norm, heads in ((self.query_norm, queries), (self.key_norm, keys))
      )
    queries, keys = (
      positions.rotate(heads, where, data.frequencies, data.stretch)
      for heads in (queries, keys)
    )
    return queries, keys, values

  def _scores(self):
    scale = self.config.query_scale or self.config.head_dim**-0.5
    return {"scale": scale, "soft_cap": self.config.attention_soft_cap}

  def _residuals(self, x, mixed):
    pre, post = self.config.pre_norms, self.config.post_norms
    h = self.attention.output(mixed)
    x = x + (self.post_attention_norm(h) if post else h)
    h = self.mlp(self.mlp_norm(x) if pre else x)
    return x + (self.post_mlp_norm(h) if post else h)


class Decoder(nn.Module):
  """Parameters and the ways through them; see `make_decoder`."""

  config: decoder_config.DecoderConfig

  def setup(self):
    config = self.config
    dtype = config.param_dtype
    draw = nn.initializers.normal(config.width**-0.5)
    self.embedding = self.param(
      "embedding", draw, (config.vocab_size, config.width), dtype
    )
    self.layers = layers.scan_layers(
      Block,
      config.num_layers,
      ("all_positions", "prompt", "after_prompt", "one_position"),
      config.numerics,
    )(config)
    self.final_norm = layers.RMSNorm(
      config.width, config.norm_epsilon, config.norm_offset, config.numerics
    )
    if not config.tied:
      self.head = self.param(
        "head",
        layers.fan_in_init(),
        (config.width, config.vocab_size),
        dtype,
      )

  def prefill(self, prompts, prompt_mask, lanes_per_prompt, max_response):
    prompts, mask = _justify(prompts, prompt_mask)
    lengths = jnp.sum(mask, axis=1) - 1
    _, cached = self.layers.prompt(
      self._embed(prompts), decoder_config.layer_data(self.config), ()
    )

    def rows(x):
      x = jnp.repeat(x, lanes_per_prompt, axis=1)
      return jnp.pad(x, ((0, 0),) * 3 + ((0, max_response), (0, 0)))

    last = jnp.take_along_axis(prompts, lengths[:, None], axis=1)[:, 0]
    before_last = jnp.arange(prompts.shape[1])[None] < lengths[:, None]
    cache = DecoderCache(
      fed=jnp.int32(0),
      prompt=jnp.repeat(before_last, lanes_per_prompt, axis=0),
      keys=rows(cached[0]),
      values=rows(cached[1]),
    )
    return cache, jnp.repeat(last, lanes_per_prompt)

  def decode(self, cache, tokens):
    start, size = cache.prompt.shape[1], cache.keys[0].shape[2]
    slots = jnp.arange(size)[None]
    lengths = jnp.sum(cache.prompt, axis=1, keepdims=True)
    where = lengths + cache.fed
    stands = jnp.where(slots < start, slots, lengths + slots - start)
    prompt = jnp.pad(cache.prompt, ((0, 0), (0, size - start)))
    seen = prompt | ((slots >= start) & (stands <= where))
    shared = (where, stands, seen, start + cache.fed)
    carry = (self._embed(tokens[:, None]), cache.keys, cache.values)
    data = decoder_config.layer_data(self.config)
    if isinstance(cache.keys, list):
      x, keys, values = layers.one_by_one(
        Block(self.config, parent=None),
        self.get_variable("params", "layers"),
        carry,
        layers.apart(data),
        shared,
      )
    else:
      (x, keys, values), _ = self.layers.one_position(carry, data, shared)
    cache = cache._replace(fed=cache.fed + 1, keys=keys, values=values)
    return self.logits(x[:, 0], None), cache

  def response_states(self, prompts, prompt_mask, responses):
    if language_model.each(prompts, responses) > 1:
      return self._read_after(prompts, prompt_mask, responses[:, :-1])
    x, lengths = self._read(prompts, prompt_mask, responses)
    read = jnp.arange(responses.shape[1])[None] + lengths[:, None] - 1
    return jnp.take_along_axis(x, read[..., None], axis=1)

  def next_states(self, prompts, prompt_mask, responses, lengths):
    if language_model.each(prompts, responses) > 1:
      x = self._read_after(prompts, prompt_mask, responses)
      read = lengths
    else:
      x, before = self._read(prompts, prompt_mask, responses)
      read = before + lengths - 1
    return jnp.take_along_axis(x, read[:, None, None], axis=1)[:, 0]

  def _read_after(self, prompts, prompt_mask, responses):
    """The prompt's last token and K responses -> [B·K, 1 + R, D]."""
    prompts, mask = _justify(prompts, prompt_mask)
    each, length = language_model.each(prompts, responses), prompts.shape[1]
    data = decoder_config.layer_data(self.config)
    _, cached = self.layers.prompt(self._embed(prompts), data, ())
    lengths = jnp.sum(mask, axis=1, keepdims=True) - 1
    before, lengths, last = (
      jnp.repeat(x, each, axis=0)
      for x in (
        jnp.arange(length)[None] < lengths,
        lengths,
        jnp.take_along_axis(prompts, lengths, axis=1),
      )
    )
    fed = jnp.concatenate([last, responses.astype(last.dtype)], axis=1)
    rows, size = fed.shape
    where = lengths + jnp.arange(size)[None]
    slots = jnp.broadcast_to(jnp.arange(length), (rows, length))
    before = jnp.broadcast_to(before[:, None], (rows, size, length))
    causal = jnp.broadcast_to(jnp.tri(size, dtype=bool), (rows, size, size))
    shared = (
      where,
      jnp.concatenate([slots, where], axis=1),
      jnp.concatenate([before, causal], axis=2),
    )
    x, _ = self.layers.after_prompt(self._embed(fed), (data, cached), shared)
    return x

  def _read(self, prompts, prompt_mask, responses):
    """Prompt and response without a gap -> [B, T, D], prompt lengths [B]."""
    arrays.check_shapes(responses=(responses, "B R"), prompts=(prompts, "B P"))
    prompts, mask = _justify(prompts, prompt_mask)
    tokens, _ = arrays.left_justify(
      jnp.concatenate([prompts, responses.astype(prompts.dtype)], axis=1),
      jnp.concatenate([mask, jnp.ones(responses.shape, bool)], axis=1),
    )
    x, _ = self.layers.all_positions(
      self._embed(tokens), decoder_config.layer_data(self.config), ()
    )
    return x, jnp.sum(mask, axis=1)

  def _embed(self, tokens):
    x = layers.embed(self.embedding, tokens, self.config.dtype)
    if self.config.scaled_embedding:
      x = x * jnp.asarray(self.config.width**0.5, x.dtype)
    return x

  def logits(self, x, tokens):
    head = self.embedding.T if self.config.tied else self.head
    return layers.head_logits(
      self.final_norm(x), head, tokens, soft_cap=self.config.logit_soft_cap
    )


def _apart(params, cache):
  params = params | {"layers": layers.apart(params["layers"])}
  return params, cache._replace(
    keys=list(cache.keys), values=list(cache.values)
  )


def _take(cache, prompts, lanes_per_prompt):
  rows = layers.rows_of(prompts, lanes_per_prompt)
  keys, values = layers.take_rows((cache.keys, cache.values), rows)
  return cache._replace(prompt=cache.prompt[rows], keys=keys, values=values)


def _justify(prompts, prompt_mask):
  """Prompts from slot 0 on; an empty one counts as the one token 0."""
  tokens, mask = arrays.left_justify(prompts, prompt_mask)
  return tokens, mask.at[:, 0].set(True)


def make_decoder(
  config: decoder_config.DecoderConfig,
) -> language_model.LanguageModel:
  """A decoder-only transformer as a LanguageModel.

  Args:
    config: the architecture; `decoder_config.FAMILIES` has what each family
      adds to sizes.
  Raises: ValueError for an architecture that cannot be.
  """
  decoder_config.check_config(config)
  return language_model.from_module(
    Decoder(config),
    one_sequence=True,
    apart=_apart if config.loop == "unroll" else None,
    take=_take,
  )
