"""The standings of all policies on the page of a run; see `standings`."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from nashmd_jax.evaluation import judges_page, standings


def section(names: Sequence[str], found: Mapping[str, Any] | None) -> str:
  """A table of the policies and what holds of all of them, as HTML."""
  if found is None or len(names) < standings.FEWEST:
    return ""
  laws = (found["nash_average"], found["mean"], found["elo"])
  order = sorted(
    range(len(names)), key=lambda i: [-law["value"][i] for law in laws]
  )
  rows = [
    [
      names[i],
      *(_cell(law, i, how) for law, how in zip(laws, SHOWN, strict=True)),
      ", ".join(names[other] for one, other in found["beats"] if one == i),
    ]
    for i in order
  ]
  head = ["Policy", "Nash average", "Mean win rate", "Elo", "Beats"]
  said = "".join(
    f"<p>{html.escape(one)}</p>" for one in standings.sentences(names, found)
  )
  return (
    f"<details><summary>Standings</summary>{judges_page.table(head, rows)}"
    f'{said}<p class="note">{NOTE}</p></details>'
  )


def _cell(law: Mapping[str, Sequence[float]], i: int, how: str) -> str:
  value, low, high = (law[end][i] for end in ("value", "low", "high"))
  return f"{value:{how}} ({low:{how}} to {high:{how}})"


SHOWN = (".0%", ".3f", "+.0f")
NOTE = (
  "The Nash average is the mixture of the policies that no policy is preferred "
  "to, of several the most even. Elo is 400 / ln 10 times the Bradley-Terry "
  "score. In brackets: intervals of resampled prompts. All that is said of who "
  "beats whom holds together at the confidence of the intervals (Holm)."
)
