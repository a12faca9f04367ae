"""Runs the trials of a sweep on this machine, each in a process of its own.

  python -m nashmd_jax.sweeps.run --config=configs/sweeps.py:mixture --jobs=2

Further flags go to every trial. Start it again and it goes on: finished
trials are left alone. It ends by collecting what is finished. Exit status: 0
all trials finished, 1 some did not, 2 a mistake, 130 stopped.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

from nashmd_jax import main as main_lib
from nashmd_jax.sweeps import trials

# Seconds that a stopped trial has to save.
GRACE = 60


def command(config: str, workdir: pathlib.Path, *flags: str) -> list[str]:
  """The program on a config and a workdir."""
  program = [sys.executable, "-m", "nashmd_jax.main"]
  return [*program, f"--config={config}", f"--workdir={workdir}", *flags]


def run_all(
  start: Callable[[int], subprocess.Popen],
  count: int,
  *,
  jobs: int,
  ended: Callable[[int, int], None],
) -> None:
  """Keeps `jobs` processes running until all have ended.

  Args:
    start: (trial) -> its process, the leader of a process group.
    count: trials, started in order.
    jobs: at most as many at a time.
    ended: (trial, exit status), called when one has ended.
  Raises: KeyboardInterrupt when stopped, after every process has ended.
  """
  waiting, running = list(range(count)), {}
  try:
    while waiting or running:
      while waiting and len(running) < jobs:
        process = start(waiting[0])
        running[process.pid] = waiting.pop(0), process
      pid, status = os.wait()
      trial, process = running.pop(pid)
      process.returncode = os.waitstatus_to_exitcode(status)
      ended(trial, process.returncode)
  finally:
    stop([process for _, process in running.values()])


def stop(processes: Sequence[subprocess.Popen]) -> None:
  """Ends process groups: asks first; after `GRACE` seconds, or asked again,
  kills.
  """
  try:
    for process in processes:
      _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in processes:
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))
  finally:
    for process in processes:
      _signal(process, signal.SIGKILL)
      process.wait()


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, number)


def _interrupt(number, frame) -> None:
  del number, frame
  raise KeyboardInterrupt


def _last_line(path: pathlib.Path) -> str:
  lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
  return next((line for line in reversed(lines) if line.strip()), "no output")


def _parse(argv: Sequence[str] | None):
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0], allow_abbrev=False
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", type=pathlib.Path)
  parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
  args, flags = parser.parse_known_args(argv)
  if args.jobs < 1:
    parser.error(f"--jobs: got {args.jobs}, expected 1 or more")
  args.workdir = args.workdir or main_lib.default_workdir(args.config)
  return args, flags


def run(
  config: str, workdir: pathlib.Path, flags: Sequence[str], jobs: int
) -> int:
  """Checks all trials, runs them, collects; returns the exit status."""
  checked = command(config, workdir, "--stage=trials", *flags)
  status = subprocess.run(checked).returncode
  if status:
    return status
  logs = workdir / "logs"
  logs.mkdir(parents=True, exist_ok=True)
  failed, began = [], {}

  def start(trial):
    path = logs / f"{trial:03d}.txt"
    print(f"trial {trial:03d}: starts, {path}", flush=True)
    began[trial] = time.monotonic()
    with path.open("a", encoding="utf-8") as log:
      return subprocess.Popen(
        command(config, workdir, f"--trial={trial}", *flags),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        process_group=0,
      )

  def ended(trial, status):
    seconds = time.monotonic() - began[trial]
    verdict = f"exit status {status}" if status else "done"
    print(f"trial {trial:03d}: {verdict}, {seconds:.0f} s", flush=True)
    if status:
      line = _last_line(logs / f"{trial:03d}.txt")
      failed.append(f"trial {trial:03d}: {verdict}: {line}")

  run_all(start, len(trials.load_sweep(config)), jobs=jobs, ended=ended)
  collected = command(config, workdir, "--stage=collect", *flags)
  status = subprocess.run(collected).returncode
  for line in failed:
    print(line, file=sys.stderr)
  return 1 if failed else status


def main(argv: Sequence[str] | None = None) -> int:
  """Entry point; returns the exit status."""
  args, flags = _parse(argv)
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, _interrupt)
  try:
    return run(args.config, args.workdir, flags, args.jobs)
  except KeyboardInterrupt:
    print("stopped; the same command goes on", file=sys.stderr)
    return 130


if __name__ == "__main__":
  sys.exit(main())
