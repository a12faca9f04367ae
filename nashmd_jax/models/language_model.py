"""The seam: what every architecture is to the code above it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Params = Any
Cache = Any


class LanguageModel(NamedTuple):
  """Pure functions of one conditional language model p(response | prompt).

  Encoder-decoder and decoder-only models look the same from here. Prompts are
  padded on the right; params are a plain dict of arrays.

  Attributes:
    init: (rng) -> params, float32.
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
