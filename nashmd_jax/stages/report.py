"""Stage `report`: one self-contained HTML page, and its plots as PNGs.

Reads only what the other stages left in the workdir; computes no result.
"""

import base64
import html
import pathlib
import string

import matplotlib
import matplotlib.figure

from nashmd_jax import files
from nashmd_jax.data import records
from nashmd_jax.stages import tournament
from nashmd_jax.training import metrics

SAMPLES = 10
ABOUT = {
  "raters": (
    "The raters are a constructed judge: three simulated types, each with one "
    "measurable criterion, whose mixture gives an exact, possibly cyclic "
    "preference. They stand in for people in tests; they are no model of "
    "people."
  ),
  "preference_model": (
    "The judge is the preference model that the policies were trained "
    "against, so that these rates overrate them: ask people, or a judge that "
    "no policy has seen, before you claim anything."
  ),
}
JUDGES = {
  "raters": "Simulated raters (exact)",
  "preference_model": "Learned preference model",
}
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
code { font-size: .9em; overflow-wrap: anywhere; }
</style></head><body><main>
<h1>$title</h1>
<p class="lead">$headline</p>
<section><h2>Win rates</h2>
<p>Probability that the response of the policy in the row is preferred to that
of the policy in the column, over $prompts held-out prompts, every pair judged
in both orders. Small print: $confidence Clopper-Pearson interval.</p>
$matrices
<p class="note">$about_judge</p></section>
<section><h2>Judges</h2>$judges</section>
<section><h2>Training</h2><figure><img alt="Training curves" src="$curves">
</figure></section>
<section><h2>Side by side</h2>
<p class="note">The first $samples test prompts, what the author wrote
and one sample of each policy.</p>
$side_by_side</section>
<section><h2>Stages</h2>$stages</section>
</main></body></html>
""")


def run(workdir: pathlib.Path) -> dict[str, str]:
  """Writes `report/index.html`, `report/curves.png`, `report/win_rates.png`.

  Raises: ValueError if the tournament has not been played.
  """
  results = files.load_json(workdir / "tournament" / "results.json")
  folder = workdir / "report"
  folder.mkdir(parents=True, exist_ok=True)
  _save_plots(workdir, results, folder)
  image = base64.b64encode((folder / "curves.png").read_bytes()).decode()
  page = PAGE.substitute(
    title="Nash learning from human feedback: a run",
    headline=_headline(results),
    prompts=results["prompts"],
    confidence=f"{results['confidence']:.0%}",
    matrices="".join(
      f"<h3>{html.escape(JUDGES[name])}</h3>"
      + _matrix(results["policies"], table)
      for name, table in results["judges"].items()
    ),
    about_judge=ABOUT[next(iter(results["judges"]))],
    judges=_judges(workdir),
    curves=f"data:image/png;base64,{image}",
    samples=min(SAMPLES, results["prompts"]),
    side_by_side=_side_by_side(results["policies"], workdir),
    stages=_stages(workdir),
  )
  files.save_text(folder / "index.html", page)
  return {"page": str(folder / "index.html")}


def _headline(results) -> str:
  """What the first judge says of Nash-MD, or the last policy, against SFT."""
  names = results["policies"]
  name = "nash_md" if "nash_md" in names else names[-1]
  rate, low, high = tournament.against_start(results, name)
  verdict = (
    "above one half" if low > 0.5
    else "below one half" if high < 0.5
    else "not told apart from one half"
  )  # fmt: skip
  return (
    f"{html.escape(name)} is preferred to {tournament.START} with "
    f"probability {rate:.3f} by the {tournament.first_judge(results)} "
    f"({results['confidence']:.0%} interval {low:.3f} to {high:.3f}): "
    f"{verdict}."
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
      background, ink = _heat(rate)
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


def _heat(rate: float) -> tuple[str, str]:
  red, green, blue, _ = matplotlib.colormaps["RdBu"](rate)
  light = 0.299 * red + 0.587 * green + 0.114 * blue
  background = matplotlib.colors.to_hex((red, green, blue))
  return background, "#111" if light > 0.55 else "#fff"


def _judges(workdir) -> str:
  rows = []
  for name in ("preference", "reward"):
    scores = _scores(workdir / name)
    best = scores.get("eval/best_accuracy")
    rows.append(
      f"<tr><td>{name} model</td><td>{scores['eval/accuracy']:.3f}</td>"
      f"<td>{'not known' if best is None else f'{best:.3f}'}</td></tr>"
    )
  cyclic = ""
  if "cyclic_prompts" in scores:
    cyclic = (
      "<p>The raters’ preference is cyclic among the candidate summaries of "
      f"{scores['cyclic_prompts']:.1%} of the prompts.</p>"
    )
  return (
    '<table class="plain"><tr><th>Judge</th><th>Held-out accuracy</th>'
    "<th>Best that the raters’ noise allows</th></tr>"
    f"{''.join(rows)}</table>{cyclic}"
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
  for path in sorted(
    workdir.rglob("done.json"), key=lambda path: path.stat().st_mtime
  ):
    name = path.parent.relative_to(workdir)
    seconds = files.load_json(path)["seconds"]
    rows.append(
      f"<tr><td>{html.escape(str(name))}</td><td>{seconds:.0f} s</td></tr>"
    )
  return (
    '<table class="plain"><tr><th>Stage</th><th>Time</th></tr>'
    f"{''.join(rows)}</table>"
  )


def _scores(folder: pathlib.Path) -> dict[str, float]:
  return files.load_json(folder / "done.json")["results"]


def _series(folder: pathlib.Path, key: str) -> tuple[list, list]:
  rows = [
    row for row in metrics.load_metrics(folder / "metrics.jsonl") if key in row
  ]
  return [row["step"] for row in rows], [row[key] for row in rows]


def _save_plots(workdir, results, folder) -> None:
  # The object interface draws without a display and without global state.
  figure = matplotlib.figure.Figure(figsize=(11, 6.4), layout="constrained")
  axes = figure.subplots(2, 2)
  axis = axes[0, 0]
  axis.plot(*_series(workdir / "sft", "nats_per_token"), label="training")
  axis.plot(*_series(workdir / "sft", "eval/nats_per_token"), label="held out")
  axis.set(title="SFT", ylabel="nats a token")
  axis = axes[0, 1]
  for name in ("preference", "reward"):
    axis.plot(*_series(workdir / name, "eval/accuracy"), label=f"{name} model")
    best = _scores(workdir / name).get("eval/best_accuracy")
    if best is not None:
      label = "best possible" if name == "preference" else None
      axis.axhline(best, color="grey", linestyle=":", label=label)
  axis.set(title="Judges, held-out comparisons", ylabel="accuracy")
  for number, name in enumerate(results["policies"]):
    for axis, key in (
      (axes[1, 0], "eval/win_prob_against_reference"),
      (axes[1, 1], "kl"),
    ):
      steps, values = _series(workdir / "nash" / name, key)
      if steps:
        axis.plot(steps, values, label=name, color=f"C{number}")
  axes[1, 0].set(
    title="Against SFT, by the preference model", ylabel="win probability"
  )
  axes[1, 1].set(title="Distance from SFT", ylabel="KL, nats a response")
  for axis in axes.flat:
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small")
  figure.savefig(folder / "curves.png", dpi=110)

  names, count = results["policies"], len(results["judges"])
  figure = matplotlib.figure.Figure(
    figsize=(5.6 * count, 5), layout="constrained"
  )
  for axis, (judge, table) in zip(
    figure.subplots(1, count, squeeze=False)[0],
    results["judges"].items(),
    strict=True,
  ):
    axis.imshow(table["win_rate"], cmap="RdBu", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(JUDGES[judge])
    for i, row in enumerate(table["win_rate"]):
      for j, rate in enumerate(row):
        _, ink = _heat(rate)
        axis.text(j, i, f"{rate:.2f}", ha="center", va="center", color=ink)
  figure.savefig(folder / "win_rates.png", dpi=110)
