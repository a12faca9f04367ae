"""Where rows and samples go besides the JSON lines, by names in a config.

A writer is a function of a `telling.Run` that gives a context manager, and that
a `telling.Write`. None is worth a run: one that fails, be it that it cannot be
opened, is told of once, and the run goes on without it.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import importlib.util
import pathlib
import threading
from typing import Any, NamedTuple

from nashmd_jax import declare, mistakes, outside
from nashmd_jax.training import distributed, ending, events, services, telling

SETTING = "log.writers"
TABLE = {
  "tensorboard": events.to_tensorboard,
  "wandb": services.to_wandb,
  "trackio": services.to_trackio,
}
EXTRAS = ("wandb", "trackio")  # packages, of extras of the same names
SETTINGS = {
  "writers": declare.several(
    declare.text(
      "Where metrics go besides metrics.jsonl: tensorboard, wandb, trackio, or "
      "your own as module:function."
    )
  ),
  "project": declare.text("The project that wandb and trackio file it under."),
}
# Seconds that a writer may take to send what it has, and after a signal.
CLOSING, STOPPING = 10.0, 3.0


class Log(NamedTuple):
  """What all jobs of a run tell their writers.

  Attributes:
    writers: names in `TABLE`, or a user's module:function.
    project, group, settings: see `telling.Run`.
  """

  writers: Sequence[str]
  project: str
  group: str
  settings: Mapping[str, Any]


NOWHERE = Log((), "", "", {})


def check(names: Sequence[str], findings: mistakes.Findings) -> None:
  """Collects what is wrong with the names of writers."""
  for name in names:
    with findings.collect():
      outside.find(name, TABLE, setting=SETTING)
      if name in EXTRAS and not _is_there(name):
        raise mistakes.Mistake(
          f"{SETTING}: {name} is written by a package of that name, which is "
          f"not here; pip install 'nashmd_jax[{name}]'"
        )


def _is_there(package: str) -> bool:
  """Whether it can be imported; a folder that is called so is no package."""
  found = importlib.util.find_spec(package)
  return found is not None and found.origin is not None


class Writers:
  """The writers of a job, in process 0; elsewhere none.

  Made before they are opened, so that what is saved at the end of the job does
  not wait for what they send.
  """

  def __init__(self, log: Log):
    """Opens nothing yet."""
    self._log, self._open = log, []

  def open(self, job: str, folder: pathlib.Path, *, start_step: int) -> None:
    """Opens them for a job; see `telling.Run`."""
    if not distributed.is_first():
      return
    names, *shared = self._log
    run = telling.Run(job, folder, start_step, *shared)
    self._open = [_Writer(name, run) for name in names]

  def write(
    self,
    step: int,
    scalars: Mapping[str, float],
    samples: Sequence[telling.Sample],
  ) -> None:
    """Tells all of a row, and of samples."""
    for one in self._open:
      one.write(step, scalars, samples)

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace) -> None:
    """Closes them, and does not wait long for what they send."""
    stopped = kind is not None and issubclass(kind, ending.Preempted)
    for one in self._open:
      thread = threading.Thread(
        target=one.close, args=(kind, error, trace), daemon=True
      )
      thread.start()
      thread.join(STOPPING if stopped else CLOSING)


class _Writer:
  """One that may fail."""

  def __init__(self, name: str, run: telling.Run):
    """Opens it."""
    self._name, self._run = name, run
    self._stack = contextlib.ExitStack()
    self._write: telling.Write | None = None
    self._failed = False
    self._try(self._enter)

  def _enter(self) -> None:
    make = outside.find(self._name, TABLE, setting=SETTING)
    self._write = self._stack.enter_context(make(self._run))

  def write(self, step, scalars, samples) -> None:
    if self._write is not None:
      self._try(lambda: self._write(step, scalars, samples))

  def close(self, *error) -> None:
    self._try(lambda: self._stack.__exit__(*error))

  def _try(self, work: Callable[[], Any]) -> None:
    try:
      work()
    except Exception as error:  # of a service, or a user's own
      if not self._failed:
        print(
          f"{self._run.job}: nothing more goes to {self._name} "
          f"({type(error).__name__}: {mistakes.brief(error)}); metrics.jsonl "
          "goes on",
          flush=True,
        )
      self._write, self._failed = None, True
