"""A small training run as a program, for tests that start and signal it.

  python -m tests.process_run FOLDER STEPS PAUSE [FAULT]

PAUSE is seconds a step. FAULT, "PROCESS NAME", has one of the processes fail
in the evaluation of step 20: by an error of the program, a mistake, a full disk
at its next save or event, a record that cannot be read ahead, or for good. What
main.py does about processes and exit statuses is done here too, in the same
order. However long a busy machine compiles, nothing ends at the start in
another way than later on; see `ending.AT_START`.
"""

import errno
import os
import pathlib
import signal
import sys
import time

import grain
import jax
import ml_collections
import tensorboardX

from nashmd_jax import jobs, mistakes
from nashmd_jax.training import checksums, distributed, ending, step
from tests import least_squares

CONFIG = ml_collections.ConfigDict()
ending.AT_START = 120.0


class Damaged:
  """Whether the records have become unreadable."""

  seen = False


def slow_batches(pause: float) -> grain.DatasetIterator:
  """The batches of least squares, each after a pause."""

  def wait(batch):
    time.sleep(pause)
    if Damaged.seen:
      raise mistakes.Mistake("train.jsonl, line 7: cannot be read")
    return batch

  dataset = least_squares.rows().batch(16).map(wait)
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  return iter(dataset.to_iter_dataset(options))


def experiment(pause: float, fault: str) -> step.Experiment:
  """Least squares, and what befalls it."""
  made = least_squares.experiment()
  process, _, name = fault.partition(" ")
  seen = []

  def evaluate(sets):
    seen.append(sets)
    if len(seen) == 2 and process == str(jax.process_index()):
      FAULTS[name]()
    return made.evaluate(sets)

  return made._replace(batches=lambda: slow_batches(pause), evaluate=evaluate)


def full_disk() -> None:
  """Fails the next save of this process, behind the training."""

  def write(*args):
    raise OSError(errno.ENOSPC, "No space left on device")

  checksums.write = write


def full_events() -> None:
  """Fails the next event of this process."""

  def write(*args):
    raise OSError(errno.ENOSPC, "No space left on device")

  tensorboardX.RecordWriter.write = write


def damage() -> None:
  """Fails whoever reads batches ahead."""
  Damaged.seen = True


def raise_(error: BaseException) -> None:
  raise error


FAULTS = {
  "error": lambda: raise_(RuntimeError("a fault of the program")),
  "mistake": lambda: raise_(mistakes.Mistake("a mistake of the user")),
  "disk": full_disk,
  "events": full_events,
  "batches": damage,
  "gone": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def main(
  folder: pathlib.Path, steps: int, pause: float, fault: str = ""
) -> None:
  """Trains in `folder`; ends with the exit status that main.py gives."""
  status = 0
  try:
    distributed.start()
    place = jobs.Place(folder)
    with jobs.on_disk(folder), jobs.claimed(CONFIG, place, lambda: None):
      print("up", flush=True)
      least_squares.train(
        folder,
        steps,
        experiment(pause, fault),
        log_every=5,
        eval_every=10,
        save_every=20,
      )
  except ending.Preempted as stopped:
    print(stopped, flush=True)
    status = ending.status()
  except mistakes.Mistake as error:
    print(error, file=sys.stderr)
    status = 2
  except mistakes.Fault as error:
    print(error, file=sys.stderr)
    status = 1
  except Exception:
    distributed.fail()
    raise
  distributed.finish(status)


if __name__ == "__main__":
  with ending.in_time():
    main(
      pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]),
      *sys.argv[4:],
    )  # fmt: skip
