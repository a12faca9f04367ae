"""What `collect` says of a sweep in words: counts, and the Markdown table."""

from collections.abc import Sequence
from typing import Any

from nashmd_jax.sweeps import trials

CONFIDENCE = 0.95
FINISHED = "finished"
NONE = "–"
Row = dict[str, Any]


def count(rows: Sequence[Row]) -> str:
  """How many trials there are in each state."""
  states = [row["state"] for row in rows]
  others = dict.fromkeys(state for state in states if state != FINISHED)
  parts = [f"{states.count(FINISHED)} of {len(rows)} trials finished"]
  parts += [f"{states.count(other)} {other}" for other in others]
  return ", ".join(parts)


def table(
  rows: Sequence[Row], groups: Sequence[Row], strays: Sequence[str]
) -> str:
  """What is missing, then one Markdown table a score."""
  lines = [f"# Sweep: {count(rows)}", ""]
  missing = [row for row in rows if row["state"] != FINISHED]
  if missing:
    lines += ["## In no mean below", ""]
    lines += _markdown(
      ["trial", "settings", "state", "reached", "reason"],
      [
        [
          f"{row['trial']:03d}",
          trials.describe(_settings(row)),
          *(row[key] for key in ("state", "reached", "reason")),
        ]
        for row in missing
      ],
    )
  if strays:
    lines += [f"Not of this sweep and not read: {', '.join(strays)}.", ""]
  names = dict.fromkeys(name for group in groups for name in group["scores"])
  if not names:
    return "\n".join([*lines, "No trial is finished.", ""])
  lines += [
    "## Scores",
    "",
    f"Mean over the seeds and its {CONFIDENCE:.0%} Student-t interval; n "
    f"finished trials have the score as a finite number. With one there is no "
    "interval.",
    "",
  ]
  head = ["n", "mean", f"{CONFIDENCE:.0%} interval"]
  if not groups[0]["settings"]:
    scores, planned = groups[0]["scores"], groups[0]["trials"]
    body = [[name, *cells(scores[name], planned)] for name in names]
    return "\n".join([*lines, *_markdown(["score", *head], body)])
  for name in names:
    lines += [f"### {name}", ""]
    lines += _markdown(
      [*groups[0]["settings"], *head],
      [
        [
          *group["settings"].values(),
          *cells(group["scores"].get(name), group["trials"]),
        ]
        for group in groups
      ],
    )
  return "\n".join(lines)


def _settings(row: Row) -> dict[str, Any]:
  seed = {} if row["seed"] is None else {trials.SEED: row["seed"]}
  return row["settings"] | seed


def cells(score: Row | None, planned: int) -> list[str]:
  """How many trials are behind a score, its mean and its interval.

  Args:
    score: as in the groups of `collect.aggregate`; None if no trial has it.
    planned: trials of the group.
  """
  count = len(score["values"]) if score else 0
  shown = f"{count} of {planned}" if count < planned else f"{count}"
  if score and score["not_finite"]:
    shown += f", {score['not_finite']} not finite"
  if score is None or score["mean"] is None:
    return [shown, NONE, NONE]
  ends = NONE
  if score["low"] is not None:
    ends = f"{score['low']:.4g} to {score['high']:.4g}"
  return [shown, f"{score['mean']:.4g}", ends]


def _markdown(head: Sequence[str], body: Sequence[Sequence[Any]]) -> list[str]:
  lines = [head, ["---"] * len(head), *body]
  cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
  return [*(f"| {' | '.join(line)} |" for line in cells), ""]
