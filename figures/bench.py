"""`make bench`: speed beside peers and beside the machine, in out/bench.json.

Every side works in a process of its own, pinned to the same cores, in turn;
CPU seconds are compared, for they do not tell of what else runs. FLAGS of
--only=decode,step measure some groups alone.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import os
import pathlib
import sys

from figures import (
  bench_games,
  bench_limits,
  bench_own,
  bench_peers,
  bench_sizes,
  bench_turns,
  bench_worker,
  rows,
)

OUT = pathlib.Path("out") / "bench.json"
Crews = Mapping[int, bench_turns.Crew]
Measure = Callable[[Crews], Iterable[rows.Row]]
GROUPS: dict[str, Measure] = {
  "limits": bench_limits.limit_rows,
  "decode": bench_peers.decode_rows,
  "step": bench_peers.step_rows,
  "token": bench_own.token_rows,
  "rollout": bench_own.rollout_rows,
  "dtype": bench_own.dtype_rows,
  "ends": bench_own.ends_rows,
  "gradient": bench_own.gradient_rows,
  "memory": bench_own.memory_rows,
  "games": lambda crews: bench_games.speed_rows(),
}


def measured(name: str, measure: Measure, crews: Crews) -> Iterator[rows.Row]:
  """The rows of a group; one that does not hold where a worker fails."""
  try:
    yield from measure(crews)
  except bench_worker.Failed as failure:
    yield rows.row(f"{name}: {failure}", None, "≥", 0)


def main() -> int:
  """Measures the groups and writes their rows."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--only", default=",".join(GROUPS))
  chosen = parser.parse_args().only.split(",")
  unknown = sorted(set(chosen) - set(GROUPS))
  if unknown:
    parser.error(f"--only: got {unknown}, expected some of {list(GROUPS)}")
  counts = sorted({1, min(2, len(os.sched_getaffinity(0)))})
  found = []
  with contextlib.ExitStack() as stack:
    crews = {
      count: stack.enter_context(bench_turns.Crew(count)) for count in counts
    }
    for size in bench_sizes.SIZES:
      crews[1].ask("ours", "write", size=size)
    for name, measure in GROUPS.items():
      if name in chosen:
        for row in measured(name, measure, crews):
          found.append(row)
          print(f"{name}: {row['claim']}: {row['figure']}", flush=True)
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
