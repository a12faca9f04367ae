"""Charts of the training of a run, and the pictures of other pages."""

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import files
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.evaluation import chart, intervals
from nashmd_jax.training import metrics

# What evaluations against the reference are named.
WON, EVALUATION = "win_prob_against_reference", "eval/"
JUDGES = ("preference", "reward")
CONFIDENCE = 0.95
FEWEST, PARTS = 5, 12  # rows of a window, at least; parts of all rows
STEP, START = "step", "sft"


def new_figure(**kwargs: Any) -> Any:
  """A matplotlib Figure, which draws without a display and global state.

  The library is loaded with the first: a run draws at its very end.
  """
  from matplotlib import figure

  return figure.Figure(**kwargs)


def judge_scores(workdir: pathlib.Path) -> dict[str, dict[str, float]]:
  """The last evaluation of each judge that was trained, by its stage."""
  found = workdir_lib.finished(workdir)
  return {name: found[name]["results"] for name in JUDGES if name in found}


def curves(
  workdir: pathlib.Path, policies: Sequence[str]
) -> Iterator[chart.Chart]:
  """The training of all stages.

  Args:
    workdir: of a run.
    policies: names of runs, one colour each.
  """
  folder = workdir / START
  yield chart.Chart(
    "sft",
    "SFT",
    STEP,
    "nats a token",
    [
      chart.Line("training", smooth(folder, metrics.PER_TOKEN), 0),
      chart.Line("held out", series(folder, f"eval/{metrics.PER_TOKEN}"), 1),
    ],
  )
  yield _judges(workdir)
  won, distance, ended = [], [], []
  for colour, name in enumerate(policies):
    folder = workdir / "nash" / name
    won += list(won_lines(folder, name, colour))
    distance.append(chart.Line(name, smooth(folder, "kl"), colour))
    ended.append(chart.Line(name, series(folder, "eval/ended"), colour))
  yield chart.Chart(
    "won", "Held-out win rate against SFT", STEP, "win rate", won, [0.5]
  )
  yield chart.Chart(
    "kl", "Distance from SFT", STEP, "KL, nats a response", distance
  )
  yield chart.Chart(
    "ended", "Held-out responses that end", STEP, "share", ended
  )


def _judges(workdir: pathlib.Path) -> chart.Chart:
  lines, best = [], {}
  for colour, (name, scores) in enumerate(judge_scores(workdir).items()):
    points = series(workdir / name, "eval/accuracy")
    lines.append(chart.Line(f"{name} model", points, colour))
    if "eval/best_accuracy" in scores:
      best[scores["eval/best_accuracy"]] = None
  title = "Judges on held-out comparisons"
  if best:
    title += "; dotted, the best that the raters’ noise allows"
  return chart.Chart("accuracy", title, STEP, "accuracy", lines, [*best])


def won_lines(
  folder: pathlib.Path, name: str, colour: int
) -> Iterator[chart.Line]:
  """Win rates against the reference: by the run's judge, and by the watching.

  The bands are the widest 95 % interval that so many held-out prompts can have
  with such a mean.
  """
  prompts = held_out(folder)
  for key in sorted(keys(folder, WON), key=len):
    watching = key.removeprefix(EVALUATION).removesuffix(f"_{WON}")
    own = key == f"{EVALUATION}{WON}"
    yield chart.Line(
      name if own else f"{name}, by {watching}",
      [with_band(point, prompts) for point in series(folder, key)],
      colour,
      chart.LINE if own else chart.DASHED,
    )


def with_band(point: chart.Point, prompts: int | None) -> chart.Point:
  """A win rate with its widest interval, if it is known of how many prompts."""
  if not prompts or not 0 <= point.y <= 1:
    return point
  low, high = intervals.widest(point.y, prompts, CONFIDENCE)
  return point._replace(low=low, high=high)


def held_out(folder: pathlib.Path) -> int | None:
  """How many prompts the evaluations of a run are of, at most."""
  key, card = folder / workdir_lib.KEY, folder.parents[1] / "data/card.json"
  if not key.exists() or not card.exists():
    return None
  asked = workdir_lib.load_key(key)["settings"].get("nash.data.eval_examples")
  with files.readable(card):
    prompts = files.load_object(card)["validation"]["prompts"]
    return None if asked is None else min(asked, prompts)


def series(folder: pathlib.Path, key: str) -> list[chart.Point]:
  """The points of a metric."""
  rows = metrics.load_metrics(folder / "metrics.jsonl")
  return [chart.Point(row[STEP], row[key]) for row in rows if key in row]


def smooth(folder: pathlib.Path, key: str) -> list[chart.Point]:
  """Means of a metric over a window of rows, each with its interval.

  The interval is Student's, of rows as if they were independent.
  """
  points = [p for p in series(folder, key) if np.isfinite(p.y)]
  half = max(FEWEST, len(points) // PARTS) // 2
  found = []
  for i, point in enumerate(points):
    near = points[max(0, i - half) : i + half + 1]
    ends = intervals.mean_interval([p.y for p in near], CONFIDENCE)
    found.append(chart.Point(point.x, *ends))
  return found


def keys(folder: pathlib.Path, ending: str) -> list[str]:
  """The metrics of a run with that ending, in alphabetical order."""
  rows = metrics.load_metrics(folder / "metrics.jsonl")
  return sorted({key for row in rows for key in row if key.endswith(ending)})


def runs(workdir: pathlib.Path, first: Sequence[str]) -> list[str]:
  """The runs of a workdir that have metrics.

  Args:
    workdir: of a run.
    first: names that stand in front, in this order, where they are runs.
  """
  paths = workdir.glob("nash/*/metrics.jsonl")
  found = sorted(path.parent.name for path in paths)
  return sorted(
    found, key=lambda x: first.index(x) if x in first else len(first)
  )
