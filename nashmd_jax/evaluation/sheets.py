"""Tables of a page: as HTML to read, and as the CSV that numbers are from."""

import base64
from collections.abc import Iterable, Sequence
import csv
import html
import io
from typing import Any, NamedTuple


class Sheet(NamedTuple):
  """The numbers behind a part of a page.

  Attributes:
    name: of its file, without `.csv`.
    head: names of the columns.
    rows: text, numbers, or None for what there is not.
  """

  name: str
  head: Sequence[str]
  rows: Sequence[Sequence[Any]]


def csv_text(sheet: Sheet) -> str:
  """The rows as CSV, numbers in full."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(sheet.head)
  writer.writerows(sheet.rows)
  return text.getvalue()


def link(sheet: Sheet) -> str:
  """A link that holds the CSV, so that it goes wherever the page goes."""
  name = html.escape(f"{sheet.name}.csv")
  held = base64.b64encode(csv_text(sheet).encode()).decode()
  return (
    f'<a download="{name}" href="data:text/csv;charset=utf-8;base64,{held}">'
    f"{name}</a>"
  )


def links(*sheets: Sheet) -> str:
  """A line of the tables behind a part of a page; nothing without any."""
  told = ", ".join(map(link, sheets))
  return told and f"<p>Numbers: {told}</p>"


def table(
  head: Iterable[str], rows: Iterable[Iterable[str]], *, kind: str = "plain"
) -> str:
  """Cells of text as an HTML table, which scrolls in a box of its own."""
  heads = "".join(f"<th scope=col>{html.escape(cell)}</th>" for cell in head)
  body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
  return (
    f'<div class="scroll"><table class="{kind}"><tr>{heads}</tr>{body}</table>'
    "</div>"
  )


def _cell(text: str) -> str:
  """A cell; a long one is a block of its own, as wide as can be read."""
  said = html.escape(text)
  return (
    f'<td><span class="cell">{said}</span></td>'
    if len(text) > 40
    else (f"<td>{said}</td>")
  )


def folded(summary: str, body: str) -> str:
  """A part that is shown once it is asked for."""
  return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def bulleted(sentences: Iterable[str]) -> str:
  """A list of sentences; nothing without any."""
  items = "".join(f"<li>{html.escape(one)}</li>" for one in sentences)
  return items and f"<ul>{items}</ul>"
