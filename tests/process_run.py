"""A small training run as a program, for tests that start and signal it.

  python -m tests.process_run FOLDER STEPS PAUSE

The last argument is seconds a step. What main.py does about processes and
exit statuses is done here too, in the same order.
"""

import pathlib
import sys
import time

import grain
import numpy as np

from nashmd_jax.training import distributed
from tests import training_test


def slow_batches(pause: float) -> grain.DatasetIterator:
  """The batches of training_test, each after a pause."""

  def wait(batch):
    time.sleep(pause)
    return batch

  dataset = training_test.rows().batch(16).map(wait)
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  return iter(dataset.to_iter_dataset(options))


def evaluate(sets) -> dict[str, float]:
  """As in training_test, for parameters on the devices of all processes."""
  return {"w0": float(np.asarray(sets["policy"]["w"])[0])}


def main(folder: pathlib.Path, steps: int, pause: float) -> None:
  """Trains in `folder`; ends with the exit status that main.py gives."""
  status = 0
  try:
    distributed.start()
    distributed.on_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    print("up", flush=True)
    training_test.train(
      folder,
      steps,
      training_test.least_squares()._replace(
        batches=lambda: slow_batches(pause), evaluate=evaluate
      ),
      log_every=5,
      eval_every=10,
      save_every=20,
    )
  except distributed.Preempted as stopped:
    print(stopped, flush=True)
    status = distributed.EXIT_PREEMPTED
  except ValueError as error:
    print(error, file=sys.stderr)
    status = 2
  distributed.finish(status)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
