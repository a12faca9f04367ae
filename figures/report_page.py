"""Rows on the page of a run: what a browser and its numbers say of it."""

import argparse
import base64
import bisect
from collections.abc import Mapping
import csv
from html import parser
import io
import pathlib
import re
import sys

from figures import rows
from tests import browser

OUT = pathlib.Path("out") / "report_page.json"
NARROW, WIDE = 360, 1280
READABLE = 4.5
TOKEN = re.compile(
  r"(?<![\w.\-])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d{1,2})?(?![\w])\s?%?"
)
# What models and config files say, how things are measured, ticks of axes.
APART_TAGS = {"style", "script", "code", "pre"}
APART_CLASSES = {"note", "said", "tick"}
VOID = {"meta", "link", "input", "br", "hr", "img"}
CSV = "data:text/csv;charset=utf-8;base64,"


class Reader(parser.HTMLParser):
  """The numbers that a page tells of its run, and the tables that it holds.

  Attributes:
    numbers: as they are shown.
    tables: texts of CSV.
  """

  def __init__(self):
    super().__init__()
    self.numbers: list[str] = []
    self.tables: list[str] = []
    self._apart: list[bool] = []

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    if tag not in VOID:
      classes = set((found.get("class") or "").split())
      apart = tag in APART_TAGS or bool(classes & APART_CLASSES)
      self._apart.append(apart or self._is_apart())
    if (found.get("href") or "").startswith(CSV):
      held = base64.b64decode(found["href"].removeprefix(CSV))
      self.tables.append(held.decode())
    if "title" in found and not self._is_apart():
      self.numbers += TOKEN.findall(found["title"])

  def handle_startendtag(self, tag, attrs):
    del tag, attrs

  def handle_endtag(self, tag):
    if tag not in VOID:
      self._apart.pop()

  def handle_data(self, data):
    if not self._is_apart():
      self.numbers += TOKEN.findall(data)

  def _is_apart(self) -> bool:
    return bool(self._apart) and self._apart[-1]


def untraced(page: str) -> list[str]:
  """Numbers of a page that stand in none of the tables that it holds.

  A number is found if a cell has it, or is it once it is rounded as it is.
  """
  reader = Reader()
  reader.feed(page)
  cells = [
    cell
    for table in reader.tables
    for line in csv.reader(io.StringIO(table))
    for cell in line
  ]
  literal = {token for cell in cells for token in TOKEN.findall(cell)}
  known = sorted({_value(token)[0] for token in literal})
  absent = []
  for token in reader.numbers:
    value, half = _value(token)
    at = bisect.bisect_left(known, value - half)
    near = at < len(known) and known[at] <= value + half
    if token not in literal and not near:
      absent.append(token)
  return absent


def _value(token: str) -> tuple[float, float]:
  """A number as it is shown, and half a unit of its last place."""
  plain = token.replace(",", "").replace("−", "-")
  share = 0.01 if plain.endswith("%") else 1.0
  plain = plain.rstrip("% ")
  mantissa, _, exponent = plain.partition("e")
  places = len(mantissa.partition(".")[2]) - int(exponent or 0)
  return share * float(plain), share * 0.5001 * 10.0**-places


def look(page: pathlib.Path, tab: browser.Browser) -> dict[str, float]:
  """What a browser says of a page, narrow and wide, light and dark."""
  found = {"errors": 0, "requests": 0, "overflow": 0, "contrast": 21.0}
  for width in (NARROW, WIDE):
    for dark in (False, True):
      tab.open(page, width=width, dark=dark)
      overflow = tab.evaluate(browser.OVERFLOW)
      lowest, _ = tab.evaluate(browser.CONTRAST)
      found = {
        "errors": found["errors"] + len(tab.errors()),
        "requests": found["requests"] + len(tab.requests()),
        "overflow": max(found["overflow"], overflow),
        "contrast": min(found["contrast"], lowest),
      }
  return found


def rows_of(found: Mapping[str, float], name: str) -> list[rows.Row]:
  """What is claimed of a page that a browser looked at; {} was not."""
  where = f"{name}, {NARROW} and {WIDE} px wide, light and dark"
  lowest = found.get("contrast")
  return [
    rows.row(f"console errors, {where}", found.get("errors"), "=", 0),
    rows.row(f"requests, {where}", found.get("requests"), "=", 0),
    rows.row(f"px that overflow, {where}", found.get("overflow"), "=", 0),
    rows.row(f"lowest contrast of a text, {where}", lowest, "≥", READABLE),
  ]


def page_rows(page: pathlib.Path, name: str) -> list[rows.Row]:
  """What is claimed of a page; without a browser most of it is not measured."""
  program, found = browser.find(), {}
  if program is not None:
    with browser.start(program) as tab:
      found = look(page, tab)
  absent = len(untraced(page.read_text(encoding="utf-8")))
  return [
    *rows_of(found, name),
    rows.row(f"numbers that stand in no CSV, {name}", absent, "=", 0),
  ]


def main() -> int:
  """The rows of the pages that are named."""
  reader = argparse.ArgumentParser()
  reader.add_argument("pages", nargs="+", type=pathlib.Path)
  pages = reader.parse_args().pages
  found = [row for page in pages for row in page_rows(page, str(page))]
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
