"""An enumerable language model: the exact side of the oracles.

A table of logits for every prefix over a small vocabulary, wrapped in the
same seam as the real models, in float64 for the oracles. All responses can be
listed, so every expectation over samples is a finite sum.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models
from nashmd_jax.judges import preference_model

VOCAB, EOS = 3, 0


def responses(length: int) -> tuple[np.ndarray, np.ndarray]:
  """All responses that end in EOS or at `length`: tokens and mask [Y, R]."""
  rows = []
  for size in range(1, length + 1):
    for body in itertools.product(range(1, VOCAB), repeat=size - 1):
      rows.append([*body, EOS])
    if size == length:
      for body in itertools.product(range(1, VOCAB), repeat=size):
        rows.append(list(body))
  tokens = np.zeros((len(rows), length), np.int32)
  mask = np.zeros(tokens.shape, bool)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    mask[i, : len(row)] = True
  return tokens, mask


def prefix_ids(tokens: jax.Array) -> jax.Array:
  """Number of the prefix before each position; the root is 0."""
  ids = [jnp.zeros(tokens.shape[:-1], jnp.int32)]
  for t in range(tokens.shape[-1] - 1):
    ids.append(ids[-1] * VOCAB + tokens[..., t] + 1)
  return jnp.stack(ids, axis=-1)


def table_model(length: int) -> models.LanguageModel:
  """params {"logits": [prompts, prefixes, V]}; the prompt is one token."""
  prefixes = (VOCAB**length - 1) // (VOCAB - 1) + 1

  def init(rng):
    shape = (2, prefixes, VOCAB)
    return {"logits": jax.random.normal(rng, shape)}

  def response_states(params, prompts, prompt_mask, tokens):
    del prompt_mask
    each = len(tokens) // len(prompts)
    prompt = jnp.repeat(prompts[:, :1], each, axis=0)
    return params["logits"][prompt, prefix_ids(tokens)]

  def prefill(params, prompts, prompt_mask, lanes_per_prompt, max_response):
    del params, prompt_mask, max_response
    prompt = jnp.repeat(prompts[:, 0], lanes_per_prompt)
    return (prompt, jnp.full_like(prompt, -1)), jnp.full_like(prompt, -1)

  def decode(params, cache, fed):
    prompt, prefix = cache
    prefix = jnp.where(fed < 0, 0, prefix * VOCAB + fed + 1)
    return params["logits"][prompt, prefix], (prompt, prefix)

  def next_states(params, prompts, prompt_mask, tokens, lengths):
    raise NotImplementedError("a table answers no questions")

  def logits(params, states, tokens):
    del params
    return states if tokens is None else states[..., jnp.array(tokens)]

  return models.LanguageModel(
    init=init,
    prefill=prefill,
    decode=decode,
    response_states=response_states,
    next_states=next_states,
    logits=logits,
    vocab_size=VOCAB,
    one_sequence=False,
  )


def sequence_log_probs(log_probs_by_prefix, tokens, mask):
  """log π(y) of every response from log-probs [prefixes, V], f64[Y]."""
  steps = log_probs_by_prefix[prefix_ids(tokens), tokens]
  return jnp.sum(jnp.where(mask, steps, 0), axis=-1)


def response_number(length: int):
  """(tokens, mask) [B, R] -> numbers int[B] in the order of `responses`."""
  digits = (VOCAB + 1) ** jnp.arange(length)

  def code(tokens, mask):
    return jnp.where(mask, tokens + 1, 0) @ digits

  codes = code(*(jnp.asarray(x) for x in responses(length)))
  order = jnp.argsort(codes)
  return lambda segment: order[jnp.searchsorted(codes[order], code(*segment))]


def table_judge(win: jax.Array, length: int):
  """A token judge that looks P(y ≻ y′|x) up in win f64[prompts, Y, Y]."""
  number = response_number(length)

  def judge(keys, prompts, y, y_opp):
    del keys
    prompt = preference_model.each(prompts, len(y[0]))[0][:, 0]
    return win[prompt, number(y), number(y_opp)]

  return judge


def table_scorer(reward: jax.Array, length: int):
  """A token scorer that looks r(x, y) up in reward f64[prompts, Y]."""
  number = response_number(length)

  def score(prompts, y):
    return reward[preference_model.each(prompts, len(y[0]))[0][:, 0], number(y)]

  return score
