"""Stage `tournament`: every policy against every other, with intervals.

All policies answer the same held-out prompts, each with randomness of its
own; every pair is judged in both orders by every judge.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from nashmd_jax import files, mistakes, outside, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.evaluation import length, win_rates
from nashmd_jax.judges import table
from nashmd_jax.nash import opponents, settings
from nashmd_jax.stages import judging, nash, sft, trained
from nashmd_jax.training import distributed

Config = pipeline.Config
NAME = "tournament"
START = judging.START
SALT = 0x7001  # keys of the tournament, apart from those of training steps


def policy_job(config: Config, name: str) -> str:
  """The job that trained a policy of the tournament.

  Raises: Mistake for a policy that the config does not train.
  """
  if name == START:
    return sft.NAME
  if name not in config.nash.runs:
    raise mistakes.Mistake(
      f"tournament.policies: {name!r} is neither {START!r} nor one of "
      f"nash.runs ({sorted(config.nash.runs)})"
    )
  return f"{nash.NAME}/{name}"


def deployed_lane(config: Config, name: str) -> sampling.Lane:
  """The lane in which a policy of the tournament answers."""
  if name == START:
    return opponents.LEARNER
  return settings.deployed_lane(settings.run_section(config, name))


def load_sets(
  task: task_lib.Task,
  lane: sampling.Lane,
  place: pathlib.Path,
  start: pathlib.Path,
) -> dict[str, Any]:
  """The parameter sets that a lane names, without the base of adapters.

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
    sets[wanted] = task_lib.load_trained(task, "model", folder, name=name)
  return sets


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Plays the tournament; leaves responses and `results.json` behind."""
  section = config.tournament
  task = task_lib.load_task(config, workdir)
  rows = task.splits["test"][: section.prompts]
  responses = _written(config, task, workdir, rows)
  results = {
    "policies": list(section.policies),
    "prompts": len(rows),
    "confidence": section.confidence,
    "words": {
      name: float(np.mean(length.count_words(texts)))
      for name, texts in responses.items()
    },
    "judges": {
      name: _play(config, task, workdir, name, responses, rows)
      for name in section.judges
    },
  }
  distributed.on_first(
    functools.partial(save, workdir / job, rows, responses, results)
  )
  _print_against_start(results)
  return {"prompts": len(rows)}


def _written(config, task, workdir, rows) -> dict[str, list[str]]:
  """What every policy answers; the base of all of them is loaded once."""
  section, bases = config.tournament, task_lib.bases(task, "model")
  rng = jax.random.fold_in(jax.random.key(config.seed), SALT)
  responses = {}
  for number, name in enumerate(section.policies):
    lane = deployed_lane(config, name)
    place = workdir / policy_job(config, name)
    sets = load_sets(task, lane, place, workdir / sft.NAME)
    written = task_lib.write_responses(
      task,
      {**sets, **bases},
      [lane],
      rows,
      batch_size=section.batch_size,
      temperature=section.temperature,
      rng=jax.random.fold_in(rng, number),
    )
    responses[name] = [texts[0] for texts in written]
  return responses


def _play(config, task, workdir, name, responses, rows) -> dict[str, Any]:
  judge = table.find(name, setting="tournament.judges")
  found = win_rates.play(
    responses,
    rows,
    judging.text_judge(
      config, task, workdir, judge, batch_size=config.tournament.batch_size
    ),
    confidence=config.tournament.confidence,
    seed=config.seed,
    between=distributed.stop_if_asked,
  )
  return found | {"title": judge.title, "about": judge.about}


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


def _print_against_start(results) -> None:
  judge = next(iter(results["judges"]))
  title = results["judges"][judge]["title"]
  for name in results["policies"]:
    if name != START:
      rate, low, high = win_rates.against(results, name, START, judge)
      print(
        f"tournament: {name} against {START} {rate:.3f} ({low:.3f} to "
        f"{high:.3f}) by the {title}: {win_rates.verdict(low, high)}"
      )


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with a tournament that cannot be played."""
  section = config.tournament
  names = list(section.policies)
  with findings.collect():
    if START not in names or len(set(names)) < len(names):
      raise mistakes.Mistake(
        f"tournament.policies: got {names}, expected {START!r} and others, "
        "each once"
      )
  for name in names:
    with findings.collect():
      policy_job(config, name)
  with findings.collect():
    if not section.judges:
      raise mistakes.Mistake(
        "tournament.judges: got none, expected one or more judges"
      )
  for name in section.judges:
    with findings.collect():
      table.find(name, setting="tournament.judges")
  with findings.collect():
    if not 0 < section.confidence < 1:
      raise mistakes.Mistake(
        f"tournament.confidence: got {section.confidence}, expected a level "
        "between 0 and 1"
      )
  with findings.collect():
    if not section.temperature > 0:
      raise mistakes.Mistake(
        f"tournament.temperature: got {section.temperature}, expected more "
        "than 0"
      )
  pipeline.at_least_one(config, findings, NAME, "prompts", "batch_size")


def needs(config: Config, job: str) -> list[str]:
  """The policies that play, and the judges that are trained."""
  policies = [policy_job(config, name) for name in config.tournament.policies]
  judges = judging.stages_of(
    config.tournament.judges, setting="tournament.judges"
  )
  return list(dict.fromkeys([sft.NAME, *policies, *judges]))


def reads(config: Config, job: str) -> dict[str, Any]:
  """The settings of the tournament, and the sources of the user's judges."""
  del job
  return {
    **pipeline.settings(config, *trained.READS, "judge_model", "raters", NAME),
    **outside.sources("tournament.judges", *config.tournament.judges),
  }


STAGE = pipeline.Stage(
  name=NAME,
  keys={
    NAME: {
      "policies",
      "judges",
      "prompts",
      "batch_size",
      "temperature",
      "confidence",
    }
  },
  check=check,
  jobs=lambda config: [NAME],
  needs=needs,
  reads=reads,
  run=run,
  facts=trained.FACTS,
)
