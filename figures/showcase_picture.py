"""`python -m figures.showcase_picture`: docs/showcase.svg, the heat map of it.

Of the texts in figures/found/showcase and of the summaries that people wrote,
all judged by the exact raters; it needs SciTLDR, as `make showcase` does.
"""

from collections.abc import Iterator
import pathlib

from figures import showcase
from nashmd_jax import files
from nashmd_jax.evaluation import style

PICTURE = pathlib.Path("docs") / "showcase.svg"
TITLES = {
  "nash_md": "trained",
  "sft": "the folder",
  "people": "people",
  "best_of_8": "best of 8",
  "self_play": "self-play",
  "best_response": "best response",
  "rlhf": "RLHF",
}
LEFT, TOP, WIDE, HIGH = 110, 70, 120, 56  # of the first cell, and of each
EDGE = 12
SCHEME = "light"


def policies() -> list[str]:
  """Those whose texts are there, the trained one first."""
  kept = [name for name in TITLES if _kept(name)]
  return [*kept, showcase.PEOPLE]


def _kept(name: str) -> bool:
  return (showcase.FOUND / f"{name}.jsonl.xz").exists()


def _text(x: float, y: float, said: str, **further: str) -> str:
  given = {"text-anchor": "middle", "font-size": "14", "fill": "#222"} | further
  shown = " ".join(f'{name}="{one}"' for name, one in given.items())
  return f'<text x="{x:g}" y="{y:g}" {shown}>{said}</text>'


def _cell(row: int, column: int, names: list[str]) -> Iterator[str]:
  """A cell: its colour, its win rate, and the interval of that."""
  x, y = LEFT + column * WIDE, TOP + row * HIGH
  place = f'x="{x}" y="{y}" width="{WIDE}" height="{HIGH}"'
  if row == column:
    yield f'<rect {place} fill="#f4f4f4"/>'
    return
  rate, low, high = showcase.compare(names[row], names[column])
  background, ink = style.heat_of(SCHEME, rate), style.named(SCHEME)["ink"]
  yield f'<rect {place} fill="{background}"/>'
  middle = x + WIDE / 2
  yield _text(middle, y + 26, f"{rate:.2f}", **{"font-size": "18", "fill": ink})
  interval = f"{low:.2f} to {high:.2f}"
  yield _text(middle, y + 44, interval, **{"font-size": "11", "fill": ink})


def picture() -> str:
  """The heat map as SVG, a line for each thing in it."""
  names = policies()
  titles = [TITLES[name] for name in names]
  width = LEFT + len(names) * WIDE + EDGE
  height = TOP + len(names) * HIGH + EDGE
  prompts = len(showcase.texts(showcase.METHOD))
  title = f"Preferred to the column, by the raters on {prompts} prompts"
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    f'width="{width}" height="{height}" font-family="sans-serif" role="img" '
    f'aria-label="{title}">',
    f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>',
    _text(width / 2, 26, title, **{"font-size": "15"}),
  ]
  for number, said in enumerate(titles):
    lines.append(_text(LEFT + (number + 0.5) * WIDE, TOP - 12, said))
    y = TOP + (number + 0.5) * HIGH + 5
    lines.append(_text(LEFT - 10, y, said, **{"text-anchor": "end"}))
    for column in range(len(names)):
      lines += _cell(number, column, names)
  return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
  files.save_text(PICTURE, picture())
