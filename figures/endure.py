"""`make endure`: runs that are cut end as uncut ones do, in out/endure.json.

Each kind of run is cut six times and held against an uncut one of its kind;
what saving costs, injected faults and damaged inputs are parts of their own.
What a part showed is kept in out/endure/PART.json, so that some can be anew:

  python -m figures.endure [--only=plain,inputs] [--seed=0]

About three quarters of an hour on 2 CPU cores.
"""

import argparse
import collections
from collections.abc import Mapping, Sequence
import contextlib
import logging
import pathlib
import shutil
import signal
import sys
import time
from typing import Any

import numpy as np

from figures import endure_costs, endure_ends, endure_fuzz, endure_runs, rows
from nashmd_jax import files
from tests import judge_server

OUT = pathlib.Path("out") / "endure.json"
FOLDER = pathlib.Path("out") / "endure"
# Parts that are no kind of run, each a list of rows, by the seed.
ALONE = {
  "costs": endure_costs.cost_rows,
  "faults": lambda seed: endure_fuzz.fault_rows(),
  "inputs": lambda seed: endure_fuzz.fuzz_rows(),
}
PARTS = (*endure_runs.KINDS, *ALONE)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
CUTS, SAVING, JUDGING = 30, 8, 4  # cuts, of them inside of these at least


def endure(kind: str, seed: int) -> dict[str, Any]:
  """Cuts a run of a kind, and holds its end against an uncut one's."""
  folder = FOLDER / kind
  shutil.rmtree(folder, ignore_errors=True)
  rng = np.random.default_rng([seed, list(endure_runs.KINDS).index(kind)])
  with contextlib.ExitStack() as stack:
    servers = []

    def make(name: str) -> endure_runs.Run:
      further = {}
      if kind == "served":
        servers.append(
          stack.enter_context(
            judge_server.serve(lambda _: judge_server.Act(delay=0.02))
          )
        )
        further["judges.served.url"] = servers[-1].url
      return endure_runs.Run(kind, folder / name, further)

    whole, run = make("whole"), make("cut")
    whole.finish()
    cuts = _cut_often(run, whole.progress(), rng)
    run.finish()
    judged = [dict(server.counts.billed) for server in servers]
  return {
    "cuts": [one._asdict() for one in cuts],
    **_differences(whole.folder, run.folder),
    "judged": len(judged[1]) if judged else None,
    "judged_twice": sum(n > 1 for n in judged[1].values()) if judged else None,
    "judged_otherwise": len({*judged[0]} ^ {*judged[1]}) if judged else None,
  }


def _cut_often(
  run: endure_runs.Run, progress: int, rng: np.random.Generator
) -> list[endure_runs.Cut]:
  """The cuts of a run, whose signals are mixed."""
  moments = endure_runs.MOMENTS
  numbers = rng.permutation(np.resize(SIGNALS, len(moments)))
  cuts = []
  for n, (moment, number) in enumerate(zip(moments, numbers, strict=True)):
    share = (progress - run.progress()) / (len(moments) - n + 1)
    number = signal.Signals(int(number))
    cuts.append(endure_runs.cut(run, moment, number, share, rng))
    one = cuts[-1]
    print(
      f"{run.kind}: {number.name}, {moment}, at {run.progress()} of {progress}"
      f"{', saving' * one.saving}{', judging' * one.judging}, ended in "
      f"{one.seconds:.1f} s {one.odd}",
      flush=True,
    )
  return cuts


def _differences(whole: pathlib.Path, cut: pathlib.Path) -> dict[str, Any]:
  texts, other_texts = endure_ends.of_texts(whole, cut)
  arrays, other_arrays = endure_ends.of_checkpoints(whole, cut)
  points, other_points = endure_ends.of_events(whole, cut)
  return {
    "metrics": endure_ends.of_metrics(whole, cut),
    "texts": texts,
    "other_texts": other_texts,
    "arrays": arrays,
    "other_arrays": other_arrays,
    "points": points,
    "other_points": other_points,
  }


def end_rows(found: Mapping[str, Mapping[str, Any]]) -> list[rows.Row]:
  """Rows of all kinds.

  Args:
    found: what `endure` gave, by kind.
  """
  cuts = [one for part in found.values() for one in part["cuts"]]
  counted = collections.Counter(one["number"] for one in cuts)
  signals = ", ".join(f"{counted[one]} {one.name}" for one in SIGNALS)

  def total(*path: str) -> int:
    values = []
    for part in found.values():
      for name in path:
        part = part[name]
      values.append(len(part) if isinstance(part, list) else part or 0)
    return sum(values)

  lines = total("metrics", "lines")
  return [
    rows.row(f"cuts of {len(found)} kinds of run ({signals})",
             len(cuts), "≥", CUTS),
    rows.row("of them inside a save",
             sum(one["saving"] for one in cuts), "≥", SAVING),
    rows.row("inside an evaluation or a tournament",
             sum(one["judging"] for one in cuts), "≥", JUDGING),
    rows.row("that ended otherwise than their signal says",
             sum(bool(one["odd"]) for one in cuts), "=", 0),
    rows.row("files of metrics that differ from the uncut runs'",
             total("metrics", "differ"), "=", 0),
    rows.row(f"of {lines} lines of metrics, lost",
             total("metrics", "lost"), "=", 0),
    rows.row("doubled", total("metrics", "doubled"), "=", 0),
    rows.row(f"of {total('texts')} files of texts and judgments, those that "
             "differ", total("other_texts"), "=", 0),
    rows.row(f"of {total('arrays')} arrays in last checkpoints, those that "
             "differ in a bit", total("other_arrays"), "=", 0),
    rows.row(f"of {total('points')} points in TensorBoard, those that differ",
             total("other_points"), "=", 0),
    rows.row(f"of {total('judged')} questions to a served judge, those that it "
             "judged twice", total("judged_twice"), "=", 0),
    rows.row("those that one of the two runs alone asked",
             total("judged_otherwise"), "=", 0),
  ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the parts that are asked for, and reports all that there are."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--only", default=",".join(PARTS))
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args(argv)
  signal.signal(signal.SIGINT, signal.default_int_handler)  # also for children
  logging.getLogger("absl").setLevel(logging.ERROR)  # what orbax passes over
  for name in flags.only.split(","):
    began = time.monotonic()
    kept: Any = (
      ALONE[name](flags.seed) if name in ALONE else endure(name, flags.seed)
    )
    files.save_json(FOLDER / f"{name}.json", kept)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
  found = {
    name: files.load_json(path)
    for name in PARTS
    if (path := FOLDER / f"{name}.json").exists()
  }
  alone = [row for name in ALONE for row in found.pop(name, [])]
  return rows.report(OUT, [*end_rows(found), *alone])


if __name__ == "__main__":
  sys.exit(main())
