"""Files that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import re
from typing import Any

from nashmd_jax import mistakes

# What a disk answers that is full, over quota, read-only, broken or gone.
REFUSALS = {
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
  errno.ESTALE,
  errno.ENODEV,
  errno.ENOTCONN,
}
# The same of a database of SQLite.
SQLITE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")


def save_text(path: pathlib.Path, text: str) -> None:
  """Writes a file under another name first, so that no half of it is seen."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  with removed_if_not_whole(partial):
    with partial.open("w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path to write to in place of another, which appears when all is written.

  It ends as the other does, by which some writers know their format.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"partial.{path.name}")
  with removed_if_not_whole(partial):
    yield partial
    partial.replace(path)


@contextlib.contextmanager
def removed_if_not_whole(partial):
  """Removes a file if writing it fails."""
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
    raise


def append(file: io.FileIO, line: bytes, path: pathlib.Path) -> None:
  """Adds a whole line to an unbuffered file, or nothing of it.

  Args:
    file: open for appending.
    line: with its end.
    path: of the file, for the error.
  Raises: OSError for a disk that refuses, and a file that has vanished.
  """
  end = file.seek(0, os.SEEK_END)
  try:
    while line:
      line = line[file.write(line) :]
    if not os.fstat(file.fileno()).st_nlink:
      raise FileNotFoundError(errno.ESTALE, "it has vanished")
  except OSError as error:
    with contextlib.suppress(OSError):
      file.truncate(end)
    raise OSError(error.errno, error.strerror, str(path)) from error


def save_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value as JSON, see `save_text`."""
  save_text(path, json.dumps(value, indent=1) + "\n")


def reason(error: BaseException) -> str:
  """Why a disk refused, in a few words.

  Args:
    error: an OSError, or what a library made of one.
  """
  number, _ = _refusal(error)
  return os.strerror(number) if number else mistakes.brief(error)


def disk_fault(error: BaseException, workdir: pathlib.Path) -> str | None:
  """A sentence for an error that a disk is to blame for; None for another.

  Args:
    error: as it was raised, perhaps out of a library.
    workdir: that was written to.
  """
  number, path = _refusal(error)
  what = os.strerror(number) if number in REFUSALS else None
  if getattr(error, "sqlite_errorname", "").startswith(SQLITE):
    what = mistakes.brief(error)
  if not workdir.is_dir():
    what, path = "it has vanished", None
  if what is None:
    return None
  return (
    f"{path or workdir}: cannot be written or read "
    f"({what}); mend that, and the same command goes on"
  )


def _refusal(error: BaseException | None) -> tuple[int | None, str | None]:
  """The number of the OSError at the root of an error, and its file."""
  while error is not None:
    found = re.search(r"os_error_code='(\d+)'", str(error))  # of tensorstore
    if found:
      return int(found[1]), None
    if isinstance(error, OSError) and error.errno:
      return error.errno, error.filename
    error = error.__cause__ or error.__context__
  return None, None


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
