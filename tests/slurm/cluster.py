"""The mini cluster for tests: started and stopped, jobs submitted, awaited."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

from tests import processes

SCRIPT = pathlib.Path(__file__).parent / "mini_slurm.sh"
SBATCH = processes.ROOT / "launch" / "slurm" / "train.sbatch"
COMPLETED = "COMPLETED 0:0"
DEVICES = 1  # of a process
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")


def missing() -> str | None:
  """Why there can be no cluster here, None if there can."""
  path = os.environ["PATH"] + ":/usr/sbin"
  absent = [name for name in NEEDED if not shutil.which(name, path=path)]
  if absent:
    return f"{', '.join(absent)} not installed: apt install slurm-wlm munge"
  return None if os.geteuid() == 0 else "a cluster of its own needs root"


def command(*arguments: str) -> str:
  """Output of a SLURM command."""
  out = subprocess.run(
    arguments, cwd=processes.ROOT, capture_output=True, text=True
  )
  if out.returncode:
    raise RuntimeError(f"{arguments}: {out.stderr or out.stdout}")
  return out.stdout.strip()


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[None]:
  """Two virtual nodes, for as long as the context lasts."""
  before = dict(os.environ)
  os.environ["PATH"] += ":/usr/sbin"
  try:
    with (folder.parent / "mini_slurm.log").open("w") as log:
      # A file: the daemons would keep a pipe open for ever.
      subprocess.run([SCRIPT, "start", folder, "2"], stdout=log, check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
  finally:
    subprocess.run([SCRIPT, "stop", folder], check=False)
    os.environ.clear()
    os.environ.update(before)


def submit(*options: str, flags: list[str], python: str, log: str) -> str:
  """Submits train.sbatch; returns the number of the job."""
  env = processes.environment(DEVICES, PYTHON=python)
  env["SLURM_CONF"] = os.environ["SLURM_CONF"]
  out = subprocess.run(
    ["sbatch", "--parsable", "--export=ALL", f"--output={log}", *options]
    + [SBATCH, *flags],
    cwd=processes.ROOT,
    env=env,
    capture_output=True,
    text=True,
    check=True,
  )
  return out.stdout.strip()


def stand_in(folder: pathlib.Path) -> str:
  """A program that train.sbatch takes for Python; see stand_in.py."""
  path = folder / "python"
  path.write_text(
    f'#!/bin/bash\nexec {sys.executable} -u -m tests.slurm.stand_in "$@"\n'
  )
  path.chmod(0o755)
  return str(path)


def wait_for(log: pathlib.Path, text: str, seconds: float = 180) -> float:
  """Waits until a log holds a text; the seconds that it took."""
  began = time.monotonic()
  while time.monotonic() - began < seconds:
    if log.exists() and text in log.read_text():
      return time.monotonic() - began
    time.sleep(0.2)
  held = log.read_text() if log.exists() else "no log"
  raise TimeoutError(f"{log}: no {text!r} after {seconds} s in {held[-2000:]}")


def wait_done(job: str, seconds: float = 400) -> float:
  """Waits until a job has left the queue; the seconds that it took."""
  began = time.monotonic()
  while time.monotonic() - began < seconds:
    if not command("squeue", "-h", "-o", "%i", "-j", job):
      return time.monotonic() - began
    time.sleep(0.5)
  raise TimeoutError(command("squeue"))


def exit_status(job: str) -> str:
  """State and exit status as SLURM keeps them for a while."""
  shown = command("scontrol", "show", "job", "-o", job)
  fields = dict(x.split("=", 1) for x in shown.split() if "=" in x)
  return f"{fields['JobState']} {fields['ExitCode']}"
