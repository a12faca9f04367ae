"""`make report`: what a run is told by, in out/report.json.

Intervals of simulated judges, fixed and sequential; exploiters beside exact
gaps; a tournament that is killed; the paper's own tables; pages in a browser,
those of `make demo` and `make showcase` where they are. FLAGS of
--only=intervals,cuts measure some groups alone. Some minutes on 2 CPU cores.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
import pathlib
import sys
import tempfile

import numpy as np

from figures import exploiters, report_page, report_resume, rows
from nashmd_jax.evaluation import standings
from nashmd_jax.stages import report as report_stage
from tests import coverage, small_report

OUT = pathlib.Path("out") / "report.json"
REPETITIONS = 2000
LEAST, MOST = 0.93, 0.97  # of intervals at 95 %
WIDTHS = (0.1, 0.15, 0.2)
TABLE = "paper/table1_win_rates.csv"
PAGES = [
  pathlib.Path("out") / run / "report" / "index.html"
  for run in ("demo", "showcase")
]
COMPARISONS = 2000  # of a cell of the paper's


def interval_rows() -> Iterator[rows.Row]:
  """How often intervals hold a known win rate."""
  for name, world in coverage.WORLDS.items():
    held, _ = coverage.measure(world, draws=REPETITIONS, seed=0)
    claim = f"{name}: 95 % intervals that hold the win rate, of {REPETITIONS}"
    yield rows.row(claim, held, "≥", LEAST)
    yield rows.row(claim, held, "≤", MOST)
  for name, world in coverage.LOOKS.items():
    for width in WIDTHS:
      held, asked = coverage.measure_looks(
        world, width=width, draws=REPETITIONS, seed=0
      )
      yield rows.row(
        f"{name}, judged until {width:g} wide ({asked:.0%} of them): 95 % "
        f"intervals that hold the win rate, of {REPETITIONS}",
        held,
        "≥",
        0.95,
      )


def paper_rows(data: pathlib.Path) -> Iterator[rows.Row]:
  """What the paper's table of win rates allows to say."""
  path = data / TABLE
  if not path.exists():
    yield rows.row(f"the paper's table 1, {path} is absent", None, "=", 0)
    return
  names = path.read_text().split("\n")[0].strip("# ").split(",")
  matrix = np.loadtxt(path, delimiter=",").T  # there a column against a row
  i, j = np.triu_indices(len(names), 1)
  won = np.rint(COMPARISONS * matrix[i, j])[:, None] > np.arange(COMPARISONS)
  votes = np.random.default_rng(0).permuted(won.astype(float), axis=1)
  found = standings.of_pairs(votes, len(names), confidence=0.95, seed=0)
  winner = found["condorcet"]
  print("\n".join(standings.sentences(names, found)))
  first = winner is not None and names[winner] == "MD1"
  for claim, figure, sign, bar in (
    ("MD1 is the Condorcet winner", int(first), "=", 1),
    ("triples of 364 that are cyclic", found["cyclic"], "=", 2),
    ("of them beyond noise", found["cyclic_sure"], "=", 0),
    ("p of as many rings in policies of scores", found["cyclic_p_value"], ">",
     0.05),
    ("χ² of the Bradley-Terry fit on 78", found["chi_square"], "≥", 255),
    ("its p", found["chi_square_p_value"], "≤", 0.01),
  ):  # fmt: skip
    yield rows.row(f"the paper's table 1: {claim}", figure, sign, bar)


def page_rows() -> Iterator[rows.Row]:
  """What a browser sees in a page as tests make it, and in those of runs."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = small_report.write(pathlib.Path(folder) / "run")
    page = report_stage.run(None, workdir, report_stage.NAME)["page"]
    yield from report_page.page_rows(pathlib.Path(page), "a small page")
  for page in filter(pathlib.Path.exists, PAGES):
    yield from report_page.page_rows(page, str(page))


def main() -> int:
  """Measures the groups and writes their rows."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", default="../shared/data", type=pathlib.Path)
  parser.add_argument("--only", default="")
  flags = parser.parse_args()
  groups: dict[str, Callable[[], Iterable[rows.Row]]] = {
    "intervals": interval_rows,
    "exploiters": exploiters.exploiter_rows,
    "cuts": report_resume.cut_rows,
    "paper": lambda: paper_rows(flags.data),
    "pages": page_rows,
  }
  chosen = flags.only.split(",") if flags.only else [*groups]
  unknown = sorted(set(chosen) - set(groups))
  if unknown:
    parser.error(f"--only: got {unknown}, expected some of {list(groups)}")
  found = []
  for name in chosen:
    for row in groups[name]():
      found.append(row)
      print(f"{name}: {row['claim']}: {row['figure']}", flush=True)
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
