"""The frontier: what win rate is bought with what distance from the reference.

Each run is a path over its training, of its evaluations on held-out prompts
against the KL that its row of metrics tells; where a tournament was played its
last policy is a mark, with the interval of its win rate.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from nashmd_jax.evaluation import chart, plots, win_rates
from nashmd_jax.training import metrics

KL, WON = "kl", f"{plots.EVALUATION}{plots.WON}"
X_LABEL, Y_LABEL = "KL from the reference, nats a response", "win rate"


NOTE = (
  "A point is an evaluation, by the judge that the run learns from. Its KL is "
  "that of the trained policy on the prompts of the steps before it, whatever "
  "is deployed. A large mark is the last policy in the tournament, by the "
  "judge that is named, with the interval of its win rate. A path that goes on "
  "to the right and no longer up pays for nothing."
)


class Shown(NamedTuple):
  """A run as it is drawn.

  Attributes:
    workdir: that holds it.
    name: of the run.
    label: of its points.
    legend: its entry there, perhaps with others; the label if "".
    colour: its number.
    results: of the tournament; None if there is none.
  """

  workdir: pathlib.Path
  name: str
  label: str
  colour: int
  results: Mapping[str, Any] | None
  legend: str = ""


def draw(runs: Iterable[Shown]) -> chart.Chart:
  """One chart of all runs."""
  title = "Win rate against the reference by distance from it"
  found = [line for run in runs for line in _lines(run)]
  return chart.Chart("frontier", title, X_LABEL, Y_LABEL, found, [0.5])


def of_run(
  workdir: pathlib.Path, results: Mapping[str, Any], names: Sequence[str]
) -> chart.Chart:
  """That of the runs of one workdir, whose names are labels."""
  return draw(
    Shown(workdir, name, name, colour, results)
    for colour, name in enumerate(names)
  )


def shown(drawn: chart.Chart) -> str:
  """The chart in a page, and how to read it; nothing if it has no line."""
  note = f'<p class="note">{NOTE}</p>'
  figure = chart.figure(drawn)
  return figure and f'<div class="charts">{figure}{note}</div>'


def path(folder: pathlib.Path) -> list[chart.Point]:
  """(KL, win rate) of each evaluation of a run that tells both."""
  prompts = plots.held_out(folder)
  return [
    plots.with_band(chart.Point(row[KL], row[WON]), prompts)
    for row in metrics.load_metrics(folder / "metrics.jsonl")
    if KL in row and WON in row
  ]


def _lines(run: Shown) -> Iterator[chart.Line]:
  folder = run.workdir / "nash" / run.name
  points = path(folder)
  if not points:
    return
  yield chart.Line(run.label, points, run.colour, chart.PATH, run.legend)
  played = [] if run.results is None else run.results["policies"]
  if {run.name, plots.START} <= set(played):
    judge = next(iter(run.results["judges"]))
    ends = win_rates.against(run.results, run.name, plots.START, judge)
    mark = chart.Point(points[-1].x, *ends)
    where = f"tournament, by {judge}"
    label = f"{run.label}, {where}"
    yield chart.Line(label, [mark], run.colour, chart.MARKS, where)
