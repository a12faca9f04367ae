"""Text, from records to a report: sft, judges, nash, tournament, report."""

from collections.abc import Callable
import functools
import pathlib

from nashmd_jax import pipeline, texts
from nashmd_jax.capacity import pod_check
from nashmd_jax.data import batches
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import preference_model, raters
from nashmd_jax.stages import (
  export,
  nash,
  preference,
  report,
  sft,
  start,
  tournament,
)
from nashmd_jax.training import followers, loop, optimizer, sharding

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
  "required": None,
  "seed": None,
  "data": (
    "records",
    "schema",
    "comparisons",
    "comparisons_schema",
    "packages",
  ),
  "tokenizer": (
    "file",
    "vocab_size",
    "eos_token",
    "bos_token",
    "special_tokens",
  ),
  "layout": pipeline.keywords(batches.pad_batch),
  "model": None,
  "judge_model": None,
  "devices": pipeline.keywords(sharding.check_devices),
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
  "export": ("policies",),
}


def jobs(
  config: pipeline.Config, workdir: pathlib.Path
) -> dict[str, pipeline.Job]:
  """One job a stage, and one for each policy that `nash` trains."""
  job = functools.partial
  first = {"start": job(start.run, config, workdir)}
  return {
    **(first if start.wanted(config) else {}),
    "sft": job(sft.run, config, workdir),
    "preference": job(preference.run, "preference", config, workdir),
    "reward": job(preference.run, "reward", config, workdir),
    **{
      f"nash/{name}": job(nash.run, config, workdir, name)
      for name in trained(config)
    },
    "tournament": job(tournament.run, config, workdir),
    "report": job(report.run, workdir),
    "export": job(export.run, config, workdir),
  }


def trained(config: pipeline.Config) -> list[str]:
  """The policies that `nash` trains: of the tournament and of the export."""
  names = [*config.tournament.policies, *config.export.policies]
  return [name for name in dict.fromkeys(names) if name != tournament.START]


def check(config: pipeline.Config) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  check_keys = functools.partial(pipeline.check_keys, config)
  at_least_one = functools.partial(pipeline.at_least_one, config)
  check_keys("", SECTIONS)
  for path, keys in SECTIONS.items():
    if keys:
      check_keys(path, keys)
  pipeline.check_given(config, config.required)
  drawing = pipeline.keywords(preference.draw_comparisons) - {"seed"}
  check_keys("comparisons.drawing", drawing)
  check_keys("nash.past", pipeline.keywords(followers.past_policies))
  own = {"seed", "start", "deployed", "score", "followers"}
  own |= {"reference", "judge"}
  given = {"devices", "name", "folder", "seed", "updates_per_rollout"}
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
  at_least_one("comparisons.prompts", *texts.JUDGED)
  counts = ("pairs_per_prompt", "votes_per_pair", "batch_size")
  at_least_one("comparisons.drawing", *counts)
  at_least_one("tournament", "prompts", "batch_size")
  at_least_one("layout", "max_response")
  raters.make_population(**config.raters)
  sharding.check_devices(**config.devices)
  for section in pretrained.SECTIONS:
    pretrained.architecture(config, section, vocab_size=1)
  for kind in ("preference", "reward"):
    if config.judge_model and config[kind].start_from_sft:
      raise ValueError(
        f"config.{kind}.start_from_sft: got True with a judge_model of other "
        "sizes than the model; set it to False"
      )
  sections = [config.sft, config.preference, config.reward]
  sections += [nash.run_section(config, name) for name in config.nash.runs]
  for section in sections:
    optimizer.make_optimizer(**section.optimizer)
  tournament.check(config)
  for name in config.export.policies:
    tournament.policy_folder(config, pathlib.Path(), name)
  texts.check(config)


def needed(config: pipeline.Config, name: str) -> list[str]:
  """The jobs whose results a job reads."""
  first = ["start"] if start.wanted(config) else []
  before = {
    "start": [],
    "sft": first,
    "preference": [*first, "sft"],
    "reward": [*first, "sft"],
    "tournament": list(jobs(config, pathlib.Path()))[:-3],
    "report": ["tournament"],
    "export": ["sft", *(f"nash/{name}" for name in trained(config))],
  }
  return before.get(name, ["sft", "preference", "reward"])


def check_pod(
  config: pipeline.Config, topology: str, report: Callable[[str], None]
) -> None:
  """Compiles every program for a slice; what a user has to give may be absent.

  Raises: ValueError for a config, or a slice, that cannot work.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.required = ()
  check(config)
  pod_check.check(config, topology, report)


PIPELINE = pipeline.Pipeline(
  stages=(
    "start",
    *("sft", "preference", "reward", "nash"),
    *("tournament", "report", "export"),
  ),
  check=check,
  jobs=jobs,
  alone=("report",),
  needed=needed,
  page="report/index.html",
  pod_check=check_pod,
)
