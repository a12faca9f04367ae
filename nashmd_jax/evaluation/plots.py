"""The pictures of a run: training curves, win rates as a heat map."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from nashmd_jax import files
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.training import metrics

# What evaluations against the reference are named.
WON = "win_prob_against_reference"
JUDGES = ("preference", "reward")


def new_figure(**kwargs: Any) -> Any:
  """A matplotlib Figure, which draws without a display and global state.

  The library is loaded with the first: a run draws at its very end.
  """
  from matplotlib import figure

  return figure.Figure(**kwargs)


def judge_scores(workdir: pathlib.Path) -> dict[str, dict[str, float]]:
  """The last evaluation of each judge that was trained, by its stage."""
  found = workdir_lib.finished(workdir)
  return {name: found[name]["results"] for name in JUDGES if name in found}


def _series(folder: pathlib.Path, key: str) -> tuple[list, list]:
  rows = [
    row for row in metrics.load_metrics(folder / "metrics.jsonl") if key in row
  ]
  return [row["step"] for row in rows], [row[key] for row in rows]


def save_curves(
  workdir: pathlib.Path, policies: Sequence[str], path: pathlib.Path
) -> None:
  """Draws the training of all stages.

  Args:
    workdir: of a run.
    policies: names of runs, one colour each.
    path: of the picture.
  """
  figure = new_figure(figsize=(11, 6.4), layout="constrained")
  axes = figure.subplots(2, 2)
  axis = axes[0, 0]
  axis.plot(*_series(workdir / "sft", "nats_per_token"), label="training")
  axis.plot(*_series(workdir / "sft", "eval/nats_per_token"), label="held out")
  axis.set(title="SFT", ylabel="nats a token")
  axis = axes[0, 1]
  label = "best possible"
  for name, scores in judge_scores(workdir).items():
    axis.plot(*_series(workdir / name, "eval/accuracy"), label=f"{name} model")
    best = scores.get("eval/best_accuracy")
    if best is not None:
      axis.axhline(best, color="grey", linestyle=":", label=label)
      label = None
  axis.set(title="Judges, held-out comparisons", ylabel="accuracy")
  for number, name in enumerate(policies):
    folder, color = workdir / "nash" / name, f"C{number}"
    for key in _keys(folder, WON):
      watching = key.removeprefix("eval/").removesuffix(f"_{WON}")
      own = key == f"eval/{WON}"
      axes[1, 0].plot(
        *_series(folder, key),
        label=name if own else f"{name}, by {watching}",
        color=color,
        linestyle="-" if own else "--",
      )
    steps, values = _series(folder, "kl")
    if steps:
      axes[1, 1].plot(steps, values, label=name, color=color)
  axes[1, 0].set(
    title="Against SFT, by the judge of each run", ylabel="win probability"
  )
  axes[1, 1].set(title="Distance from SFT", ylabel="KL, nats a response")
  for axis in axes.flat:
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
      axis.legend(frameon=False, fontsize="small")
  with files.whole(path) as partial:
    figure.savefig(partial, dpi=110)


def _keys(folder: pathlib.Path, ending: str) -> list[str]:
  """The metrics of a run with that ending, in alphabetical order."""
  rows = metrics.load_metrics(folder / "metrics.jsonl")
  return sorted({key for row in rows for key in row if key.endswith(ending)})


def save_win_rates(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Draws a heat map for each judge of a tournament's results."""
  names, count = results["policies"], len(results["judges"])
  figure = new_figure(figsize=(5.6 * count, 5), layout="constrained")
  for axis, (judge, table) in zip(
    figure.subplots(1, count, squeeze=False)[0],
    results["judges"].items(),
    strict=True,
  ):
    axis.imshow(table["win_rate"], cmap="RdBu", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(judge)
    for i, row in enumerate(table["win_rate"]):
      for j, rate in enumerate(row):
        _, ink = heat(rate)
        axis.text(j, i, f"{rate:.2f}", ha="center", va="center", color=ink)
  with files.whole(path) as partial:
    figure.savefig(partial, dpi=110)


def heat(rate: float) -> tuple[str, str]:
  """The colours of a win rate, background and ink."""
  import matplotlib

  red, green, blue, _ = matplotlib.colormaps["RdBu"](rate)
  light = 0.299 * red + 0.587 * green + 0.114 * blue
  background = matplotlib.colors.to_hex((red, green, blue))
  return background, "#111" if light > 0.55 else "#fff"
