"""P(y ≻ y′|x) and a scalar reward, both read off a language model's answer.

The model reads one filled-in template and answers with one token; the
log-odds of the two answers are the output. That is a linear head on the last
position, so any LanguageModel serves and a fine-tuned policy can start it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import language_model


class Template(NamedTuple):
  """The fixed text around a prompt and its responses, as token ids.

  Attributes:
    before: for each slot (prompt, then each response) the tokens before it.
    after: tokens behind the last slot.
    answers: the two token ids whose log-odds are read: (first, second).
  """

  before: tuple[tuple[int, ...], ...]
  after: tuple[int, ...]
  answers: tuple[int, int]


Segment = tuple[jax.Array, jax.Array]


def make_template(
  encode: Callable[[str], list[int]],
  *,
  before: Sequence[str],
  after: str,
  answers: Sequence[str],
) -> Template:
  """Token ids of a template given as text.

  Args:
    encode: text -> token ids, without special tokens of its own.
    before: the text before the prompt, then before each response.
    after: the text behind the last response.
    answers: the answers for the first and the second response.
  Raises: ValueError if an answer is not one token, or both are the same.
  """
  ids = [encode(answer) for answer in answers]
  if [len(i) for i in ids] != [1, 1] or ids[0] == ids[1]:
    raise ValueError(
      f"template.answers: {tuple(answers)} are the tokens {ids}; expected two "
      "different answers of one token each"
    )
  return Template(
    before=tuple(tuple(encode(text)) for text in before),
    after=tuple(encode(after)),
    answers=(ids[0][0], ids[1][0]),
  )


def win_logit(
  model: language_model.LanguageModel,
  params: language_model.Params,
  template: Template,
  *,
  prompts: Segment,
  responses: Segment,
  opponents: Segment,
) -> jax.Array:
  """f(x, y, y′) − f(x, y′, y): log-odds that y is preferred, antisymmetric.

  Both orders go through the model in one call, interleaved row by row.

  Args:
    params: gradient flows to them.
    template: with three slots: prompt, first and second response.
    prompts: tokens int[B, P] and mask bool[B, P].
    responses: tokens int[B, R] and mask bool[B, R] of y.
    opponents: tokens int[B, R′] and mask bool[B, R′] of y′.
  Returns: f32[B]; P(y ≻ y′|x) is its sigmoid.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  forward = _fill(template, (prompts, responses, opponents))
  backward = _fill(template, (prompts, opponents, responses))
  tokens, mask = (
    jnp.stack(pair, axis=1).reshape(-1, pair[0].shape[-1])
    for pair in zip(forward, backward, strict=True)
  )
  logit = _answer_logit(model, params, template, tokens, mask)
  return logit[0::2] - logit[1::2]


def reward(
  model: language_model.LanguageModel,
  params: language_model.Params,
  template: Template,
  *,
  prompts: Segment,
  responses: Segment,
) -> jax.Array:
  """r(x, y), Bradley-Terry log-odds up to a constant for each prompt.

  Args:
    params: gradient flows to them.
    template: with two slots: prompt and response.
    prompts: tokens int[B, P] and mask bool[B, P].
    responses: tokens int[B, R] and mask bool[B, R].
  Returns: f32[B].
  """
  tokens, mask = _fill(template, (prompts, responses))
  return _answer_logit(model, params, template, tokens, mask)


def _fill(template: Template, slots: tuple[Segment, ...]) -> Segment:
  """The template with its slots filled, without gaps between the pieces."""
  rows = slots[0][0].shape[0]

  def fixed(ids):
    tokens = jnp.broadcast_to(jnp.array(ids, jnp.int32), (rows, len(ids)))
    return tokens, jnp.ones_like(tokens, bool)

  pieces = []
  for ids, slot in zip(template.before, slots, strict=True):
    pieces += [fixed(ids), slot]
  pieces.append(fixed(template.after))
  tokens, masks = zip(*pieces, strict=True)
  return arrays.left_justify(
    jnp.concatenate(tokens, axis=1), jnp.concatenate(masks, axis=1)
  )


def _answer_logit(model, params, template, tokens, mask) -> jax.Array:
  answer = jnp.zeros_like(tokens[:, :1])
  logits = model.response_logits(params, tokens, mask, answer)[:, 0]
  first, second = template.answers
  return logits[:, first] - logits[:, second]
