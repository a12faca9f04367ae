"""Rows of `make seams` on a sweep whose trials share SFT and judges."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

from figures import rows
from nashmd_jax.sweeps import run
from tests import small_records

TRIALS = 4
JOBS = ("sft", "preference", "reward", "nash/trained")
ONCE = ("sft", "comparisons", "preference", "reward")


def kill_in_sft(config: str, workdir: pathlib.Path, limit: float) -> bool:
  """Starts trial 0 and kills it by SIGKILL in SFT, after a checkpoint.

  Args:
    config: of the sweep.
    workdir: of the sweep.
    limit: seconds after which it is given up.
  Returns: whether it was killed there.
  """
  process = subprocess.Popen(
    run.command(config, workdir, "--trial=0"),
    stdout=subprocess.DEVNULL,
    process_group=0,
  )
  stage = workdir / "000" / "sft"
  deadline = time.monotonic() + limit
  while process.poll() is None and time.monotonic() < deadline:
    if (stage / "checkpoints" / "2").is_dir():
      break
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  killed = process.wait() == -signal.SIGKILL
  return killed and not (stage / "done.json").exists()


def sweep_rows(workdir: pathlib.Path) -> list[rows.Row]:
  """Four β, two trials at a time, the first killed, against separate runs.

  About eight minutes on 2 CPU cores.

  Args:
    workdir: emptied first.
  """
  shutil.rmtree(workdir, ignore_errors=True)
  records = small_records.write(workdir / "records")
  config = f"tests/beta_sweep.py:{records}"
  shared = workdir / "shared_run"
  killed = kill_in_sft(config, shared, limit=600)
  program = [sys.executable, "-m", "nashmd_jax.sweeps.run"]
  status = subprocess.run(
    [*program, f"--config={config}", f"--workdir={shared}", "--jobs=2"]
  ).returncode
  logs = "".join(
    (shared / "logs" / f"{trial:03d}.txt").read_text()
    for trial in range(TRIALS)
  )
  ended = [logs.count(f"{job}: done in") for job in ONCE]
  apart = workdir / "apart"
  for trial in range(TRIALS):
    subprocess.run(
      run.command(config, apart / str(trial), f"--trial={trial}"),
      stdout=subprocess.DEVNULL,
      check=True,
    )
  ran = killed and status == 0
  return [
    rows.row(
      f"{TRIALS} β, two trials at a time, the first killed in SFT: most times "
      f"that one of {', '.join(ONCE)} was trained to its end",
      max(ended) if ran and min(ended) else None,
      "=",
      1,
    ),
    rows.row(
      "lines of metrics, responses and win rates that differ from those of "
      "separate runs",
      _differing(shared, apart) if ran else None,
      "=",
      0,
    ),
  ]


def _differing(shared: pathlib.Path, apart: pathlib.Path) -> int:
  names = [f"{job}/metrics.jsonl" for job in JOBS]
  names += ["tournament/results.json", "tournament/responses/trained.jsonl"]
  count = 0
  for trial in range(TRIALS):
    for name in names:
      one, other = (
        (folder / f"{trial:03d}" / name).read_text().splitlines()
        for folder in (shared, apart / str(trial))
      )
      count += abs(len(one) - len(other))
      count += sum(a != b for a, b in zip(one, other, strict=False))
  return count
