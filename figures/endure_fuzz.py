"""Injected faults, and what 10,000 damaged inputs of every kind do.

`python -m figures.endure_fuzz [--only=NAME] [--examples=N]`; a part of
`make endure`.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import sys
import tempfile

from absl import flags

from figures import rows
from tests import faults, fuzz, fuzz_targets

EXAMPLES = flags.DEFINE_integer("examples", 10_000, "Inputs of each kind.")
ONLY = flags.DEFINE_string("only", "", "A part of the names of kinds.")
OUT = pathlib.Path("out") / "endure_fuzz.json"


def fuzz_rows(examples: int = 10_000, only: str = "") -> list[rows.Row]:
  """A row for every kind of input."""
  found = []
  for target in fuzz_targets.all_targets():
    if only not in target.name:
      continue
    with tempfile.TemporaryDirectory() as folder:
      faults = fuzz.run(target, pathlib.Path(folder), examples)
    for told, what in faults.items():
      print(f"{target.name}: {told}: {what!r:.300}")
    found.append(
      rows.row(
        f"of {examples:,} damaged inputs of {target.name}, kinds of faults: a "
        "crash, a hang over 1 s, a wrong acceptance, an unbounded sentence",
        len(faults), "=", 0,
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


def all_rows() -> list[rows.Row]:
  """All rows, for `make endure`."""
  return [*fault_rows(), *fuzz_rows()]


if __name__ == "__main__":
  flags.FLAGS(sys.argv)
  found = fuzz_rows(EXAMPLES.value, ONLY.value)
  sys.exit(rows.report(OUT, [*fault_rows(), *found]))
