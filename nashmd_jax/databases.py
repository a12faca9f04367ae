"""Files of SQLite, each of a kind and a version that its header tells.

For any number of processes of one machine. A file that is damaged, another
program's or of another version is never written to; whatever fails is a Mistake
that names the file.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import pathlib
import sqlite3
import time
from typing import Any, NamedTuple
import zlib

from nashmd_jax import mistakes

HEADER = 100  # bytes
BUSY_SECONDS = 60.0  # how long one process waits for another


class Kind(NamedTuple):
  """What is kept in a file.

  Attributes:
    number: of the kind, in the header.
    version: of the tables, in the header.
    whose: "the judge's answers", as a sentence has it.
    what: "answers", as it has it in short.
    tables: statements that fill an empty file.
    upgrades: of each earlier version, statements that make it the next.
    synchronous: "NORMAL", which outlives the process, or "FULL", which also
      outlives a machine that loses its power.
  """

  number: int
  version: int
  whose: str
  what: str
  tables: Sequence[str]
  upgrades: Mapping[int, Sequence[str]] = {}
  synchronous: str = "NORMAL"


def open_file(path: pathlib.Path, kind: Kind) -> sqlite3.Connection:
  """Opens a file of a kind, or begins one.

  Whoever uses it sees to it that one thread does at a time.

  Raises: Mistake for a file that is none, is damaged, or of another version.
  """
  with told(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and 0 < path.stat().st_size < HEADER:
      raise sqlite3.DatabaseError("it is cut short")  # to SQLite it is empty
    database = sqlite3.connect(
      path,
      timeout=BUSY_SECONDS,
      isolation_level=None,
      check_same_thread=False,
    )
    try:
      _prepare(database, path, kind)
    except BaseException:
      database.close()
      raise
  return database


@contextlib.contextmanager
def told(path: pathlib.Path, kind: Kind) -> Iterator[None]:
  """Turns what goes wrong with a file in a block into one Mistake."""
  try:
    yield
  except (sqlite3.Error, OSError, UnicodeError) as error:
    raise mistakes.Mistake(
      f"{path}: {kind.whose} cannot be kept there ({mistakes.brief(error)}); "
      "if the disk has room and the file may be written, move it away and "
      "start again"
    ) from None


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
  """All that a block writes, or nothing of it."""
  database.execute("BEGIN IMMEDIATE")
  try:
    yield
  except BaseException:
    database.execute("ROLLBACK")
    raise
  database.execute("COMMIT")


def crc(*values: Any) -> int:
  """A checksum of a row; SQLite itself keeps none."""
  return zlib.crc32(json.dumps(values).encode())


def _prepare(
  database: sqlite3.Connection, path: pathlib.Path, kind: Kind
) -> None:
  """Checks the file, or fills an empty one."""
  if _is_empty(database):
    _use_wal(database)
    with transaction(database):
      if _is_empty(database):  # no other process was faster
        for statement in kind.tables:
          database.execute(statement)
        database.execute(f"PRAGMA application_id = {kind.number}")
        database.execute(f"PRAGMA user_version = {kind.version}")
  number, version = _pragma(database, "application_id", "user_version")
  if number != kind.number:
    raise mistakes.Mistake(
      f"{path}: a database, but not one of {kind.whose}; move it away"
    )
  while version in kind.upgrades:
    with transaction(database):
      if _pragma(database, "user_version") == [version]:  # no other was faster
        for statement in kind.upgrades[version]:
          database.execute(statement)
        database.execute(f"PRAGMA user_version = {version + 1}")
    version += 1
  if version != kind.version:
    raise mistakes.Mistake(
      f"{path}: {kind.what} in version {version} of the file, expected "
      f"{kind.version}; move it away, or read it with the program that wrote it"
    )
  (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
  if found != "ok":
    raise sqlite3.DatabaseError(found)
  _use_wal(database)
  database.execute(f"PRAGMA synchronous = {kind.synchronous}")


def _pragma(database: sqlite3.Connection, *names: str) -> list:
  return [database.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


def _is_empty(database: sqlite3.Connection) -> bool:
  number, version = _pragma(database, "application_id", "user_version")
  (tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
  return number == version == tables == 0


def _use_wal(database: sqlite3.Connection) -> None:
  """Switches to a log, for which SQLite itself does not wait its turn."""
  until = time.monotonic() + BUSY_SECONDS
  while _pragma(database, "journal_mode") != ["wal"]:
    try:
      _pragma(database, "journal_mode = WAL")
    except sqlite3.OperationalError as error:
      busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
      if not busy or time.monotonic() > until:
        raise
      time.sleep(0.01)
