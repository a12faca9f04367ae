"""The seam: what every architecture is to the code above it."""

from collections.abc import Callable
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
  padded on the right; params are a plain dict of arrays.

  Attributes:
    init: (rng) -> params.
    prefill: (params, prompts int[B, P], prompt_mask bool[B, P],
      lanes_per_prompt L, max_response) -> (cache, first_tokens int[B·L]).
      Runs each prompt once; rows of the cache are interleaved prompt by
      prompt (x₀ lane 0, x₀ lane 1, …, x₁ lane 0, …). `first_tokens` are what
      `decode` is fed first.
    decode: (params, cache, tokens int[B·L]) -> (logits f32[B·L, V], cache).
      One token for every row, at most `max_response` times.
    response_logits: (params, prompts int[B, P], prompt_mask bool[B, P],
      responses int[B, R]) -> f32[B, R, V]. Teacher forced: position n sees
      the prompt and the responses before n. Gradient flows to params.
    next_logits: (params, prompts int[B, P], prompt_mask bool[B, P],
      responses int[B, R], lengths int[B]) -> f32[B, V]. Logits of the one
      token that follows the first `lengths` ≤ R tokens of each response.
      Gradient flows to params.
    vocab_size: V.
  """

  init: Callable[[jax.Array], Params]
  prefill: Callable[
    [Params, jax.Array, jax.Array, int, int], tuple[Cache, jax.Array]
  ]
  decode: Callable[[Params, Cache, jax.Array], tuple[jax.Array, Cache]]
  response_logits: Callable[
    [Params, jax.Array, jax.Array, jax.Array], jax.Array
  ]
  next_logits: Callable[
    [Params, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
  ]
  vocab_size: int


def from_module(module: nn.Module, vocab_size: int) -> LanguageModel:
  """The seam of a linen module whose methods are named as it is.

  Its field `config` is a named tuple that has `layers.Numerics`.

  The functions are compiled, once for all modules that are equal: outside of
  jit a scan over layers would be compiled anew at every call.
  """

  def prefill(params, prompts, prompt_mask, lanes_per_prompt, max_response):
    sizes = (lanes_per_prompt, max_response)
    return _apply(module, "prefill", sizes, params, prompts, prompt_mask)

  def run(method):
    return functools.partial(_apply, module, method, ())

  return LanguageModel(
    init=functools.partial(_init, module),
    prefill=prefill,
    decode=run("decode"),
    response_logits=run("response_logits"),
    next_logits=run("next_logits"),
    vocab_size=vocab_size,
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(module, method, sizes, params, *args):
  return module.apply({"params": params}, *args, *sizes, method=method)


@functools.partial(jax.jit, static_argnums=0)
def _init(module, rng):
  """Parameters, for which no kernel is chosen: its sequences are nobody's."""
  module = module.clone(config=module.config._replace(attention="auto"))
  one = jnp.zeros((1, 1), jnp.int32)
  method = type(module).response_logits
  return module.init(rng, one, one == 0, one, method=method)["params"]
