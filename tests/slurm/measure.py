"""What is measured on the mini cluster, for the test and for the figures."""

import pathlib
import re
import sys
import time
from typing import Any

from tests import processes
from tests.slurm import cluster, stand_in, sweep

STEPS, PAUSE = 200, 0.05
TRIALS, CUT = 4, 1
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
  """The real program: four trials, of which one gets SIGTERM in training."""
  workdir = root / "array"
  logs = [root / f"array-{trial}.log" for trial in range(TRIALS)]
  began = time.monotonic()
  job = cluster.submit(
    f"--array=0-{TRIALS - 1}",
    flags=[sweep.__file__, str(workdir)],
    python=sys.executable,
    log=str(root / "array-%a.log"),
  )
  cut = _metrics(workdir, CUT)
  while not cut.exists() or cut.read_text().count("\n") < 3:
    if time.monotonic() - began > 300:
      raise TimeoutError(f"{cut}: fewer than 3 rows after 300 s")
    time.sleep(0.1)
  cluster.command("scancel", "--signal=TERM", f"{job}_{CUT}")
  cluster.wait_done(job, seconds=600)
  text = logs[CUT].read_text()
  return {
    "seconds": time.monotonic() - began,
    "statuses": [
      cluster.exit_status(f"{job}_{trial}") for trial in range(TRIALS)
    ],
    "saved": [int(x) for x in re.findall(r"saved at step (\d+)", text)],
    "resumed": [int(x) for x in re.findall(r"goes on from step (\d+)", text)],
    "restarts": [log.read_text().count("goes on from step") for log in logs],
    "equal": cut.read_bytes() == _uncut(root),
    "log": text,
  }


def _metrics(workdir: pathlib.Path, trial: int) -> pathlib.Path:
  return workdir / f"{trial:03d}" / "nash" / sweep.RUN / "metrics.jsonl"


def _uncut(root: pathlib.Path) -> bytes:
  """The metrics of the trial that was cut, run without SLURM and in one go."""
  workdir = root / "uncut"
  flags = [f"--config={sweep.__file__}", f"--workdir={workdir}"]
  statuses, _, errors = processes.run(
    ["nashmd_jax.main", *flags, f"--trial={CUT}"], devices=cluster.DEVICES
  )
  if any(statuses):
    raise RuntimeError(f"trial {CUT}: {statuses} {errors[0][-3000:]}")
  return _metrics(workdir, CUT).read_bytes()


def pair(root: pathlib.Path) -> dict[str, Any]:
  """A run on two nodes that gets SIGTERM while it trains."""
  log = root / "pair.log"
  job = cluster.submit(
    "--nodes=2",
    flags=[f"{STEPS}:{PAUSE}:0", str(root / "pair")],
    python=cluster.stand_in(root),
    log=str(log),
  )
  cluster.wait_for(log, "up\n")
  time.sleep(3)
  cluster.command("scancel", "--signal=TERM", job)
  cluster.wait_done(job)
  return _ended(job, log)


def early(root: pathlib.Path) -> dict[str, Any]:
  """SIGTERM before the program has started up."""
  log, workdir = root / "early.log", root / "early"
  job = cluster.submit(
    flags=[f"20:0:{60}", str(workdir)],
    python=cluster.stand_in(root),
    log=str(log),
  )
  marker, began = root / f"early.{stand_in.EARLY}", time.monotonic()
  while not marker.exists() and time.monotonic() - began < 120:
    time.sleep(0.2)
  time.sleep(0.5)
  cluster.command("scancel", "--signal=TERM", job)
  cluster.wait_done(job)
  return _ended(job, log)


def _ended(job: str, log: pathlib.Path) -> dict[str, Any]:
  """How a job ended, and the numbers that its log names."""
  text = log.read_text()
  numbers = {
    "saved": r"saved at step (\d+)",
    "resumed": r"goes on from step (\d+)",
    "restarts": r"restart ([1-9]\d*)",
  }
  return {
    "status": cluster.exit_status(job),
    "log": text,
    **{
      name: [int(x) for x in re.findall(pattern, text)]
      for name, pattern in numbers.items()
    },
  }
