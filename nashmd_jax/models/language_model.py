"""The seam: what every architecture is to the code above it."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

Params = Any
Cache = Any


class LanguageModel(NamedTuple):
  """Pure functions of one conditional language model p(response | prompt).

  Encoder-decoder and decoder-only models look the same from here. Prompts are
  padded on the right; params are a plain dict of arrays. B prompts have B·K
  responses, K to each, prompt by prompt; each prompt is read once for them.

  Attributes:
    init: (rng) -> params.
    prefill: (params, prompts int[B, P], prompt_mask bool[B, P],
      lanes_per_prompt L, max_response) -> (cache, first_tokens int[B·L]).
      Runs each prompt once; rows of the cache are interleaved prompt by
      prompt (x₀ lane 0, x₀ lane 1, …, x₁ lane 0, …). `first_tokens` are what
      `decode` is fed first.
    decode: (params, cache, tokens int[B·L]) -> (logits f32[B·L, V], cache).
      One token for every row, at most `max_response` times.
    response_states: (params, prompts int[B, P], prompt_mask bool[B, P],
      responses int[B·K, R]) -> [B·K, R, D], from which `logits` reads. Teacher
      forced: position n sees the prompt and the responses before n. Gradient
      flows to params.
    next_states: (params, prompts int[B, P], prompt_mask bool[B, P],
      responses int[B·K, R], lengths int[B·K]) -> [B·K, D], of the one token
      that follows the first `lengths` ≤ R tokens of each response. Gradient
      flows to params.
    logits: (params, states [..., D], tokens) -> f32[..., V], or of the given
      token ids alone where they are not None. Gradient flows to both; of the
      parameters it reads the head's alone.
    vocab_size: V.
    one_sequence: whether the end of a prompt may as well be read as the
      beginning of its responses.
    row_parts: parts that the rows of a program are split into over devices.
    apart: (params, cache of `prefill`) -> both as `decode` reads them fastest
      in a loop, made once before it; None where that is as they are.
    take: (cache, prompts int[n], lanes_per_prompt) -> the cache of these
      prompts' rows alone; None where rows cannot be left behind.
  """

  init: Callable[[jax.Array], Params]
  prefill: Callable[
    [Params, jax.Array, jax.Array, int, int], tuple[Cache, jax.Array]
  ]
  decode: Callable[[Params, Cache, jax.Array], tuple[jax.Array, Cache]]
  response_states: Callable[
    [Params, jax.Array, jax.Array, jax.Array], jax.Array
  ]
  next_states: Callable[
    [Params, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
  ]
  logits: Callable[[Params, jax.Array, Sequence[int] | None], jax.Array]
  vocab_size: int
  one_sequence: bool
  row_parts: int = 1
  apart: Callable[[Params, Cache], tuple[Params, Cache]] | None = None
  take: Callable[[Cache, jax.Array, int], Cache] | None = None

  def response_logits(self, params: Params, *batch: jax.Array) -> jax.Array:
    """`logits` of all `response_states`, f32[B·K, R, V]."""
    return self.logits(params, self.response_states(params, *batch), None)

  def next_logits(self, params: Params, *batch: jax.Array) -> jax.Array:
    """`logits` of `next_states`, f32[B·K, V]."""
    return self.logits(params, self.next_states(params, *batch), None)


def from_module(
  module: nn.Module,
  *,
  one_sequence: bool,
  apart: Callable[[Params, Cache], tuple[Params, Cache]] | None,
  take: Callable[[Cache, jax.Array, int], Cache],
) -> LanguageModel:
  """The seam of a linen module whose methods are named as it is.

  Its field `config` is a named tuple that has `vocab_size` and the fields of
  `layers.Numerics`.

  The functions with layers are compiled, once for all modules that are equal:
  outside of jit a scan over layers would be compiled anew at every call.
  """

  def prefill(params, prompts, prompt_mask, lanes_per_prompt, max_response):
    sizes = (lanes_per_prompt, max_response)
    return _apply(module, "prefill", sizes, params, prompts, prompt_mask)

  def run(method):
    return functools.partial(_apply, module, method, ())

  def logits(params, states, tokens):
    return module.apply({"params": params}, states, tokens, method="logits")

  return LanguageModel(
    init=functools.partial(_init, _plain(module)),
    prefill=prefill,
    decode=run("decode"),
    response_states=run("response_states"),
    next_states=run("next_states"),
    logits=logits,
    vocab_size=module.config.vocab_size,
    one_sequence=one_sequence,
    apart=apart,
    take=take,
  )


def each(prompts: jax.Array, responses: jax.Array) -> int:
  """K, how many responses there are to each of the prompts.

  Raises: ValueError if it is no number of them.
  """
  rows = len(responses)
  if rows % len(prompts) or not rows:
    raise ValueError(
      f"responses: got {rows} rows for {len(prompts)} prompts, expected as "
      "many to each"
    )
  return rows // len(prompts)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(module, method, sizes, params, *args):
  return module.apply({"params": params}, *args, *sizes, method=method)


def _plain(module):
  """The module as it is initialised, the same whatever computes with it.

  No kernel is chosen for sequences that are nobody's, no layer written out.
  """
  numerics = {"attention": "auto", "loop": "scan"}
  return module.clone(config=module.config._replace(**numerics))


@functools.partial(jax.jit, static_argnums=0)
def _init(module, rng):
  """Parameters of a module of `_plain`."""
  one = jnp.zeros((1, 1), jnp.int32)

  def logits(module, *batch):
    return module.logits(module.response_states(*batch), None)

  return module.init(rng, one, one == 0, one, method=logits)["params"]
