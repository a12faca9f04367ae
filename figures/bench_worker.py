"""Both ends of a line between `make bench` and what it measures.

A worker is a process in an environment and on cores of its own. It waits on
its standard input for a line of JSON that names a piece of work, does it once,
and answers with the seconds that it took: of the process, all threads
together, and of the clock. Standard library alone, for a peer's environment
has nothing of ours.
"""

from collections.abc import Callable, Mapping
import contextlib
import gc
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from typing import Any, TextIO

ROOT = pathlib.Path(__file__).parent.parent
LOGS = ROOT / "out" / "bench"
# A piece of work: called once with its sizes, gives what is then timed, which
# returns what JSON can hold.
Piece = Callable[..., Callable[[], Any]]
FORGET = "forget"
# Seconds after which a piece of work counts as failed.
PATIENCE = 600.0
# Of machines that name the kernel of an older OpenBLAS; it finds its own.
OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Failed(RuntimeError):
  """A worker has ended, or could not do what it was asked."""


class Worker:
  """The parent's end."""

  def __init__(
    self,
    module: str,
    *,
    python: pathlib.Path,
    cores: list[int],
    settings: Mapping[str, str],
  ):
    """Starts it; it imports nothing before it is on its cores.

    Args:
      module: whose `PIECES` it does.
      python: of its environment, relative to the root.
      cores: that it may run on; as many threads work in it.
      settings: further environment variables.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    self.name = module
    self._log = LOGS / f"{module.rpartition('.')[2]}-{len(cores)}.log"
    threads = str(len(cores))
    kept = {key: os.environ[key] for key in os.environ if key not in OVERRIDES}
    with self._log.open("w") as log:
      self._process = subprocess.Popen(
        [str(ROOT / python), "-m", __name__, module, *map(str, cores)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
        env={
          **kept,
          "OMP_NUM_THREADS": threads,
          "OPENBLAS_NUM_THREADS": threads,
          "MKL_NUM_THREADS": threads,
          # Else threads of a worker that waits would turn in circles.
          "OMP_WAIT_POLICY": "PASSIVE",
          "HF_HUB_OFFLINE": "1",
          "JAX_PLATFORMS": "cpu",
          **settings,
        },
      )  # fmt: skip

  def ask(self, what: str, **sizes: Any) -> dict[str, Any]:
    """One piece of work, once; the first time it is also made.

    Returns: "cpu" and "wall", seconds, those of the first time without a
      meaning, and "gave", what the work returned.
    Raises: Failed with the end of what the worker told.
    """
    patience = threading.Timer(PATIENCE, self._process.kill)
    patience.start()
    try:
      self._process.stdin.write(json.dumps({"what": what, **sizes}) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    finally:
      patience.cancel()
    if not line:
      lines = self._log.read_text().splitlines()
      told = [line for line in lines if re.match(r"[\w.]+Error", line)][-1:]
      raise Failed(f"{self.name}: {what} failed, {told}; see {self._log}")
    return json.loads(line)

  def forget(self) -> None:
    """Lets go of all that was made."""
    self.ask(FORGET)

  def close(self) -> None:
    """Ends the process by closing what it reads from."""
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.stdout.close()
    self._process.wait()


def serve(pieces: Mapping[str, Piece], asked: TextIO, answers: TextIO) -> None:
  """The worker's end: does what it is asked until there is no more.

  Args:
    pieces: by name.
    asked: lines of requests.
    answers: a line for each.
  """
  made: dict[str, Callable[[], Any]] = {}
  for line in asked:
    request = json.loads(line)
    what = request.pop("what")
    if what == FORGET:
      made.clear()
      gc.collect()
      print("{}", file=answers, flush=True)
      continue
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    if line not in made:
      made[line] = pieces[what](**request)
    gave = made[line]()
    took = {
      "cpu": time.process_time() - cpu,
      "wall": time.perf_counter() - began,
      "gave": gave,
    }
    print(json.dumps(took), file=answers, flush=True)


def main(module: str, *cores: str) -> None:
  """Serves the pieces of a module on the given cores."""
  os.sched_setaffinity(0, map(int, cores))
  # What else prints does not come between.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  serve(importlib.import_module(module).PIECES, sys.stdin, answers)


if __name__ == "__main__":
  main(*sys.argv[1:])
