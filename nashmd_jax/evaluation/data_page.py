"""The section of a run's page on its data: what is cut, skipped, repeated."""

from collections.abc import Mapping
import html
import pathlib

from nashmd_jax import files
from nashmd_jax.data import card
from nashmd_jax.evaluation import sections, sheets

CARDS = {"card": "Records", "comparisons_card": "Comparisons of yours"}
SHARES = ("prompts_cut", "responses_cut")


def section(workdir: pathlib.Path) -> sections.Section:
  """The data card of the records, and of the user's comparisons."""
  found = {}
  for name, title in CARDS.items():
    path = workdir / "data" / f"{name}.json"
    if path.exists():
      with files.readable(path, "delete it, and it is made anew"):
        found[title] = _counted(files.load_object(path))
  rows = [
    (title, split, fact, value)
    for title, splits in found.items()
    for split, facts in splits.items()
    for fact, value in facts.items()
  ]
  tables = (
    [sheets.Sheet("data", ("of", "split", "fact", "value"), rows)]
    if rows
    else []
  )
  body = "".join(_card(title, splits) for title, splits in found.items())
  body = body or "<p>No card of the data is there.</p>"
  return sections.Section("data", "Data", body + sheets.links(*tables), tables)


def _counted(splits: Mapping[str, card.Card]) -> dict[str, card.Card]:
  """The same card, with how many prompts stand again."""
  return {
    split: {**facts, "repeated_prompts": facts["rows"] - facts["prompts"]}
    for split, facts in splits.items()
  }


def _card(title: str, splits: Mapping[str, card.Card]) -> str:
  facts = dict.fromkeys(fact for one in splits.values() for fact in one)
  rows = [
    [
      fact.replace("_", " "),
      *(_fact(fact, one.get(fact, 0)) for one in splits.values()),
    ]
    for fact in facts
  ]
  amiss = list(card.lines(splits))
  return (
    f"<h3>{html.escape(title)}</h3>"
    + (sheets.bulleted(amiss) or "<p>Nothing is cut, skipped or repeated.</p>")
    + sheets.table(["", *splits], rows)
  )


def _fact(name: str, value: float) -> str:
  return f"{value:.1%}" if name in SHARES else f"{value:,}"
