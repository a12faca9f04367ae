"""Summary records of our own making, the same on every machine."""

import json
import pathlib

from nashmd_jax.data import records

COUNTS = {"train": 64, "validation": 24, "test": 16}
THINGS = ("river", "lamp", "engine", "garden", "letter", "bridge", "clock")
VERBS = ("moves", "breaks", "holds", "turns", "waits", "grows")
PLACES = ("by the sea", "in the old town", "under the hill", "near the mill")
TIMES = ("at dawn", "all winter", "after the storm", "once a year", "slowly")


def record(number: int) -> records.Record:
  """Record `number`; the mixed radix makes neighbours differ everywhere."""
  words = []
  rest = number * 1013 + 7
  for choices in (THINGS, VERBS, PLACES, TIMES, THINGS, VERBS):
    rest, at = divmod(rest, len(choices))
    rest += number
    words.append(choices[at])
  thing, verb, place, time, other, does = words
  return {
    "id": str(number),
    "prompt": f"The {thing} {verb} {place} {time} while the {other} {does}.",
    "response": f"A {thing} {verb} {time}.",
  }


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes train.jsonl, validation.jsonl and test.jsonl."""
  folder.mkdir(parents=True, exist_ok=True)
  start = 0
  for split, count in COUNTS.items():
    rows = [record(i) for i in range(start, start + count)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    start += count
  return folder
