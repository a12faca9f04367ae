"""How pages look: colours of the light and the dark scheme, CSS, the script.

A page names colours by what they are for, so that each scheme is one table.
Every ink may stand on every ground: a test computes that it is readable there.
"""

import base64
import hashlib
import re

GROUNDS = ("ground", "card", "raised")
INKS = ("ink", "muted", "link")
LIGHT = {
  "ground": "#f3f5f8",
  "card": "#ffffff",
  "raised": "#eaeef4",
  "line": "#d5dbe5",
  "ink": "#1b2230",
  "muted": "#4b566b",
  "link": "#1a4f9c",
  "won": "#7db8e8",
  "lost": "#f19a80",
}
DARK = {
  "ground": "#10141a",
  "card": "#191f28",
  "raised": "#242c38",
  "line": "#3a4454",
  "ink": "#e8ebf1",
  "muted": "#b0bac9",
  "link": "#93bdff",
  "won": "#1d5c99",
  "lost": "#93392b",
}
# Of the lines of charts, in their order.
LIGHT_LINES = (
  "#1f6fb4", "#bf4408", "#2c7a33", "#8541a8", "#8f6a00", "#007a86", "#b81c58",
  "#5a6372",
)  # fmt: skip
DARK_LINES = (
  "#6cb4f8", "#ff9c66", "#7dd28a", "#cba3f2", "#e2c052", "#5dd2dc", "#ff92ba",
  "#b5bdca",
)  # fmt: skip
COLOURS = len(LIGHT_LINES)


def named(scheme: str) -> dict[str, str]:
  """The colours of a scheme, "light" or "dark", by their CSS names."""
  plain, lines = {
    "light": (LIGHT, LIGHT_LINES),
    "dark": (DARK, DARK_LINES),
  }[scheme]
  return plain | {f"s{i}": one for i, one in enumerate(lines)}


def contrast(one: str, other: str) -> float:
  """The contrast ratio of two colours #rrggbb, 1 to 21.

  Source: WCAG 2.2, relative luminance.
  """
  lighter, darker = sorted(map(_luminance, (one, other)), reverse=True)
  return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
  parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
  linear = [
    x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
  ]
  return sum(
    share * x for share, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
  )


def heat(rate: float) -> str:
  """The CSS colour behind a win rate: from that of 0 over the card's to 1's."""
  end = "won" if rate > 0.5 else "lost"
  return f"color-mix(in srgb, var(--{end}) {_depth(rate):.0%}, var(--card))"


def heat_of(scheme: str, rate: float) -> str:
  """That colour in a scheme, as #rrggbb."""
  colours, depth = named(scheme), _depth(rate)
  ends = colours["won" if rate > 0.5 else "lost"], colours["card"]
  parts = [
    round(depth * int(one, 16) + (1 - depth) * int(other, 16))
    for one, other in zip(
      *(re.findall("..", end[1:]) for end in ends), strict=True
    )
  ]
  return "#" + "".join(f"{part:02x}" for part in parts)


def _depth(rate: float) -> float:
  """How much of it: what is near ½ would hardly be seen in proportion."""
  return min(1.0, abs(2 * rate - 1)) ** 0.5


def _properties(scheme: str) -> str:
  return " ".join(f"--{name}: {one};" for name, one in named(scheme).items())


SCHEMES = f"""
:root {{ color-scheme: light dark; {_properties("light")} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_properties("dark")} }} }}
"""
CHART = (
  """
.chart { font: 14px system-ui, sans-serif; fill: var(--muted); display: block;
  width: 100%; max-width: 30rem; height: auto; }
.chart .rule { stroke: var(--line); fill: none; }
.chart .level { stroke: var(--muted); stroke-dasharray: 2 3; }
.chart .line { stroke: var(--own); fill: none; stroke-width: 2;
  stroke-linejoin: round; }
.chart .dashed { stroke-dasharray: 6 4; }
.chart .band { fill: var(--own); opacity: .15; }
.chart .dot { fill: var(--own); stroke: var(--card); }
.chart .bar { stroke: var(--own); stroke-width: 2; }
.chart .any { --own: var(--muted); }
"""
  + "\n".join(f".s{i} {{ --own: var(--s{i}); }}" for i in range(COLOURS))
  + "\n"
)
PAGE = """
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0;
  background: var(--ground); }
main, header { max-width: 66rem; margin: 0 auto; padding: 0 1rem; }
main { padding-bottom: 4rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.25rem 0 .25rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem;
  margin: .75rem 0 0; padding: 0; }
nav a { display: inline-block; padding: .2rem 0; }
section { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin-top: 1rem; min-width: 0; }
p, .said, li { overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.1rem; }
.note, figcaption, caption, small { color: var(--muted); }
.note { font-size: .9rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; }
th { font-weight: 600; font-size: .9rem; }
@media (min-width: 40rem) { .plain td { white-space: nowrap; } }
td .cell { display: block; min-width: 12rem; max-width: 24rem;
  white-space: normal; overflow-wrap: anywhere; }
.plain td, .plain th { border-bottom: 1px solid var(--line); }
.heat { margin: .5rem 0; }
.heat td { text-align: center; min-width: 6.5rem;
  border: 2px solid var(--card); }
.heat small { display: block; font-size: .8rem; color: inherit;
  white-space: nowrap; }
@media (max-width: 40rem) { main, header { padding-inline: .5rem; }
  section { padding: .75rem; } .heat td, .heat th { padding: .3rem .25rem; }
  .heat td { min-width: 4.5rem; } .heat small { font-size: .7rem; } }
.heat .self { background: var(--raised); color: var(--muted); }
.charts { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .25rem; }
figcaption a { font-weight: 400; font-size: .9rem; margin-left: .5rem; }
details { margin: .5rem 0; } summary { cursor: pointer; padding: .2rem 0; }
code, pre { font-size: .9em; overflow-wrap: anywhere; white-space: pre-wrap; }
.choose { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .75rem 0; }
.choose[hidden] { display: none; }
.choose label { display: grid; gap: .15rem; font-size: .9rem; max-width: 100%; }
.choose input, .choose select { font: inherit; color: var(--ink);
  background: var(--ground); border: 1px solid var(--muted);
  border-radius: .3rem; padding: .35rem .5rem; max-width: 100%; }
.sample { border-top: 1px solid var(--line); padding-top: .75rem;
  margin-top: .75rem; }
.sample[hidden] { display: none; }
.sample dl { margin: .5rem 0; display: grid; gap: .1rem .75rem;
  grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); }
.sample dt { font-weight: 600; font-size: .9rem; overflow-wrap: anywhere; }
.sample dd { margin: 0; }
@media (max-width: 30rem) { .sample dl { display: block; }
  .sample dd { margin-bottom: .5rem; } }
@media print { nav, .choose { display: none; }
  section { break-inside: avoid-page; } }
"""
# Shows what can be filtered by it, and hides the samples that are not asked
# for. Samples say who wins as places of policies, by the order of the judges.
SCRIPT = """
(() => {
  const form = document.querySelector(".choose");
  if (!form) return;
  const all = [...document.querySelectorAll(".sample")];
  const count = form.querySelector("output");
  const texts = all.map((one) => one.textContent.toLowerCase());
  const show = () => {
    const judge = Number(form.elements.judge.value);
    const winner = form.elements.winner.value;
    const text = form.elements.text.value.trim().toLowerCase();
    let shown = 0;
    all.forEach((one, i) => {
      const won = one.dataset.won.split(" ")[judge];
      const fits = (!winner || won === winner) && texts[i].includes(text);
      one.hidden = !fits;
      shown += fits;
    });
    count.value = shown + " of " + all.length + " shown";
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
"""
# What the page may load: nothing; and run: the script above alone.
POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'sha256-"
  + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
  + "'"
)
