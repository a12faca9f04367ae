"""One self-contained HTML page of what the other stages left in a workdir."""

import base64
from collections.abc import Mapping
import html
import pathlib
import string
from typing import Any

from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import records
from nashmd_jax.evaluation import judges_page, plots, standings_page, win_rates
from nashmd_jax.training import metrics, warned

SAMPLES = 10
PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2433; margin: 0;
  background: #f5f6f8; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 0 0 .75rem; }
section { background: #fff; border: 1px solid #dfe3ea; border-radius: .5rem;
  padding: 1.25rem; margin-top: 1.25rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.1rem; }
.note { color: #566075; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .45rem .7rem; text-align: left; vertical-align: top; }
th { font-weight: 600; font-size: .9rem; }
.plain td, .plain th { border-bottom: 1px solid #e6e9ef; }
.heat { margin: .5rem 0 1rem; }
.heat td { text-align: center; min-width: 6.2rem; border: 2px solid #fff;
  font-variant-numeric: tabular-nums; }
.heat small { display: block; font-size: .75rem; opacity: .85; }
figure { margin: 0; } img { max-width: 100%; height: auto; }
.sample { border-top: 1px solid #e6e9ef; padding-top: .75rem;
  margin-top: .75rem; }
.sample table { width: 100%; } .sample th { width: 9rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.sample td, .sample th { padding: .2rem .5rem .2rem 0; }
details { margin: .25rem 0 1rem; } summary { cursor: pointer; }
code { font-size: .9em; overflow-wrap: anywhere; }
$judges_style</style></head><body><main>
<h1>$title</h1>
<p class="lead">$headline</p>
<section><h2>Win rates</h2>
<p>Probability that the response of the policy in the row is preferred to that
of the policy in the column, over $prompts held-out prompts, every pair judged
in both orders. Small print: $confidence interval over prompts.</p>
$matrices
$chosen
$words
<p class="note">$about_judge</p></section>
<section><h2>Judges</h2>$judges</section>
<section><h2>Training</h2><figure><img alt="Training curves" src="$curves">
</figure></section>
<section><h2>Warnings</h2>$warnings</section>
<section><h2>Side by side</h2>
<p class="note">The first $samples test prompts, what the author wrote
and one sample of each policy.</p>
$side_by_side</section>
<section><h2>Stages</h2>$stages</section>
</main></body></html>
""")


def make_page(
  workdir: pathlib.Path, results: Mapping[str, Any], curves: pathlib.Path
) -> str:
  """The page.

  Args:
    workdir: of a run.
    results: of its tournament.
    curves: the picture of its training.
  """
  image = base64.b64encode(curves.read_bytes()).decode()
  judges = results["judges"]
  return PAGE.substitute(
    title="Nash learning from human feedback: a run",
    headline=_headline(results),
    prompts=results["prompts"],
    confidence=f"{results['confidence']:.0%}",
    matrices="".join(
      f"<h3>{_title(table)}</h3>"
      + _not_judged(table)
      + _matrix(results["policies"], table)
      + _at_equal_length(results["policies"], table)
      + standings_page.section(results["policies"], table.get("standings"))
      for table in judges.values()
    ),
    chosen=_chosen(results["chosen"]),
    words=_words(results["words"], results["ended"]),
    about_judge=html.escape(next(iter(judges.values()))["about"]),
    judges_style=judges_page.STYLE,
    judges=judges_page.section(workdir),
    curves=f"data:image/png;base64,{image}",
    warnings=_warnings(workdir),
    samples=min(SAMPLES, results["records"]),
    side_by_side=_side_by_side(results["policies"], workdir),
    stages=_stages(workdir),
  )


def _title(table: Mapping[str, Any]) -> str:
  return html.escape(table["title"][:1].upper() + table["title"][1:])


def _not_judged(table: Mapping[str, Any]) -> str:
  told = win_rates.told_not_judged(table)
  return told and f"<p>{told}.</p>"


def _headline(results) -> str:
  """What the first judge says of every policy against the first."""
  start, *names = results["policies"]
  judge = next(iter(results["judges"]))
  found: dict[str, list[str]] = {}
  for name in names:
    rate, low, high = win_rates.against(results, name, start, judge)
    said = f"{html.escape(name)} {rate:.3f} ({low:.3f} to {high:.3f})"
    found.setdefault(win_rates.verdict(low, high), []).append(said)
  told = "; ".join(
    f"{verdict}: {', '.join(said)}" for verdict, said in found.items()
  )
  return (
    f"Probability to be preferred to {html.escape(start)} by the "
    f"{html.escape(results['judges'][judge]['title'])}, with "
    f"{results['confidence']:.0%} intervals – {told}."
  )


def _matrix(names, table) -> str:
  head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in names)
  rows = []
  for i, name in enumerate(names):
    cells = []
    for j in range(len(names)):
      if i == j:
        cells.append('<td style="background:#eceff3">–</td>')
        continue
      rate = table["win_rate"][i][j]
      low, high = table["low"][i][j], table["high"][i][j]
      background, ink = plots.heat(rate)
      cells.append(
        f'<td style="background:{background};color:{ink}">{rate:.3f}'
        f"<small>{low:.3f}–{high:.3f}</small></td>"
      )
    rows.append(
      f"<tr><th scope=row>{html.escape(name)}</th>{''.join(cells)}</tr>"
    )
  return (
    f'<div class="scroll"><table class="heat"><tr><th></th>{head}</tr>'
    f"{''.join(rows)}</table></div>"
  )


def _at_equal_length(names, table) -> str:
  return (
    "<details><summary>At equal length</summary><p>The same if both responses "
    "had as many words, by a logistic regression of what the judge said on how "
    "many more words one has than the other: a rate that comes much nearer to "
    "one half was due to length. Small print: bootstrap interval over "
    f"prompts.</p>{_matrix(names, table['at_equal_length'])}</details>"
  )


def _chosen(chosen: Mapping[str, Mapping[str, Any]]) -> str:
  how = {
    "best": "the best on average",
    "equilibrium": "one drawn from the equilibrium of their game",
  }
  return "".join(
    f"<p>{html.escape(name)} was not trained: of {one['samples']} responses of "
    f"{html.escape(one['policy'])} to each prompt it is {how[one['choose']]}, "
    f"as {html.escape(one['judge'])} judges them against one another "
    f"({one['judged']:.1%} of the pairs were judged).</p>"
    for name, one in chosen.items()
  )


def _words(words: Mapping[str, float], ended: Mapping[str, float]) -> str:
  told = ", ".join(
    f"{html.escape(name)} {count:.1f}"
    + (f" ({ended[name]:.1%})" if name in ended else "")
    for name, count in words.items()
  )
  return (
    "<p>Words a response, and the share of responses that ended by "
    f"themselves: {told}.</p>"
  )


def _warnings(workdir) -> str:
  """What the finished jobs have warned of, each with its step."""
  rows = [
    f"<tr><td>{html.escape(name)}</td><td>{one['step']}</td>"
    f"<td>{html.escape(str(one['sentence']))}</td></tr>"
    for name in workdir_lib.finished(workdir)
    for one in metrics.load_metrics(workdir / name / warned.FILE)
  ]
  if not rows:
    return "<p>Nothing was warned of.</p>"
  return (
    '<table class="plain"><tr><th>Stage</th><th>Step</th><th>Seen</th></tr>'
    f"{''.join(rows)}</table>"
  )


def _side_by_side(names, workdir) -> str:
  names = ["written", *names]
  folder = workdir / "tournament" / "responses"
  columns = {
    name: records.load_records(folder / f"{name}.jsonl", "summary")[:SAMPLES]
    for name in names
  }
  blocks = []
  for i, row in enumerate(columns[names[0]]):
    lines = "".join(
      f"<tr><th scope=row>{html.escape(name)}</th>"
      f"<td>{html.escape(columns[name][i]['response']) or '<i>empty</i>'}"
      "</td></tr>"
      for name in names
    )
    blocks.append(
      f'<div class="sample"><p><code>{html.escape(row["prompt"])}</code></p>'
      f"<table>{lines}</table></div>"
    )
  return "".join(blocks)


def _stages(workdir) -> str:
  rows = []
  for name, done in workdir_lib.finished(workdir).items():
    rows.append(
      f"<tr><td>{html.escape(name)}</td><td>{done['seconds']:.0f} s</td>"
      f"<td>{html.escape(done.get('reused', 'this run'))}</td></tr>"
    )
  return (
    '<table class="plain"><tr><th>Stage</th><th>Time</th><th>From</th></tr>'
    f"{''.join(rows)}</table>"
  )
