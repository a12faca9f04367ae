"""Sides of `make bench` in turn, A B A B …, and medians of what they took."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import statistics
import time
from typing import Any, NamedTuple

from figures import bench_worker

# Rounds: at least on one core, which decides, and on more; at most; and for
# how many seconds more of them are begun.
LEAST, LEAST_ON_MORE, MOST, SECONDS = 3, 2, 7, 12.0


class Side(NamedTuple):
  """Who is measured.

  Attributes:
    module: whose pieces of work it does.
    environment: the folder of it.
    title: of it, in a claim.
  """

  module: str
  environment: str
  title: str

  @property
  def python(self) -> pathlib.Path:
    return pathlib.Path(self.environment) / "bin" / "python"

  @property
  def present(self) -> bool:
    return (bench_worker.ROOT / self.environment / "ready").exists()


SIDES = {
  "ours": Side("figures.bench_ours", ".venv", "ours"),
  "alone": Side("figures.bench_alone", ".venv", "ours"),
  "numpy": Side("figures.bench_numpy", ".venv", "NumPy"),
  "torch": Side("figures.bench_torch", ".venv-models", "torch"),
  "trl": Side("figures.bench_trl", ".venv-trl", "TRL 1.13.0"),
  "tunix": Side("figures.bench_tunix", ".venv-tunix", "Tunix 0.1.7"),
}


# By name: a side, the name of its piece of work, and the sizes of that.
Works = Mapping[str, tuple[str, str, Mapping[str, Any]]]


class Turns(NamedTuple):
  """What each work took, in seconds, round by round.

  Attributes:
    took: by clock, "cpu" or "wall", and name.
    gave: by name, what the last round returned.
  """

  took: Mapping[str, Mapping[str, Sequence[float]]]
  gave: Mapping[str, Any]

  def median(self, name: str, clock: str = "cpu") -> float:
    """Seconds."""
    return statistics.median(self.took[clock][name])

  def ratio(self, slow: str, fast: str, clock: str = "cpu") -> float:
    """The ratio of their medians."""
    return self.median(slow, clock) / self.median(fast, clock)

  def by_round(self, slow: str, fast: str, clock: str = "cpu") -> float:
    """The median of the ratios in each round."""
    pairs = zip(self.took[clock][slow], self.took[clock][fast], strict=True)
    return statistics.median(a / b for a, b in pairs)

  @property
  def rounds(self) -> int:
    return len(next(iter(self.took["cpu"].values())))


def in_turn(
  asks: Mapping[str, Callable[[], Mapping[str, Any]]], *, least: int
) -> Turns:
  """Each work in turn, after one round that makes them and is not counted.

  Args:
    asks: by name, () -> what `Worker.ask` returns.
    least: rounds.
  """
  for ask in asks.values():
    ask()
  began, rounds = time.monotonic(), []
  while len(rounds) < least or (
    len(rounds) < MOST and time.monotonic() - began < SECONDS
  ):
    rounds.append({name: ask() for name, ask in asks.items()})
  took = {
    clock: {name: [one[name][clock] for one in rounds] for name in asks}
    for clock in ("cpu", "wall")
  }
  return Turns(took, {name: rounds[-1][name]["gave"] for name in asks})


class Crew:
  """The workers on the same cores, started when they are first asked."""

  def __init__(self, threads: int):
    self.threads = threads
    self._cores = sorted(os.sched_getaffinity(0))[:threads]
    self._started: dict[str, bench_worker.Worker] = {}
    # Programs that are compiled for one number of threads suit that alone.
    cache = bench_worker.LOGS / f"xla_cache-{threads}"
    self._settings = {
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

  def ask(self, side: str, what: str, **sizes: Any) -> dict[str, Any]:
    """See `Worker.ask`."""
    if side not in self._started:
      one = SIDES[side]
      self._started[side] = bench_worker.Worker(
        one.module,
        python=one.python,
        cores=self._cores,
        settings=self._settings,
      )
    try:
      return self._started[side].ask(what, **sizes)
    except bench_worker.Failed:
      self._started.pop(side).close()
      raise

  def turns(self, works: Works) -> Turns:
    """Works in turn; all sides forget what they made for it."""

    def asking(side, what, sizes):
      return lambda: self.ask(side, what, **sizes)

    found = in_turn(
      {name: asking(*work) for name, work in works.items()},
      least=LEAST if self.threads == 1 else LEAST_ON_MORE,
    )
    self.forget()
    return found

  def forget(self) -> None:
    """All that was made."""
    for worker in self._started.values():
      worker.forget()

  def __enter__(self) -> "Crew":
    return self

  def __exit__(self, *failure: object) -> None:
    for worker in self._started.values():
      worker.close()


def told(found: Mapping[int, Turns], slow: str, fast: str) -> str:
  """Medians of two works for a claim, at each number of threads."""
  parts = []
  for threads, turns in found.items():
    cpu, wall = (
      f"{turns.median(slow, clock):.3g} / {turns.median(fast, clock):.3g}"
      for clock in ("cpu", "wall")
    )
    parts.append(
      f"{threads} thread{'s' * (threads > 1)}: CPU {cpu} s, ratio by round "
      f"{turns.by_round(slow, fast):.2f}, wall {wall} s, {turns.rounds} rounds"
    )
  return "; ".join(parts)
