"""Conversations: the messages of a record, and what a chat template makes of
them.

A record may hold `messages`, [{"role", "content"}, …] up to the response. Its
prompt is then what stands in them, as raters, judges and readers see it; a
model of chat reads the messages themselves, in its own template.
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import NamedTuple

from nashmd_jax import mistakes
from nashmd_jax.data import cuts, records
from nashmd_jax.data import tokenizer as tokenizer_lib

Message = Mapping[str, str]
PLACE = "{prompt}"
ANSWER = "answer"


class Chat(NamedTuple):
  """How a model of chat reads a record.

  Attributes:
    render: (messages, begun) -> text, with the head of the response where it
      is begun.
    system: the system message of records that have none; None for none.
    user: the user message of records without messages, the prompt at
      `PLACE`.
  """

  render: Callable[[Sequence[Message], bool], str]
  system: str | None
  user: str


def encode_prompt(
  record: records.Record,
  chat: Chat,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  room: int,
  name: str,
) -> tuple[list[int], bool]:
  """Token ids of what a model of chat reads before it responds.

  Of a conversation that is too long the oldest turns are left out, then of the
  last message the end of the record's slot, or without one the start of its
  text. The template itself and the system message are never cut.

  Args:
    record: of any kind.
    chat: see `Chat`.
    tokenizer: of the model.
    room: tokens that fit.
    name: of the record, for errors.
  Returns: at most `room` ids, and whether something was left out.
  Raises: Mistake for what cannot be rendered, or does not fit.
  """
  *before, last = turns(record, chat)
  content, (start, stop) = last["content"], _cuttable(record, chat)
  keeps_start = records.slot_of(record) is not None

  def encode(before, content):
    try:
      return encode_messages(
        [*before, {**last, "content": content}], chat, tokenizer
      )
    except mistakes.Mistake as mistake:
      raise mistakes.Mistake(f"{name}: {mistake}") from None

  def kept(size):
    part = content[start:stop]
    part = part[:size] if keeps_start else part[len(part) - size :]
    return encode(before, content[:start] + part + content[stop:])

  ids, cut = encode(before, content), False
  while len(ids) > room and _shorter(before) != before:
    before, cut = _shorter(before), True
    ids = encode(before, content)
  if len(ids) <= room:
    return ids, cut
  least = kept(0)
  if len(least) > room:
    raise mistakes.Mistake(
      f"{name}: what may not be cut of its messages takes {len(least)} tokens, "
      f"and {room} fit; raise the last of layout.prompt_buckets, or shorten "
      "the system message or the text outside of the slot"
    )
  return cuts.longest(kept, stop - start, room=room, fitting=least), True


def turns(record: records.Record, chat: Chat) -> list[Message]:
  """The messages of a record before its response; the last is the user's."""
  own = record.get("messages")
  user = {"role": "user", "content": chat.user.replace(PLACE, record["prompt"])}
  found = list(own) if own else [user]
  if chat.system is not None and found[0]["role"] != "system":
    found = [{"role": "system", "content": chat.system}, *found]
  return found


def _cuttable(record: records.Record, chat: Chat) -> tuple[int, int]:
  """What may be cut of the last message, [start, stop) in characters."""
  own, prompt = record.get("messages"), record["prompt"]
  start, stop = records.slot_of(record) or (0, len(prompt))
  if not own:
    offset = chat.user.index(PLACE)
  elif prompt == own[-1]["content"]:
    offset = 0
  else:
    return 0, len(own[-1]["content"])
  return offset + start, offset + stop


def _shorter(before: Sequence[Message]) -> list[Message]:
  """Without the oldest turn, up to the next message of the user."""
  kept = [message for message in before if message["role"] == "system"]
  rest = [message for message in before if message["role"] != "system"][1:]
  while rest and rest[0]["role"] != "user":
    rest = rest[1:]
  return [*kept, *rest]


def encode_messages(
  messages: Sequence[Message], chat: Chat, tokenizer: tokenizer_lib.Tokenizer
) -> list[int]:
  """Token ids of rendered messages, the head of the response included.

  The name of a special token that somebody wrote into a message is text.
  """
  contents, special = (
    [message["content"] for message in messages],
    {*tokenizer.special_ids},
  )
  if special.isdisjoint(
    i for content in contents for i in tokenizer.encode_marked(content)
  ):
    return tokenizer.encode_marked(chat.render(messages, True))
  ids = []
  for place, piece in enumerate(_pieces(messages, chat)):
    of_theirs = place % 2
    text = contents[int(piece)] if of_theirs else piece
    ids += (tokenizer.encode if of_theirs else tokenizer.encode_marked)(text)
  return ids


def _pieces(messages: Sequence[Message], chat: Chat) -> list[str]:
  """Rendered messages, their numbers in the places of their contents."""
  held = [
    {**message, "content": f"\ue000{number}\ue001"}
    for number, message in enumerate(messages)
  ]
  return re.split("\ue000(\\d+)\ue001", chat.render(held, True))


def encode_gaps(
  record: records.Record,
  found: Sequence[Message],
  chat: Chat,
  tokenizer: tokenizer_lib.Tokenizer,
) -> list[tuple[list[int], int]]:
  """What a model of chat reads between two turns of the assistant.

  Args:
    record: with what stands before the first turn.
    found: messages from the first turn to the last, of the assistant and of
      the user in turn.
    chat: see `Chat`.
    tokenizer: of the model.
  Returns: behind every turn but the last token ids, and how many of the first
    of them end the turn itself.
  Raises: Mistake for a template that does not give the turns, each once and in
    order, or nothing behind one.
  """
  before = turns(record, chat)
  whole, count = [*before, *found[:-1]], len(found) - 1
  pieces = _pieces(whole, chat)
  numbers = [int(number) for number in pieces[1::2]]
  if numbers[len(numbers) - count :] != list(range(len(before), len(whole))):
    raise mistakes.Mistake(
      "the chat template does not give each turn of the conversation as it is, "
      "in order; take another template, or records of one turn"
    )
  fixed = pieces[::2][len(numbers) - count + 1 :]
  gaps = []
  for place in range(0, count, 2):
    close, behind = fixed[place : place + 2]
    ids = _encode_around(close, found[place + 1]["content"], behind, tokenizer)
    ends = {*tokenizer.eos_ids}
    closing = 0
    if not ends.isdisjoint(tokenizer.encode_marked(close)):
      closing = 1 + next(n for n, one in enumerate(ids) if one in ends)
    if closing == len(ids):
      raise mistakes.Mistake(
        "the chat template has nothing between two turns of the assistant; "
        "take another template"
      )
    gaps.append((ids, closing))
  return gaps


def _encode_around(
  before: str, content: str, behind: str, tokenizer: tokenizer_lib.Tokenizer
) -> list[int]:
  """Token ids of what somebody wrote, and what a template has around it."""
  if {*tokenizer.special_ids}.isdisjoint(tokenizer.encode_marked(content)):
    return tokenizer.encode_marked(before + content + behind)
  first, last = map(tokenizer.encode_marked, (before, behind))
  return [*first, *tokenizer.encode(content), *last]


def end_of_response(
  chat: Chat, encode_marked: Callable[[str], Sequence[int]], special_ids
) -> int | None:
  """The token with which the template ends what an assistant said, if any."""
  said = [
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": ANSWER},
  ]
  _, _, behind = chat.render(said, False).rpartition(ANSWER)
  ids = (i for i in encode_marked(behind) if i in special_ids)
  return next(ids, None)
