"""Rows of `make scale` on sweeps: one cut off and started again."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

from figures import rows
from nashmd_jax import files
from nashmd_jax.sweeps import run

CONFIG = "configs/sweeps.py:mixture_tiny"
TRIALS, CUT = 3, 1
# The stage in which the trial is killed, after its first checkpoint.
STAGE = "preference"


def _run(workdir: pathlib.Path, *flags: str) -> int:
  return subprocess.run(
    run.command(CONFIG, workdir, *flags), stdout=subprocess.DEVNULL
  ).returncode


def kill_in_training(workdir: pathlib.Path, limit: float) -> bool:
  """Starts trial `CUT` and kills it by SIGKILL in `STAGE`.

  Args:
    workdir: of the sweep.
    limit: seconds after which it is given up.
  Returns: whether it was killed there.
  """
  stage = workdir / f"{CUT:03d}" / STAGE
  process = subprocess.Popen(
    run.command(CONFIG, workdir, f"--trial={CUT}"),
    stdout=subprocess.DEVNULL,
    process_group=0,
  )
  deadline = time.monotonic() + limit
  while process.poll() is None and time.monotonic() < deadline:
    if (stage / "checkpoints" / "2").is_dir():
      break
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  return (
    process.wait() == -signal.SIGKILL and not (stage / "done.json").exists()
  )


def sweep_rows(workdir: pathlib.Path) -> list[rows.Row]:
  """A sweep of three trials, one killed, against the same one uncut.

  Only the killed trial is run twice: the others are copied into the uncut
  sweep. About a minute a trial on 2 CPU cores.

  Args:
    workdir: emptied first.
  """
  shutil.rmtree(workdir, ignore_errors=True)
  cut, uncut = workdir / "cut", workdir / "uncut"
  killed = kill_in_training(cut, limit=600)
  _run(cut, "--stage=collect")
  listed = files.load_json(cut / "collect" / "results.json")["trials"][CUT]
  program = [
    sys.executable,
    "-m",
    "nashmd_jax.sweeps.run",
    f"--config={CONFIG}",
  ]
  command = [*program, f"--workdir={cut}"]
  status = subprocess.run(command).returncode
  _run(uncut, f"--trial={CUT}")
  for number in set(range(TRIALS)) - {CUT}:
    shutil.copytree(cut / f"{number:03d}", uncut / f"{number:03d}")
  _run(uncut, "--stage=collect")
  tables = [
    (folder / "collect" / "table.md").read_text().splitlines()
    for folder in (cut, uncut)
  ]
  finished = "3 of 3 trials finished" in tables[0][0] and status == 0
  differing = sum(a != b for a, b in zip(*tables, strict=False))
  differing += abs(len(tables[0]) - len(tables[1]))
  began = time.monotonic()
  again = subprocess.run(command).returncode
  seconds = time.monotonic() - began
  return [
    rows.row(
      f"sweep of {TRIALS} trials, one killed in {STAGE}: trials that are "
      "listed with the stage they reached",
      int(killed and listed["reached"].startswith(STAGE)),
      "=",
      1,
    ),
    rows.row(
      "lines of its table that differ from the uncut sweep's, once the same "
      "command has ended",
      differing if finished else None,
      "=",
      0,
    ),
    rows.row(
      "seconds that the command takes on the finished sweep, a trial",
      seconds / TRIALS if again == 0 else None,
      "≤",
      30,
    ),
  ]
