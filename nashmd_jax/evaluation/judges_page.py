"""The section of a run's page on the judges that were trained for it."""

from collections.abc import Mapping
import html
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax.evaluation import chart, plots, sections, sheets

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
# Estimates of a judge, and of its places.
ESTIMATES = (*SCORES, "favours_longer", "longer_wins")
PLACES = (
  "disagree", "first_wins", "accuracy_one_order", "accuracy_both_orders",
)  # fmt: skip
ENDS = ("value", "low", "high", "n")


def section(workdir: pathlib.Path) -> sections.Section:
  """What a workdir holds of its judges."""
  trained = plots.judge_scores(workdir)
  in_training = _in_training(trained)
  known, charts = _known(trained), []
  tables = [in_training] if in_training.rows else []
  path = workdir / "judges" / "results.json"
  if path.exists():
    needed = ("judges", "comparisons", "prompts", "cycles")
    results = files.load_object(path, *needed)
    charts = [_calibration(*one) for one in results["judges"].items()]
    tables += [_estimates(results), _groups(results), _facts(results)]
    known = _measured(results, charts) + known
  body = known or "<p>No judge was trained for this run.</p>"
  body += sheets.links(*tables)
  return sections.Section("judges", "Judges", body, tables, charts)


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


def _measured(results: Mapping[str, Any], charts) -> str:
  judges = results["judges"]
  scores = sheets.table(
    ["Judge", *SCORES.values()],
    (
      [f"{name} model", *(_estimate(one[key]) for key in SCORES)]
      for name, one in judges.items()
    ),
  )
  return (
    f"<p>Over all {results['comparisons']:,} held-out comparisons of "
    f"{results['prompts']:,} prompts.</p>{scores}"
    f'<p class="note">{NOTE}</p>{_cycles(results["cycles"])}'
    f"{_between(results)}"
    + "".join(
      _judge(name, one, drawn)
      for (name, one), drawn in zip(judges.items(), charts, strict=True)
    )
  )


def _judge(name: str, scores: Mapping[str, Any], drawn: chart.Chart) -> str:
  groups = "".join(
    sheets.table(
      [title, "n", "Accuracy"],
      ([row["label"], f"{row['n']:,}", _estimate(row)] for row in scores[key]),
    )
    for key, title in GROUPS.items()
    if scores[key]
  )
  return (
    f"<h3>{html.escape(name[:1].upper() + name[1:])} model</h3>"
    f"{_position(scores.get('position'))}{_longer(scores)}"
    f'<div class="charts">{chart.figure(drawn)}<div>{groups}</div></div>'
  )


def _between(results: Mapping[str, Any]) -> str:
  """How often two judges favour the same response."""
  return "".join(
    f"<p>The {html.escape(one['judge'])} and the {html.escape(one['other'])} "
    f"model favour the same response in {_percent(one)} of the comparisons.</p>"
    for one in results.get("between", ())
  )


def _estimates(results: Mapping[str, Any]) -> sheets.Sheet:
  rows = []
  for name, scores in results["judges"].items():
    rows += [(name, key, *_ends(scores[key])) for key in ESTIMATES]
    places = scores.get("position")
    rows += [(name, key, *_ends(places[key])) for key in PLACES if places]
  rows += [
    (one["judge"], f"agrees with {one['other']}", *_ends(one))
    for one in results.get("between", ())
  ]
  return sheets.Sheet("judges", ("judge", "score", *ENDS), rows)


def _ends(one: Mapping[str, Any]) -> list[Any]:
  return [one[end] for end in ENDS]


def _groups(results: Mapping[str, Any]) -> sheets.Sheet:
  rows = [
    (name, key, row["label"], *_ends(row))
    for name, scores in results["judges"].items()
    for key in ("calibration", *GROUPS)
    for row in scores[key]
  ]
  head = ("judge", "groups_by", "group", *ENDS)
  return sheets.Sheet("judge_groups", head, rows)


def _facts(results: Mapping[str, Any]) -> sheets.Sheet:
  """Counts and cycles."""
  found = results["cycles"]
  rows = [(name, results[name]) for name in ("comparisons", "prompts")]
  rows += [
    (name, found[name]) for name in ("triples", "tied", "cyclic", "share")
  ]
  rows.append(("triples not tied", found["triples"] - found["tied"]))
  rows += [
    (f"cyclic share of {name}", one["share"])
    for name, one in found["judges"].items()
  ]
  if found["null"] is not None:
    rows += [
      (f"cyclic share of Bradley-Terry scores, {end}", value)
      for end, value in found["null"]["share"].items()
    ]
    rows.append(("p-value", found["null"]["p_value"]))
  return sheets.Sheet("judge_facts", ("fact", "value"), rows)


def _in_training(trained) -> sheets.Sheet:
  """What simulated raters let us know of those it was evaluated on."""
  rows = [
    (name, key.removeprefix("eval/"), scores[key])
    for name, scores in trained.items()
    for key in ("eval/accuracy", "eval/best_accuracy", "cyclic_prompts")
    if key in scores
  ]
  return sheets.Sheet("judges_in_training", ("judge", "score", "value"), rows)


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


def _calibration(name: str, scores: Mapping[str, Any]) -> chart.Chart:
  """Share of votes for the favoured side against the judge's confidence."""
  points = [
    chart.Point(row["confidence"], row["value"], row["low"], row["high"])
    for row in scores["calibration"]
  ]
  return chart.Chart(
    f"calibration_{name}",
    "Calibration",
    "confidence of the judge",
    "votes for that side",
    [chart.Line(f"{name} model", points, 0, chart.MARKS)],
    diagonal=True,
  )
