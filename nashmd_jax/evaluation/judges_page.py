"""The section of a run's page on the judges that were trained for it."""

from collections.abc import Iterable, Mapping
import html
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax.evaluation import plots

STYLE = """.judge { display: flex; flex-wrap: wrap; gap: 1rem 2rem;
  align-items: flex-start; }
.judge svg { flex: 0 1 20rem; width: 20rem; max-width: 100%; height: auto;
  font: 11px system-ui, sans-serif; fill: #566075; }
.judge .scroll { max-width: 100%; }
.judge td, .score td { font-variant-numeric: tabular-nums; }
"""
SCORES = {
  "accuracy": "Accuracy",
  "log_loss": "Log-loss, nats",
  "brier": "Brier score",
  "calibration_error": "Calibration error",
}
GROUPS = {
  "margin": "By its margin, nats",
  "length": "By how much longer the favoured one is, words",
  "agreement": "By the raters’ agreement, share of the majority",
}
NOTE = (
  "A tie on either side counts one half. In brackets and as bars: 95 % "
  "intervals that resample prompts; they are too narrow where a group has few. "
  "Calibration is of the side that the judge "
  "favours, in bins of 5 %; noise in the bins makes the calibration error of a "
  "perfect judge more than 0, and its interval lies somewhat high."
)
# The square of the calibration plot.
LEFT, TOP, SIDE = 44, 8, 240


def section(workdir: pathlib.Path) -> str:
  """What a workdir holds of its judges, as HTML."""
  known = _known(plots.judge_scores(workdir))
  path = workdir / "judges" / "results.json"
  if not path.exists():
    return known or "<p>No judge was trained for this run.</p>"
  needed = ("judges", "comparisons", "prompts", "cycles")
  return _measured(files.load_object(path, *needed)) + known


def _known(trained: Mapping[str, Mapping[str, float]]) -> str:
  """What simulated raters let us know."""
  told = [
    f"<p>The raters’ noise allows the {html.escape(name)} model an accuracy of "
    f"{scores['eval/best_accuracy']:.3f} on the comparisons that it was "
    f"evaluated on in training, where it had {scores['eval/accuracy']:.3f}.</p>"
    for name, scores in trained.items()
    if "eval/best_accuracy" in scores
  ]
  shares = {scores.get("cyclic_prompts") for scores in trained.values()}
  told += [
    "<p>The raters’ preference is cyclic among the candidate summaries of "
    f"{share:.1%} of the prompts.</p>"
    for share in shares - {None}
  ]
  return "".join(told)


def _measured(results: Mapping[str, Any]) -> str:
  judges = results["judges"]
  scores = table(
    ["Judge", *SCORES.values()],
    (
      [f"{name} model", *(_estimate(one[key]) for key in SCORES)]
      for name, one in judges.items()
    ),
    kind="plain score",
  )
  return (
    f"<p>Over all {results['comparisons']:,} held-out comparisons of "
    f"{results['prompts']:,} prompts.</p>{scores}"
    f'<p class="note">{NOTE}</p>{_cycles(results["cycles"])}'
    + "".join(_judge(name, one) for name, one in judges.items())
  )


def _judge(name: str, scores: Mapping[str, Any]) -> str:
  groups = "".join(
    table(
      [title, "n", "Accuracy"],
      ([row["label"], f"{row['n']:,}", _estimate(row)] for row in scores[key]),
    )
    for key, title in GROUPS.items()
    if scores[key]
  )
  return (
    f"<h3>{html.escape(name[:1].upper() + name[1:])} model</h3>"
    f"{_position(scores.get('position'))}{_longer(scores)}"
    f'<div class="judge">{_calibration(scores["calibration"])}{groups}</div>'
  )


def _position(position: Mapping[str, Any] | None) -> str:
  if position is None:
    return ""
  return (
    "<p>Read in one order only it would contradict itself in the other on "
    f"{_percent(position['disagree'])} of the pairs; the response that is read "
    f"first wins {_percent(position['first_wins'])} of the readings; accuracy "
    f"{_estimate(position['accuracy_one_order'])} in one order, "
    f"{_estimate(position['accuracy_both_orders'])} in both.</p>"
  )


def _longer(scores: Mapping[str, Any]) -> str:
  if scores["longer_wins"]["value"] is None:
    return ""
  favoured = _percent(scores["favours_longer"])
  return (
    f"<p>It favours the longer response in {favoured} of the pairs of "
    "different lengths; the raters give it "
    f"{_percent(scores['longer_wins'])} of their votes.</p>"
  )


def _cycles(found: Mapping[str, Any]) -> str:
  left = found["triples"] - found["tied"]
  if not left:
    return (
      "<p>No three responses to one prompt were all compared and ranked, so "
      "that nothing is known of cycles.</p>"
    )
  judges = "; ".join(
    f"the {html.escape(name)} model makes {one['share']:.2%} cyclic"
    for name, one in found["judges"].items()
  )
  null = found["null"]
  said = (
    "There are too few votes for a Bradley-Terry model to hold that against."
    if null is None
    else "Bradley-Terry scores that vote as often would show "
    f"{null['share']['mean']:.2%} ({null['share']['low']:.2%} to "
    f"{null['share']['high']:.2%}); p = {null['p_value']:.3f} for as many "
    "cycles, with every simulation fitted again."
  )
  return (
    f"<p>Of {left:,} triples of responses to one prompt whose pairs were all "
    f"compared ({found['tied']:,} more have a tied pair) the majorities of "
    f"{found['cyclic']:,}, {found['share']:.2%}, go in a ring. {said} Of the "
    f"same triples {judges}.</p>"
  )


def _estimate(one: Mapping[str, Any]) -> str:
  if one["value"] is None:
    return "–"
  if one["low"] is None:
    return f"{one['value']:.3f}"
  return f"{one['value']:.3f} ({one['low']:.3f}–{one['high']:.3f})"


def _percent(one: Mapping[str, Any]) -> str:
  if one["low"] is None:
    return f"{one['value']:.1%}"
  return f"{one['value']:.1%} ({one['low']:.1%}–{one['high']:.1%})"


def table(
  head: Iterable[str], rows: Iterable[Iterable[str]], *, kind: str = "plain"
) -> str:
  def line(tag, cells):
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

  body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
  return (
    f'<div class="scroll"><table class="{kind}"><tr>{line("th", head)}</tr>'
    f"{body}</table></div>"
  )


def _calibration(bins: Iterable[Mapping[str, Any]]) -> str:
  """Share of votes for the favoured side against the judge's confidence."""

  def x(confidence):
    return LEFT + SIDE * (confidence - 0.5) / 0.5

  def y(share):
    return TOP + SIDE * (1 - share)

  marks = [
    f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" '
    'stroke="#c9cfda"/>',
    f'<line x1="{x(0.5)}" y1="{y(0.5)}" x2="{x(1)}" y2="{y(1)}" '
    'stroke="#8a93a6" stroke-dasharray="4 3"/>',
  ]
  for tick in (0.5, 0.75, 1.0):
    marks.append(
      f'<text x="{x(tick)}" y="{TOP + SIDE + 15}" text-anchor="middle">'
      f"{tick:.0%}</text>"
    )
  for tick in (0, 0.25, 0.5, 0.75, 1.0):
    marks.append(
      f'<text x="{LEFT - 5}" y="{y(tick) + 4}" text-anchor="end">'
      f"{tick:.0%}</text>"
    )
  bins = list(bins)
  total = sum(row["n"] for row in bins)
  for row in bins:
    at, share = x(row["confidence"]), row["value"]
    if row["low"] is not None:
      marks.append(
        f'<line x1="{at:.1f}" y1="{y(row["low"]):.1f}" x2="{at:.1f}" '
        f'y2="{y(row["high"]):.1f}" stroke="#2b5fab" stroke-width="1.5"/>'
      )
    radius = 2.5 + 6 * (row["n"] / total) ** 0.5
    marks.append(
      f'<circle cx="{at:.1f}" cy="{y(share):.1f}" r="{radius:.1f}" '
      f'fill="#2b5fab"><title>{html.escape(row["label"])}: {row["n"]} '
      f"comparisons, {share:.1%}</title></circle>"
    )
  width, height = LEFT + SIDE + 16, TOP + SIDE + 36
  middle = LEFT + SIDE / 2
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Calibration: '
    'votes for the favoured side against the judge’s confidence">'
    f'{"".join(marks)}<text x="{middle}" y="{height - 4}" '
    'text-anchor="middle">confidence of the judge</text>'
    f'<text x="11" y="{TOP + SIDE / 2}" text-anchor="middle" '
    f'transform="rotate(-90 11 {TOP + SIDE / 2})">votes for that side</text>'
    "</svg>"
  )
