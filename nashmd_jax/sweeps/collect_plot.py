"""The figure of stage `collect`: scores by setting, with intervals."""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax.evaluation import plots

PANELS, COLUMNS = 6, 3
WIDE = 20  # numbers that span more than this factor stand on a log axis
# Shares of the x axis, so that bars do not cover each other, nor the dots.
SHIFT, DOTS = 0.03, 0.012
Group = Mapping[str, Any]


def save(groups: Sequence[Group], path: pathlib.Path) -> None:
  """Draws the first scores that differ between trials, last jobs first.

  The setting with the most values is the x axis; the others make lines of
  their own. Dots are the trials, bars the interval of their mean.

  Args:
    groups: as `collect.aggregate` returns them.
    path: of the PNG; without a finished trial there is none.
  """
  names = _drawn(groups)
  if not names:
    path.unlink(missing_ok=True)
    return
  axis_name = _axis_name(groups)
  columns = min(COLUMNS, len(names))
  rows = -(-len(names) // columns)
  figure = plots.new_figure(
    figsize=(4.2 * columns, 3.3 * rows + 0.5), layout="constrained"
  )
  panels = figure.subplots(rows, columns, squeeze=False).flat
  for panel, name in zip(panels, names, strict=False):
    _draw(panel, groups, name, axis_name)
  for panel in list(panels)[len(names) :]:
    panel.set_axis_off()
  handles, labels = panels[0].get_legend_handles_labels()
  if any(labels):
    figure.legend(
      handles, labels, frameon=False, loc="outside lower center", ncols=4
    )
  figure.suptitle(
    "Mean over seeds and its 95 % interval, hollow where it is of one trial; "
    "dots are the trials",
    fontsize="medium",
  )
  with files.whole(path) as partial:
    figure.savefig(partial, dpi=110)


def _drawn(groups: Sequence[Group]) -> list[str]:
  names = dict.fromkeys(name for group in groups for name in group["scores"])
  spread = []
  for name in names:
    found = {
      value
      for group in groups
      if name in group["scores"]
      for value in group["scores"][name]["values"]
    }
    if len(found) > 1:
      spread.append(name)
  return (spread or list(names))[:PANELS]


def _axis_name(groups: Sequence[Group]) -> str | None:
  """The setting with the most values; None if trials differ in the seed."""
  names = list(groups[0]["settings"])
  values = {
    name: {json.dumps(group["settings"][name]) for group in groups}
    for name in names
  }
  return max(names, key=lambda name: len(values[name]), default=None)


def _draw(panel, groups, name, axis_name) -> None:
  """One score."""
  places, ticks = _places(groups, axis_name)
  low, high = min(places), max(places)
  log = ticks is None and low > 0 and high / low > WIDE

  def beside(x, share):
    """A place, moved by a share of the axis."""
    return x * (high / low) ** share if log else x + share * (high - low or 1)

  lines = {}
  for group, place in zip(groups, places, strict=True):
    others = {k: v for k, v in group["settings"].items() if k != axis_name}
    label = ", ".join(f"{k}={v}" for k, v in others.items())
    if name in group["scores"]:
      lines.setdefault(label, []).append((place, group["scores"][name]))
  for number, (label, points) in enumerate(lines.items()):
    shift = SHIFT * (number - (len(lines) - 1) / 2)
    points = [(beside(x, shift), beside(x, shift + DOTS), s) for x, s in points]
    points.sort(key=lambda point: point[0])
    _draw_line(panel, points, f"C{number}", label, ticks is None)
  if name.startswith("tournament/"):
    panel.axhline(0.5, color="grey", lw=0.8, ls=":")
  if ticks is None:
    panel.set_xscale("log" if log else "linear")
  else:
    panel.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right")
    panel.set_xlim(-0.5, len(ticks) - 0.5)
  panel.set_title(name, fontsize="small", wrap=True)
  panel.set_xlabel(axis_name or "all seeds")
  panel.grid(alpha=0.25)
  panel.spines[["top", "right"]].set_visible(False)


def _draw_line(panel, points, colour, label, joined) -> None:
  """The groups of one line: places of mean and of dots, and the score."""
  x, _, scores = zip(*points, strict=True)
  means = [
    float("nan") if score["mean"] is None else score["mean"] for score in scores
  ]
  style = "o-" if joined else "o"
  panel.plot(x, means, style, color=colour, ms=5, lw=1.2, label=label)
  for place, dots, score in points:
    mean, low, high = (score[key] for key in ("mean", "low", "high"))
    if mean is None:  # none of its values is finite
      continue
    if low is None:
      panel.plot(place, mean, "o", color=colour, mfc="white", ms=5)
      continue
    ends = [[mean - low], [high - mean]]
    panel.errorbar(place, mean, yerr=ends, fmt="none", color=colour, capsize=3)
    values = score["values"]
    panel.plot([dots] * len(values), values, ".", color=colour, alpha=0.5, ms=5)


def _places(groups, axis_name) -> tuple[list[float], list[str] | None]:
  """Where each group stands on the x axis, and the ticks if not by number."""
  if axis_name is None:
    return [0.0] * len(groups), [""]
  values = [group["settings"][axis_name] for group in groups]
  if all(isinstance(v, int | float) for v in values) and len(set(values)) > 1:
    return [float(value) for value in values], None
  texts = [str(value) for value in values]
  ticks = list(dict.fromkeys(texts))
  return [float(ticks.index(text)) for text in texts], ticks
