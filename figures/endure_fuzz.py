"""Injected faults, and what 10,000 damaged inputs of every kind do.

`python -m figures.endure_fuzz [--only=NAME] [--examples=N]`; a part of
`make endure`.
"""

import argparse
import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import sys
import tempfile

from figures import rows
from tests import faults, fuzz, fuzz_targets

EXAMPLES = 10_000
OUT = pathlib.Path("out") / "endure_fuzz.json"


def fuzz_rows(examples: int = EXAMPLES, only: str = "") -> list[rows.Row]:
  """A row for every kind of input."""
  found = []
  for target in fuzz_targets.all_targets():
    if only not in target.name:
      continue
    with tempfile.TemporaryDirectory() as folder:
      wrong = fuzz.run(target, pathlib.Path(folder), examples)
    print(f"{target.name}: {len(wrong)} kinds of faults", flush=True)
    for told, what in wrong.items():
      print(f"  {told}: {repr(what)[:300]}", flush=True)
    found.append(
      rows.row(
        f"of {examples:,} damaged inputs of {target.name}, kinds of faults: a "
        "crash, a hang over 1 s, a wrong acceptance, an unbounded sentence",
        len(wrong), "=", 0,
      )
    )  # fmt: skip
  return found


def fault_rows() -> list[rows.Row]:
  """Rows of the table of injected faults."""
  wrong = []
  for fault in faults.FAULTS:
    with tempfile.TemporaryDirectory() as folder:
      told = faults.holds(fault, pathlib.Path(folder))
    wrong += [told] if told else []
  print("\n".join(wrong))
  return [
    rows.row(
      "faults that are injected, each with its sentence and status",
      len(faults.FAULTS), "≥", 30,
    ),
    rows.row(
      "of them those that end otherwise, or in more than 500 characters",
      len(wrong), "=", 0,
    ),
  ]  # fmt: skip


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("--examples", type=int, default=EXAMPLES)
  parser.add_argument("--only", default="", help="a part of the names of kinds")
  given = parser.parse_args()
  found = [*fault_rows(), *fuzz_rows(given.examples, given.only)]
  sys.exit(rows.report(OUT, found))
