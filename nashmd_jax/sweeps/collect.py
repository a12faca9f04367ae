"""Stage `collect`: the finished trials of a sweep, aggregated over seeds.

Reads what the trials left in their workdirs; writes `results.json`,
`table.md`, `plot.png` and a page, `index.html`. A trial that is not finished
is listed with what it reached and why it ended, and enters no mean.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax import files
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.evaluation import intervals
from nashmd_jax.stages import tournament
from nashmd_jax.sweeps import (
  collect_page,
  collect_plot,
  collect_table,
  trials,
)
from nashmd_jax.training import metrics

NONE = collect_table.NONE
Row = collect_table.Row


class Entry(NamedTuple):
  """A trial as it is to be read.

  Attributes:
    trial: of the sweep.
    jobs: the folders in its workdir that hold a `done.json` when it is
      finished, in order.
    mistake: what is wrong with its config; None if nothing is.
  """

  trial: trials.Trial
  jobs: Sequence[str]
  mistake: str | None


def run(entries: Sequence[Entry], workdir: pathlib.Path) -> None:
  """Writes these files to `collect` in the workdir of a sweep."""
  names = setting_names([entry.trial.overrides for entry in entries])
  rows = [state(entry, names) for entry in entries]
  strays = sorted(
    path.name
    for path in workdir.glob("[0-9][0-9][0-9]*")
    if path not in [entry.trial.folder for entry in entries]
  )
  groups = aggregate(rows)
  folder = workdir / "collect"
  files.save_json(
    folder / "results.json",
    {"confidence": collect_table.CONFIDENCE, "trials": rows, "groups": groups},
  )
  files.save_text(
    folder / "table.md", collect_table.table(rows, groups, strays)
  )
  collect_plot.save(groups, folder / "plot.png")
  folders = [entry.trial.folder for entry in entries]
  collect_page.save(rows, groups, folders, folder)
  print(f"collect: {collect_table.count(rows)}")
  print(f"results: {folder / 'table.md'}")
  print(f"page: {folder / 'index.html'}")


def status(entries: Sequence[Entry]) -> Iterator[str]:
  """A line for each trial, and one for all; changes nothing."""
  rows = [state(entry, []) for entry in entries]
  for row in rows:
    told = [row["state"], row["reached"], row["reason"]]
    yield f"{row['trial']:03d} {', '.join(x for x in told if x != NONE)}"
  yield collect_table.count(rows)


def setting_names(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
  """What the trials set besides the seed, in order of appearance."""
  names = dict.fromkeys(name for overrides in sweep for name in overrides)
  return [name for name in names if name != trials.SEED]


def state(entry: Entry, names: Sequence[str]) -> Row:
  """How far a trial came.

  Args:
    entry: the trial.
    names: settings to tell of it; read in its config, so that a trial that
      leaves one as it is in the base is in the same group as one that sets it.
  Returns: "trial", "settings", "seed" (None if the config has none), "state"
    (finished, failed, unfinished, not started), "reached" (the job it ended
    in) and "reason", "scores" (empty unless finished).
  """
  config = json.loads(entry.trial.config.to_json_best_effort())
  reached, reason = NONE, NONE
  undone = [
    job
    for job in entry.jobs
    if not (entry.trial.folder / job / "done.json").exists()
  ]
  failure = entry.trial.folder / "failed.json"
  if not undone:
    found = collect_table.FINISHED
  elif failure.exists():
    found = "failed"
    said = files.load_object(failure, "stage", "error")
    reached, reason = said["stage"], said["error"]
  elif entry.mistake:
    found, reached, reason = "failed", "config", entry.mistake
  elif not (entry.trial.folder / "config.json").exists():
    found = "not started"
  else:
    found, reason = "unfinished", "cut off, or still running"
    reached = _reached(entry.trial.folder, undone[0])
  return {
    "trial": entry.trial.number,
    "settings": {name: _at(config, name) for name in names},
    "seed": config.get(trials.SEED),
    "state": found,
    "reached": reached,
    "reason": reason,
    "scores": {} if undone else load_scores(entry.trial.folder, entry.jobs),
  }


def _at(config: Mapping[str, Any], name: str) -> Any:
  for key in name.split("."):
    config = config[key]
  return config


def _reached(folder: pathlib.Path, job: str) -> str:
  rows = metrics.load_metrics(folder / job / "metrics.jsonl")
  return f"{job}, step {rows[-1]['step']}" if rows else job


def load_scores(folder: pathlib.Path, jobs: Sequence[str]) -> dict[str, float]:
  """The numbers that the jobs of a finished trial returned, last job first.

  Of a tournament the win rates against SFT instead, by judge and policy.
  """
  scores = {}
  for job in reversed(jobs):
    played = job == "tournament"
    path = folder / job / ("results.json" if played else workdir_lib.DONE)
    with files.readable(path, "run its trial anew"):
      held = files.load_object(path)
      found = _win_rates(held) if played else held["results"]
      scores |= {
        f"{job}/{name}": float(value)
        for name, value in found.items()
        if isinstance(value, int | float)
      }
  return scores


def _win_rates(results: Mapping[str, Any]) -> dict[str, float]:
  names = results["policies"]
  column = names.index(tournament.START)
  scores = {}
  for judge, found in results["judges"].items():
    rates = np.asarray(found["win_rate"])
    square = rates.shape == 2 * (len(names),) and rates.dtype.kind in "if"
    if not square or np.any(abs(rates - 0.5) > 0.5):
      raise ValueError(f"no win rates of {judge}")
    for i, name in enumerate(names):
      if i != column:
        rate = found["win_rate"][i][column]
        scores[f"{judge}/{name} against {tournament.START}"] = rate
  return scores


def aggregate(rows: Sequence[Row]) -> list[Row]:
  """The trials that differ in the seed alone, as one row.

  Args:
    rows: as `state` returns them.
  Returns: rows of "settings", "trials" (how many the sweep has), and
    "scores": by name, "values" of the finished ones that are finite, "mean",
    "low", "high" of those, and "not_finite", how many are not.
  """
  groups = {}
  for row in rows:
    groups.setdefault(json.dumps(row["settings"]), []).append(row)
  found = []
  for members in groups.values():
    names = dict.fromkeys(name for row in members for name in row["scores"])
    scores = {}
    for name in names:
      values = [row["scores"][name] for row in members if name in row["scores"]]
      finite = [value for value in values if math.isfinite(value)]
      scores[name] = {
        "values": finite,
        "not_finite": len(values) - len(finite),
        **_summary(finite),
      }
    found.append({
      "settings": members[0]["settings"],
      "trials": len(members),
      "scores": scores,
    })  # fmt: skip
  return found


def _summary(values: Sequence[float]) -> dict[str, float | None]:
  """Mean and interval; None of no value."""
  ends = (None, None, None)
  if values:
    ends = intervals.mean_interval(values, collect_table.CONFIDENCE)
  return dict(zip(("mean", "low", "high"), ends, strict=True))
