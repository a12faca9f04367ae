"""Text, from records to a report: sft, judges, nash, tournament, report."""

import functools
import pathlib

from nashmd_jax import models, preference_model, task
from nashmd_jax.data import batches, raters
from nashmd_jax.evaluation import report, tournament
from nashmd_jax.experiments import nash, preference, sft
from nashmd_jax.pipelines import pipeline
from nashmd_jax.training import followers, loop, optimizer

TRAINED = {
  "sft": sft,
  "preference": preference,
  "reward": preference,
  "nash": nash,
}
STAGE_KEYS = ("data", "optimizer", "train")
JUDGE_KEYS = (*STAGE_KEYS, "template", "start_from_sft")
SECTIONS = {
  "pipeline": None,
  "seed": None,
  "data": ("records", "packages"),
  "tokenizer": ("file", "vocab_size", "eos_token", "special_tokens"),
  "layout": pipeline.keywords(batches.pad_batch),
  "model": None,
  "raters": pipeline.keywords(raters.make_population),
  "comparisons": ("prompts", "drawing"),
  "sft": STAGE_KEYS,
  "preference": JUDGE_KEYS,
  "reward": JUDGE_KEYS,
  "nash": (*STAGE_KEYS, *nash.GAME, "past", "runs"),
  "tournament": (
    "policies",
    "prompts",
    "batch_size",
    "temperature",
    "confidence",
  ),
}


def jobs(
  config: pipeline.Config, workdir: pathlib.Path
) -> dict[str, pipeline.Job]:
  """One job a stage, and one for each policy that `nash` trains."""
  job = functools.partial
  return {
    "sft": job(sft.run, config, workdir),
    "preference": job(preference.run, "preference", config, workdir),
    "reward": job(preference.run, "reward", config, workdir),
    **{
      f"nash/{name}": job(nash.run, config, workdir, name)
      for name in config.tournament.policies
      if name != tournament.START
    },
    "tournament": job(tournament.run, config, workdir),
    "report": job(report.run, workdir),
  }


def check(config: pipeline.Config) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  check_keys = functools.partial(pipeline.check_keys, config)
  at_least_one = functools.partial(pipeline.at_least_one, config)
  check_keys("", SECTIONS)
  for path, keys in SECTIONS.items():
    if keys:
      check_keys(path, keys)
  drawing = pipeline.keywords(preference.draw_comparisons) - {"seed"}
  check_keys("comparisons.drawing", drawing)
  check_keys("nash.past", pipeline.keywords(followers.past_policies))
  own = {"seed", "start", "deployed", "score", "followers"}
  own |= {"reference", "judge"}
  given = {"name", "folder", "seed", "updates_per_rollout"}
  template = pipeline.keywords(preference_model.make_template) - {"barred"}
  train = pipeline.keywords(loop.train) - given
  for stage, module in TRAINED.items():
    data = pipeline.keywords(module.make_experiment) - own
    check_keys(f"{stage}.data", data)
    check_keys(f"{stage}.train", train)
    loop.check_intervals(stage, **config[stage].train)
    at_least_one(f"{stage}.data", "batch_size", "eval_examples")
    if "template" in config[stage]:
      check_keys(f"{stage}.template", template)
  at_least_one("comparisons.prompts", *task.SPLITS[:2])
  counts = ("pairs_per_prompt", "votes_per_pair", "batch_size")
  at_least_one("comparisons.drawing", *counts)
  at_least_one("tournament", "prompts", "batch_size")
  at_least_one("layout", "max_response")
  raters.make_population(**config.raters)
  models.make_language_model(vocab_size=1, **config.model)
  sections = [config.sft, config.preference, config.reward]
  sections += [nash.run_section(config, name) for name in config.nash.runs]
  for section in sections:
    optimizer.make_optimizer(**section.optimizer)
  tournament.check(config)
  task.own_records(config)


def needed(config: pipeline.Config, name: str) -> list[str]:
  """The jobs whose results a job reads."""
  before = {
    "sft": [],
    "preference": ["sft"],
    "reward": ["sft"],
    "tournament": list(jobs(config, pathlib.Path()))[:-2],
    "report": ["tournament"],
  }
  return before.get(name, ["sft", "preference", "reward"])


PIPELINE = pipeline.Pipeline(
  stages=("sft", "preference", "reward", "nash", "tournament", "report"),
  check=check,
  jobs=jobs,
  alone=("report",),
  needed=needed,
  page="report/index.html",
)
