"""The log of votes: one SQLite file, which is only added to.

A vote is on disk before `keep` returns, also if the machine loses its power
then. Each belongs to a question that was shown, by whose key one that is sent
again is the one that is there.
"""

from collections.abc import Callable
import functools
import pathlib
import sqlite3
import threading
from typing import NamedTuple

from nashmd_jax import databases

A, B, TIE = "a", "b", "tie"
KIND = databases.Kind(
  number=0x4E4D4A56,
  version=1,
  whose="the votes",
  what="votes",
  tables=(
    "CREATE TABLE votes (number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, "
    "pair TEXT NOT NULL, shown_left TEXT NOT NULL, choice TEXT NOT NULL, "
    "seconds REAL NOT NULL, annotator TEXT NOT NULL, is_repeat INTEGER NOT "
    "NULL, is_golden INTEGER NOT NULL, at REAL NOT NULL, crc INTEGER NOT NULL)",
    *(
      f"CREATE TRIGGER no_{verb.lower()} BEFORE {verb} ON votes BEGIN "
      "SELECT RAISE(ABORT, 'votes are only added'); END"
      for verb in ("UPDATE", "DELETE")
    ),
  ),
  synchronous="FULL",
)


class Vote(NamedTuple):
  """What an annotator answered to a question.

  Attributes:
    key: of the question as it was shown to this annotator.
    pair: of which responses, see `design`.
    shown_left: which response of the pair stood left, `A` or `B`.
    choice: which is better: `A`, `B` or `TIE`, wherever they stood.
    seconds: from when the pair was seen to the answer.
    annotator: their name.
    is_repeat: whether they had answered the pair before.
    is_golden: whether the answer was certain before anybody was asked.
    at: seconds since 1970.
  """

  key: str
  pair: str
  shown_left: str
  choice: str
  seconds: float
  annotator: str
  is_repeat: bool
  is_golden: bool
  at: float


COLUMNS = ", ".join(Vote._fields)


class Log(NamedTuple):
  """An open log, for any threads. All of it raises Mistake where that fails.

  Attributes:
    keep: (Vote) -> the vote of its key that is on disk now: the first one.
    load: () -> all votes, in the order in which they came.
    close: ().
  """

  keep: Callable[[Vote], Vote]
  load: Callable[[], list[Vote]]
  close: Callable[[], None]


def open_log(path: pathlib.Path) -> Log:
  """Opens the votes in a file, or begins one.

  Raises: Mistake for a file that is none, is damaged, or of another version.
  """
  database, lock = databases.open_file(path, KIND), threading.Lock()

  def safely(function, *args):
    with lock, databases.told(path, KIND):
      return function(database, *args)

  return Log(
    keep=functools.partial(safely, _keep),
    load=functools.partial(safely, _load),
    close=database.close,
  )


def _keep(database: sqlite3.Connection, vote: Vote) -> Vote:
  marks = ", ".join("?" * (len(vote) + 1))
  with databases.transaction(database):
    database.execute(
      f"INSERT OR IGNORE INTO votes ({COLUMNS}, crc) VALUES ({marks})",
      (*vote, databases.crc(*vote)),
    )
    (kept,) = _select(database, "WHERE key = ?", (vote.key,))
  return kept


def _load(database: sqlite3.Connection) -> list[Vote]:
  found = _select(database, "ORDER BY number", ())
  (last,) = database.execute("SELECT MAX(number) FROM votes").fetchone()
  if len(found) != (last or 0):  # they are numbered from 1
    raise sqlite3.DatabaseError(f"{len(found)} votes of {last} are left")
  return found


def _select(database, which: str, values: tuple[str, ...]) -> list[Vote]:
  found = []
  rows = database.execute(f"SELECT {COLUMNS}, crc FROM votes {which}", values)
  for *row, crc in rows:
    vote = Vote(*row)
    vote = vote._replace(
      is_repeat=bool(vote.is_repeat), is_golden=bool(vote.is_golden)
    )
    if databases.crc(*vote) != crc:
      raise sqlite3.DatabaseError(f"the vote {vote.key[:40]} is damaged")
    found.append(vote)
  return found
