"""A small training run as a program, for tests that start and signal it.

  python -m tests.process_run FOLDER STEPS PAUSE

The last argument is seconds a step. What main.py does about processes and
exit statuses is done here too, in the same order.
"""

import pathlib
import sys
import time

import grain

from nashmd_jax import mistakes
from nashmd_jax.training import distributed
from tests import least_squares


def slow_batches(pause: float) -> grain.DatasetIterator:
  """The batches of least squares, each after a pause."""

  def wait(batch):
    time.sleep(pause)
    return batch

  dataset = least_squares.rows().batch(16).map(wait)
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  return iter(dataset.to_iter_dataset(options))


def main(folder: pathlib.Path, steps: int, pause: float) -> None:
  """Trains in `folder`; ends with the exit status that main.py gives."""
  status = 0
  try:
    distributed.start()
    distributed.on_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    print("up", flush=True)
    least_squares.train(
      folder,
      steps,
      least_squares.experiment()._replace(batches=lambda: slow_batches(pause)),
      log_every=5,
      eval_every=10,
      save_every=20,
    )
  except distributed.Preempted as stopped:
    print(stopped, flush=True)
    status = distributed.EXIT_PREEMPTED
  except mistakes.Mistake as error:
    print(error, file=sys.stderr)
    status = 2
  distributed.finish(status)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
