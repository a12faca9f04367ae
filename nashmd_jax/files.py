"""Files that appear whole or not at all."""

import hashlib
import json
import os
import pathlib
import re
from typing import Any

from nashmd_jax import mistakes


def save_text(path: pathlib.Path, text: str) -> None:
  """Writes a file under another name first, so that no half of it is seen."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  with partial.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)


def save_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value as JSON, see `save_text`."""
  save_text(path, json.dumps(value, indent=1) + "\n")


def reason(error: BaseException) -> str:
  """Why a disk refused, in a few words.

  Args:
    error: an OSError, or what a library made of one.
  """
  seen = error
  while seen is not None:
    number = re.search(r"os_error_code='(\d+)'", str(seen))
    if number:
      return os.strerror(int(number[1]))
    if isinstance(seen, OSError) and seen.strerror:
      return seen.strerror
    seen = seen.__cause__ or seen.__context__
  return mistakes.brief(error) or type(error).__name__


def digest(value: Any) -> str:
  """A hash of a value as JSON."""
  text = json.dumps(value, sort_keys=True, default=float)
  return hashlib.sha256(text.encode()).hexdigest()


def read_bytes(path: pathlib.Path) -> bytes:
  """What a file holds.

  Raises: Mistake if it cannot be read.
  """
  try:
    return path.read_bytes()
  except OSError as error:
    raise mistakes.Mistake(
      f"{path}: cannot be read ({reason(error)})"
    ) from None


def load_json(path: pathlib.Path) -> Any:
  """Reads a value that `save_json` wrote.

  Raises: ValueError if the file is missing, not UTF-8 or not JSON.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise mistakes.Mistake(
      f"{path}: cannot be read ({mistakes.brief(error)})"
    ) from None
