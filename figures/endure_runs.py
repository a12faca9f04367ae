"""Runs of `make endure`: their kinds, and how one is cut.

A run is the program itself on `configs/docstrings.py:tiny` with more steps and
a save every other one. It is cut at a moment that is drawn: at some progress
of the run, while a checkpoint is being written, while a judge is asked in an
evaluation, or in the tournament.
"""

from collections.abc import Callable, Iterator
import json
import pathlib
import signal
import subprocess
import time
from typing import NamedTuple

import numpy as np

from figures import endure_judge
from nashmd_jax import owner
from tests import judge_client, processes

STEPS = 16
TRAINED = ("sft", "preference", "nash")
JUDGE = "figures.endure_judge:marked"
EVERY = {"steps": STEPS, "log_every": 2, "eval_every": 4, "save_every": 2}
SETTINGS = {
  **{f"{s}.train.{k}": v for s in TRAINED for k, v in EVERY.items()},
  **{f"{s}.optimizer.decay_steps": STEPS for s in TRAINED},
  "nash.watch": (JUDGE, "raters"),
  "tournament.policies": ("sft", "nash_md"),
  "tournament.judges": ("preference", JUDGE),
  "tournament.prompts": 24,
}
SERVED = {
  f"judges.served.{name}": value
  for name, value in judge_client.SETTINGS.items()
  if name not in ("key_variable", "system", "per_minute")
}
KINDS = {
  "plain": {},
  "two": {},
  "micro": {f"{s}.train.micro_batches": 2 for s in TRAINED},
  "lora": {"lora.rank": 4},
  "served": {
    **SERVED, "nash.judge": "served", "tournament.judges": ("served", JUDGE)
  },
}  # fmt: skip
PROCESSES = {"two": 2}
# The moments at which each kind is cut, in this order.
MOMENTS = ("any", "save", "save", "any", "evaluation", "tournament")
STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -9}
LIMIT = 3600.0  # seconds that a run may take
GLANCE = 0.002  # seconds between two looks at what a run does


class Run(NamedTuple):
  """A run that can be started again and again.

  Attributes:
    kind: one of `KINDS`.
    folder: its workdir.
    further: settings besides those of its kind.
  """

  kind: str
  folder: pathlib.Path
  further: dict[str, str]

  @property
  def mark(self) -> pathlib.Path:
    """The file that is there while the judge on the host is asked."""
    return self.folder.with_name(f"{self.folder.name}.mark")

  def start(self) -> list[subprocess.Popen]:
    """Starts it, as one process or as several."""
    self.mark.unlink(missing_ok=True)
    settings = SETTINGS | KINDS[self.kind] | self.further
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return processes.spawn(
      ["nashmd_jax.main", "--config=configs/docstrings.py:tiny",
       f"--workdir={self.folder}", *flags],
      processes=PROCESSES.get(self.kind, 1),
      devices=1,
      JUDGE_KEY="secret",
      # Of its kind; each workdir would compile the same.
      JAX_COMPILATION_CACHE_DIR=str(self.folder.absolute().parent / "xla"),
      **{endure_judge.MARK: str(self.mark.absolute())},
    )  # fmt: skip

  def finish(self) -> None:
    """Runs it to its end.

    Raises: RuntimeError if it fails.
    """
    statuses, _, errors = processes.wait(self.start(), LIMIT)
    if any(statuses):
      raise RuntimeError(f"{self.folder}: ended with {statuses}: {errors}")

  def progress(self) -> int:
    """Lines of metrics and of pieces that it has written."""
    names = ("*/metrics.jsonl", "*/*/metrics.jsonl", "*/pieces.jsonl")
    paths = [path for name in names for path in _found(self.folder, name)]
    return sum(path.read_bytes().count(b"\n") for path in paths)

  def is_up(self, started: subprocess.Popen) -> bool:
    """Whether it has come to own its workdir."""
    try:
      found = json.loads((self.folder / owner.NAME).read_text())
      return found["pid"] == started.pid
    except (OSError, ValueError):
      return False

  def saves(self) -> list[str]:
    """The checkpoints that are not whole."""
    names = ("*/checkpoints/*", "*/*/checkpoints/*")
    return [
      str(place)
      for name in names
      for place in _found(self.folder, name)
      if not self._is_whole(place)
    ]

  def _is_whole(self, place: pathlib.Path) -> bool:
    lists = len(_found(place, "checksums/process_*.json"))
    return place.name.isdigit() and lists == PROCESSES.get(self.kind, 1)

  def in_tournament(self) -> bool:
    """Whether it plays the tournament."""
    folder = self.folder / "tournament"
    return (folder / "key.json").exists() and not (
      folder / "done.json"
    ).exists()


def _found(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """What is there; nothing where a folder goes while it is looked at."""
  try:
    return list(folder.glob(pattern))
  except FileNotFoundError:
    return []


class Cut(NamedTuple):
  """What became of a run that was signalled.

  Attributes:
    kind: of the run.
    moment: that was drawn.
    number: of the signal.
    saving: whether a checkpoint was being written when it was sent.
    judging: whether an evaluation or the tournament was under way.
    seconds: until all processes had ended.
    statuses: of the processes.
    odd: what was wrong with the way it ended; empty if nothing was.
  """

  kind: str
  moment: str
  number: int
  saving: bool
  judging: bool
  seconds: float
  statuses: list[int]
  odd: str


def cut(
  run: Run, moment: str, number: int, share: float, rng: np.random.Generator
) -> Cut:
  """Starts a run and cuts it.

  Args:
    run: that goes on from where it is.
    moment: one of `MOMENTS`.
    number: of the signal, which one of its processes gets.
    share: of what is left of a run, at which "any" comes on average.
    rng: draws the rest.
  """
  started = run.start()
  try:
    return _cut(run, started, moment, number, share, rng)
  finally:
    for process in started:
      if process.poll() is None:
        process.kill()


def _cut(run, started, moment, number, share, rng) -> Cut:
  until = time.monotonic() + LIMIT
  for _ in _glances(started, until, lambda: run.is_up(started[0])):
    pass
  come = MOMENT[moment](run, share, rng)
  for _ in _glances(started, until, come):
    pass
  saving, judging = bool(run.saves()), run.mark.exists() or run.in_tournament()
  began = time.monotonic()
  one = started[rng.integers(len(started))]
  over = one.poll() is not None
  one.send_signal(number)
  statuses, _, errors = processes.wait(started, LIMIT)
  seconds = time.monotonic() - began
  odd = "it had ended before" if over else ""
  expected = STATUS[number]
  if not over and one.returncode != expected:
    odd = f"status {one.returncode} and not {expected}: {errors}"
  if number != signal.SIGKILL and any("Traceback" in one for one in errors):
    odd = f"a traceback: {errors}"
  return Cut(
    run.kind, moment, number, saving, judging, seconds, statuses, odd
  )  # fmt: skip


def _glances(started, until: float, come: Callable[[], bool]) -> Iterator[None]:
  """Waits for something, as long as the processes run."""
  while not come():
    if started[0].poll() is not None or time.monotonic() > until:
      return
    time.sleep(GLANCE)
    yield


def _any(run: Run, share: float, rng) -> Callable[[], bool]:
  goal = run.progress() + rng.uniform(0, 2 * share)
  until = time.monotonic() + rng.uniform(0, 1)
  return lambda: time.monotonic() > until and run.progress() >= goal


def _save(run: Run, share: float, rng) -> Callable[[], bool]:
  """In the second to fourth save, some milliseconds after its start."""
  del share
  seen, left = set(run.saves()), rng.integers(1, 4)
  delay = rng.uniform(0, 0.05)

  def come():
    now = set(run.saves()) - seen
    if not now:
      return False
    if len(seen) < left:
      seen.update(now)
      return False
    time.sleep(delay)
    return bool(run.saves())

  return come


def _evaluation(run: Run, share: float, rng) -> Callable[[], bool]:
  del share
  delay = rng.uniform(0, endure_judge.SECONDS / 2)

  def come():
    if not run.mark.exists():
      return False
    time.sleep(delay)
    return run.mark.exists()

  return come


def _tournament(run: Run, share: float, rng) -> Callable[[], bool]:
  del share
  path, lines = run.folder / "tournament" / "pieces.jsonl", rng.integers(1, 20)
  return lambda: path.exists() and path.read_bytes().count(b"\n") > lines


MOMENT = {
  "any": _any,
  "save": _save,
  "evaluation": _evaluation,
  "tournament": _tournament,
}
