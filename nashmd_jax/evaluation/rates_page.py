"""The section of a run's page on its tournament: who is preferred to whom."""

from collections.abc import Iterator, Mapping, Sequence
import html
import itertools
import operator
from typing import Any

import numpy as np

from nashmd_jax.evaluation import (
  sections,
  sheets,
  standings_page,
  style,
  win_rates,
)

Results = Mapping[str, Any]
HOW = {
  "best": "the best on average",
  "equilibrium": "one drawn from the equilibrium of their game",
}
ENDS = ("win_rate", "low", "high")
# Intervals besides, by the heading of their column.
FURTHER = {"Exact": "clopper_pearson", "Resampled": "bootstrap"}


def headline(results: Results) -> str:
  """What the first judge says of every policy against the first, as HTML."""
  start, *names = results["policies"]
  judge = next(iter(results["judges"]))
  found: dict[str, list[str]] = {}
  for name in names:
    rate, low, high = win_rates.against(results, name, start, judge)
    said = f"{html.escape(name)} {rate:.3f} ({low:.3f} to {high:.3f})"
    found.setdefault(win_rates.verdict(low, high), []).append(said)
  told = "; ".join(
    f"{verdict}: {', '.join(said)}" for verdict, said in found.items()
  )
  return (
    f'<p class="lead">Probability to be preferred to {html.escape(start)} by '
    f"the {html.escape(results['judges'][judge]['title'])} – {told}.</p>"
    f'<p class="note">In brackets: {results["confidence"]:.0%} intervals over '
    "prompts.</p>"
  )


def section(results: Results) -> sections.Section:
  """Win rates as heat maps and as tables, standings, choices, lengths."""
  names, judges = results["policies"], results["judges"]
  words = _words(results)
  tables = (
    _rates(results),
    _judges(results),
    _same(results),
    words,
    *standings_page.tables(names, judges),
  )
  body = (
    "<p>Probability that the response of the policy in the row is preferred to "
    f"that of the policy in the column, over {results['prompts']:,} held-out "
    'prompts.</p><p class="note">Every pair is judged in both orders. Small '
    f"print: {results['confidence']:.0%} interval over prompts.</p>"
    f"{sheets.links(*tables)}"
    + "".join(_judge(names, table) for table in judges.values())
    + _agreement(results)
    + _chosen(results["chosen"])
    + _joined(results.get("ensembles", {}))
    + "<h3>Responses</h3>"
    + sheets.table(
      ["Policy", "Words a response", "Ended by themselves"],
      (
        [row[0], f"{row[1]:.1f}", "" if row[2] is None else f"{row[2]:.1%}"]
        for row in words.rows
      ),
    )
    + f'<p class="note">{html.escape(next(iter(judges.values()))["about"])}</p>'
  )
  return sections.Section("rates", "Win rates", body, tables)


def _judge(names: Sequence[str], table: Mapping[str, Any]) -> str:
  title = table["title"][:1].upper() + table["title"][1:]
  left_out = win_rates.told_not_judged(table)
  return (
    f"<h3>{html.escape(title)}</h3>"
    + (left_out and f"<p>{html.escape(left_out)}.</p>")
    + heat_map(names, table, table["prompts"])
    + sheets.folded("As a table", _table(names, table))
    + _at_equal_length(names, table)
    + standings_page.section(names, table.get("standings"))
  )


def heat_map(names: Sequence[str], table: Mapping[str, Any], prompts) -> str:
  """A matrix of win rates in colour; what is pointed at says its interval."""
  head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in names)
  rows = []
  for i, name in enumerate(names):
    cells = [
      '<td class="self">–</td>'
      if i == j
      else _heat(
        name, other, *(table[end][i][j] for end in ENDS), prompts[i][j]
      )  # fmt: skip
      for j, other in enumerate(names)
    ]
    rows.append(
      f"<tr><th scope=row>{html.escape(name)}</th>{''.join(cells)}</tr>"
    )
  return (
    f'<div class="scroll"><table class="heat"><tr><td></td>{head}</tr>'
    f"{''.join(rows)}</table></div>"
  )


def _heat(name, other, rate, low, high, prompts) -> str:
  said = (
    f"{name} is preferred to {other}: {rate:.3f} ({low:.3f} to {high:.3f}), "
    f"{prompts:,} prompts"
  )
  return (
    f'<td style="background:{style.heat(rate)}" title="{html.escape(said)}">'
    f"{rate:.3f}<small>{low:.3f}–{high:.3f}</small></td>"
  )


def _pairs(names) -> Iterator[tuple[int, int]]:
  return itertools.permutations(range(len(names)), 2)


def _table(names, table) -> str:
  return sheets.table(
    [
      "Policy",
      "Against",
      "Win rate",
      "Low",
      "High",
      *FURTHER,
      "Ties",
      "Prompts",
    ],
    (
      [
        names[i],
        names[j],
        *(f"{table[end][i][j]:.3f}" for end in ENDS),
        *(
          f"{table[kind]['low'][i][j]:.3f}–{table[kind]['high'][i][j]:.3f}"
          for kind in FURTHER.values()
        ),
        f"{table['ties'][i][j]:.1%}",
        f"{table['prompts'][i][j]:,}",
      ]
      for i, j in _pairs(names)
    ),
  )


def _at_equal_length(names, table) -> str:
  return sheets.folded(
    "At equal length",
    "<p>The same if both responses had as many words, by a logistic regression "
    "of what the judge said on how many more words one has than the other: a "
    "rate that comes much nearer to one half was due to length. Small print: "
    "bootstrap interval over prompts.</p>"
    + heat_map(names, table["at_equal_length"], table["prompts"]),
  )


def _chosen(chosen: Mapping[str, Mapping[str, Any]]) -> str:
  return "".join(
    f"<p>{html.escape(name)} was not trained: of {one['samples']} responses of "
    f"{html.escape(one['policy'])} to each prompt it is {HOW[one['choose']]}, "
    f"as {html.escape(one['judge'])} judges them against one another "
    f"({one['judged']:.1%} of the pairs were judged).</p>"
    for name, one in chosen.items()
  )


def _joined(ensembles: Mapping[str, Mapping[str, Any]]) -> str:
  """What each ensemble is made of, and how many of its proposals it takes."""
  return "".join(
    f"<p>{html.escape(name)} was not trained: it answers with "
    f"{html.escape(_rule(one))} {html.escape(', '.join(one['members']))}"
    f"{_acceptance(one)}.</p>"
    for name, one in ensembles.items()
  )


def _rule(one: Mapping[str, Any]) -> str:
  if one["proposals"]:
    return "the least probability that any of these gives to a whole response:"
  if one["rule"] == "lower":
    taken = f"the mean less {one['deviations']:g} standard deviations"
    return f"{taken} of the probabilities at each token of"
  return "the least of the probabilities at each token of"


def _acceptance(one: Mapping[str, Any]) -> str:
  if not one["proposals"]:
    return ""
  return (
    f". Of {one['proposals']} proposals a response it takes "
    f"{one['acceptance']:.1%}; for {one['none']:.1%} of the responses it took "
    "none, and one was drawn by its weight"
  )


def _agreement(results: Results) -> str:
  """In how many pairs of policies two judges name the same winner."""
  return "".join(
    f"<p>Of the {pairs} pairs of policies {html.escape(judge)} and "
    f"{html.escape(other)} name the same winner in {same}.</p>"
    for judge, other, pairs, same in _same(results).rows
  )


def _same(results: Results) -> sheets.Sheet:
  judges, size = results["judges"], len(results["policies"])
  pairs = list(itertools.combinations(range(size), 2))
  sides = {
    name: [np.sign(table["win_rate"][i][j] - 0.5) for i, j in pairs]
    for name, table in judges.items()
  }
  head = ("judge", "other", "pairs", "same_winner")
  rows = [
    (
      one,
      other,
      len(pairs),
      sum(map(operator.eq, sides[one], sides[other])),
    )
    for one, other in itertools.combinations(judges, 2)
  ]
  return sheets.Sheet("tournament_agreement", head, rows)


def _rates(results: Results) -> sheets.Sheet:
  names = results["policies"]
  equal = [f"at_equal_length_{end}" for end in ENDS]
  others = [f"{kind}_{end}" for kind in FURTHER.values() for end in ENDS[1:]]
  head = (
    "judge", "policy", "against", *ENDS, "prompts", *equal, *others, "ties",
  )  # fmt: skip
  rows = [
    (
      judge,
      names[i],
      names[j],
      *(table[end][i][j] for end in ENDS),
      table["prompts"][i][j],
      *(table["at_equal_length"][end][i][j] for end in ENDS),
      *(
        table[kind][end][i][j] for kind in FURTHER.values() for end in ENDS[1:]
      ),
      table["ties"][i][j],
    )
    for judge, table in results["judges"].items()
    for i, j in _pairs(names)
  ]
  return sheets.Sheet("win_rates", head, rows)


def _judges(results: Results) -> sheets.Sheet:
  head = (
    "judge", "title", "order_gap", "not_judged", "share_not_judged",
    "fewest_prompts", "records", "prompts", "confidence",
  )  # fmt: skip
  rows = [
    (
      name,
      table["title"],
      table["order_gap"],
      table["not_judged"],
      1 - table["judged"],
      min(map(min, table["prompts"])),
      results["records"],
      results["prompts"],
      results["confidence"],
    )
    for name, table in results["judges"].items()
  ]
  return sheets.Sheet("tournament_judges", head, rows)


def _words(results: Results) -> sheets.Sheet:
  chosen = results["chosen"]
  head = ("policy", "words", "ended", "samples", "judged")
  rows = [
    (
      name,
      words,
      results["ended"].get(name),
      chosen[name]["samples"] if name in chosen else None,
      chosen[name]["judged"] if name in chosen else None,
    )
    for name, words in results["words"].items()
  ]
  return sheets.Sheet("policies", head, rows)
