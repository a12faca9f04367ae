"""Processes: start-up, agreeing to stop, and what one of them does for all.

The same command runs on every host; JAX finds the others by itself on TPU
slices, GKE, SLURM and Open MPI. Host-side work that must happen once, such as
writing a file that all read, goes through `on_first`.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
import time
import traceback
from typing import Any
import uuid

import jax
from jax.experimental import multihost_utils
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.training import ending

Preempted, EXIT_PREEMPTED = ending.Preempted, ending.PREEMPTED
EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
COUNTS = (
  "JAX_NUM_PROCESSES",
  "SLURM_NTASKS",
  "OMPI_COMM_WORLD_SIZE",
  "PMI_SIZE",
  "WORLD_SIZE",
)
MEMBERS = ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX")
SHUTDOWN_SECONDS = 60
ALONE = 2.0  # seconds that a process waits for others to end as it does


# What `on_first` tells the other processes of an error, the first that it is.
KINDS = {
  "Preempted": ending.Preempted,
  "Mistake": mistakes.Mistake,
  "Fault": mistakes.Fault,
  "ValueError": ValueError,
  "RuntimeError": RuntimeError,
}


def start() -> None:
  """Joins the processes of this run; from here on signals ask for a save.

  To be called before any use of a device. Explicit members set the three
  variables of `EXPLICIT`; otherwise JAX looks for its cluster. One process
  that belongs to no cluster needs no coordinator.

  JAX's own preemption service is off. It agrees on a number that the caller
  counts up, and orbax tells it the number of an older step each time a save
  has been written behind; a SIGTERM that comes then is never seen. A flag of
  our own, compared where all processes meet anyway, has no such moment.

  Raises: Mistake if this process seems to be one of several that JAX cannot
    find: each would train the whole run by itself.
  """
  ending.listen()
  jax.config.update("jax_enable_preemption_service", False)
  given = [os.environ.get(name) for name in EXPLICIT]
  if all(given):
    jax.distributed.initialize(
      given[0],
      int(given[1]),
      int(given[2]),
      cluster_detection_method="deactivate",
      shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
  else:
    try:
      jax.distributed.initialize(shutdown_timeout_seconds=SHUTDOWN_SECONDS)
    except ValueError as error:  # no cluster; what a cluster raises goes on up
      member = membership(os.environ)
      if member is not None:
        raise mistakes.Mistake(
          f"{member} says that this is one of several processes, but JAX finds "
          f"no cluster ({error}); start it through srun or mpirun, or set "
          f"{', '.join(EXPLICIT)}"
        ) from None
  jax.devices()  # a runtime that handles SIGTERM itself does so by now
  ending.listen()


def membership(environ: Mapping[str, str]) -> str | None:
  """The variable that makes this one of several processes, None if none."""
  for name in COUNTS:
    value = environ.get(name, "")
    if value.isdigit() and int(value) > 1:
      return name
  if "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
    return "TPU_WORKER_HOSTNAMES"
  return next((name for name in MEMBERS if environ.get(name)), None)


def finish(status: int) -> None:
  """Ends the run in all processes together, with one exit status.

  Several processes leave within milliseconds of one another, before an engine
  that kills the rest of a job when one task ends can take one for failed. What
  one met alone the others do not end with: it waits for them, process 0 until
  they have seen that it is over, as its end would be theirs.

  Raises: SystemExit in a run of one process, if the status is not 0.
  """
  together = several()
  if together:
    alone = status not in (0, *ending.STATUS.values())
    seconds = ALONE if alone and not is_first() else ending.SECONDS
    ending.end_within(seconds, status)
  jax.distributed.shutdown()
  if together:
    ending.leave(status)
  if status:
    raise SystemExit(status)


def fail() -> None:
  """To be called for a fault of the program: one of several leaves.

  The others would wait for it, and it, at the end of Python, for the others;
  see `finish`.
  """
  if several():
    traceback.print_exc()
    time.sleep(ending.SECONDS if is_first() else 0)
    ending.leave(1, f"process {jax.process_index()} failed")


def several() -> bool:
  """Whether the run has more than one process."""
  return jax.process_count() > 1


def is_first() -> bool:
  """Whether this process writes files and speaks to the user."""
  return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
  """Whether the flag is up in any process; the same answer in all.

  All processes must ask at the same place. It is one small collective, and
  nothing at all in a run of one process.
  """
  return bool(_largest(int(flag)))


def _largest(number: int) -> int:
  if not several():
    return number
  return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def all_see(folder: pathlib.Path) -> bool:
  """Whether every process sees what process 0 writes into a folder.

  A name that nobody has looked for before tells: a host may hold a folder of
  that path, and even the same files, on a disk of its own.
  """
  if not several():
    return True

  def write():
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    return str(mark)

  mark = pathlib.Path(on_first(write))
  absent = anywhere(not mark.exists())
  on_first(mark.unlink)
  return not absent


def must_stop() -> bool:
  """Whether a signal has come to any process, see `anywhere`."""
  number = _largest(ending.asked())
  if number:
    ending.agree(number)
  return bool(number)


def asked_alone() -> bool:
  """Whether a signal has come to the one process of a run; asks no other."""
  return not several() and bool(ending.asked())


def stop_if_asked() -> None:
  """Raises Preempted in all processes if a signal has come to any."""
  if must_stop():
    raise ending.Preempted(ending.said())


def to_host(array: Any) -> np.ndarray:
  """A whole array in every process, which all must ask for together."""
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    array = multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def on_first(work: Callable[[], Any]) -> Any:
  """Does host-only work in process 0 while the others wait for its result.

  A signal to process 0 interrupts the work, which therefore leaves files whole
  or not at all.

  Args:
    work: touches no array that other processes share; its result is JSON.
  Raises: what the work raised; elsewhere the same of `KINDS` with the same
    sentences, a RuntimeError for anything else.
  """
  if not several():
    return ending.interruptible(work)
  raised, outcome = None, {}
  if is_first():
    try:
      outcome = {"value": ending.interruptible(work)}
    except BaseException as error:  # the others must hear of any end
      raised, outcome = error, {"error": _told(error)}
  outcome = _broadcast(outcome)
  if raised is not None:
    raise raised
  if "error" in outcome:
    kind, sentences = outcome["error"]
    raise KINDS[kind](*sentences)
  return outcome["value"]


def together(work: Callable[[], Any]) -> Any:
  """Does host-only work in every process; if it fails in one, in all.

  Returns: what it returned here.
  Raises: what it raised here; a Fault where it raised elsewhere.
  """
  raised = None
  try:
    found = work()
  except Exception as error:
    raised = error
  failed = anywhere(raised is not None)
  if raised is not None:
    raise raised
  if failed:
    raise mistakes.Fault("another process of this run has failed")
  return found


def _told(error: BaseException) -> tuple[str, Sequence[str]]:
  """The name of the first of `KINDS` that an error is, and its sentences."""
  if isinstance(error, OSError):
    return "Fault", [str(error)]
  kinds = (name for name, one in KINDS.items() if isinstance(error, one))
  told = isinstance(error, mistakes.Mistake)
  return next(kinds, "RuntimeError"), error.sentences if told else [str(error)]


def _broadcast(value: Any) -> Any:
  """The JSON value of process 0, in every process."""
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  padded = np.zeros(size, np.uint8)
  if is_first():
    padded[:] = text
  return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
