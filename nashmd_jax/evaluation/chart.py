"""A chart: lines with bands and marks with bars, as SVG and as a sheet.

The SVG takes its colours from the page it stands in, by `style.CHART`, and says
the numbers of every point that is pointed at. What it draws is in its sheet.
"""

from collections.abc import Sequence
import html
import math
from typing import NamedTuple

from nashmd_jax.evaluation import sheets, style

LINE, DASHED, PATH, MARKS = "line", "dashed", "path", "marks"
WIDTH, LEFT, RIGHT, TOP, HEIGHT = 390, 68, 12, 10, 216
ROW, SWATCH, LETTER = 21, 30, 8.4  # of the legend, and a letter's width
MARGIN, LONGEST = 8, 40  # to its left, letters of an entry
TICKS, MOST = 7, 160  # parts of an axis, points of a line, at most
UNITS = ((1_000_000, "M"), (1000, "k"), (1, ""))  # of ticks


class Point(NamedTuple):
  """One point, and the ends of its interval where there is one."""

  x: float
  y: float
  low: float | None = None
  high: float | None = None


class Line(NamedTuple):
  """Points that belong together.

  Attributes:
    label: what its points are of.
    points: along the line; those that are not finite are left out.
    colour: its number, of `style.COLOURS`.
    form: LINE, with a band between the ends of intervals; DASHED, without;
      PATH, a line that may turn back; MARKS, large points with bars.
    legend: its entry there, once for all lines that share it; the label if "".
  """

  label: str
  points: Sequence[Point]
  colour: int
  form: str = LINE
  legend: str = ""


class Chart(NamedTuple):
  """Lines on two axes.

  Attributes:
    name: of its files.
    title: above it.
    x_label, y_label: of the axes, and of the columns of its sheet.
    lines: drawn in this order; none with a finite point gives no chart.
    levels: heights of rules across it.
    diagonal: whether there is a rule y = x.
  """

  name: str
  title: str
  x_label: str
  y_label: str
  lines: Sequence[Line]
  levels: Sequence[float] = ()
  diagonal: bool = False


def sheet(chart: Chart) -> sheets.Sheet:
  """The points that the chart draws."""
  head = ("line", chart.x_label, chart.y_label, "low", "high")
  rows = [
    (line.label, *point) for line in _drawn(chart) for point in line.points
  ]
  if rows:
    rows += [("rule", None, level, None, None) for level in chart.levels]
  return sheets.Sheet(chart.name, head, rows)


def figure(chart: Chart) -> str:
  """The chart in a page, with a link to its sheet; nothing if it has none."""
  if not _drawn(chart):
    return ""
  caption = f"{html.escape(chart.title)} {sheets.link(sheet(chart))}"
  return f"<figure><figcaption>{caption}</figcaption>{svg(chart)}</figure>"


def figures(charts: Sequence[Chart]) -> str:
  """Charts side by side where there is room for it."""
  return f'<div class="charts">{"".join(map(figure, charts))}</div>'


def alone(chart: Chart) -> str:
  """The chart as the text of a file, which brings its colours."""
  drawn = svg(chart).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
  look = f"<style>{style.SCHEMES}{style.CHART}</style>"
  place = drawn.index(">") + 1
  return f"{drawn[:place]}{look}{drawn[place:]}\n"


def svg(chart: Chart) -> str:
  """The chart without its title."""
  lines = _drawn(chart)
  points = [point for line in lines for point in line.points]
  axes = _Axes(
    _span([point.x for point in points]),
    _span([*_heights(points), *chart.levels]),
  )
  legend, rows = _legend(lines)
  height = TOP + HEIGHT + 42 + ROW * rows
  return (
    f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
    f'aria-label="{html.escape(chart.title)}">{axes.drawn(chart)}'
    + "".join(_band(line, axes) for line in lines)
    + "".join(_line(line, chart, axes) for line in lines)
    + f"{legend}</svg>"
  )


class _Axes(NamedTuple):
  """The ends of the axes in data, and what lies where in the picture."""

  x_span: tuple[float, float]
  y_span: tuple[float, float]

  def x(self, value: float) -> float:
    low, high = self.x_span
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

  def y(self, value: float) -> float:
    low, high = self.y_span
    return TOP + HEIGHT * (high - value) / (high - low)

  def drawn(self, chart: Chart) -> str:
    """Frame, ticks, rules and labels."""
    parts, bottom, right = [], TOP + HEIGHT, WIDTH - RIGHT
    for tick, said in ticks(*self.y_span):
      at = self.y(tick)
      parts.append(
        f'<path class="rule" d="M{LEFT} {at:.1f}H{right}"/><text class="tick" '
        f'x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{said}</text>'
      )
    for tick, said in ticks(*self.x_span):
      at = self.x(tick)
      parts.append(
        f'<path class="rule" d="M{at:.1f} {bottom}v4"/><text class="tick" '
        f'x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{said}</text>'
      )
    for level in chart.levels:
      at = self.y(level)
      parts.append(f'<path class="level" d="M{LEFT} {at:.1f}H{right}"/>')
    if chart.diagonal:
      low = max(self.x_span[0], self.y_span[0])
      high = min(self.x_span[1], self.y_span[1])
      parts.append(
        f'<path class="level" d="M{self.x(low):.1f} {self.y(low):.1f}'
        f'L{self.x(high):.1f} {self.y(high):.1f}"/>'
      )
    middle = TOP + HEIGHT / 2
    return "".join(parts) + (
      f'<path class="rule" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
      f'<text x="{(LEFT + right) / 2}" y="{bottom + 35}" text-anchor="middle">'
      f'{html.escape(chart.x_label)}</text><text x="13" y="{middle}" '
      f'text-anchor="middle" transform="rotate(-90 13 {middle})">'
      f"{html.escape(chart.y_label)}</text>"
    )


def ticks(low: float, high: float) -> list[tuple[float, str]]:
  """Round numbers between two, and how they are written."""
  rough = (high - low) / TICKS * 0.9999
  power = 10.0 ** math.floor(math.log10(rough))
  step = min(x * power for x in (1, 2, 5, 10) if x * power >= rough)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  unit, sign = next(one for one in UNITS if step >= one[0] or one[0] == 1)
  places = max(0, -math.floor(math.log10(step) + 1e-9))
  return [
    (
      n * step,
      f"{n * step / unit:.{places}f}{sign * (n != 0)}".replace("-", "−"),
    )
    for n in range(first, last + 1)
  ]


def _span(values: Sequence[float]) -> tuple[float, float]:
  """Ends of an axis, with a little room."""
  low, high = min(values), max(values)
  room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
  return low - room, high + room


def _heights(points: Sequence[Point]) -> list[float]:
  ends = [end for x in points for end in (x.low, x.high) if end is not None]
  return [point.y for point in points] + ends


def _drawn(chart: Chart) -> list[Line]:
  """The lines that have a finite point, thinned out to so many."""
  found = []
  for line in chart.lines:
    points = [p for p in line.points if math.isfinite(p.x) and _finite(p)]
    step = -(-len(points) // MOST) if points else 1
    kept = points[::step]
    if points and kept[-1] != points[-1]:
      kept.append(points[-1])
    if kept:
      found.append(line._replace(points=kept))
  return found


def _finite(point: Point) -> bool:
  return all(
    math.isfinite(one)
    for one in (point.y, point.low, point.high)
    if one is not None
  )


def _line(line: Line, chart: Chart, axes: _Axes) -> str:
  """What stands above all bands."""
  parts = []
  if line.form != MARKS and len(line.points) > 1:
    path = "L".join(f"{axes.x(p.x):.1f} {axes.y(p.y):.1f}" for p in line.points)
    parts.append(f'<path class="{_stroke(line)}" d="M{path}"/>')
  for point in line.points:
    parts.append(_dot(line, point, chart, axes))
  return f'<g class="{_colour(line)}">{"".join(parts)}</g>'


def _band(line: Line, axes: _Axes) -> str:
  known = [p for p in line.points if None not in (p.low, p.high)]
  if line.form != LINE or len(known) < 2:
    return ""
  there = [f"{axes.x(p.x):.1f} {axes.y(p.high):.1f}" for p in known]
  back = [f"{axes.x(p.x):.1f} {axes.y(p.low):.1f}" for p in reversed(known)]
  path = "L".join(there + back)
  return f'<path class="band {_colour(line)}" d="M{path}Z"/>'


def _dot(line: Line, point: Point, chart: Chart, axes: _Axes) -> str:
  """A point that tells its numbers; a mark has a bar and is larger."""
  said = (
    f"{line.label}: {chart.x_label} {_number(point.x)}, {chart.y_label} "
    f"{_number(point.y)}"
  )
  at, height = axes.x(point.x), axes.y(point.y)
  bar, radius = "", 2.5 if line.form != MARKS else 5
  if point.low is not None and point.high is not None:
    said += f" ({_number(point.low)} to {_number(point.high)})"
    if line.form == MARKS:
      bar = (
        f'<path class="bar" d="M{at:.1f} {axes.y(point.low):.1f}'
        f'V{axes.y(point.high):.1f}"/>'
      )
  return (
    f'<g>{bar}<circle class="dot" cx="{at:.1f}" cy="{height:.1f}" '
    f'r="{radius}"/><title>{html.escape(said)}</title></g>'
  )


def _number(value: float) -> str:
  return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def _legend(lines: Sequence[Line]) -> tuple[str, int]:
  """A swatch for each entry, and how many rows they take."""
  entries: dict[str, list[Line]] = {}
  for line in lines:
    entries.setdefault(line.legend or line.label, []).append(line)
  parts, row, at = [], 0, MARGIN
  for entry, those in entries.items():
    said = entry if len(entry) < LONGEST else f"{entry[: LONGEST - 2]}…"
    wide = SWATCH + LETTER * len(said) + 18
    if parts and at + wide > WIDTH:
      row, at = row + 1, MARGIN
    height = TOP + HEIGHT + 58 + ROW * row
    colours = {_colour(line) for line in those}
    colour = colours.pop() if len(colours) == 1 else "any"
    parts.append(
      f'<g class="{colour}">{_swatch(those[0], at, height)}'
      f'<text x="{at + SWATCH}" y="{height}">{html.escape(said)}</text></g>'
    )
    at += wide
  return "".join(parts), row + 1


def _stroke(line: Line) -> str:
  """The class of a line; those that find all colours taken are dashed."""
  again = line.colour // style.COLOURS % 2
  return "line dashed" if again or line.form == DASHED else "line"


def _colour(line: Line) -> str:
  """The class of a colour of the page."""
  return f"s{line.colour % style.COLOURS}"


def _swatch(line: Line, at: float, height: float) -> str:
  if line.form == MARKS:
    return f'<circle class="dot" cx="{at + 12:.1f}" cy="{height - 4}" r="5"/>'
  return f'<path class="{_stroke(line)}" d="M{at:.1f} {height - 4}h24"/>'
