"""Rows of messages as our records: prompt and response, or several turns."""

from collections.abc import Mapping
from typing import Any

from nashmd_jax.data import records

Row = Mapping[str, Any]


def conversation(messages: Any, answers: bool, row: Row) -> records.Record:
  """The prompt in messages, and the response if the last of them is one."""
  last = "assistant" if answers else "user"
  records.check_messages(messages, "a conversation", last=last)
  before = [
    {name: one[name] for name in ("role", "content")} for one in messages
  ]
  found = {}
  if answers:
    *before, answer = before
    found["response"] = answer["content"]
    records.check_messages(
      before, "a conversation before its response", last="user"
    )
  found |= {"prompt": records.said(before), "messages": before}
  if row.get("prompt", found["prompt"]) != found["prompt"]:
    raise ValueError("its prompt is not what its messages say; leave it out")
  return found


def several_turns(row: Row) -> list[records.Record]:
  """A conversation whose every answer the policy is to write."""
  if "turns" in row:  # a record already
    return [dict(row)]
  said = row.get("messages")
  records.check_messages(said, "a conversation", last="assistant")
  first = next(i for i, one in enumerate(said) if one["role"] == "assistant")
  found = conversation(said[:first], False, row)
  turns = [
    {name: one[name] for name in ("role", "content")} for one in said[first:]
  ]
  records.check_turns(turns, "a conversation")
  response = {"turns": turns, "response": records.answered(turns)}
  return [{"id": row["id"], **found, **response}]
