"""The standings of all policies on the page of a run; see `standings`."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from nashmd_jax.evaluation import sheets, standings

# Columns by the law that is behind them, and how it is shown.
LAWS = {"nash_average": ".0%", "mean": ".3f", "elo": "+.0f"}
ENDS = ("value", "low", "high")
FACTS = (
  "condorcet_share", "triples", "cyclic", "cyclic_sure", "cyclic_null",
  "cyclic_p_value", "chi_square", "degrees", "chi_square_p_value",
)  # fmt: skip
NOTE = (
  "The Nash average is the mixture of the policies that no policy is preferred "
  "to, of several the most even. Elo is 400 / ln 10 times the Bradley-Terry "
  "score. In brackets: intervals of resampled prompts. All that is said of who "
  "beats whom holds together at the confidence of the intervals (Holm)."
)


def section(names: Sequence[str], found: Mapping[str, Any] | None) -> str:
  """A table of the policies and what holds of all of them, as HTML."""
  if not _told(names, found):
    return ""
  laws = (found["nash_average"], found["mean"], found["elo"])
  order = sorted(
    range(len(names)), key=lambda i: [-law["value"][i] for law in laws]
  )
  rows = [
    [
      names[i],
      *(_cell(found[law], i, how) for law, how in LAWS.items()),
      ", ".join(names[other] for one, other in found["beats"] if one == i),
    ]
    for i in order
  ]
  head = ["Policy", "Nash average", "Mean win rate", "Elo", "Beats"]
  said = "".join(
    f"<p>{html.escape(one)}</p>" for one in standings.sentences(names, found)
  )
  return sheets.folded(
    "Standings",
    f'{sheets.table(head, rows)}{said}<p class="note">{NOTE}</p>',
  )


def tables(
  names: Sequence[str], judges: Mapping[str, Mapping[str, Any]]
) -> list[sheets.Sheet]:
  """The numbers behind the standings by all judges; none without any."""
  known = {
    judge: table["standings"]
    for judge, table in judges.items()
    if _told(names, table.get("standings"))
  }
  if not known:
    return []
  head = ("judge", "policy", *(f"{law}_{end}" for law in LAWS for end in ENDS))
  rows = [
    (judge, name, *(found[law][end][i] for law in LAWS for end in ENDS))
    for judge, found in known.items()
    for i, name in enumerate(names)
  ]
  facts = [
    (judge, fact, found[fact])
    for judge, found in known.items()
    for fact in FACTS
  ]
  return [
    sheets.Sheet("standings", head, rows),
    sheets.Sheet("standings_facts", ("judge", "fact", "value"), facts),
  ]


def _told(names: Sequence[str], found: Mapping[str, Any] | None) -> bool:
  return found is not None and len(names) >= standings.FEWEST


def _cell(law: Mapping[str, Sequence[float]], i: int, how: str) -> str:
  value, low, high = (law[end][i] for end in ENDS)
  return f"{value:{how}} ({low:{how}} to {high:{how}})"
