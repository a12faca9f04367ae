"""Answers of a served judge on disk, each there the moment it arrives.

One SQLite file, for any number of processes of one machine. An answer is found
by the key of its question, see `questions`; the file also counts what was ever
spent, answered or not. No API key comes here.
"""

from collections.abc import Callable, Iterable
import functools
import pathlib
import sqlite3
from typing import NamedTuple

from nashmd_jax import databases

AT_ONCE = 500  # keys in one query
KIND = databases.Kind(
  number=0x4E4D4A41,
  version=2,
  whose="the judge's answers",
  what="answers",
  tables=(
    "CREATE TABLE answers (key TEXT PRIMARY KEY, win_prob REAL, text TEXT "
    "NOT NULL, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, crc INTEGER) "
    "WITHOUT ROWID",
    "CREATE TABLE spent (calls INTEGER NOT NULL, tokens INTEGER NOT NULL)",
    "INSERT INTO spent VALUES (0, 0)",
  ),
  # Answers of version 1 have no checksum, and are believed.
  upgrades={1: ("ALTER TABLE answers ADD COLUMN crc INTEGER",)},
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
  database = databases.open_file(path, KIND)
  functions = (_look_up, _keep, _take_call, _spent)
  return Cache(
    *(functools.partial(_safely, path, f, database) for f in functions),
    close=database.close,
  )


def _safely(path, function, database, *args):
  with databases.told(path, KIND):
    return function(database, *args)


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
      if crc not in (None, databases.crc(key, *found[key])):
        raise sqlite3.DatabaseError(f"the answer {key[:16]} is damaged")
  return found


def _keep(database: sqlite3.Connection, key: str, answer: Answer) -> Answer:
  with databases.transaction(database):
    database.execute(
      "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
      (key, *answer, databases.crc(key, *answer)),
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
