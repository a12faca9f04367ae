"""The page of a sweep: scores, curves over seeds, the frontier of all."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import html
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax.evaluation import (
  chart,
  frontier,
  intervals,
  plots,
  sections,
  sheets,
)
from nashmd_jax.sweeps import collect_table, trials
from nashmd_jax.training import metrics, warned

TITLE = "Nash learning from human feedback: a sweep"
ALL = "all seeds"
# Metrics of a run that are drawn, and what the axis is called.
DRAWN = {frontier.WON: "held-out win rate", frontier.KL: "KL, nats a response"}
Row = Mapping[str, Any]
Groups = Mapping[str, Sequence[pathlib.Path]]


def save(
  rows: Sequence[Row],
  groups: Sequence[Row],
  workdirs: Sequence[pathlib.Path],
  folder: pathlib.Path,
) -> None:
  """Writes `index.html`, and the SVG and CSV files of what it shows.

  Args:
    rows: of all trials, as `collect.state` returns them.
    groups: see `collect.aggregate`.
    workdirs: of the trials, in the order of the rows.
    folder: to write to.
  """
  finished: dict[str, list[pathlib.Path]] = {}
  for row, workdir in zip(rows, workdirs, strict=True):
    if row["state"] == collect_table.FINISHED:
      finished.setdefault(_label(row), []).append(workdir)
  parts = [
    _scores(groups),
    _curves(finished),
    _frontier(finished),
    _trials(rows, workdirs, folder),
    _warnings(rows, workdirs),
  ]
  lead = f'<p class="lead">{html.escape(collect_table.count(rows))}.</p>'
  files.save_text(folder / "index.html", sections.page(TITLE, lead, parts))
  for name, text in sections.beside(parts).items():
    files.save_text(folder / name, text)


def _label(row: Row) -> str:
  return trials.describe(row["settings"]) or ALL


def _scores(groups: Sequence[Row]) -> sections.Section:
  """The mean of each score over the trials that differ in the seed alone."""
  names = dict.fromkeys(name for group in groups for name in group["scores"])
  body, found = [], []
  for name in names:
    lines = []
    for group in groups:
      score = group["scores"].get(name)
      lines.append(
        [_label(group), *collect_table.cells(score, group["trials"])]
      )
      if score is not None:
        ends = (score[end] for end in ("mean", "low", "high"))
        counts = (len(score["values"]), score["not_finite"], group["trials"])
        found.append((name, _label(group), *counts, *ends))
    body.append(
      f"<h3>{html.escape(name)}</h3>"
      + sheets.table(["Trials", "n", "Mean", "Interval"], lines)
    )
  head = (
    "score",
    "trials",
    "n",
    "not_finite",
    "planned",
    "mean",
    "low",
    "high",
  )
  tables = [sheets.Sheet("scores", head, found)] if found else []
  note = (
    f'<p class="note">Mean over seeds and its {collect_table.CONFIDENCE:.0%} '
    "Student-t interval; n finished trials have the score as a finite number."
    "</p>"
  )
  told = note + "".join(body) if body else "<p>No trial is finished.</p>"
  told += sheets.links(*tables)
  return sections.Section("scores", "Scores", told, tables)


def _curves(finished: Groups) -> sections.Section:
  """Means over seeds by step, with the interval of the mean as a band."""
  charts = [
    chart.Chart(
      f"{name}_{label.split(',')[0].replace(' ', '_')}",
      f"{name}: {label}",
      plots.STEP,
      label,
      [
        chart.Line(group, _mean(workdirs, name, metric), colour)
        for colour, (group, workdirs) in enumerate(finished.items())
      ],
      [0.5] if metric == frontier.WON else [],
    )
    for name in _runs(finished)
    for metric, label in DRAWN.items()
  ]
  body = (
    f'{chart.figures(charts)}<p class="note">Means over seeds; bands are '
    f"{collect_table.CONFIDENCE:.0%} Student-t intervals of the mean, where "
    "there are two seeds or more.</p>"
    if charts
    else "<p>No finished trial has a run.</p>"
  )
  return sections.Section("training", "Training", body, (), charts)


def _runs(finished: Groups) -> list[str]:
  """The names of runs in any trial."""
  found = {
    path.parent.name
    for workdirs in finished.values()
    for workdir in workdirs
    for path in workdir.glob("nash/*/metrics.jsonl")
  }
  return sorted(found)


def _mean(
  workdirs: Sequence[pathlib.Path], name: str, metric: str
) -> list[chart.Point]:
  found: dict[float, list[float]] = {}
  for workdir in workdirs:
    for point in plots.series(workdir / "nash" / name, metric):
      found.setdefault(point.x, []).append(point.y)
  return [
    chart.Point(
      step, *intervals.mean_interval(values, collect_table.CONFIDENCE)
    )
    for step, values in sorted(found.items())
  ]


def _frontier(finished: Groups) -> sections.Section:
  drawn = frontier.draw(_shown(finished))
  body = frontier.shown(drawn)
  body = body or "<p>No finished trial told of both a win rate and a KL.</p>"
  return sections.Section("frontier", "Frontier", body, (), [drawn])


def _shown(finished: Groups) -> Iterator[frontier.Shown]:
  """Every run of every finished trial, a colour for each run of a group."""
  names = _runs(finished)
  for place, (group, workdirs) in enumerate(finished.items()):
    for workdir in workdirs:
      path = workdir / "tournament" / "results.json"
      results = None
      if path.exists():
        results = files.load_object(path, "policies", "judges")
      for number, name in enumerate(names):
        colour = place + number * len(finished)
        legend = group if len(names) == 1 else f"{name}, {group}"
        label = f"{workdir.name}, {legend}"
        yield frontier.Shown(workdir, name, label, colour, results, legend)


def _trials(rows, workdirs, folder: pathlib.Path) -> sections.Section:
  """How far each trial came, and the page that it left."""
  found = [
    (
      f"{row['trial']:03d}",
      trials.describe(row["settings"]),
      row["seed"],
      row["state"],
      row["reached"],
      row["reason"],
    )
    for row in rows
  ]
  head = ("trial", "settings", "seed", "state", "reached", "reason")
  table = sheets.Sheet("trials", head, found)
  states = collections.Counter(row["state"] for row in rows)
  counts = sheets.Sheet(
    "states", ("state", "trials"), [*states.items(), ("all", len(rows))]
  )
  pages = "".join(
    f'<li><a href="../{workdir.name}/report/index.html">The page of trial '
    f"{workdir.name}</a></li>"
    for workdir in workdirs
    if workdir.parent == folder.parent
    and (workdir / "report" / "index.html").exists()
  )
  body = (
    sheets.table(head, (map(_cell, line) for line in found))
    + (pages and f"<ul>{pages}</ul>")
    + sheets.links(table, counts)
  )
  return sections.Section("trials", "Trials", body, [table, counts])


def _cell(value: Any) -> str:
  return collect_table.NONE if value is None else str(value)


def _warnings(rows, workdirs) -> sections.Section:
  """What jobs of any trial have warned of."""
  found = [
    (f"{row['trial']:03d}", name, one["step"], str(one["sentence"]))
    for row, workdir in zip(rows, workdirs, strict=True)
    for path in sorted(
      (*workdir.glob(f"*/{warned.FILE}"), *workdir.glob(f"*/*/{warned.FILE}"))
    )
    for name in [path.parent.relative_to(workdir).as_posix()]
    for one in metrics.load_metrics(path)
  ]
  return sections.warned(("trial", "stage", "step", "seen"), found)
