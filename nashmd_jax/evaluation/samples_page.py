"""The section of a run's page on what the policies wrote, side by side.

Each sample says which policy every judge of the tournament prefers there; with
the page's script they can be filtered by that, and searched.
"""

from collections.abc import Mapping, Sequence
import html
import pathlib
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax.data import records
from nashmd_jax.evaluation import judged, sections, sheets

SAMPLES = 50
WRITTEN, NOBODY = "written", "-"
TIE = 1e-5  # what rounding makes of what is the same


class Said(NamedTuple):
  """What a judge says of a sample.

  Attributes:
    rates: of each policy, its mean win probability against the others; None
      where a pair was not judged.
    winner: place of the policy with the highest; None if there is not one.
  """

  rates: Sequence[float | None]
  winner: int | None


def section(
  workdir: pathlib.Path, results: Mapping[str, Any]
) -> sections.Section:
  """The first test prompts, what their author wrote and every policy."""
  policies, judges = results["policies"], list(results["judges"])
  folder = workdir / "tournament" / "responses"
  columns = {
    name: records.load_records(folder / f"{name}.jsonl", "summary")[:SAMPLES]
    for name in (WRITTEN, *policies)
  }
  rows = columns[WRITTEN]
  said = [say(table) for table in _tables(workdir, results, len(rows))]
  body = (
    f"<p>The first {len(rows)} test prompts, what the author wrote and one "
    "sample of each policy.</p>"
    + _controls(policies, judges)
    + "".join(
      _sample(i, columns, policies, judges, [one[i] for one in said])
      for i in range(len(rows))
    )
  )
  numbers = _sheet(rows, policies, judges, said)
  body += sheets.links(numbers)
  return sections.Section("samples", "Side by side", body, [numbers])


def _tables(workdir, results, count) -> list[np.ndarray]:
  """Win probabilities [count, M, M] by each judge; NaN where none is known."""
  size = len(results["policies"])
  found = judged.load(workdir / "tournament" / judged.NAME, results, count)
  return [
    found.get(name, np.full((count, size, size), np.nan))
    for name in results["judges"]
  ]


def say(table: np.ndarray) -> list[Said]:
  """Of a judge's win probabilities f64[N, M, M], what it says of samples."""
  others = table.shape[1] - 1
  found = []
  for one in table:
    off = one[~np.eye(others + 1, dtype=bool)].reshape(others + 1, others)
    rates = off.mean(1) if others else np.full(1, np.nan)
    known = np.isfinite(rates).all()
    best = np.flatnonzero(rates > rates.max() - TIE) if known else []
    found.append(
      Said(
        [float(rate) if np.isfinite(rate) else None for rate in rates],
        int(best[0]) if len(best) == 1 else None,
      )
    )
  return found


def _controls(policies: Sequence[str], judges: Sequence[str]) -> str:
  """What the script shows: who wins, by whom, and a text."""

  def options(names):
    return "".join(
      f'<option value="{i}">{html.escape(name)}</option>'
      for i, name in enumerate(names)
    )

  return (
    '<form class="choose" role="search" hidden>'
    f'<label>Judge <select name="judge">{options(judges)}</select></label>'
    '<label>Winner <select name="winner"><option value="">any</option>'
    f'{options(policies)}<option value="{NOBODY}">none alone</option>'
    "</select></label>"
    '<label>Search <input name="text" type="search" size="16"></label>'
    '<output aria-live="polite"></output></form>'
  )


def _sample(i, columns, policies, judges, said: Sequence[Said]) -> str:
  won = [NOBODY if one.winner is None else str(one.winner) for one in said]
  told = "; ".join(
    f"{html.escape(judge)}: {html.escape(policies[one.winner])}"
    for judge, one in zip(judges, said, strict=True)
    if one.winner is not None
  )
  lines = [_line(WRITTEN, columns[WRITTEN][i]["response"], "")]
  for place, name in enumerate(policies):
    rates = ", ".join(
      f"{html.escape(judge)} {one.rates[place]:.2f}"
      for judge, one in zip(judges, said, strict=True)
      if one.rates[place] is not None
    )
    lines.append(_line(name, columns[name][i]["response"], rates))
  prompt = html.escape(columns[WRITTEN][i]["prompt"])
  return (
    f'<article class="sample" data-won="{" ".join(won)}">'
    f'<p class="said"><code>{prompt}</code></p><dl>{"".join(lines)}</dl>'
    + (f'<p class="note">Preferred by {told}</p>' if told else "")
    + "</article>"
  )


def _line(name: str, response: str, rates: str) -> str:
  text = html.escape(response) or "<i>empty</i>"
  small = f" <small>{rates}</small>" if rates else ""
  return (
    f'<dt>{html.escape(name)}</dt><dd><span class="said">{text}</span>{small}'
    "</dd>"
  )


def _sheet(rows, policies, judges, said) -> sheets.Sheet:
  """The mean win probability of each policy on each sample."""
  found = [
    (row["id"], judge, policy, one[i].rates[place])
    for i, row in enumerate(rows)
    for judge, one in zip(judges, said, strict=True)
    for place, policy in enumerate(policies)
  ]
  found.append(("shown", None, None, len(rows)))
  head = ("id", "judge", "policy", "mean_win_prob")
  return sheets.Sheet("samples", head, found)
