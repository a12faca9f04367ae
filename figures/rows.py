"""Rows of {claim, figure, bar, holds}: what a figures target measured."""

from collections.abc import Sequence
import json
import operator
import pathlib
from typing import Any

from nashmd_jax import files

Row = dict[str, Any]
RELATIONS = {
  "≤": operator.le,
  "≥": operator.ge,
  ">": operator.gt,
  "=": operator.eq,
}


def row(claim: str, figure: float | None, relation: str, bar: float) -> Row:
  """One claim; a figure that could not be measured does not hold."""
  holds = figure is not None and bool(RELATIONS[relation](figure, bar))
  return {
    "claim": claim,
    "figure": figure,
    "bar": f"{relation} {bar:g}",
    "holds": holds,
  }


def report(path: pathlib.Path, rows: Sequence[Row]) -> int:
  """Writes the rows as JSON, prints them, returns the exit status."""
  text = json.dumps(list(rows), indent=1, ensure_ascii=False)
  files.save_text(path, text + "\n")
  for one in rows:
    figure = one["figure"]
    shown = "not measured" if figure is None else f"{figure:.4g}"
    mark = "holds" if one["holds"] else "FAILS"
    print(f"{mark}  {one['claim']}: {shown} (bar {one['bar']})")
  print(f"written to {path}")
  return 0 if all(one["holds"] for one in rows) else 1
