"""Answers of a served judge on disk, each there the moment it arrives.

One SQLite file, for any number of processes of one machine. An answer is found
by the key of its question, see `questions`; the file also counts what was ever
spent, answered or not. No API key comes here.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import functools
import json
import pathlib
import sqlite3
import time
from typing import NamedTuple
import zlib

from nashmd_jax import mistakes

KIND = 0x4E4D4A41  # of the file, in its header
VERSION = 2
BUSY_SECONDS = 60.0  # how long one process waits for another
AT_ONCE = 500  # keys in one query
TABLES = (
  "CREATE TABLE answers (key TEXT PRIMARY KEY, win_prob REAL, text TEXT "
  "NOT NULL, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, crc INTEGER) "
  "WITHOUT ROWID",
  "CREATE TABLE spent (calls INTEGER NOT NULL, tokens INTEGER NOT NULL)",
  "INSERT INTO spent VALUES (0, 0)",
  f"PRAGMA application_id = {KIND}",
  f"PRAGMA user_version = {VERSION}",
)
# Answers of version 1 have no checksum, and are believed.
FROM_FIRST = (
  "ALTER TABLE answers ADD COLUMN crc INTEGER",
  f"PRAGMA user_version = {VERSION}",
)


class Answer(NamedTuple):
  """What a server said to one question.

  Attributes:
    win_prob: of the text shown first; None for an answer that says nothing.
    text: as it was written, its beginning.
    calls: requests that it took, retries included.
    tokens: that the server counted for it, prompt included.
  """

  win_prob: float | None
  text: str
  calls: int
  tokens: int


class Spent(NamedTuple):
  """What was spent over the life of the file.

  Attributes:
    calls: requests that were sent.
    tokens: of the answers that came.
  """

  calls: int
  tokens: int


class Cache(NamedTuple):
  """An open file of answers. All of it raises Mistake where that fails.

  Attributes:
    look_up: (keys) -> {key: Answer} of those that are there.
    keep: (key, Answer) -> the answer that the file now has: the first one.
      It is on disk before this returns.
    take_call: (most_calls, most_tokens) -> whether a call was left, and is
      counted now; 0 for no limit.
    spent: () -> Spent.
    close: ().
  """

  look_up: Callable[[Iterable[str]], dict[str, Answer]]
  keep: Callable[[str, Answer], Answer]
  take_call: Callable[[int, int], bool]
  spent: Callable[[], Spent]
  close: Callable[[], None]


def open_cache(path: pathlib.Path) -> Cache:
  """Opens a file of answers, or begins one.

  Raises: Mistake for a file that is none, is damaged, or of another version.
  """
  with _told(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever uses it sees to it that one thread does at a time.
    database = sqlite3.connect(
      path,
      timeout=BUSY_SECONDS,
      isolation_level=None,
      check_same_thread=False,
    )
    try:
      _prepare(database, path)
    except BaseException:
      database.close()
      raise
  functions = (_look_up, _keep, _take_call, _spent)
  return Cache(
    *(functools.partial(_safely, path, f, database) for f in functions),
    close=database.close,
  )


def _safely(path, function, database, *args):
  with _told(path):
    return function(database, *args)


@contextlib.contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (sqlite3.Error, OSError, UnicodeError) as error:
    told = mistakes.brief(error)
    raise mistakes.Mistake(
      f"{path}: the judge's answers cannot be kept there ({told}); if the disk "
      "has room and the file may be written, move it away and start again"
    ) from None


def _prepare(database: sqlite3.Connection, path: pathlib.Path) -> None:
  """Checks the file, or fills an empty one."""
  if _is_empty(database):
    _use_wal(database)
    with _transaction(database):
      if _is_empty(database):  # no other process was faster
        for statement in TABLES:
          database.execute(statement)
  kind, version = _pragma(database, "application_id", "user_version")
  if kind != KIND:
    raise mistakes.Mistake(
      f"{path}: a database, but not one of a judge's answers; move it away"
    )
  if version == 1:
    with _transaction(database):
      if _pragma(database, "user_version") == [1]:  # no other was faster
        for statement in FROM_FIRST:
          database.execute(statement)
    version = VERSION
  if version != VERSION:
    raise mistakes.Mistake(
      f"{path}: answers in version {version} of the file, expected {VERSION}; "
      "move it away, or read it with the program that wrote it"
    )
  (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
  if found != "ok":
    raise sqlite3.DatabaseError(found)
  _use_wal(database)
  # What a process has committed outlives it; only a machine that loses its
  # power may lose the last answers, and the file stays whole.
  database.execute("PRAGMA synchronous = NORMAL")


def _pragma(database: sqlite3.Connection, *names: str) -> list:
  return [database.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


def _is_empty(database: sqlite3.Connection) -> bool:
  kind, version = _pragma(database, "application_id", "user_version")
  (tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
  return kind == version == tables == 0


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


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
  database.execute("BEGIN IMMEDIATE")
  try:
    yield
  except BaseException:
    database.execute("ROLLBACK")
    raise
  database.execute("COMMIT")


def _look_up(database: sqlite3.Connection, keys: Iterable[str]):
  keys, found = list(keys), {}
  for start in range(0, len(keys), AT_ONCE):
    some = keys[start : start + AT_ONCE]
    marks = ",".join("?" * len(some))
    rows = database.execute(
      "SELECT key, win_prob, text, calls, tokens, crc FROM answers "
      f"WHERE key IN ({marks})",
      some,
    )
    for key, *rest, crc in rows:
      found[key] = Answer(*rest)
      if crc not in (None, _crc(key, found[key])):
        raise sqlite3.DatabaseError(f"the answer {key[:16]} is damaged")
  return found


def _crc(key: str, answer: Answer) -> int:
  """A checksum of a row; SQLite itself keeps none."""
  return zlib.crc32(json.dumps([key, *answer]).encode())


def _keep(database: sqlite3.Connection, key: str, answer: Answer) -> Answer:
  with _transaction(database):
    database.execute(
      "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
      (key, *answer, _crc(key, answer)),
    )
    database.execute("UPDATE spent SET tokens = tokens + ?", (answer.tokens,))
    return _look_up(database, [key])[key]


def _take_call(
  database: sqlite3.Connection, most_calls: int, most_tokens: int
) -> bool:
  taken = database.execute(
    "UPDATE spent SET calls = calls + 1 WHERE (:calls = 0 OR calls < :calls) "
    "AND (:tokens = 0 OR tokens < :tokens)",
    {"calls": most_calls, "tokens": most_tokens},
  )
  return taken.rowcount == 1


def _spent(database: sqlite3.Connection) -> Spent:
  return Spent(*database.execute("SELECT calls, tokens FROM spent").fetchone())
