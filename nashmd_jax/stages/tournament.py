"""Stage `tournament`: every policy against every other, with intervals.

All policies answer the same held-out prompts, each with randomness of its
own; every pair is judged in both orders by every judge.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
import math
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import declare, files, mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import records
from nashmd_jax.evaluation import judged, length, standings, win_rates
from nashmd_jax.judges import table
from nashmd_jax.nash import settings
from nashmd_jax.stages import guests, judging, policies, sft, trained
from nashmd_jax.training import distributed, journal
from nashmd_jax.training import metrics as metrics_lib

Config = pipeline.Config
NAME = "tournament"
START = judging.START
# What results.json holds; "ensembles" too, where any play.
RESULTS = (
  "policies", "records", "prompts", "confidence", "chosen", "ended", "words",
  "judges",
)  # fmt: skip
SETTINGS = {
  "policies": declare.several(
    declare.text(
      "Who plays: sft, those of nash.runs, nash.deployed, nash.ensembles, "
      "chosen and guests."
    ),
    least=1,
  ),
  "chosen": policies.SETTINGS,
  "guests": guests.SETTINGS,
  "judges": declare.several(
    declare.text(f"Who judges, the first above all: each {table.NAMES}."),
    least=1,
  ),
  "prompts": declare.whole(
    "Held-out records that every policy answers, at most.",
    least=1,
    unit="records",
  ),
  "samples": declare.whole(
    "Responses of each policy to a record; they count as one prompt.",
    least=1,
    most=10_000,
  ),
  "width": declare.number(
    "Judging of a pair of policies ends once its interval is this narrow, at a "
    "level that holds for all looks at it; 0 judges all prompts.",
    least=0,
    most=1,
  ),
  "batch_size": trained.BATCH_SIZE,
  "temperature": settings.TEMPERATURE,
  "confidence": declare.number("Level of the intervals.", above=0, below=1),
  "log_ratio": declare.flag(
    "Whether log π/μ of every response of sft and of runs is kept beside it, "
    "from which KL and regularised win rates are told; it takes another pass "
    "of μ."
  ),
}


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Plays the tournament; leaves responses and `results.json` behind."""
  section = config.tournament
  task = task_lib.load_task(config, workdir)
  rows = [
    row
    for row in task.splits["test"][: section.prompts]
    for _ in range(section.samples)
  ]
  once = journal.keep(
    workdir / job / journal.NAME,
    of=workdir_lib.ends(workdir, needs(config, job)),
  )
  answers = policies.write_all(config, task, workdir, rows, once)
  responses = answers.responses
  played = {
    name: _play(config, task, workdir, name, responses, rows, once)
    for name in section.judges
  }
  results = {
    "policies": list(section.policies),
    "records": len(rows),
    "prompts": len({row["prompt"] for row in rows}),
    "confidence": section.confidence,
    "chosen": answers.chosen,
    "ended": answers.ended,
    "words": {
      name: float(np.mean(length.count_words(texts)))
      for name, texts in responses.items()
    },
    "judges": {name: found for name, (found, _) in played.items()},
  }
  if answers.ensembles:
    results["ensembles"] = answers.ensembles
  said = {name: pairs for name, (_, pairs) in played.items()}
  distributed.on_first(
    functools.partial(save, workdir / job, rows, answers, results, said)
  )
  _print_against_start(results)
  return {key: results[key] for key in ("records", "prompts")}


def _play(config, task, workdir, name, responses, rows, once):
  """What `results.json` holds of a judge, and what it said of every record."""
  setting, size = {"setting": "tournament.judges"}, config.tournament.batch_size
  judge = judging.judge_of_all(
    config, task, workdir, name, **setting, batch_size=size
  )
  width = config.tournament.width
  pairs = math.comb(len(responses), 2)
  batches = 2 * pairs * win_rates.most_batches(rows, size, width, config.seed)
  with metrics_lib.Progress(
    f"tournament: {name} judging", start=0, total=batches, unit="batch"
  ) as progress:
    found, said = win_rates.play(
      responses,
      rows,
      judge,
      confidence=config.tournament.confidence,
      seed=config.seed,
      batch_size=size,
      width=width,
      once=_shown(journal.named(once, f"by {name}"), progress),
    )
  title, about = judging.described(config, name, **setting)
  found |= {"title": title, "about": about}
  costs = judging.costs(config, name, **setting)
  if costs and getattr(judge, "costs", None):
    told = functools.partial(_costs, judge, costs, rows, responses)
    found["costs"] = distributed.on_first(told)
  return found, said


def _costs(judge, names, rows, responses) -> dict[str, float]:
  """What the answers of a judge cost, those of before a cut among them."""
  pairs = list(itertools.permutations(responses, 2))
  found = judge.costs(
    [row for _ in pairs for row in rows],
    [text for name, _ in pairs for text in responses[name]],
    [text for _, name in pairs for text in responses[name]],
  )
  return {name: float(np.sum(found[name])) for name in names}


def _shown(once: journal.Once, progress: metrics_lib.Progress) -> journal.Once:
  """The same, which counts the pieces."""
  counted = itertools.count(1)

  def shown(name, work):
    gave = once(name, work)
    progress.update(next(counted))
    return gave

  return shown


def save(
  folder: pathlib.Path,
  rows: Sequence[records.Record],
  answers: policies.Answers,
  results: Mapping[str, Any],
  said: Mapping[str, Sequence[np.ndarray]],
) -> None:
  """Writes what was written, answered and judged, and `results.json`.

  Responses are those of `answers`, each with its "log_ratio" where that is
  known.
  """
  records.save_records(folder / "responses" / "written.jsonl", rows)
  for name, texts in answers.responses.items():
    # The turns of a record are what its author wrote.
    without = [{k: row[k] for k in row if k != "turns"} for row in rows]
    answered = [
      row | {"response": text} for row, text in zip(without, texts, strict=True)
    ]
    if name in answers.log_ratios:
      ratios = answers.log_ratios[name].tolist()
      answered = [
        row | {"log_ratio": ratio}
        for row, ratio in zip(answered, ratios, strict=True)
      ]
    records.save_records(folder / "responses" / f"{name}.jsonl", answered)
  ids = [row["id"] for row in rows]
  judged.save(folder / judged.NAME, ids, list(answers.responses), said)
  files.save_json(folder / "results.json", results)


def _print_against_start(results) -> None:
  if results["prompts"] < results["records"]:
    print(
      f"tournament: {results['records']} records of {results['prompts']} "
      "prompts; records of one prompt count as one"
    )
  for name, found in results["judges"].items():
    told = win_rates.told_not_judged(found)
    if told:
      print(f"tournament: {name}: {told}")
    if found.get("costs"):
      spent = (f"{value:,.0f} {cost}" for cost, value in found["costs"].items())
      print(f"tournament: {name} has cost {', '.join(spent)}")
    if len(results["policies"]) >= standings.FEWEST and found["standings"]:
      said = standings.sentences(results["policies"], found["standings"])
      print(f"tournament: {name}: {' '.join(said)}")
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
    if START not in names:
      raise mistakes.Mistake(
        f"tournament.policies: got {mistakes.quote(names)}, expected "
        f"{START!r} and others, each once"
      )
  policies.check(config, findings)


def needs(config: Config, job: str) -> list[str]:
  """The policies that play, and the judges that are trained."""
  judges = judging.stages_of(
    config, config.tournament.judges, setting="tournament.judges"
  )
  return list(dict.fromkeys([sft.NAME, *policies.needs(config), *judges]))


def reads(config: Config, job: str) -> dict[str, Any]:
  """The settings of the tournament, and the sources of the user's judges."""
  del job
  own = [
    f"{NAME}.{key}" for key in sorted(set(SETTINGS) - {"chosen", "guests"})
  ]
  return {
    **trained.reads(config, "judge_model", *own),
    **policies.reads(config),
    **judging.reads(config, "tournament.judges", *config.tournament.judges),
  }


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [NAME],
  needs=needs,
  reads=reads,
  run=run,
  facts=trained.FACTS,
)
