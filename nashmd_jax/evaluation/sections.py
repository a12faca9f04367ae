"""A section of a page, and the page that sections make together.

A section is what a reader finds under one heading, with the tables and charts
that its numbers are from: they are saved beside the page, and stand in it too.
"""

from collections.abc import Sequence
import html
import string
from typing import Any, NamedTuple

from nashmd_jax.evaluation import chart, sheets, style

WARNINGS = "warnings"
PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style></head><body>
<header><h1>$title</h1>
$lead
<nav aria-label="Contents"><ul>$contents</ul></nav></header>
<main>
$body
</main>
<script>$script</script></body></html>
""")


class Section(NamedTuple):
  """A part of a page.

  Attributes:
    name: its anchor.
    title: its heading.
    body: HTML, every text of others in it escaped.
    tables: behind its numbers.
    charts: that are drawn in it.
  """

  name: str
  title: str
  body: str
  tables: Sequence[sheets.Sheet] = ()
  charts: Sequence[chart.Chart] = ()


def page(title: str, lead: str, parts: Sequence[Section]) -> str:
  """One HTML page that needs no other file and asks for none.

  Args:
    title: of it.
    lead: HTML below the title.
    parts: in order.
  """
  return PAGE.substitute(
    title=html.escape(title),
    lead=lead,
    contents="".join(
      f'<li><a href="#{one.name}">{html.escape(one.title)}</a></li>'
      for one in parts
    ),
    body="\n".join(
      f'<section id="{one.name}" aria-labelledby="{one.name}-title">'
      f'<h2 id="{one.name}-title">{html.escape(one.title)}</h2>{one.body}'
      "</section>"
      for one in parts
    ),
    style=style.SCHEMES + style.PAGE + style.CHART,
    script=style.SCRIPT,
    policy=style.POLICY,
  )


def beside(parts: Sequence[Section]) -> dict[str, str]:
  """What is saved beside the page: each chart as SVG, each table as CSV."""
  found = {}
  for part in parts:
    for one in part.charts:
      table = chart.sheet(one)
      if table.rows:
        found[f"{one.name}.svg"] = chart.alone(one)
        found[f"{one.name}.csv"] = sheets.csv_text(table)
    for table in part.tables:
      found[f"{table.name}.csv"] = sheets.csv_text(table)
  return found


def warned(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Section:
  """A section on what was warned of.

  Args:
    head: of the columns.
    rows: a warning each.
  """
  if not rows:
    return Section(WARNINGS, "Warnings", "<p>Nothing was warned of.</p>")
  table = sheets.Sheet(WARNINGS, head, rows)
  body = sheets.table(
    [name.capitalize() for name in head],
    ([str(cell) for cell in row] for row in rows),
  )
  return Section(WARNINGS, "Warnings", body + sheets.links(table), [table])
