"""docs/paper.md: the paper's tables in miniature, beside the paper's.

Numbers and the sentences around them are made of what was found; nothing is
typed in. Of seeds and policies that are not there yet the page says so.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
from typing import NamedTuple

import numpy as np

from figures import (
  paper_found,
  paper_reward,
  paper_runs,
  paper_sections,
  paper_tables,
  paper_words,
  paper_worlds,
)
from figures.paper_found import HELD_OUT, MIXTURES, POLICIES, SECOND
from figures.paper_words import TITLES, figure, label, labels, listed, table

SEEDS, PROMPTS = 5, 500  # that a stated comparison needs
ABOUT = {
  HELD_OUT: "the whole population of simulated raters, exactly; the judges "
  "that were learnt from have seen votes of a half of it",
  SECOND: "a population that weighs the criteria otherwise, exactly; nothing "
  "has learnt from it",
}
# What of the paper's tables its text and ours quote: rows that others beat.
QUOTED = ("rlhf", "sft")
HEAD = """\
# The paper's tables in miniature

Made by `make paper` from `figures/found/paper`; do not edit.

Munos et al. (ICML 2024) compare 14 policies, one run each, by a large judge.
Here the same 14 are trained several times on a small task, and simulated
raters, no people, say who is preferred: their preference is known exactly, and
the judges that the policies learn from are not theirs. What is measured is
whether the shape of the paper's tables comes out, not its numbers.
"""


class Coverage(NamedTuple):
  """How many intervals at 95 % hold the truth of simulated worlds.

  Attributes:
    student: the share of those of cells, in each world.
    percentiles: of resamples, where they are worst.
  """

  student: Sequence[float]
  percentiles: float


class Work(NamedTuple):
  """What the page is made of.

  Attributes:
    found: what the trials found.
    judged: by population.
    regularised: the same with the price of KL.
    comparisons: by population, those that are stated.
    published: folder of the paper's tables.
    coverage: of the intervals.
    fits: rewards of the games that the texts make.
    solved: methods in the same games.
  """

  found: paper_found.Found
  judged: Mapping[str, paper_tables.Judged]
  regularised: Mapping[str, paper_tables.Judged]
  comparisons: Mapping[str, Mapping[tuple[str, str], paper_tables.Comparison]]
  published: pathlib.Path
  coverage: Coverage
  fits: paper_reward.Fits | None
  solved: paper_worlds.Solved


def make(
  found: paper_found.Found, published: pathlib.Path, coverage: Coverage
) -> Work:
  """Judges all texts, and compares what is to be compared."""
  judged, regularised, comparisons = {}, {}, {}
  if found.seeds:
    for name in TITLES:
      judged[name] = paper_tables.judge(found, name)
      regularised[name] = paper_tables.regularised(judged[name], found)
      comparisons[name] = paper_tables.compare(paper_tables.cells(judged[name]))
  fits, solved = None, {}
  if found.seeds:
    games = paper_reward.games_of(found)
    fits = paper_reward.fits(games, found.game["kl_coef"])
    solved = paper_worlds.solve(games)
  return Work(
    found,
    judged,
    regularised,
    comparisons,
    published,
    coverage,
    fits,
    solved,
  )


def write(work: Work) -> str:
  """The page as Markdown."""
  if not work.found.seeds:
    return f"{HEAD}\n{absent(work.found)}\n"
  parts = [HEAD, *_what_was_run(work), *_points(work)]
  for name in work.judged:
    parts += _tables(work, name)
  parts += [
    *_beside(work), *_baselines(work), *_standing(work),
    *paper_sections.mixtures(work.comparisons),
    *paper_sections.curves(work.found),
    *paper_sections.distances(work.found, work.judged[HELD_OUT]),
    *paper_sections.exploited(work.found),
    *paper_sections.rewards(work.fits),
    *paper_sections.worlds(work.solved),
    *paper_sections.tau(work.found),
    *paper_sections.costs(work.found),
    *_intervals(work),
  ]  # fmt: skip
  return "\n".join(parts)


def absent(found: paper_found.Found) -> str:
  """Which seeds and policies there are not yet."""
  there = [seed.number for seed in found.seeds]
  missing = sorted(set(range(SEEDS)) - set(there))
  told = [f"{len(there)} of {SEEDS} seeds are there"]
  if missing:
    told.append(f"; missing are {', '.join(map(str, missing))}")
  told.append(".")
  for seed in found.seeds:
    lacks = [n for n in (*POLICIES, *MIXTURES) if n not in seed.texts]
    if lacks:
      told.append(f" Seed {seed.number} lacks {labels(lacks)}.")
  return "".join(told)


def _what_was_run(work: Work) -> Iterator[str]:
  found = work.found
  rows = [row for seed in found.seeds for row in seed.rows.values()]
  commits = sorted({row["commit"] for row in rows if row["commit"]})
  configs = sorted({row["config"] for row in rows})
  changed = sorted({name for row in rows for name in row["changed"]} - {"seed"})
  devices = sorted({str(row["device"]) for row in rows if row["device"]})
  yield "## What was run\n"
  yield (
    f"{absent(found)} All of them answer the same {found.distinct()} "
    f"held-out prompts, a response to each record. `{'`, `'.join(configs)}` on "
    f"{', '.join(devices) or 'an unknown device'}, commit "
    f"{', '.join(commits) or 'unknown'}; besides the seed, trials set "
    f"{', '.join(changed) or 'nothing'}. {_prices(found)} {_starts(found)}\n"
  )
  yield "Who judges:\n"
  yield listed(f"{TITLES[name]}: {ABOUT[name]}." for name in work.judged)


def _prices(found: paper_found.Found) -> str:
  """What a nat costs in the methods and in the table."""
  own = paper_runs.prices(found)
  told = f"τ of the Nash methods, and of P_τ, is {own['nash']:g}"
  return f"{told}, that of RLHF {own['rlhf']:g}." if own["rlhf"] else f"{told}."


def _starts(found: paper_found.Found) -> str:
  """Whether all seeds start from one SFT policy.

  Trained again elsewhere it may have the same key and not the same results.
  """
  starts = {
    (row["key"], json.dumps(row.get("results")))
    for seed in found.seeds
    for row in seed.jobs
    if row["job"] == paper_found.START
  }
  if len(starts) == 1:
    return (
      "All seeds start from one SFT policy: nothing is said of what another "
      "start would give."
    )
  return f"The seeds start from {len(starts)} SFT policies."


def _points(work: Work) -> Iterator[str]:
  yield "## Point by point\n"
  yield (
    "Each with the mean over seeds and prompts, an interval of 95 % over both, "
    f"and a p-value that holds with those of all {_stated(work)} comparisons "
    "stated here under one judge (Holm).\n"
  )
  for name, comparisons in work.comparisons.items():
    yield f"By {TITLES[name]}:\n"
    for one in paper_tables.POINTS:
      summary, lines = paper_words.point(one, comparisons)
      yield f"**{one.title}: {summary}.**\n"
      yield listed(lines)


def _stated(work: Work) -> int:
  return len(paper_tables.stated(next(iter(work.judged.values())).names))


def _tables(work: Work, name: str) -> Iterator[str]:
  title = TITLES[name]
  yield f"## Win rates by {title}\n"
  yield (
    "How often the column is preferred to the row, ± half of the interval; "
    "bold where the interval is off one half. A star is the averaged policy.\n"
  )
  yield _square(paper_tables.of(work.judged[name], POLICIES))
  part = paper_tables.of(work.regularised[name], POLICIES)
  if len(part.names) < 2:
    yield "Without log-ratios there is no table of P_τ.\n"
    return
  yield f"P_τ at τ = {work.found.game['kl_coef']:g}, the same less the price "
  yield "of what KL the column has more than the row:\n"
  lacks = [
    one
    for one in work.judged[name].names
    if one in POLICIES and one not in part.names
  ]
  if lacks:
    yield f"Log-ratios are not known of {labels(lacks)}.\n"
  yield _square(part)


def _square(judged: paper_tables.Judged) -> str:
  """Columns against rows, as the paper prints them."""
  cells, rows = paper_tables.cells(judged), []
  for i, name in enumerate(cells.names):
    row = [label(name)]
    for j in range(len(cells.names)):
      value, low, high = (
        one[j, i] for one in (cells.value, cells.low, cells.high)
      )
      half = f" ±{(high - low) / 2:.3f}"
      told = f"{value:.3f}"
      if not low <= 0.5 <= high:
        told = f"**{told}**"
      row.append(told if i == j else told + half)
    rows.append(row)
  return table(["", *map(label, cells.names)], rows)


def _beside(work: Work) -> Iterator[str]:
  """Our tables beside the paper's own, where those are at hand."""
  yield "## Beside the paper\n"
  files = (paper_tables.WIN_RATES, paper_tables.REGULARISED)
  theirs = [paper_tables.published(work.published, one) for one in files]
  if any(one is None for one in theirs):
    yield "The paper's tables were not at hand when this page was made.\n"
    return
  own = work.judged[HELD_OUT]
  yield from _quoted(paper_tables.cells(own), theirs[0])
  yield "How alike whole tables are:\n"
  lines = []
  for name in work.judged:
    both = (work.judged[name], work.regularised[name])
    for what, judged, one, file in zip(
      ("win rates", "P_τ"), both, theirs, files, strict=True
    ):
      if len(judged.names) > 2:
        said = paper_words.agreed(
          paper_tables.agreement(judged, one, paper_tables.NOISE[file])
        )
        lines.append(f"{what} by {TITLES[name]}: {said}")
  yield listed(lines)


def _quoted(cells: paper_tables.Cells, theirs: np.ndarray) -> Iterator[str]:
  names = [name for name in cells.names if name in POLICIES]
  place = {name: cells.names.index(name) for name in names}
  rows = []
  for other in (one for one in QUOTED if one in place):
    j = place[other]
    ours = [f"{cells.value[place[one], j]:.3f}" for one in names]
    paper = [
      f"{theirs[POLICIES.index(one), POLICIES.index(other)]:.3f}"
      for one in names
    ]
    rows += [
      [f"against {label(other)}, here", *ours],
      [f"against {label(other)}, paper", *paper],
    ]
  yield f"Win rates by {TITLES[HELD_OUT]} and by the paper's judge:\n"
  yield table(["", *map(label, names)], rows)


def _baselines(work: Work) -> Iterator[str]:
  """Every policy against self-play and against RLHF."""
  yield "## Against self-play and against RLHF\n"
  for name, comparisons in work.comparisons.items():
    rows = []
    for policy in work.judged[name].names:
      row = [label(policy)]
      for other in (paper_found.SELF_PLAY, paper_found.RLHF):
        one = comparisons.get((policy, other))
        row += ["", ""] if one is None else [figure(one), f"{one.p_value:.2g}"]
      rows.append(row)
    yield f"Win rates by {TITLES[name]}, with Holm's p-values:\n"
    yield table(["", "against SP", "p", "against RLHF", "p"], rows)


def _standing(work: Work) -> Iterator[str]:
  yield "## Nash average and exploitability\n"
  yield (
    "A policy's share in the equilibrium of the whole table, and what the best "
    "answer to it in the table wins above one half. Intervals are percentiles "
    "of resampled seeds and prompts, too narrow where few seeds differ much: "
    f"of a mean they hold {work.coverage.percentiles:.0%} in such a world. "
    "The best answer is chosen among noisy cells, which makes it look a little "
    "better than it is.\n"
  )
  columns: dict[str, list[str]] = {}
  for judged in work.judged.values():
    found = paper_tables.standing(paper_tables.of(judged, POLICIES))
    for of_policies in found.values():
      for name, one in of_policies.items():
        columns.setdefault(label(name), []).append(figure(one, 2))
  head = [
    f"{what}, {TITLES[name]}"
    for name in work.judged
    for what in ("Nash average", "exploitability")
  ]
  yield table(["", *head], ([name, *rest] for name, rest in columns.items()))


def _intervals(work: Work) -> Iterator[str]:
  yield "## What the intervals hold\n"
  low, high = min(work.coverage.student), max(work.coverage.student)
  yield (
    "Seeds and prompts are both draws: the interval of a cell is Student's, "
    "with the variance that the analysis of variance finds for both and "
    "Satterthwaite's degrees of freedom. In simulated worlds of known "
    f"variances, of five seeds and of eight on 500 prompts, {low:.1%} to "
    f"{high:.1%} of them hold the truth.\n"
  )
  if len(work.found.seeds) == 1:
    yield (
      "With one seed they are of prompts alone, and say nothing of how another "
      "seed would have come out.\n"
    )
