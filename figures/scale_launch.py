"""Rows of `make scale` on processes: loopback, topology change, SLURM."""

import pathlib
import tempfile
from typing import Any

from figures import rows
from tests import topology, topology_test
from tests.slurm import cluster, measure


def loopback_rows() -> list[rows.Row]:
  """Two processes of two devices against one process of four."""
  with tempfile.TemporaryDirectory() as folder:
    stages = topology.measure(pathlib.Path(folder) / "stages")
    weights, differ = topology.whole_run(pathlib.Path(folder) / "whole")
  between = "between 2 processes × 2 devices and 1 × 4"
  found = [
    rows.row(
      f"largest relative difference of {what} {between}, {run}",
      worst,
      "≤",
      topology_test.BAR,
    )
    for what, run, worst in (
      *(
        ("parameters and metrics", f"docstrings:tiny, {name}", worst)
        for name, worst in stages.items()
      ),
      ("exported weights", f"{topology.WHOLE} whole, with FSDP", weights),
    )
  ]
  return found + [
    rows.row(
      f"characters written for the tournament that differ {between}, that run",
      differ,
      "=",
      0,
    )
  ]


def slurm_rows() -> list[rows.Row]:
  """A cluster of two virtual nodes; not measured where there can be none."""
  found = _on_cluster()
  return [
    rows.row("SLURM, 2 nodes: processes that found each other",
             found.get("peers"), "=", 2),
    rows.row("SLURM, array of 4 trials, 1 preempted: trials that finished",
             found.get("finished"), "=", 4),
    rows.row("SLURM, that trial: steps between save and resumption",
             found.get("lost"), "=", 0),
    rows.row("SLURM, that trial: metrics as of an uncut run, bit for bit",
             found.get("equal"), "=", 1),
    rows.row("SLURM, run on 2 nodes, preempted: steps between save and "
             "resumption", found.get("pair_lost"), "=", 0),
    rows.row("SLURM, preempted before start-up: restarts until done",
             found.get("early"), "=", 1),
  ]  # fmt: skip


def _on_cluster() -> dict[str, float | None]:
  absent = cluster.missing()
  if absent is not None:
    print(f"SLURM is not measured: {absent}")
    return {}
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    with cluster.running(root / "slurm"):
      peers, array = measure.peers(root), measure.array(root)
      pair, early = measure.pair(root), measure.early(root)
  print(f"SLURM: the array took {array['seconds']:.0f} s")
  return {
    "peers": peers["processes"],
    "finished": array["statuses"].count(cluster.COMPLETED),
    "lost": _lost(array),
    "equal": int(array["equal"]),
    "pair_lost": _lost(pair),
    "early": len(early["restarts"]),
  }


def _lost(found: dict[str, Any]) -> int | None:
  """Steps done twice; None if the run was not saved or not started again."""
  saved, resumed = found["saved"], found["resumed"]
  return max(saved) - min(resumed) if saved and resumed else None


def scale_rows() -> list[rows.Row]:
  """All rows of this file."""
  return [*loopback_rows(), *slurm_rows()]
