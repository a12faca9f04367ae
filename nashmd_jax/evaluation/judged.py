"""What judges said of every record of a tournament: `judged.csv`."""

from collections.abc import Iterator, Mapping, Sequence
import csv
import io
import itertools
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import files

NAME = "judged.csv"
ID = "id"


def save(
  path: pathlib.Path,
  ids: Sequence[str],
  policies: Sequence[str],
  judges: Mapping[str, Sequence[np.ndarray]],
) -> None:
  """Writes a row a record, a column a judge and pair of policies.

  Args:
    path: of the file.
    ids: of N records.
    policies: M names.
    judges: for each judge f64[N] for each pair i < j, in the order of
      `itertools.combinations`: the probability that i's response is preferred,
      over both orders; NaN, and an empty cell, where it was not judged.
  """
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow([ID, *_columns(policies, judges)])
  every = np.array([pair for pairs in judges.values() for pair in pairs])
  for i, one in enumerate(ids):
    said = every[:, i] if len(every) else ()
    writer.writerow([one, *("" if np.isnan(x) else f"{x:.6g}" for x in said)])
  files.save_text(path, text.getvalue())


def load(
  path: pathlib.Path, results: Mapping[str, Any], count: int
) -> dict[str, np.ndarray]:
  """The first records as f64[count, M, M] by judge, ½ on the diagonal.

  Args:
    path: of the file; nothing is known without it.
    results: of the tournament.
    count: how many.
  Raises: Mistake for a file that is damaged.
  """
  if not path.exists():
    return {}
  policies, judges = results["policies"], results["judges"]
  pairs = list(itertools.combinations(range(len(policies)), 2))
  with files.readable(path, "delete tournament to play it anew"):
    said = _read(path, list(_columns(policies, judges)), count)
    said = said.reshape(count, len(judges), len(pairs))
  found = {}
  for number, judge in enumerate(judges):
    table = np.full((count, len(policies), len(policies)), 0.5)
    for place, (i, j) in enumerate(pairs):
      table[:, i, j] = said[:, number, place]
      table[:, j, i] = 1 - said[:, number, place]
    found[judge] = table
  return found


def _read(path, columns: Sequence[str], count: int) -> np.ndarray:
  """The first rows, f64[count, columns], of a file with these columns."""
  try:
    rows = csv.reader(io.StringIO(files.read_bytes(path).decode()))
    head, *rows = itertools.islice(rows, count + 1)
  except csv.Error as error:
    raise ValueError(str(error)) from None
  if head[1:] != columns or len(rows) < count:
    raise ValueError("it is not of what results.json tells of")
  said = np.array([[float(x or "nan") for x in row[1:]] for row in rows])
  if np.any((said < 0) | (said > 1)):
    raise ValueError("it holds what is no probability")
  return said


def _columns(policies, judges) -> Iterator[str]:
  for judge in judges:
    for one, other in itertools.combinations(policies, 2):
      yield f"{judge}: {one} over {other}"
