"""Conversations in which a policy writes several turns, as one row of tokens.

What stands between two turns, such as what the user says, is fixed beforehand:
it is read after the turn before it, and neither drawn nor counted. So the mask
of such a row is true on the policy's own tokens alone, with a gap between two
turns. Nothing here knows text or a model.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays

Segment = tuple[jax.Array, jax.Array]
BETWEEN, QUESTIONS = "between", "between_questions"


class Script(NamedTuple):
  """What is fixed of B conversations of at most S + 1 turns.

  Attributes:
    between: int32[B, S, W], the tokens behind turn s.
    lengths: int32[B, S], how many they are, 1 or more behind every turn but
      the last.
    closing: int32[B, S], how many of the first of them end the turn itself,
      fewer than all; they are left out behind a turn that ended by itself.
    turns: int32[B], of each conversation, from 1 to S + 1.
  """

  between: jax.Array
  lengths: jax.Array
  closing: jax.Array
  turns: jax.Array


class Place(NamedTuple):
  """How far the rows of a rollout are in their scripts.

  Attributes:
    turn: int32[B, L], the turn that is written or about to be, from 0.
    size: int32[B, L], tokens that it has.
    behind: int32[B, L], the next token of those before it in the script.
  """

  turn: jax.Array
  size: jax.Array
  behind: jax.Array


def script(batch: Mapping[str, jax.Array]) -> Script | None:
  """The script of a batch; None where responses have one turn."""
  if BETWEEN not in batch:
    return None
  return Script(
    between=batch[BETWEEN],
    lengths=jnp.sum(batch[f"{BETWEEN}_mask"], axis=2, dtype=jnp.int32),
    closing=batch["closing"],
    turns=batch["turns"],
  )


def width(max_response: int, given: Script | None) -> int:
  """Tokens of a row, R, whose turns have at most `max_response` each."""
  if given is None:
    return max_response
  _, gaps, size = given.between.shape
  return (gaps + 1) * max_response + gaps * size


def begin(rows: int, lanes: int) -> Place:
  """The place of rows that have written nothing."""
  return Place(*(jnp.zeros((rows, lanes), jnp.int32) for _ in Place._fields))


def fixed(given: Script, place: Place) -> Segment:
  """The token that comes next in the script, and whether one does.

  Returns: int32[B, L] and bool[B, L]; what is not fixed is the policy's.
  """
  before = jnp.maximum(place.turn - 1, 0)
  size = given.between.shape[2]
  tokens = jax.vmap(lambda x, gap, n: x[gap, n])(
    given.between, before, jnp.minimum(place.behind, size - 1)
  )
  left = place.behind < jnp.take_along_axis(given.lengths, before, axis=1)
  return tokens, (place.turn > 0) & left


def advance(
  given: Script, place: Place, ended: jax.Array, *, max_response: int
) -> tuple[Place, jax.Array]:
  """The place of every row when it has one token more.

  Args:
    given: B conversations.
    place: before the token.
    ended: bool[B, L], whether the token is one that ends a turn; where it is
      of the script that does not matter.
    max_response: tokens at which a turn is cut.
  Returns: the place, and bool[B, L], whether the conversation goes on.
  """
  _, is_fixed = fixed(given, place)
  size = place.size + ~is_fixed
  over = ~is_fixed & (ended | (size >= max_response))
  more = place.turn + 1 < given.turns[:, None]
  gap = jnp.minimum(place.turn, given.closing.shape[1] - 1)
  closing = jnp.take_along_axis(given.closing, gap, axis=1)
  moved = over & more
  skipped = jnp.where(ended, closing, 0)
  moved_to = Place(
    turn=place.turn + moved,
    size=jnp.where(moved, 0, size),
    behind=jnp.where(moved, skipped, place.behind + is_fixed),
  )
  return moved_to, ~over | more


def ends(mask: jax.Array) -> jax.Array:
  """The last token of every turn, bool[..., R] of such a mask."""
  after = jnp.concatenate(
    [mask[..., 1:], jnp.zeros_like(mask[..., :1])], axis=-1
  )
  return mask & ~after


def said(
  batch: Mapping[str, jax.Array], tokens: jax.Array, mask: jax.Array
) -> Segment:
  """What judges read of conversations: every turn, what the user says between.

  Args:
    batch: with scripts; where judges read another text than the policy, that
      of them under `QUESTIONS`. Without scripts nothing changes.
    tokens: int[B, L, R].
    mask: bool[B, L, R], of the policy's own tokens.
  Returns: the same, of other tokens without a gap.
  """
  if BETWEEN not in batch:
    return tokens, mask
  lanes = tokens.shape[1]
  name = QUESTIONS if QUESTIONS in batch else BETWEEN
  between, between_mask = batch[name], batch[f"{name}_mask"]
  starts = ends(mask[..., ::-1])[..., ::-1]
  turn = jnp.cumsum(starts, axis=-1) - 1
  pieces = [(tokens, mask & (turn == 0))]
  for gap in range(between.shape[1]):
    pieces += [
      tuple(
        jnp.repeat(x[:, None, gap], lanes, axis=1)
        for x in (between, between_mask)
      ),
      (tokens, mask & (turn == gap + 1)),
    ]
  flat = (
    jnp.concatenate(columns, axis=-1).reshape(len(tokens) * lanes, -1)
    for columns in zip(*pieces, strict=True)
  )
  size = tokens.shape[-1]
  return tuple(
    x[:, :size].reshape(tokens.shape) for x in arrays.left_justify(*flat)
  )
