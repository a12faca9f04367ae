"""Stage `judges`: every trained judge on all held-out comparisons."""

from collections.abc import Mapping, Sequence
import csv
import io
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import files, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches, records
from nashmd_jax.evaluation import cycles, judge_scores
from nashmd_jax.judges import preference_model, table
from nashmd_jax.stages import comparisons as comparisons_lib
from nashmd_jax.stages import judge_templates, judging, start, trained
from nashmd_jax.training import distributed
from nashmd_jax.training import metrics as metrics_lib

Config = pipeline.Config
Columns = Mapping[str, np.ndarray]
NAME = "judges"
RESAMPLES, SIMULATIONS = 1000, 200
# Of the results, what `done.json` says of each judge.
TOLD = ("accuracy", "log_loss", "brier", "calibration_error")


def read(kind: str, model: Any, template: preference_model.Template) -> Any:
  """(params, batch) -> the readings that a judgement is made of, f32[B] each.

  Args:
    kind: of the judge.
    model: its architecture.
    template: what it reads.
  Returns: a function whose results are "a_first" and "b_first", log-odds that
    the response that is read first is preferred; or "reward_a", "reward_b".
  """

  def readings(params, batch):
    prompts, a, b = preference_model.compared(batch)
    both, names = preference_model.both_rewards, ("reward_a", "reward_b")
    if kind == "preference":
      both, names = preference_model.both_orders, ("a_first", "b_first")
    said = both(
      model, params, template, prompts=prompts, responses=a, opponents=b
    )
    return dict(zip(names, said, strict=True))

  return readings


def judge(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  name: str,
  rows: Sequence[records.Record],
) -> Columns:
  """The readings of one judge, f64[N] each; see `read`."""
  kind, _ = table.kind_of(name)
  template = judge_templates.make_template(config, task.tokenizer, name)
  base = task_lib.BASES[judge_templates.base_section(config, name)]
  readings = read(kind, task.judge_model, template)

  @task.by_rows
  def of_batch(sets, batch):
    return readings(task.ready(sets, [name], base)[name], batch)

  sets, found = judging.load_sets(config, task, workdir, [name]), []
  size = {"batch_size": config[kind].data.batch_size}
  ordered = batches.ordered_batches(rows, task.encode, task.pad, **size)
  for batch, real in metrics_lib.shown_batches(
    ordered, f"judges: {name} reading", rows=len(rows), **size
  ):
    distributed.stop_if_asked()
    found.append(
      {key: value[:real] for key, value in of_batch(sets, batch).items()}
    )
  return {
    key: np.concatenate([np.asarray(one[key], np.float64) for one in found])
    for key in found[0]
  }


def logit_of(said: Columns) -> np.ndarray:
  """Log-odds that a is preferred, from the two readings of each pair."""
  first, second = said.values()
  return first - second


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Scores all judges; leaves `NAME.csv` of each and `results.json`."""
  task = task_lib.load_task(config, workdir)
  rows = comparisons_lib.load(config, workdir)["validation"]
  said = {
    name: judge(config, task, workdir, name, rows)
    for name in judging.wanted(config)
  }

  def told():
    results = describe(rows, said, seed=config.seed)
    save(workdir / job, rows, said, results)
    print("\n".join(lines(results)))
    return {
      f"{name}/{key}": scores[key]["value"]
      for name, scores in results["judges"].items()
      for key in TOLD
    }

  return distributed.on_first(told)


def words(rows: Sequence[records.Record]) -> np.ndarray:
  """Words of a minus words of b, int[N]."""
  return np.array(
    [
      len(row["response_a"].split()) - len(row["response_b"].split())
      for row in rows
    ]
  )


def describe(
  rows: Sequence[records.Record], said: Mapping[str, Columns], *, seed: int
) -> dict[str, Any]:
  """What `results.json` holds.

  Args:
    rows: N comparisons.
    said: the readings of each judge.
    seed: of resamples and simulations.
  Returns: "comparisons" and "prompts", how many; "judges", by name, see
    `judge_scores.describe`, with "position" where a judge reads both responses,
    see `judge_scores.position_bias`; "between" two judges, see
    `judge_scores.between`; "cycles", see `cycles.report`.
  """
  prompts = judge_scores.numbered([row["prompt"] for row in rows])
  prob_a = np.array([row["prob_a"] for row in rows], np.float64)
  drawing = {"resamples": RESAMPLES, "seed": seed}
  judges, logits = {}, {}
  for name, readings in said.items():
    logits[name] = logit_of(readings)
    judged = judge_scores.Judged(logits[name], prob_a, words(rows), prompts)
    judges[name] = judge_scores.describe(judged, **drawing)
    if table.kind_of(name)[0] == "preference":
      judges[name]["position"] = judge_scores.position_bias(
        *readings.values(), prob_a, prompts, **drawing
      )
  return {
    "comparisons": len(rows),
    "prompts": len(set(prompts)),
    "judges": judges,
    "between": judge_scores.between(logits, prompts, **drawing),
    "cycles": cycles.report(rows, logits, simulations=SIMULATIONS, seed=seed),
  }


def save(
  folder: pathlib.Path,
  rows: Sequence[records.Record],
  said: Mapping[str, Columns],
  results: Mapping[str, Any],
) -> None:
  """Writes a table a judge, a row a comparison, and `results.json`."""
  longer = words(rows)
  for name, readings in said.items():
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "prob_a", "votes", "win_prob", *readings, "words"])
    win_prob = 0.5 * (1 + np.tanh(0.5 * logit_of(readings)))
    for i, row in enumerate(rows):
      numbers = (win_prob[i], *(column[i] for column in readings.values()))
      table.writerow(
        [
          row["id"],
          f"{row['prob_a']:.6g}",
          records.votes_of(row)[0],
          *(f"{number:.6g}" for number in numbers),
          longer[i],
        ]
      )
    files.save_text(folder / f"{name}.csv", text.getvalue())
  files.save_json(folder / "results.json", results)


def lines(results: Mapping[str, Any]) -> list[str]:
  """One line a judge."""
  told = []
  for name, scores in results["judges"].items():
    right = scores["accuracy"]
    within = (
      "" if right["low"] is None
      else f" ({right['low']:.3f} to {right['high']:.3f})"
    )  # fmt: skip
    told.append(
      f"judges: {name} accuracy {right['value']:.3f}{within}, log-loss "
      f"{scores['log_loss']['value']:.3f}, Brier {scores['brier']['value']:.3f}"
      f", calibration error {scores['calibration_error']['value']:.3f} on "
      f"{results['comparisons']} comparisons of {results['prompts']} prompts"
    )
  return told


STAGE = pipeline.Stage(
  name=NAME,
  settings={},
  check=lambda config, findings: None,
  jobs=lambda config: [NAME] if judging.wanted(config) else [],
  needs=lambda config, job: [
    *start.STAGE.jobs(config),
    *comparisons_lib.STAGE.jobs(config),
    *judging.wanted(config),
  ],
  reads=lambda config, job: trained.reads(config, "judge_model"),
  run=run,
  facts=(*trained.FACTS, "judge_model", "comparisons"),
  shared=True,
)
