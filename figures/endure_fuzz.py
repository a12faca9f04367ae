"""What 10,000 damaged inputs of every kind do to what reads them.

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
from tests import fuzz, fuzz_targets

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


if __name__ == "__main__":
  flags.FLAGS(sys.argv)
  sys.exit(rows.report(OUT, fuzz_rows(EXAMPLES.value, ONLY.value)))
