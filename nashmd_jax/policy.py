"""The policy as a distribution over responses, read off a model's states.

Log-probs over a large vocabulary are computed some positions at a time, and
again in the backward pass, so that logits of all positions never exist at once.
B prompts have B·K responses, K to each, prompt by prompt.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import language_model

# Logits that a device holds at a time, 256 MiB of them.
AT_ONCE = 2**26


class States(NamedTuple):
  """What a model has read of responses, and how to go on from there.

  Attributes:
    params: of the model, as it runs on them.
    states: [B·K, R, D], see `LanguageModel.response_states`.
  """

  params: language_model.Params
  states: jax.Array


def response_log_probs(
  model: language_model.LanguageModel,
  params: language_model.Params,
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  responses: jax.Array,
  temperature: float,
) -> jax.Array:
  """log π(y_n | x, y_<n) of given responses, teacher forced, in nats.

  Args:
    params: gradient flows to them.
    prompts: int[B, P], padded on the right.
    prompt_mask: bool[B, P].
    responses: int[B·K, R]; what stands behind EOS does not matter before it.
    temperature: of the distribution that is scored; the one that sampled.
  Returns: f32[B·K, R].
  """
  states = model.response_states(params, prompts, prompt_mask, responses)
  return log_probs_of(
    model, States(params, states), responses, temperature=temperature
  )


def log_probs_of(
  model: language_model.LanguageModel,
  read: States,
  tokens: jax.Array,
  *,
  temperature: float,
) -> jax.Array:
  """`response_log_probs` from states, f32[B·K, R].

  Args:
    read: gradient flows to both of its parts.
    tokens: int[B·K, R], the responses.
  """

  def some(states, tokens):
    logits = model.logits(read.params, states, None)
    return arrays.token_log_probs(logits, tokens, temperature)

  return _by_position(model, some, read.states, tokens)


def log_probs_and_kl(
  model: language_model.LanguageModel,
  read: States,
  reference: States,
  tokens: jax.Array,
  *,
  temperature: float,
) -> tuple[jax.Array, jax.Array]:
  """`log_probs_of`, and KL(π(·|x, y_<n), μ(·|x, y_<n)) of the same places.

  Args:
    read: of π. Gradient flows to both of its parts.
    reference: of μ. No gradient flows.
    tokens: int[B·K, R], the responses.
  Returns: two f32[B·K, R], nats; the KL is summed over the vocabulary.
  """
  frozen = lax.stop_gradient(reference)

  def some(states, ref_states, tokens):
    log_probs, ref_log_probs = (
      arrays.log_softmax(model.logits(params, x, None), temperature)
      for params, x in ((read.params, states), (frozen.params, ref_states))
    )
    taken = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)
    kl = jnp.sum(jnp.exp(log_probs) * (log_probs - ref_log_probs), axis=-1)
    return taken[..., 0], kl

  return _by_position(model, some, read.states, frozen.states, tokens)


def distributions(
  model: language_model.LanguageModel, read: States, *, temperature: float
) -> jax.Array:
  """log π(· | x, y_<n) over the whole vocabulary at once, f32[B·K, R, V]."""
  logits = model.logits(read.params, read.states, None)
  return arrays.log_softmax(logits, temperature)


def _by_position(
  model: language_model.LanguageModel,
  function: Callable[..., Any],
  *rows: jax.Array,
) -> Any:
  """function(*rows), some positions at a time; [N, R, …] -> [N, R]."""
  count, length = rows[0].shape[:2]
  wide = max(count // model.row_parts, 1) * model.vocab_size
  parts = -(-length // max(AT_ONCE // wide, 1))
  if parts == 1:
    return function(*rows)
  size = -(-length // parts)

  def split(x):
    fill = ((0, 0), (0, parts * size - length), *[(0, 0)] * (x.ndim - 2))
    x = jnp.pad(x, fill).reshape(count, parts, size, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)

  one = jax.checkpoint(lambda some: function(*some))

  def join(x):
    return jnp.moveaxis(x, 0, 1).reshape(count, -1)[:, :length]

  return jax.tree.map(join, lax.map(one, tuple(map(split, rows))))
