"""`make scale`: devices, processes and trials, in out/scale.json."""

from collections.abc import Callable
import pathlib
import shutil
import sys

from tests.figures import rows, scale_launch, scale_pod, scale_sweeps

OUT = pathlib.Path("out") / "scale.json"
SWEEPS = pathlib.Path("out") / "scale-sweeps"


def sweep_rows() -> list[rows.Row]:
  """The sweeps, run anew."""
  shutil.rmtree(SWEEPS, ignore_errors=True)
  return scale_sweeps.sweep_rows(SWEEPS)


SECTIONS: tuple[Callable[[], list[rows.Row]], ...] = (
  scale_pod.scale_rows,
  scale_launch.scale_rows,
  sweep_rows,
)


def main() -> int:
  """Measures all sections and writes their rows."""
  return rows.report(OUT, [row for make in SECTIONS for row in make()])


if __name__ == "__main__":
  sys.exit(main())
