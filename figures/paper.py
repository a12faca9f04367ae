"""`make paper`: the paper's tables in miniature, docs/paper.md.

FLAGS=--minutes=60 first runs the next part of the sweep over seeds,
configs/paper.py, and keeps what is finished in figures/found/paper; run again,
it goes on where it was stopped. --part=tau does so with the sweep over τ,
--size takes another size of both. The tables, the page and out/paper.json are
made from figures/found/paper alone: a row fails where a stated comparison lacks
its seeds, prompts or policies, not where its shape is another than the paper's.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import os
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

from figures import (
  paper_found,
  paper_page,
  paper_runs,
  paper_tables,
  paper_words,
  rows,
)
from figures.paper_page import PROMPTS, SEEDS
from nashmd_jax import asked, files, machine, mistakes
from tests import coverage as worlds

OUT = pathlib.Path("out") / "paper.json"
PAGE = pathlib.Path("docs") / "paper.md"
WORK = pathlib.Path("out") / "paper"
CONFIG = "configs/paper.py"
# The sweeps, over seeds and over τ, and how variants of the config end.
PARTS = {"seeds": "", "tau": "_tau"}
STOPPED = 130  # exit status of a sweep that was told to stop
DRAWS, RESAMPLES = 2000, 200
LEAST, MOST = 0.93, 0.97  # of intervals at 95 %
NARROW = "seeds matter most"  # where percentiles of few seeds are too narrow


def spend(command: Sequence[str], minutes: float) -> dict[str, Any]:
  """Runs a program that saves and stops on SIGTERM, for some minutes at most.

  Returns: its exit "status", "seconds", and "cpu_seconds" of it and of all
    processes that it waited for.
  """
  began, before = time.monotonic(), _cpu_seconds()
  process = subprocess.Popen(command)
  try:
    status = process.wait(60 * minutes)
  except subprocess.TimeoutExpired:
    process.terminate()
    status = process.wait()
  return {
    "status": status,
    "seconds": round(time.monotonic() - began, 1),
    "cpu_seconds": round(_cpu_seconds() - before, 1),
  }


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def run_sweep(
  part: str, size: str, minutes: float, flags: Sequence[str]
) -> dict[str, Any]:
  """Runs a sweep until it is done or its time is over; a row of what it took.

  Args:
    part: one of `PARTS`.
    size: of the config.
    minutes: after which it is told to save and stop.
    flags: further ones, to every trial.
  """
  command = [
    sys.executable, "-m", "nashmd_jax.sweeps.run",
    f"--config={CONFIG}:{size}{PARTS[part]}",
    f"--workdir={folder(part, size)}", *flags,
  ]  # fmt: skip
  facts = {"commit": machine.commit(), "cores": os.cpu_count()}
  return {"part": part, "size": size, **facts, **spend(command, minutes)}


def folder(part: str, size: str) -> pathlib.Path:
  """The workdir of a sweep."""
  return WORK / f"{size}{PARTS[part]}"


def collect(size: str, found: pathlib.Path) -> list[int]:
  """Keeps what the finished trials of both sweeps have found; gives seeds."""
  if not pathlib.Path(CONFIG).exists():
    return []
  module, _ = asked.load_module(CONFIG)
  paper_found.collect_tau(folder("tau", size), found)
  return paper_found.collect(
    folder("seeds", size), found, module.SECOND_WEIGHTS
  )


def data_rows(work: paper_page.Work) -> Iterator[rows.Row]:
  """Whether there is what the tables need."""
  found, games = work.found, work.fits and work.fits.games
  seeds = found.seeds
  whole = [
    seed for seed in seeds if set(paper_found.POLICIES) <= set(seed.texts)
  ]
  there = set(paper_tables.common(seeds))
  known = {
    name for name in there if all(name in seed.log_ratios for seed in seeds)
  }
  watched = [one.seeds for one in paper_runs.curves(found).values()]
  swept: dict[str, set[float]] = {}
  for row in found.tau:
    swept.setdefault(row["policy"], set()).add(row["kl_coef"])
  tried = {name: len(values) for name, values in swept.items()}
  others = [tried[name] for name in tried if name != paper_found.RLHF]
  every, mixed = set(paper_found.POLICIES), set(paper_found.MIXTURES)
  for claim, figure, bar in (
    ("seeds with all 14 policies", len(whole), SEEDS),
    ("prompts a cell and seed", found.distinct(), PROMPTS),
    ("policies of 14 that every seed has", len(every & there), len(every)),
    ("of them with log-ratios in every seed", len(every & known), len(every)),
    ("deployed mixtures that every seed has", len(mixed & there), len(mixed)),
    (
      "policies whose gap every seed has",
      len(paper_runs.gaps(found)),
      len(every) + len(mixed) - 1,
    ),
    ("games in which a reward was fitted", games, 1),
    ("settings of methods in solved games", len(work.solved), 2),
    ("seeds in the curve of fewest", min(watched, default=None), SEEDS),
    ("values of τ tried of RLHF", tried.get(paper_found.RLHF), 2),
    ("values of τ tried of Nash methods", max(others, default=None), 2),
  ):
    yield rows.row(claim, figure, "≥", bar)
  own = paper_runs.prices(found)
  for whose, chosen in paper_runs.within(found).items():
    yield rows.row(
      f"τ of {whose}, the smallest of the sweep within {paper_runs.NATS:g} "
      "nats of SFT",
      own[whose] if chosen else None,
      "=",
      chosen or 0.0,
    )


def point_rows(work: paper_page.Work) -> Iterator[rows.Row]:
  """Each stated comparison, and in how many seeds it was made."""
  for name in paper_words.TITLES:
    comparisons = work.comparisons.get(name, {})
    for point in (*paper_tables.POINTS, paper_tables.OF_MIXTURES):
      for pair in point.pairs:
        yield _point_row(work.found, name, comparisons, pair)


def _point_row(
  found: paper_found.Found,
  name: str,
  comparisons: Mapping[tuple[str, str], paper_tables.Comparison],
  pair: tuple[str, str],
) -> rows.Row:
  if pair not in comparisons:
    first, second = map(paper_words.label, pair)
    told = f"{first} against {second} was not played by all seeds"
  else:
    told = paper_words.compared(pair, comparisons[pair])
  count = sum(set(pair) <= set(seed.texts) for seed in found.seeds)
  enough = pair in comparisons and found.distinct() >= PROMPTS
  return rows.row(
    f"{told}, by {paper_words.TITLES[name]}: seeds",
    count if enough else None,
    "≥",
    SEEDS,
  )


def measure(draws: int) -> paper_page.Coverage:
  """How often intervals over seeds and prompts hold a known mean."""
  found = {
    name: worlds.measure_crossed(
      world,
      draws=draws,
      seed=0,
      resamples=RESAMPLES if name == NARROW else 0,
    )
    for name, world in worlds.CROSSED.items()
  }
  return paper_page.Coverage(
    [held for held, _ in found.values()], found[NARROW][1]
  )


def coverage_rows(
  coverage: paper_page.Coverage, draws: int
) -> Iterator[rows.Row]:
  """Whether intervals hold as many as they say, and why percentiles do not."""
  for name, held in zip(worlds.CROSSED, coverage.student, strict=True):
    claim = f"{name}: 95 % intervals that hold the mean, of {draws}"
    yield rows.row(claim, held, "≥", LEAST)
    yield rows.row(claim, held, "≤", MOST)
  yield rows.row(
    f"{NARROW}: percentiles of resamples hold too few, of {draws}",
    coverage.percentiles,
    "≤",
    LEAST,
  )


def make(
  found: pathlib.Path, published: pathlib.Path, page: pathlib.Path, draws: int
) -> list[rows.Row]:
  """Writes the page; the rows of what it rests on.

  Args:
    found: folder of what is kept.
    published: folder of the paper's tables.
    page: to write.
    draws: of each simulated world.
  """
  coverage = measure(draws)
  work = paper_page.make(paper_found.load(found), published, coverage)
  files.save_text(page, paper_page.write(work))
  return [
    *data_rows(work),
    *point_rows(work),
    *coverage_rows(coverage, draws),
  ]


def main() -> int:
  """Runs what is asked for, collects, and makes page and rows."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--minutes", type=float, default=0.0)
  parser.add_argument("--part", choices=PARTS, default="seeds")
  parser.add_argument("--size", default="cpu")
  parser.add_argument(
    "--published", default="../shared/data/paper", type=pathlib.Path
  )
  args, flags = parser.parse_known_args()
  kept = paper_found.FOUND
  try:
    if args.minutes > 0:
      spent = run_sweep(args.part, args.size, args.minutes, flags)
      sittings = paper_found.load_lines(kept / paper_found.SITTINGS)
      paper_found.save_lines(kept / paper_found.SITTINGS, [*sittings, spent])
      if spent["status"] not in (0, STOPPED):
        print(f"the sweep ended with exit status {spent['status']}")
    elif flags:
      parser.error(f"{flags[0]}: is for trials, and none is run; add --minutes")
    collect(args.size, kept)
    made = make(kept, args.published, PAGE, DRAWS)
  except mistakes.Mistake as error:
    print(error, file=sys.stderr)
    return 2
  print(f"page: {PAGE}")
  return rows.report(OUT, made)


if __name__ == "__main__":
  sys.exit(main())
