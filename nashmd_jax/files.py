"""Files that appear whole or not at all, and are read or refused in a sentence.

Whatever a file does to its reader, be it that the disk refuses or that it holds
something else than it should, is one Mistake that names it: `readable`.
"""

from collections.abc import Iterator
import contextlib
import errno
import hashlib
import io
import json
import lzma
import os
import pathlib
import re
import stat
from typing import Any, BinaryIO
import zipfile
import zlib

from etils import epath
import zstandard

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
# What opening, reading and unpacking a file raise, and what its contents do
# to what makes something of them.
UNREADABLE = (
  OSError,
  EOFError,
  lzma.LZMAError,
  zipfile.BadZipFile,
  zlib.error,
  zstandard.ZstdError,
)
UNFIT = (
  ValueError,
  TypeError,
  LookupError,
  AttributeError,
  ArithmeticError,
  RecursionError,
  NotImplementedError,  # a way to pack that Python lacks
  MemoryError,
)
MOST_JSON = 2**28  # bytes of a file of one value
MOST_NESTED = 100  # lists and objects in one another
NESTED = f"nested more than {MOST_NESTED} deep"


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


@contextlib.contextmanager
def readable(where: Any, rest: str = "") -> Iterator[None]:
  """Turns what goes wrong in a block that reads a file into one Mistake.

  Args:
    where: file, or file and line.
    rest: what was expected there, or what to do, in a few words.
  """
  try:
    yield
  except mistakes.Mistake:
    raise
  except (*UNREADABLE, *UNFIT) as error:
    rest = f"; {rest}" if rest else ""
    raise mistakes.Mistake(
      f"{where}: cannot be read ({cause(error)}){rest}"
    ) from None


@contextlib.contextmanager
def told_of(where: Any) -> Iterator[None]:
  """`readable`, for a block whose Mistakes do not say where; nor do its errors.

  Args:
    where: what is put in front of every sentence.
  """
  findings = mistakes.Findings()
  with findings.collect(str(where)), readable("it"):
    yield
  findings.tell()


def cause(error: BaseException) -> str:
  """What was wrong with a file, in words that are not Python's."""
  match error:
    case OSError() if error.strerror:
      return error.strerror
    case UnicodeDecodeError():
      found = f"byte 0x{error.object[error.start]:02x} at {error.start + 1}"
      return f"not UTF-8, {found}; save it as UTF-8"
    case json.JSONDecodeError():
      line = f"line {error.lineno}, " if error.lineno > 1 else ""
      return f"not JSON, {error.msg} at {line}column {error.colno}"
    case RecursionError():
      return NESTED
    case MemoryError():
      return "larger than the memory of this machine"
    case KeyError():
      return f"lacks {mistakes.quote(error.args[0] if error.args else '')}"
  # Python goes on to tell how its limit of digits is raised.
  return mistakes.brief(error).partition("; use sys.")[0]


def opened(path: epath.PathLike) -> BinaryIO:
  """A file, open to be read as bytes.

  Raises: OSError, also for what never ends, such as a pipe or a device.
  """
  path = epath.Path(path)
  if "://" not in str(path):
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
      raise OSError(errno.EINVAL, "it is no regular file")
  return path.open("rb")


def read_bytes(path: epath.PathLike) -> bytes:
  """What a file holds.

  Raises: Mistake if it cannot be read.
  """
  with readable(path), opened(path) as file:
    return file.read()


def load_json(path: epath.PathLike) -> Any:
  """What a file of JSON holds, see `parse_json`.

  Raises: Mistake if the file cannot be read, or is not such JSON.
  """
  with readable(path), opened(path) as file:
    data = file.read(MOST_JSON + 1)
    if len(data) > MOST_JSON:
      raise ValueError(f"more than {MOST_JSON:,} bytes of JSON")
    return parse_json(data)


def load_object(path: epath.PathLike, *needed: str) -> dict[str, Any]:
  """`load_json` of a file that holds an object with certain keys.

  Raises: Mistake if it does not.
  """
  found = load_json(path)
  if not isinstance(found, dict):
    raise mistakes.Mistake(
      f"{path}: expected a JSON object, got {mistakes.quote(found)}"
    )
  absent = [key for key in needed if key not in found]
  if absent:
    raise mistakes.Mistake(
      f"{path}: lacks {mistakes.some(absent)}; it was changed, or another "
      "program wrote it"
    )
  return found


def parse_json(data: bytes) -> Any:
  """The value in UTF-8 JSON.

  A key that stands twice is refused, for two values are meant by it, and so is
  what is nested deeper than anything that reads it on would follow. NaN and
  Infinity, which JSON lacks and Python writes, are numbers.

  Raises: ValueError, or RecursionError.
  """
  found = json.loads(data.decode(), object_pairs_hook=_object)
  if data.count(b"[") + data.count(b"{") > MOST_NESTED:
    _check_depth(found)
  return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    seen = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))
    raise ValueError(f"the key {mistakes.quote(twice)} stands there twice")
  return found


def _check_depth(value: Any) -> None:
  level = [value]
  for _ in range(MOST_NESTED + 1):
    level = [one for one in level if isinstance(one, dict | list)]
    level = [
      one
      for above in level
      for one in (above.values() if isinstance(above, dict) else above)
    ]
    if not level:
      return
  raise RecursionError
