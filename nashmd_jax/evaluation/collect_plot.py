"""The figure of stage `collect`: scores by setting, with intervals."""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

import matplotlib.figure
import numpy as np

PANELS, COLUMNS = 6, 3
WIDE = 20  # numbers that span more than this factor stand on a log axis
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
  figure = matplotlib.figure.Figure(
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
    "Mean over seeds with its 95 % interval; dots are single trials",
    fontsize="medium",
  )
  figure.savefig(path, dpi=110)


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
  lines = {}
  for group, place in zip(groups, places, strict=True):
    others = {k: v for k, v in group["settings"].items() if k != axis_name}
    label = ", ".join(f"{k}={v}" for k, v in others.items())
    if name in group["scores"]:
      lines.setdefault(label, []).append((place, group["scores"][name]))
  for number, (label, points) in enumerate(lines.items()):
    points.sort(key=lambda point: point[0])
    x = np.array([place for place, _ in points], float)
    mean = [score["mean"] for _, score in points]
    ends = [
      (0.0, 0.0)
      if score["low"] is None
      else (score["mean"] - score["low"], score["high"] - score["mean"])
      for _, score in points
    ]
    colour = f"C{number}"
    panel.errorbar(
      x, mean, yerr=np.array(ends).T, fmt="o-" if ticks is None else "o",
      color=colour, ms=5, lw=1.2, capsize=3, label=label,
    )  # fmt: skip
    for place, (_, score) in zip(x, points, strict=True):
      values = score["values"]
      panel.plot(
        [place] * len(values), values, ".", color=colour, alpha=0.4, ms=5
      )
  if name.startswith("tournament/"):
    panel.axhline(0.5, color="grey", lw=0.8, ls=":")
  if ticks is None:
    panel.set_xscale(_scale(places))
  else:
    panel.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right")
    panel.margins(x=0.15)
  panel.set_title(name, fontsize="small", wrap=True)
  panel.set_xlabel(axis_name or "all seeds")
  panel.grid(alpha=0.25)
  panel.spines[["top", "right"]].set_visible(False)


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


def _scale(places: Sequence[float]) -> str:
  low, high = min(places), max(places)
  return "log" if low > 0 and high / low > WIDE else "linear"
