"""P(y ≻ y′|x) and a scalar reward, both read off a language model's answer.

The model reads a filled-in template and answers with one token; the log-odds
of the two answers are the output. That is a linear head on the last position,
so any LanguageModel serves and a fine-tuned policy can start it.
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays, declare
from nashmd_jax.models import language_model

Segment = tuple[jax.Array, jax.Array]
Piece = tuple[int, ...] | str

PREFERENCE_SLOTS = ("prompt", "first", "second")
REWARD_SLOTS = ("prompt", "first")
# What stands for answers that are not one token each.
ANSWERS = (("1", "2"), ("A", "B"), ("a", "b"), ("yes", "no"), ("0", "1"))


def segment(batch: Mapping[str, jax.Array], name: str) -> Segment:
  """The tokens of a batch under `name`, with their mask."""
  return batch[name], batch[name + "_mask"]


def question(batch: Mapping[str, jax.Array]) -> Segment:
  """What judges read of the prompts of a batch, see `batches.encode_record`."""
  return segment(batch, "questions" if "questions" in batch else "prompts")


def each(prompts: Segment, rows: int) -> Segment:
  """Prompts of B rows, each as often as there are responses to it."""
  times = rows // len(prompts[0])
  return tuple(jnp.repeat(x, times, axis=0) for x in prompts)


def compared(
  batch: Mapping[str, jax.Array],
) -> tuple[Segment, Segment, Segment]:
  """Question, first and second response of a batch of comparisons."""
  sides = (segment(batch, f"responses_{side}") for side in "ab")
  return question(batch), *sides


class Template(NamedTuple):
  """Fixed text as token ids, and the names of what stands between.

  Attributes:
    prompt: what the model reads as its prompt; a string names a slot, such as
      "prompt" or "first".
    response: what it has read of the response when it answers.
    answers: the two token ids whose log-odds are read: (first, second).
    barred: token ids that a slot may not contribute, so that no response can
      write the markers it is judged by.
  """

  prompt: tuple[Piece, ...]
  response: tuple[Piece, ...]
  answers: tuple[int, int]
  barred: tuple[int, ...]


TEMPLATE = {
  "prompt": declare.text(
    "What the judge reads as its prompt, with a slot in braces for each text.",
    empty=True,
  ),
  "response": declare.text(
    "What it has read of the response when it answers, with slots too.",
    empty=True,
  ),
  "answers": declare.several(
    declare.text("The two answers, which differ in their last token alone."),
    least=2,
    most=2,
  ),
}


def check_slots(prompt: str, response: str, slots: Sequence[str]) -> None:
  """Raises ValueError unless each slot stands once in one of two texts."""
  named = re.findall(r"\{(\w+)\}", prompt + response)
  if sorted(named) != sorted(slots):
    raise ValueError(
      f"template: has the slots {named}, expected each of {tuple(slots)} once"
    )


def make_template(
  encode: Callable[[str], list[int]],
  slots: Sequence[str],
  *,
  barred: Sequence[int],
  around: tuple[Sequence[int], Sequence[int]] = ((), ()),
  prompt: str,
  response: str,
  answers: Sequence[str],
) -> Template:
  """A template from text with slots in braces: "<1>{first}<2>{second}".

  Args:
    encode: text -> token ids, in which names of special tokens are those.
    slots: the names that have to occur, each once: `PREFERENCE_SLOTS` or
      `REWARD_SLOTS`.
    barred: token ids that slots may not contribute, such as special tokens.
    around: token ids before and behind every prompt of the model.
    prompt: text that the model reads as its prompt.
    response: text that it has read of the response when it answers.
    answers: the texts for the first and the second answer. Tokens that both
      begin with, such as a space, are read as the end of the response.
  Raises: ValueError for other slots, or answers that differ in more than
    their last token.
  """
  check_slots(prompt, response, slots)

  def pieces(text):
    parts = re.split(r"\{(\w+)\}", text)
    slots_follow = [*parts[1::2], ""]
    found = []
    for fixed, slot in zip(parts[0::2], slots_follow, strict=True):
      found += [tuple(encode(fixed)) if fixed else (), slot]
    return tuple(piece for piece in found if piece)

  alike, ends = _answers(encode, answers)
  if ends is None:
    ids = [encode(answer) for answer in answers]
    raise ValueError(
      f"template.answers: {tuple(answers)} are the tokens {ids}; expected two "
      "answers that differ in their last token alone"
    )
  start, close = map(tuple, around)
  return Template(
    prompt=tuple(piece for piece in (start, *pieces(prompt), close) if piece),
    response=pieces(response) + ((alike,) if alike else ()),
    answers=ends,
    barred=tuple(barred),
  )


def fitting_answers(
  encode: Callable[[str], list[int]], answers: Sequence[str]
) -> tuple[str, ...]:
  """Two answers that differ in their last token alone: these, or others.

  Args:
    encode: see `make_template`.
    answers: those that are wanted; where they do not fit, the first of
      `ANSWERS` that do stand for them.
  """
  every = (tuple(answers), *(ANSWERS if len({*answers}) == 2 else ()))
  fitting = (one for one in every if _answers(encode, one)[1] is not None)
  return next(fitting, tuple(answers))


def _answers(encode, answers) -> tuple[tuple[int, ...], tuple[int, int] | None]:
  """What two answers begin with alike, and the last tokens that differ."""
  ids = [tuple(encode(answer)) for answer in answers]
  same = itertools.takewhile(
    lambda pair: pair[0] == pair[1], zip(*ids, strict=False)
  )
  alike = tuple(token for token, _ in same)
  ends = [one[len(alike) :] for one in ids]
  if len(ids) != 2 or [len(end) for end in ends] != [1, 1]:
    return (), None
  return alike, (ends[0][0], ends[1][0])


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

  Args:
    params: gradient flows to them.
    template: with the slots prompt, first and second.
    prompts: tokens int[B, P] and mask bool[B, P].
    responses: tokens int[B·N, R] and mask bool[B·N, R] of y, N to a prompt.
    opponents: tokens int[B·N, R′] and mask bool[B·N, R′] of y′.
  Returns: f32[B·N]; P(y ≻ y′|x) is its sigmoid.
  Source: Munos et al., ICML 2024, app. G.1.
  """
  there, back = both_orders(
    model,
    params,
    template,
    prompts=prompts,
    responses=responses,
    opponents=opponents,
  )
  return there - back


def both_orders(
  model: language_model.LanguageModel,
  params: language_model.Params,
  template: Template,
  *,
  prompts: Segment,
  responses: Segment,
  opponents: Segment,
) -> tuple[jax.Array, jax.Array]:
  """f(x, y, y′) and f(x, y′, y), f32[B·N] each, of which `win_logit` is made.

  Apart they say how much it matters which response is read first.

  Args: as `win_logit`.
  """
  slots = {
    "prompt": prompts,
    "first": in_turn(responses, opponents),
    "second": in_turn(opponents, responses),
  }
  logits = _answer_logits(model, params, template, slots).reshape(-1, 2)
  return logits[:, 0], logits[:, 1]


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
    template: with the slots prompt and first.
    prompts: tokens int[B, P] and mask bool[B, P].
    responses: tokens int[B·N, R] and mask bool[B·N, R], N to a prompt.
  Returns: f32[B·N].
  """
  slots = {"prompt": prompts, "first": responses}
  return _answer_logits(model, params, template, slots)


def both_rewards(
  model: language_model.LanguageModel,
  params: language_model.Params,
  template: Template,
  *,
  prompts: Segment,
  responses: Segment,
  opponents: Segment,
) -> tuple[jax.Array, jax.Array]:
  """r(x, y) and r(x, y′), f32[B·N] each, read together.

  Args: as `reward`, of y and of y′.
  """
  both = in_turn(responses, opponents)
  rewards = reward(model, params, template, prompts=prompts, responses=both)
  return tuple(rewards.reshape(-1, 2).T)


def in_turn(a: Segment, b: Segment) -> Segment:
  """Rows of two segments in turn: a₀, b₀, a₁, b₁, …, as wide as the wider."""
  width = max(a[0].shape[1], b[0].shape[1])

  def wide(x):
    return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))

  return tuple(
    jnp.stack([wide(x), wide(y)], axis=1).reshape(-1, width)
    for x, y in zip(a, b, strict=True)
  )


def _answer_logits(
  model, params, template, slots: Mapping[str, Segment]
) -> jax.Array:
  """Log-odds of the two answers, f32[B·N]."""
  barred = jnp.array(template.barred, jnp.int32)
  slots = {
    name: (tokens, mask & ~jnp.isin(tokens, barred))
    for name, (tokens, mask) in slots.items()
  }
  rows, count = len(slots["first"][0]), len(slots["prompt"][0])
  size = _shared(template, model.one_sequence)
  if not size:  # all of it is read for each row
    size, count = len(template.prompt), rows
  prompts = _fill(template.prompt[:size], slots, count)
  behind = template.prompt[size:] + template.response
  responses, mask = _fill(behind, slots, rows)
  lengths = jnp.sum(mask, axis=1)
  states = model.next_states(params, *prompts, responses, lengths)
  logits = model.logits(params, states, template.answers)
  return logits[:, 0] - logits[:, 1]


def _shared(template: Template, one_sequence: bool) -> int:
  """How many pieces of the prompt are read once for all rows that share it.

  Those before what a row alone has. An encoder reads the prompt as a whole, so
  that it is all of them or none; where prompt and response are one sequence it
  is 0 if they may be no token at all, which no model can go on from.
  """
  mine = [piece in ("first", "second") for piece in template.prompt]
  size = (mine + [True]).index(True)
  if not one_sequence:
    return size if size == len(template.prompt) else 0
  fixed = any(not isinstance(piece, str) for piece in template.prompt[:size])
  return size if fixed else 0


def _fill(
  pieces: tuple[Piece, ...], slots: Mapping[str, Segment], rows: int
) -> Segment:
  """The pieces with their slots filled, without gaps between them."""

  def filled(piece):
    if isinstance(piece, str):
      return each(slots[piece], rows)
    shape = (rows, len(piece))
    fixed = jnp.broadcast_to(jnp.array(piece, jnp.int32), shape)
    return fixed, jnp.ones(shape, bool)

  nothing = filled(())
  segments = [nothing, *(filled(piece) for piece in pieces)]
  tokens, masks = zip(*segments, strict=True)
  return arrays.left_justify(
    jnp.concatenate(tokens, axis=1), jnp.concatenate(masks, axis=1)
  )
