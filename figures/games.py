"""`make games`: the study of exact games and its figures in out/games.json."""

import pathlib
import shutil
import sys

import jax

from figures import bench, demo, rows
from nashmd_jax import files
from tests import games_bounds, games_oracle

CONFIG = "configs/worlds.py:games"
OUT = pathlib.Path("out") / "games.json"
WORKDIR = pathlib.Path("out") / "games"
# Iterations to KL 1e-6 at the best constant step, from prototypes.
ITERATIONS = {
  "three_raters/omd": 13,
  "three_raters/nash_md": 354,
  "three_raters/egpo": 4,
  "rock_paper_scissors/egpo": 12,
  "rock_paper_scissors/omd": 96,
}
SIZES = (2, 3, 5, 8, 13, 20, 32, 50)
EACH, KL_COEFS, BOUND_ITERATIONS = 125, (1.0, 0.1, 0.01), 1000


def identity_rows() -> list[rows.Row]:
  """Numbers and identities of the theory, in float64."""
  with jax.enable_x64(True):
    return [
      rows.row(f"error of: {name}", function(), "≤", bar)
      for name, function, bar in games_oracle.IDENTITIES
    ]


def bound_rows() -> list[rows.Row]:
  """Every theorem's bound at every iteration, on random games."""
  worst = games_bounds.largest_excess(SIZES, EACH, KL_COEFS, BOUND_ITERATIONS)
  distance = worst.pop("distance")
  games = f"{len(SIZES) * EACH:,} random games of {SIZES[0]} to {SIZES[-1]}"
  where = f"{games} responses, μ random, τ in {KL_COEFS}"
  return [
    rows.row(
      f"π*_τ, largest certified Σ|π − π*|, {where}", distance, "≤", 1e-12
    ),
    *(
      rows.row(
        f"largest KL over bound at any of {BOUND_ITERATIONS:,} iterations, "
        f"{name}, {where}",
        ratio,
        "≤",
        1,
      )
      for name, ratio in worst.items()
    ),
  ]


def iteration_rows() -> list[rows.Row]:
  """Iterations at the best constant step, as the study measured them."""
  measured = files.load_json(WORKDIR / "games" / "done.json")["results"]
  found = []
  for name, expected in ITERATIONS.items():
    iterations = measured.get(name)
    missed = None if iterations is None else abs(iterations / expected - 1)
    found.append(
      rows.row(
        f"iterations to KL ≤ 1e-6 at the best constant step, {name}: "
        f"{iterations}; relative distance from {expected}",
        missed,
        "≤",
        0.15,
      )
    )
  return found


def main() -> int:
  """Runs the study anew and measures."""
  shutil.rmtree(WORKDIR, ignore_errors=True)
  out, _ = demo.run_main(f"--workdir={WORKDIR}", config=CONFIG)
  if out.returncode:
    return out.returncode
  return rows.report(OUT, [
    *identity_rows(),
    *bound_rows(),
    *iteration_rows(),
    *bench.speed_rows(),
  ])  # fmt: skip


if __name__ == "__main__":
  sys.exit(main())
