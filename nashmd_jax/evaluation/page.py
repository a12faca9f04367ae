"""The page of a run: sections on what the other stages left in a workdir."""

from collections.abc import Mapping
import pathlib
from typing import Any

from nashmd_jax import workdir as workdir_lib
from nashmd_jax.evaluation import (
  chart,
  data_page,
  exploit_page,
  frontier,
  judges_page,
  plots,
  rates_page,
  run_page,
  samples_page,
  sections,
  votes_page,
)
from nashmd_jax.training import metrics, warned

TITLE = "Nash learning from human feedback: a run"


def parts(
  workdir: pathlib.Path, results: Mapping[str, Any]
) -> list[sections.Section]:
  """The sections, in order; a further one is a function that makes it.

  Args:
    workdir: of a run.
    results: of its tournament.
  """
  return [
    rates_page.section(results),
    *votes_page.found(workdir, results),
    training(workdir, results),
    distance(workdir, results),
    *exploit_page.found(workdir),
    judges_page.section(workdir),
    samples_page.section(workdir, results),
    warnings(workdir),
    data_page.section(workdir),
    run_page.section(workdir),
  ]


def make_page(results: Mapping[str, Any], found: list[sections.Section]) -> str:
  """The page of these sections, with what matters most above them."""
  lead = rates_page.headline(results)
  if any(one.name == sections.WARNINGS and one.tables for one in found):
    lead += f'<p><a href="#{sections.WARNINGS}">There are warnings.</a></p>'
  return sections.page(TITLE, lead, found)


def training(
  workdir: pathlib.Path, results: Mapping[str, Any]
) -> sections.Section:
  """Curves of all stages and runs."""
  names = plots.runs(workdir, results["policies"])
  charts = list(plots.curves(workdir, names))
  body = (
    f'{chart.figures(charts)}<p class="note">What is measured at every step is '
    f"shown as means of {plots.FEWEST} rows or more, their bands as the 95 % "
    "Student-t interval of such a mean. The bands of win rates are the widest "
    "95 % interval that so many held-out prompts can have.</p>"
  )
  return sections.Section("training", "Training", body, (), charts)


def distance(
  workdir: pathlib.Path, results: Mapping[str, Any]
) -> sections.Section:
  """The frontier."""
  names = plots.runs(workdir, results["policies"])
  drawn = frontier.of_run(workdir, results, names)
  body = frontier.shown(drawn)
  body = body or "<p>No run told both of a win rate and of a distance.</p>"
  return sections.Section("frontier", "Frontier", body, (), [drawn])


def warnings(workdir: pathlib.Path) -> sections.Section:
  """What the finished jobs have warned of, each with its step."""
  rows = [
    (name, one["step"], str(one["sentence"]))
    for name in workdir_lib.finished(workdir)
    for one in metrics.load_metrics(workdir / name / warned.FILE)
  ]
  return sections.warned(("stage", "step", "seen"), rows)
