"""Conversations of one to three turns, of our own making."""

import json
import pathlib

from nashmd_jax.data import records
from tests import small_records

ASKED = ("Where?", "And when is that?", "Who says so?", "In fewer words?")


def record(number: int) -> records.Record:
  """Row `number`, of 1 + number mod 3 turns of the assistant."""
  made = small_records.record(number)
  said = [{"role": "user", "content": made["prompt"]}]
  for turn in range(1 + number % 3):
    if turn:
      asks = ASKED[(number + turn) % len(ASKED)]
      said.append({"role": "user", "content": asks})
    words = made["response"].split()[turn:]
    said.append({"role": "assistant", "content": " ".join(words)})
  return {"id": made["id"], "messages": said}


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes train.jsonl, validation.jsonl and test.jsonl."""
  folder.mkdir(parents=True, exist_ok=True)
  start = 0
  for split, count in small_records.COUNTS.items():
    rows = [record(i) for i in range(start, start + count)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    start += count
  return folder
