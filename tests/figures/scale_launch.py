"""Rows of `make scale` on processes: loopback, topology change, SLURM."""

from collections.abc import Callable
import pathlib
import tempfile

from tests import topology, topology_test
from tests.figures import rows
from tests.slurm import cluster, measure


def loopback_rows() -> list[rows.Row]:
  """Two processes of two devices against one process of four."""
  with tempfile.TemporaryDirectory() as folder:
    found = topology.measure(pathlib.Path(folder))
  return [
    rows.row(
      f"largest relative difference of parameters and metrics between 2 "
      f"processes × 2 devices and 1 × 4, docstrings:tiny, {name}",
      worst,
      "≤",
      topology_test.BAR,
    )
    for name, worst in found.items()
  ]


def slurm_rows() -> list[rows.Row]:
  """A cluster of two virtual nodes; nothing is measured where there is none."""
  absent = cluster.missing()
  if absent is not None:
    print(f"SLURM is not measured: {absent}")
    return [row(None) for row in SLURM]
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    with cluster.running(root / "slurm"):
      found = {
        "peers": measure.peers(root),
        "array": measure.array(root),
        "early": measure.early(root),
      }
  return [row(found) for row in SLURM]


def _row(
  claim: Callable[[dict], str], figure: Callable[[dict], float], bar: float
) -> Callable[[dict | None], rows.Row]:
  def make(found):
    if found is None:
      return rows.row(claim(None), None, "=", bar)
    return rows.row(claim(found), figure(found), "=", bar)

  return make


def _done(found: dict) -> int:
  return found["array"]["statuses"].count("COMPLETED 0:0")


def _went_on(found: dict) -> int:
  saved, resumed = found["array"]["saved"], found["array"]["resumed"]
  return int(len(saved) == 1 and saved == resumed)


def _array_claim(found: dict | None) -> str:
  text = "SLURM array of 4 trials, 1 preempted: trials that finished"
  return f"{text}, in {found['array']['seconds']:.0f} s" if found else text


def _resume_claim(found: dict | None) -> str:
  text = "SLURM: the preempted trial resumes at the step that it saved"
  return f"{text} ({found['array']['saved']})" if found else text


SLURM = (
  _row(
    lambda found: "SLURM, 2 nodes: processes that found each other",
    lambda found: found["peers"]["processes"],
    2,
  ),
  _row(_array_claim, _done, 4),
  _row(_resume_claim, _went_on, 1),
  _row(
    lambda found: "SLURM: trials that end with the same metrics, to the bit",
    lambda found: found["array"]["equal"],
    4,
  ),
  _row(
    lambda found: "SLURM: preempted before start-up: restarts until done",
    lambda found: len(found["early"]["starts"]),
    1,
  ),
)


def scale_rows() -> list[rows.Row]:
  """All rows of this file."""
  return [*loopback_rows(), *slurm_rows()]
