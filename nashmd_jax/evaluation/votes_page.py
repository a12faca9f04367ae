"""The section of a run's page on the votes of people, and on the people."""

from collections.abc import Iterator, Mapping, Sequence
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax.evaluation import chart, sections, sheets, style, win_rates

FOLDER = "annotate"
RESULTS = ("votes", "pairs", "confidence", "policies", "annotators", "times")
EFFORTS = {"repeats": "repeats", "golden": "golden questions"}
EVERYBODY = "everybody"
FIGURES = ("votes", "ties", "left", "seconds")
MARKS = ("asked", "agreed", "needed", "power", "by_chance")
PASSED = {True: "passed", False: "not passed", None: "too few to tell"}
NOTE = (
  "A tie counts one half; golden questions are left out of the shares. Effort "
  "is how often somebody answers from what is preferred and not by a coin: by "
  "pairs that they answered twice, or by golden questions, whose answer is "
  "certain. An exam is as many right answers to those as at most one in twenty "
  "has who throws coins. Seconds are from when a pair was seen to the vote, "
  "reading too. In brackets: {confidence:.0%} intervals, of shares by prompts."
)


def found(
  workdir: pathlib.Path, played: Mapping[str, Any]
) -> list[sections.Section]:
  """The section of a run that people voted on; none otherwise.

  Args:
    workdir: of a run.
    played: results of its tournament.
  """
  path = workdir / FOLDER / "results.json"
  if not path.exists():
    return []
  results = files.load_object(path, *RESULTS)
  if not results["votes"]:
    return []
  tables = (_shares(results, played), _people(results))
  times = _times(results)
  body = (
    f"<p>{_count(results['votes'], 'vote')} of "
    f"{_count(len(results['annotators']), 'annotator')} on "
    f"{_count(results['pairs'], 'pair')} of responses.</p>"
    + _preferred(results, played)
    + "<h3>Annotators</h3>"
    + _annotators(results)
    + chart.figures([times])
    + sheets.links(*tables)
    + f'<p class="note">{NOTE.format(**results)}</p>'
  )
  return [sections.Section(FOLDER, "Votes of people", body, tables, [times])]


def _count(count: int, what: str) -> str:
  return f"{count:,} {what}{'s' * (count != 1)}"


def _preferred(results, played) -> str:
  """How often each policy was preferred, beside what the judges say."""
  rows = [
    [
      one["a"],
      one["b"],
      _with_ends(one["share"], 3),
      f"{one['votes']:,}",
      f"{one['prompts']:,}",
      *(_with_ends(rate, 3) for rate in _by_judges(one, played).values()),
    ]
    for one in results["policies"]
  ]
  judges = [table["title"] for table in played["judges"].values()]
  head = ["Policy", "Against", "Preferred", "Votes", "Prompts"]
  return sheets.table([*head, *(f"By the {title}" for title in judges)], rows)


def _by_judges(one, played) -> dict[str, Sequence[float] | None]:
  """Win rates of the same two policies; None of one that did not play."""
  both = one["a"], one["b"]
  known = all(name in played["policies"] for name in both)
  return {
    judge: win_rates.against(played, *both, judge) if known else None
    for judge in played["judges"]
  }


def _annotators(results) -> str:
  rows = []
  for name, one in results["annotators"].items():
    repeated, tested = one["repeats"], one["golden"]
    rows.append(
      [
        name,
        f"{one['votes']:,}",
        f"{one['seconds']:.1f}",
        *(_with_ends(one[by]["effort"], 2) for by in EFFORTS),
        f"{repeated['agreed']:g} of {repeated['asked']}",
        f"{tested['agreed']:g} of {tested['asked']}",
        _exam(tested),
        f"{one['ties']:,}",
        "–" if one["left"] is None else f"{one['left']:.0%}",
      ]
    )
  head = [
    "Annotator", "Votes", "Median seconds",
    *(f"Effort, by {title}" for title in EFFORTS.values()),
    "Repeats answered alike", "Golden ones right", "Exam, right ones needed",
    "Ties", "For the left",
  ]  # fmt: skip
  return sheets.table(head, rows)


def _exam(tested) -> str:
  told = PASSED[tested["passed"]]
  return told if tested["passed"] is None else f"{tested['needed']}: {told}"


def _with_ends(ends: Sequence[float] | None, places: int) -> str:
  if ends is None:
    return "–"
  value, low, high = (f"{end:.{places}f}" for end in ends)
  return f"{value} ({low} to {high})"


def _times(results) -> chart.Chart:
  """Votes by the time they took, of all and of who voted most."""
  most = sorted(
    results["annotators"].items(), key=lambda one: -one[1]["votes"]
  )[: style.COLOURS - 1]
  lines = [(EVERYBODY, results["times"], chart.LINE)]
  if len(results["annotators"]) > 1:
    lines += [(name, one["times"], chart.DASHED) for name, one in most]
  return chart.Chart(
    "vote_times",
    "Response times",
    "seconds",
    "share of votes given by then",
    [
      chart.Line(
        label,
        [chart.Point(seconds, share) for share, seconds in times],
        colour,
        form,
      )
      for colour, (label, times, form) in enumerate(lines)
    ],
  )


def _shares(results, played) -> sheets.Sheet:
  head = ["policy", "against", "by", "share", "low", "high", "votes", "prompts"]
  rows = []
  for one in results["policies"]:
    both = (one["a"], one["b"])
    counts = (one["votes"], one["prompts"])
    rows.append((*both, "people", *one["share"], *counts))
    rows += [
      (*both, judge, *rate, None, None)
      for judge, rate in _by_judges(one, played).items()
      if rate is not None
    ]
  return sheets.Sheet("votes", head, rows)


def _people(results) -> sheets.Sheet:
  """Every figure of every annotator, with its ends where it has some."""
  rows = [
    (EVERYBODY, "votes", results["votes"], None, None),
    (EVERYBODY, "pairs", results["pairs"], None, None),
    (EVERYBODY, "annotators", len(results["annotators"]), None, None),
  ]
  for name, one in results["annotators"].items():
    rows += [(name, *row) for row in _figures(one)]
  head = ("annotator", "figure", "value", "low", "high")
  return sheets.Sheet("annotators", head, rows)


def _figures(one) -> Iterator[tuple[Any, ...]]:
  for figure in FIGURES:
    yield figure, one[figure], None, None
  for by in EFFORTS:
    yield f"effort by {by}", *(one[by]["effort"] or (None, None, None))
    for figure in MARKS:
      if figure in one[by]:
        yield f"{by}, {figure}", one[by][figure], None, None
  yield "exam", PASSED[one["golden"]["passed"]], None, None
