"""Stage `comparisons`: drawn once, after SFT, from simulated raters.

A run on comparisons of the user's own has no such stage.
"""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from nashmd_jax import declare, files, mistakes, pipeline, texts
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import records
from nashmd_jax.judges import raters
from nashmd_jax.nash import opponents, settings
from nashmd_jax.stages import judging, sft, start, trained, writing
from nashmd_jax.training import distributed, journal

Config = pipeline.Config
Comparisons = Mapping[str, list[records.Record]]
NAME = "comparisons"
VOTERS = 0x7003  # draws the half of the raters, apart from all else
SETTINGS = {
  "prompts": {
    split: declare.whole(
      f"Records of the split {split} that comparisons are drawn of, at most.",
      least=1,
      unit="records",
    )
    for split in texts.JUDGED
  },
  "drawing": {
    "pairs_per_prompt": declare.whole(
      "Pairs of candidates of a record.", least=1, unit="comparisons"
    ),
    "votes_per_pair": declare.whole(
      "Simulated raters who vote on a pair.", least=1, unit="votes"
    ),
    "voters": declare.text(
      "Who votes: all of the raters, or a half of them, drawn by the seed.",
      one_of=("all", "half"),
    ),
    "samples_per_prompt": declare.whole(
      "Responses of the policy among the candidates; 0 for those of the data "
      "alone.",
      least=0,
    ),
    "batch_size": trained.BATCH_SIZE,
    "temperature": settings.TEMPERATURE,
  },
}


def draw_comparisons(
  task: task_lib.Task,
  population: raters.Population,
  sets: Mapping[str, Any],
  source: list[records.Record],
  *,
  pairs_per_prompt: int,
  votes_per_pair: int,
  samples_per_prompt: int,
  batch_size: int,
  temperature: float,
  seed: tuple[int, int],
  once: journal.Once,
) -> tuple[list[records.Record], dict[str, int]]:
  """Comparisons of candidate summaries of each record.

  Args:
    population: who votes.
    sets: with the "policy" whose samples are among the candidates.
    source: summary records.
    pairs_per_prompt: comparisons a record.
    votes_per_pair: simulated raters who vote on each.
    samples_per_prompt: samples of the policy among the candidates.
    batch_size: prompts sampled at a time.
    temperature: of the samples.
    seed: of samples, pairs and votes: the run's and the split's.
    once: does, or has done, each batch of samples; see `journal`.
  Returns: comparison records, and what of the samples was left out; see
    `count_left_out`.
  """
  samples: list[list[str]] = [[] for _ in source]
  if samples_per_prompt:
    samples = writing.write(
      task,
      sets,
      [opponents.LEARNER] * samples_per_prompt,
      source,
      batch_size=batch_size,
      temperature=temperature,
      rng=jax.random.fold_in(jax.random.key(seed[0]), seed[1]),
      told=f"{NAME}: writing",
      once=once,
    ).texts
  rng = np.random.default_rng(seed)
  drawn = []
  for row, found in zip(source, _candidates(source, samples, rng), strict=True):
    drawn += raters.draw_comparisons(
      population,
      row,
      found,
      pairs=pairs_per_prompt,
      votes=votes_per_pair,
      rng=rng,
    )
  return drawn, count_left_out(source, samples)


def count_left_out(
  source: list[records.Record], samples: list[list[str]]
) -> dict[str, int]:
  """Samples of the policy that are no candidates, by reason.

  Returns: "samples", all of them; "empty"; "repeated", which equal another
    sample of their prompt or the summary of its record.
  """
  empty = repeated = 0
  for row, own in zip(source, samples, strict=True):
    written = [text for text in own if text]
    empty += len(own) - len(written)
    repeated += 1 + len(written) - len({row["response"], *written})
  return {
    "samples": sum(map(len, samples)), "empty": empty, "repeated": repeated
  }  # fmt: skip


def _candidates(source, samples, rng) -> list[list[str]]:
  """The candidate responses of every record, the others' summaries included."""
  half = len(source) // 2
  others = [row["response"] for row in source[half:] + source[:half]]
  return [
    list(raters.candidates(row, other, own, rng).values())
    for row, other, own in zip(source, others, samples, strict=True)
  ]


def start_sets(task: task_lib.Task, workdir: pathlib.Path) -> dict[str, Any]:
  """The policy that stage `sft` gave, as the set "policy"."""
  policy = task_lib.load_trained(task, "model", workdir / sft.NAME)
  return {"policy": policy, **task_lib.bases(task, "model")}


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Draws the comparisons of every split that has none yet."""
  population, drawing = voting(config)
  task, sets, counts = task_lib.load_task(config, workdir), None, {}
  once = journal.keep(
    workdir / job / journal.NAME,
    of=workdir_lib.ends(workdir, needs(config, job)),
  )
  for number, (split, count) in enumerate(config.comparisons.prompts.items()):
    path = workdir / job / f"{split}.jsonl"
    if not distributed.on_first(path.exists):
      sets = sets or start_sets(task, workdir)
      drawn, left_out = draw_comparisons(
        task,
        population,
        sets,
        task.splits[split][:count],
        seed=(config.seed, number),
        once=journal.named(once, split),
        **drawing,
      )
      told = path.with_name(f"{split}_left_out.json")
      distributed.on_first(functools.partial(files.save_json, told, left_out))
      distributed.on_first(functools.partial(records.save_records, path, drawn))
      _tell(split, left_out)
    counts[split] = len(records.load_records(path, "comparison"))
  return counts


def voting(config: Config) -> tuple[raters.Population, dict[str, Any]]:
  """Who votes, and how comparisons are drawn besides."""
  population = raters.make_population(**config.raters)
  drawing = dict(config.comparisons.drawing)
  if drawing.pop("voters") == "half":
    rng = np.random.default_rng((config.seed, VOTERS))
    population = raters.half(population, rng)
  return population, drawing


def _tell(split: str, left_out: Mapping[str, int]) -> None:
  if left_out["empty"] or left_out["repeated"]:
    print(
      f"{NAME}: {split}: of {left_out['samples']:,} responses of the policy "
      f"{left_out['empty']:,} are empty and {left_out['repeated']:,} repeat "
      "another candidate of their prompt; they are compared with nothing"
    )


def load(config: Config, workdir: pathlib.Path) -> Comparisons:
  """Comparisons by split: the user's, or those that this stage drew."""
  own = texts.load_comparisons(config, workdir)
  if own is not None:
    return own
  return {
    split: records.load_records(workdir / NAME / f"{split}.jsonl", "comparison")
    for split in texts.JUDGED
  }


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the raters and with the drawing."""
  if not STAGE.jobs(config):
    return
  with findings.collect():
    raters.make_population(**config.raters)


def needs(config: Config, job: str) -> list[str]:
  """The policy whose samples are among the candidates."""
  del job
  return [*start.STAGE.jobs(config), sft.NAME]


def _drawn(config: Config) -> bool:
  wanted = judging.wanted(config) or any(
    settings.compares(settings.run_section(config, name))
    for name in judging.trained_runs(config)
    if name in config.nash.runs
  )
  return config.data.comparisons is None and bool(wanted)


STAGE = pipeline.Stage(
  name=NAME,
  settings={"raters": raters.SETTINGS, NAME: SETTINGS},
  check=check,
  jobs=lambda config: [NAME] if _drawn(config) else [],
  needs=needs,
  reads=lambda config, job: trained.reads(config, "raters", "comparisons"),
  run=run,
  facts=trained.FACTS,
  shared=True,
)
