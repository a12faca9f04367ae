"""Conversations of several turns as token ids: a row, and what is fixed of it.

A record of the kind "conversation" has `turns`, the messages from the first
answer to the last; the assistant's are the policy's to write, the user's stand
as they are. See `nashmd_jax.turns` for the arrays.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax import declare, mistakes, turns
from nashmd_jax.data import messages, records
from nashmd_jax.data import tokenizer as tokenizer_lib

SETTINGS = {
  "most": declare.whole(
    "Turns of the assistant that a record may have, each of which the policy "
    "writes; 1 for a response alone.",
    least=1,
    most=1000,
    unit="turns",
  ),
  "between": declare.whole(
    "Tokens that may stand between two of them: what the user says, and the "
    "template around it.",
    least=0,
    unit="tokens",
  ),
}


class Turns(NamedTuple):
  """How long the conversations of a run may be.

  Attributes:
    most: turns of the assistant.
    between: tokens between two of them.
  """

  most: int
  between: int

  def width(self, max_response: int) -> int:
    """Tokens of a row, R, whose turns have at most `max_response` each."""
    return self.most * max_response + (self.most - 1) * self.between

  @property
  def told(self) -> str:
    """What is said of several turns beside a width."""
    return f" with turns.most {self.most}" if self.most > 1 else ""


ALONE = Turns(1, 0)


class Gap(NamedTuple):
  """What stands between two turns.

  Attributes:
    ids: as the policy reads it.
    closing: how many of the first of them end the turn before.
    question: as judges read it.
  """

  ids: list[int]
  closing: int
  question: list[int]


def check(settings: Mapping[str, Any]) -> None:
  """Raises Mistake for turns with no room between them."""
  if settings["most"] > 1 and not settings["between"]:
    raise mistakes.Mistake(
      f"turns.between: got 0 with turns.most {settings['most']}; set it to the "
      "tokens that the longest message of the user between two turns takes"
    )


def check_count(
  record: records.Record, given: Turns, name: str
) -> Sequence[Mapping[str, str]]:
  """The turns of a record, one for a response alone.

  Args:
    record: with a response.
    given: how many there may be.
    name: of the record, for the error.
  Raises: Mistake for more of them.
  """
  response = record["response"]
  text = response.decode() if isinstance(response, bytes) else response
  alone = [{"role": "assistant", "content": text}]
  found = record.get("turns") or alone
  count = (len(found) + 1) // 2
  if count > given.most:
    raise mistakes.Mistake(
      f"{name}: has {count} turns of the assistant, and turns.most is "
      f"{given.most}; raise it, or leave out the last of them"
    )
  return found


def check_counts(
  splits: Mapping[str, Sequence[records.Record]],
  given: Turns,
  findings: mistakes.Findings,
) -> None:
  """Collects the first record of each split that has too many turns."""
  for rows in splits.values():
    with findings.collect():
      for row in rows:
        check_count(row, given, f"record {mistakes.quote(row['id'])}")


def encode(
  record: records.Record,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  chat: messages.Chat | None,
  given: Turns,
  max_response: int,
  name: str,
) -> dict[str, np.ndarray]:
  """The columns of a record's response in a run of conversations.

  A turn that is too long is cut and has no end token, as a response is; what
  stands behind it is then read with what ends the turn.

  Args:
    record: with a response, and turns if they are several.
    tokenizer: of the policy.
    chat: how the policy reads conversations; None for text.
    given: how long they may be: at most S + 1 turns, and W tokens between.
    max_response: tokens of a turn, EOS included.
    name: of the record, for errors.
  Returns: "responses" int32[R] and "responses_mask" bool[R], true on the
    assistant's tokens; "responses_cut"; "turns", how many; "between"
    int32[S, W] with its mask and "closing" int32[S]; with a chat also
    "between_questions", as judges read it, with its mask.
  Raises: Mistake for too many turns, or too much between two.
  """
  found = check_count(record, given, name)
  gaps = _gaps(record, found, tokenizer, chat, name)
  for number, gap in enumerate(gaps, start=2):
    size = max(len(gap.ids), len(gap.question))
    if size > given.between:
      raise mistakes.Mistake(
        f"{name}: what stands before turn {number} of the assistant takes "
        f"{size} tokens, and turns.between is {given.between}; raise it, or "
        "shorten what the user says there"
      )
  ids, mask, cut = _row(found, gaps, tokenizer, max_response)
  size = given.width(max_response)
  columns = {
    "responses": _padded([ids], (1, size))[0],
    "responses_mask": _padded([mask], (1, size))[0].astype(bool),
    "responses_cut": np.bool_(cut),
    "turns": np.int32(len(gaps) + 1),
  }
  shape = (given.most - 1, given.between)
  told = {turns.BETWEEN: [gap.ids for gap in gaps]}
  if chat is not None:
    told[turns.QUESTIONS] = [gap.question for gap in gaps]
  for column, rows in told.items():
    columns[column] = _padded(rows, shape)
    ones = [[1] * len(row) for row in rows]
    columns[f"{column}_mask"] = _padded(ones, shape).astype(bool)
  closing = [[gap.closing for gap in gaps]]
  columns["closing"] = _padded(closing, (1, given.most - 1))[0]
  return columns


def _gaps(record, found, tokenizer, chat, name) -> list[Gap]:
  """What stands between the turns of a record."""
  asked = [tokenizer.encode(records.between(one)) for one in found[1::2]]
  if chat is None:
    return [Gap(ids, 0, ids) for ids in asked]
  try:
    gaps = messages.encode_gaps(record, found, chat, tokenizer)
  except mistakes.Mistake as mistake:
    raise mistakes.Mistake(f"{name}: {mistake}") from None
  return [
    Gap(ids, closing, question)
    for (ids, closing), question in zip(gaps, asked, strict=True)
  ]


def _row(found, gaps, tokenizer, max_response):
  """Token ids of all turns, which are the assistant's, and if one is cut."""
  ids, mask, cut = [], [], False
  for number, turn in enumerate(found[::2]):
    own = [*tokenizer.encode(turn["content"]), tokenizer.eos_id]
    too_long = len(own) > max_response
    own, cut = own[:max_response], cut or too_long
    behind = []
    if number < len(gaps):
      behind = gaps[number].ids[0 if too_long else gaps[number].closing :]
    ids += [*own, *behind]
    mask += [1] * len(own) + [0] * len(behind)
  return ids, mask, cut


def _padded(rows: Sequence[Sequence[int]], shape) -> np.ndarray:
  made = np.zeros(shape, np.int32)
  for row, ids in zip(made, rows, strict=False):
    row[: len(ids)] = ids
  return made
