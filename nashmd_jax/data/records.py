"""The record kinds, and JSON lines of them in and out.

prompt {id, prompt} · summary {id, prompt, response} · comparison {id, prompt,
response_a, response_b, prob_a, rater?}, prob_a in [0, 1] that a is preferred.
"""

from collections.abc import Iterable
import json
import pathlib
from typing import Any

from nashmd_jax import files

Record = dict[str, Any]

TEXT_FIELDS = {
  "prompt": ("id", "prompt"),
  "summary": ("id", "prompt", "response"),
  "comparison": ("id", "prompt", "response_a", "response_b"),
}


def save_records(path: pathlib.Path, records: Iterable[Record]) -> None:
  """Writes JSON lines; the file appears whole or not at all."""
  lines = (json.dumps(record, ensure_ascii=False) for record in records)
  files.save_text(path, "".join(f"{line}\n" for line in lines))


def load_records(path: pathlib.Path, kind: str) -> list[Record]:
  """Reads JSON lines of one kind of record.

  Args:
    path: the file.
    kind: a key of `TEXT_FIELDS`.
  Raises: ValueError that names file, line and field of the first bad record.
  """
  if not path.is_file():
    raise ValueError(f"{path}: no such file; expected one {kind} a line")
  records = []
  with path.open(encoding="utf-8", errors="replace") as file:
    for number, line in enumerate(file, start=1):
      if line.strip():
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        check_record(record, kind, where)
        records.append(record)
  if not records:
    raise ValueError(f"{path}: no records in it; expected one {kind} a line")
  return records


def parse_json(line: str, where: str) -> Record:
  """The JSON object in a line.

  Args:
    where: file and line, for the error.
  Raises: ValueError if there is none.
  """
  try:
    record = json.loads(line)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{where}: not JSON ({error.msg} at column {error.colno}); "
      f"mend or delete the line"
    ) from None
  if not isinstance(record, dict):
    raise ValueError(f"{where}: expected a JSON object, got {line.strip()!r}")
  return record


def check_record(record: Record, kind: str, where: str) -> None:
  """Raises ValueError unless a record has the fields of its kind."""
  for field in TEXT_FIELDS[kind]:
    if not isinstance(record.get(field), str):
      raise ValueError(
        f"{where}: a {kind} needs the text field {field!r}, got "
        f"{record.get(field)!r}"
      )
  if kind == "comparison":
    prob = record.get("prob_a")
    number = isinstance(prob, int | float) and not isinstance(prob, bool)
    if not (number and 0 <= prob <= 1):
      raise ValueError(
        f"{where}: a comparison needs prob_a between 0 and 1, got {prob!r}"
      )
