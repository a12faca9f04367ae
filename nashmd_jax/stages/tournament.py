"""Stage `tournament`: every policy against every other, with intervals.

All policies answer the same held-out prompts, each with randomness of its
own; every pair is judged in both orders by every judge.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from scipy import stats

from nashmd_jax import files, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.judges import raters, scorers
from nashmd_jax.nash import opponents
from nashmd_jax.training import distributed

START = "sft"
JUDGES = {
  "raters": "simulated raters",
  "preference_model": "learned preference model",
}
SALT = 0x7001  # keys of the tournament, apart from those of training steps


def win_rate_interval(
  win_prob: np.ndarray, confidence: float
) -> tuple[float, float, float]:
  """Mean win probability and an exact (Clopper-Pearson) interval.

  A prompt with win probability p counts as p of a win, and the sum is rounded
  outwards to whole wins: for scores in [0, 1], which vary less than votes of
  the same mean, the interval is on the wide side.

  Args:
    win_prob: f64[N], one value for each independent prompt.
    confidence: level of the two-sided interval, 0.95 for one.
  Returns: (mean, low, high).
  """
  wins, count = float(np.sum(win_prob)), len(win_prob)

  def interval(k):
    return stats.binomtest(k, count).proportion_ci(confidence, method="exact")

  # Rounding in the sum must not move a whole number of wins to the next one.
  low = interval(int(np.floor(wins + 1e-9))).low
  high = interval(int(np.ceil(wins - 1e-9))).high
  return wins / count, float(low), float(high)


def play(
  responses: Mapping[str, Sequence[str]],
  rows: Sequence[records.Record],
  judge: scorers.TextJudge,
  *,
  confidence: float,
) -> dict[str, Any]:
  """All pairs of policies under one judge.

  Args:
    responses: by policy, one for each of N records.
    rows: N summary records.
    judge: scores pairs of strings.
    confidence: of the intervals.
  Returns: "win_rate", "low", "high": [M, M] lists, row against column; and
    "order_gap", the mean |P(a ≻ b) + P(b ≻ a) − 1|, 0 for a fair judge.
  """
  names = list(responses)
  table = np.full((3, len(names), len(names)), 0.5)
  gaps = []
  for i, j in itertools.combinations(range(len(names)), 2):
    distributed.stop_if_asked()
    first, second = responses[names[i]], responses[names[j]]
    forward = judge(rows, first, second)
    backward = judge(rows, second, first)
    gaps.append(np.mean(np.abs(forward + backward - 1)))
    win_prob = 0.5 * (forward + 1 - backward)
    rate, low, high = win_rate_interval(win_prob, confidence)
    table[:, i, j] = rate, low, high
    table[:, j, i] = 1 - rate, 1 - high, 1 - low
  rate, low, high = table.tolist()
  return {
    "win_rate": rate,
    "low": low,
    "high": high,
    "order_gap": float(np.mean(gaps)) if gaps else 0.0,
  }


def policy_folder(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str
) -> pathlib.Path:
  """The stage that trained a policy of the tournament.

  Raises: ValueError for a policy that the config does not train.
  """
  if name == START:
    return workdir / START
  if name not in config.nash.runs:
    raise ValueError(
      f"tournament.policies: {name!r} is neither {START!r} nor one of "
      f"nash.runs ({sorted(config.nash.runs)})"
    )
  return workdir / "nash" / name


def deployed_lane(
  config: ml_collections.ConfigDict, name: str
) -> sampling.Lane:
  """The lane in which a policy of the tournament answers."""
  if name == START:
    return opponents.LEARNER
  section = task_lib.run_section(config, name)
  return opponents.make_deployed(
    deploy=section.deploy,
    mixture=section.mixture,
    mixture_end=section.mixture_end,
    mixture_steps=section.mixture_steps,
  )


def load_sets(
  task: task_lib.Task,
  lane: sampling.Lane,
  place: pathlib.Path,
  start: pathlib.Path,
) -> dict[str, Any]:
  """The parameter sets that a lane names.

  Args:
    place: stage that trained the policy and its moving average.
    start: stage that gave μ.
  """
  saved = {
    "policy": (place, "params"),
    "ema": (place, "ema"),
    "reference": (start, "params"),
  }
  sets = {}
  for wanted in lane:
    folder, name = saved[wanted]
    sets[wanted] = task_lib.load_params(task, task.model, folder, name=name)
  return sets


def check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for a tournament that cannot be played."""
  section = config.tournament
  names = list(section.policies)
  if START not in names or len(set(names)) < len(names):
    raise ValueError(
      f"tournament.policies: got {names}, expected {START!r} and others, each "
      "once"
    )
  for name in names:
    policy_folder(config, pathlib.Path(), name)
  if not 0 < section.confidence < 1:
    raise ValueError(
      f"tournament.confidence: got {section.confidence}, expected a level "
      "between 0 and 1"
    )
  if not section.temperature > 0:
    raise ValueError(
      f"tournament.temperature: got {section.temperature}, expected more than 0"
    )


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, Any]:
  """Plays the tournament; leaves responses and `results.json` behind."""
  section = config.tournament
  task = task_lib.load_task(config, workdir)
  rows = task.splits["test"][: section.prompts]
  rng = jax.random.fold_in(jax.random.key(config.seed), SALT)
  responses = {}
  for number, name in enumerate(section.policies):
    place = policy_folder(config, workdir, name)
    lane = deployed_lane(config, name)
    written = task_lib.write_responses(
      task,
      load_sets(task, lane, place, workdir / START),
      [lane],
      rows,
      batch_size=section.batch_size,
      temperature=section.temperature,
      rng=jax.random.fold_in(rng, number),
    )
    responses[name] = [texts[0] for texts in written]
  panel = make_panel(config, workdir, task)
  results = {
    "policies": list(section.policies),
    "prompts": len(rows),
    "confidence": section.confidence,
    "judges": {
      name: play(responses, rows, judge, confidence=section.confidence)
      for name, judge in panel.items()
    },
  }
  distributed.on_first(
    functools.partial(save, workdir / "tournament", rows, responses, results)
  )
  _print_against_start(results)
  return {"prompts": len(rows)}


def save(
  folder: pathlib.Path,
  rows: Sequence[records.Record],
  responses: Mapping[str, Sequence[str]],
  results: Mapping[str, Any],
) -> None:
  """Writes what was written and answered, and `results.json`."""
  records.save_records(folder / "responses" / "written.jsonl", rows)
  for name, texts in responses.items():
    answered = [
      row | {"response": text} for row, text in zip(rows, texts, strict=True)
    ]
    records.save_records(folder / "responses" / f"{name}.jsonl", answered)
  files.save_json(folder / "results.json", results)


def make_panel(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  task: task_lib.Task,
) -> dict[str, scorers.TextJudge]:
  """The judges by name: the exact raters and the learned preference model.

  Where the comparisons are the user's there are no raters to ask.
  """
  template = task.templates["preference"]
  panel = {}
  if config.data.comparisons is None:
    population = raters.make_population(**config.raters)
    panel["raters"] = scorers.make_rater_judge(population)
  return panel | {
    "preference_model": scorers.make_text_judge(
      lambda params: scorers.make_preference_judge(
        task.judge_model, task.place(params), template
      ),
      task_lib.load_params(task, task.judge_model, workdir / "preference"),
      jit=task.by_rows,
      encode=task.encode,
      pad=task.pad,
      batch_size=config.tournament.batch_size,
    ),
  }


def against_start(
  results: Mapping[str, Any], name: str
) -> tuple[float, float, float]:
  """Win rate of a policy against SFT by the first judge, low and high end."""
  names, table = results["policies"], next(iter(results["judges"].values()))
  i, j = names.index(name), names.index(START)
  return table["win_rate"][i][j], table["low"][i][j], table["high"][i][j]


def first_judge(results: Mapping[str, Any]) -> str:
  """The judge that is believed most, in words."""
  return JUDGES[next(iter(results["judges"]))]


def _print_against_start(results) -> None:
  for name in results["policies"]:
    if name != START:
      rate, low, high = against_start(results, name)
      print(
        f"tournament: {name} beats {START} with {rate:.3f} ({low:.3f} to "
        f"{high:.3f}) by the {first_judge(results)}"
      )
