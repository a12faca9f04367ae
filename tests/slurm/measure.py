"""What is measured on the mini cluster, for the test and for the figures."""

import pathlib
import re
import sys
import time
from typing import Any

from tests import processes
from tests.slurm import cluster

STEPS, PAUSE = 200, 0.05
TINY = f"{processes.ROOT}/configs/docstrings.py:tiny"


def peers(root: pathlib.Path) -> dict[str, Any]:
  """The real program on two nodes: stage sft of the tiny config."""
  log, workdir = root / "peers.log", root / "peers"
  began = time.monotonic()
  job = cluster.submit(
    "--nodes=2",
    flags=[TINY, str(workdir), "--stage=sft"],
    python=sys.executable,
    log=str(log),
  )
  cluster.wait_done(job)
  places = (workdir / "sft" / "checkpoints").glob("*/data/process_1-of-2.json")
  return {
    "status": cluster.exit_status(job),
    "processes": 2 if list(places) else 1,
    "seconds": time.monotonic() - began,
    "log": log.read_text(),
  }


def array(root: pathlib.Path) -> dict[str, Any]:
  """Four trials, of which number 1 gets SIGTERM while it trains."""
  workdir = root / "array"
  workdir.mkdir()
  logs = [root / f"array-{trial}.log" for trial in range(4)]
  began = time.monotonic()
  job = cluster.submit(
    "--array=0-3",
    flags=[f"{STEPS}:{PAUSE}:0", str(workdir)],
    python=cluster.stub(root),
    log=str(root / "array-%a.log"),
  )
  cluster.wait_for(logs[1], "up\n")
  time.sleep(3)  # into the training
  cluster.command("scancel", "--signal=TERM", f"{job}_1")
  cluster.wait_done(job)
  text = logs[1].read_text()
  ends = [
    (workdir / f"{trial:03d}" / "metrics.jsonl").read_text()
    for trial in range(4)
  ]
  return {
    "seconds": time.monotonic() - began,
    "statuses": [cluster.exit_status(f"{job}_{trial}") for trial in range(4)],
    "saved": [int(x) for x in re.findall(r"saved at step (\d+)", text)],
    "resumed": [int(x) for x in re.findall(r"restart 1 from step (\d+)", text)],
    "restarts": [log.read_text().count("restart 1") for log in logs],
    "equal": sum(end == ends[0] for end in ends),
    "rows": ends[0].count("\n"),
  }


def pair(root: pathlib.Path) -> dict[str, Any]:
  """A run on two nodes that gets SIGTERM while it trains."""
  log, workdir = root / "pair.log", root / "pair"
  workdir.mkdir()
  job = cluster.submit(
    "--nodes=2",
    flags=[f"{STEPS}:{PAUSE}:0", str(workdir)],
    python=cluster.stub(root),
    log=str(log),
  )
  cluster.wait_for(log, "up\n")
  time.sleep(3)
  cluster.command("scancel", "--signal=TERM", job)
  cluster.wait_done(job)
  text = log.read_text()
  return {
    "status": cluster.exit_status(job),
    "saved": [int(x) for x in re.findall(r"saved at step (\d+)", text)],
    "resumed": [int(x) for x in re.findall(r"restart 1 from step (\d+)", text)],
    "log": text,
  }


def early(root: pathlib.Path) -> dict[str, Any]:
  """SIGTERM before the program has started up."""
  log, workdir = root / "early.log", root / "early"
  workdir.mkdir()
  job = cluster.submit(
    flags=[f"20:0:{60}", str(workdir)],
    python=cluster.stub(root),
    log=str(log),
  )
  marker, began = workdir / "000.early", time.monotonic()
  while not marker.exists() and time.monotonic() - began < 120:
    time.sleep(0.2)
  time.sleep(0.5)
  cluster.command("scancel", "--signal=TERM", job)
  cluster.wait_done(job)
  text = log.read_text()
  return {
    "status": cluster.exit_status(job),
    "starts": re.findall(r"restart (\d) from step (\d+)", text),
    "log": text,
  }
