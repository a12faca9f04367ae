"""The record kinds, and JSON lines of them in and out.

prompt {id, prompt} · summary {id, prompt, response} · comparison {id, prompt,
response_a, response_b, prob_a, rater?, votes?, ties?, weight?}, prob_a in
[0, 1] that a is preferred · unary {id, prompt, response, label}, label in
[0, 1], 1 for a desired response · conversation {id, prompt, response, turns},
turns the messages from the first answer to the last, response what stands for
them. Of a comparison votes says how many raters prob_a is the share of, 1
unless said; ties how many of them called it a tie, which is half a vote for
each side, 0 unless said; weight what it counts in training, 1 unless said.
Each may have a slot, the [start, stop) in characters of what may be shortened
in a prompt that is too long, and messages, the conversation up to the response
that the prompt was made of, [{role, content}, ...]; the last is the user's.
"""

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import files, mistakes
from nashmd_jax.data import lines

Record = dict[str, Any]

TEXT_FIELDS = {
  "prompt": ("id", "prompt"),
  "summary": ("id", "prompt", "response"),
  "comparison": ("id", "prompt", "response_a", "response_b"),
  "unary": ("id", "prompt", "response"),
  "conversation": ("id", "prompt", "response"),
}
SHARES = {"comparison": "prob_a", "unary": "label"}
# Optional fields of a comparison: what stands for one that is absent, and the
# most that fits where it is kept.
COUNTS = {"votes": 1, "ties": 0}
MOST_VOTES = int(np.iinfo(np.int32).max)
# What a prompt consists of.
PROMPT = ("prompt", "slot", "messages")
ROLES = ("system", "user", "assistant")
WEIGHT, MOST_WEIGHT = 1.0, float(np.finfo(np.float32).max)


def save_records(path: pathlib.Path, records: Iterable[Record]) -> None:
  """Writes JSON lines; the file appears whole or not at all."""
  texts = (json.dumps(record, ensure_ascii=False) for record in records)
  files.save_text(path, "".join(f"{text}\n" for text in texts))


def load_records(path: pathlib.Path, kind: str) -> list[Record]:
  """Reads JSON lines of one kind of record.

  Args:
    path: the file.
    kind: a key of `TEXT_FIELDS`.
  Raises: Mistake that names file, line and field of the first bad record.
  """
  expected = f"one {kind} a line"
  records = []
  for number, record in lines.read_objects(path, expected):
    check_record(record, kind, f"{path}, line {number}")
    records.append(record)
  if not records:
    raise mistakes.Mistake(f"{path}: no records in it; expected {expected}")
  return records


def kind_of(record: Record) -> str:
  """The kind that the fields of a record speak of."""
  if "response_a" in record:
    return "comparison"
  if "label" in record:
    return "unary"
  if "turns" in record:
    return "conversation"
  return "summary" if "response" in record else "prompt"


def slot_of(record: Record) -> tuple[int, int] | None:
  """The slot of a record; None without one, for which (0, 0) also stands."""
  slot = record.get("slot")
  if slot is None:
    return None
  start, stop = map(int, slot)
  return (start, stop) if stop else None


def prompt_of(record: Record) -> Record:
  """The fields of a record that its prompt consists of."""
  return {name: record[name] for name in PROMPT if name in record}


def said(messages: Sequence[Mapping[str, str]]) -> str:
  """The prompt that stands for messages: what raters and judges read.

  Of one message besides the system's its text, of several who said what.
  """
  spoken = [one for one in messages if one["role"] != "system"]
  if len(spoken) == 1:
    return spoken[0]["content"]
  return "\n\n".join(
    f"{one['role'].capitalize()}: {one['content']}" for one in spoken
  )


def between(message: Mapping[str, str]) -> str:
  """What stands between two turns of the assistant, the user's message."""
  return f"\n\nUser: {message['content']}\n\nAssistant: "


def answered(turns: Sequence[Mapping[str, str]]) -> str:
  """The response that stands for turns: what raters and judges read."""
  return "".join(
    between(one) if one["role"] == "user" else one["content"] for one in turns
  )


def votes_of(record: Record) -> tuple[int, int]:
  """How many raters a comparison was put to, and how many called it a tie."""
  votes, ties = (record.get(name, absent) for name, absent in COUNTS.items())
  return int(votes), int(ties)


def weight_of(record: Record) -> float:
  """What a comparison counts in training."""
  return float(record.get("weight", WEIGHT))


def check_record(record: Record, kind: str, where: str) -> None:
  """Raises Mistake unless a record has the fields of its kind."""
  for field in TEXT_FIELDS[kind]:
    _check_text(record.get(field), field, f"{where}: a {kind} needs")
  if kind == "comparison":
    _check_text(record.get("rater", ""), "rater", f"{where}: a {kind} may have")
  name = SHARES.get(kind)
  if name:
    share = record.get(name)
    if not (_is_number(share) and 0 <= share <= 1):
      raise mistakes.Mistake(
        f"{where}: a {kind} needs {name} between 0 and 1, got "
        f"{mistakes.quote(share)}"
      )
  if kind == "comparison":
    _check_votes(record, where)
    _check_weight(record, where)
  if record.get("slot") is not None:
    _check_slot(record, where)
  if record.get("messages") is not None:
    check_messages(record["messages"], f"{where}: a {kind}", last="user")
  if kind == "conversation":
    check_turns(record.get("turns"), f"{where}: a {kind}")
    response, said = record["response"], answered(record["turns"])
    if response != said:
      raise mistakes.Mistake(
        f"{where}: a {kind} needs the response that its turns say, "
        f"{mistakes.quote(said)}, got {mistakes.quote(response)}"
      )


def check_turns(turns: Any, where: str) -> None:
  """Raises Mistake unless these are turns of assistant and user, in turn."""
  asked = {"role": "user", "content": ""}  # what the first of them answers
  whole = [asked, *turns] if isinstance(turns, list | tuple) else turns
  check_messages(whole, f"{where}, in its turns,", last="assistant")
  pairs = zip(turns, whole, strict=False)
  for number, (one, before) in enumerate(pairs, start=1):
    if one["role"] == before["role"]:
      raise mistakes.Mistake(
        f"{where} needs turns of assistant and user in turn, got two messages "
        f"of the {one['role']} one after the other, at turn {number}; join them"
      )


def check_messages(messages: Any, where: str, *, last: str) -> None:
  """Raises Mistake unless these are messages, the last of them of a role."""
  fine = isinstance(messages, list | tuple) and messages
  if not (fine and all(isinstance(one, Mapping) for one in messages)):
    raise mistakes.Mistake(
      f"{where} needs messages as a list of role and content, got "
      f"{mistakes.quote(messages)}"
    )
  for number, message in enumerate(messages):
    role = message.get("role")
    wanted = ("system", "user") if not number else ROLES[1:]
    if role not in wanted:
      raise mistakes.Mistake(
        f"{where} needs the role of message {number} to be one of {wanted}, "
        f"got {mistakes.quote(role)}"
      )
    _check_text(
      message.get("content"), "content", f"{where} needs in message {number}"
    )
  if messages[-1]["role"] != last:
    raise mistakes.Mistake(
      f"{where} needs messages that end in one of the {last}, got "
      f"{mistakes.quote(messages[-1]['role'])}"
    )


def _check_text(value: Any, field: str, needed: str) -> None:
  needed = f"{needed} the text field {field!r}"
  if not isinstance(value, str):
    raise mistakes.Mistake(f"{needed}, got {mistakes.quote(value)}")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise mistakes.Mistake(
      f"{needed} in whole characters, got half of one, "
      f"{value[error.start]!r}, at character {error.start}"
    ) from None


def _check_votes(record: Record, where: str) -> None:
  votes, ties = (record.get(name, absent) for name, absent in COUNTS.items())
  if type(votes) is not int or not 1 <= votes <= MOST_VOTES:
    raise mistakes.Mistake(
      f"{where}: votes must be a whole number of raters from 1 to "
      f"{MOST_VOTES:,}, got {mistakes.quote(votes)}"
    )
  if type(ties) is not int or not 0 <= ties <= votes:
    raise mistakes.Mistake(
      f"{where}: ties must be a whole number from 0 to the votes, {votes}, got "
      f"{mistakes.quote(ties)}"
    )
  share = record["prob_a"]
  if abs(2 * share - 1) * votes > votes - ties + 1e-3:
    raise mistakes.Mistake(
      f"{where}: prob_a of {share:g} cannot be with {ties} of {votes} votes "
      "ties, each half a vote for a"
    )


def _check_weight(record: Record, where: str) -> None:
  weight = record.get("weight", WEIGHT)
  if not (_is_number(weight) and 0 <= weight <= MOST_WEIGHT):
    raise mistakes.Mistake(
      f"{where}: weight must be a finite number of 0 or more, got "
      f"{mistakes.quote(weight)}"
    )


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _check_slot(record: Record, where: str) -> None:
  slot, size = record["slot"], len(record["prompt"])
  pair = (
    isinstance(slot, list | tuple)
    and len(slot) == 2
    and all(type(place) is int for place in slot)
  )
  if not (pair and 0 <= slot[0] <= slot[1] <= size):
    raise mistakes.Mistake(
      f"{where}: slot must be [start, stop] in the {size} characters of the "
      f"prompt, got {mistakes.quote(slot)}"
    )
