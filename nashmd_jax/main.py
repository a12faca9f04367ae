"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir.
"""

from collections.abc import Callable, Iterable
import functools
import inspect
import json
import operator
import os
import pathlib
import re
import sys
import time
import traceback

from absl import app, flags, logging
import jax
import ml_collections
from ml_collections import config_flags

from nashmd_jax import files, models, preference_model, task
from nashmd_jax.data import batches, raters
from nashmd_jax.evaluation import report, tournament
from nashmd_jax.experiments import nash, preference, sft
from nashmd_jax.training import followers, loop, optimizer


def keywords(function: Callable) -> set[str]:
  """The keyword-only arguments of a function."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


TRAINED = {
  "sft": sft,
  "preference": preference,
  "reward": preference,
  "nash": nash,
}
STAGE_KEYS = ("data", "optimizer", "train")
JUDGE_KEYS = (*STAGE_KEYS, "template", "start_from_sft")
SECTIONS = {
  "seed": None,
  "data": ("records", "packages"),
  "tokenizer": ("file", "vocab_size", "eos_token", "special_tokens"),
  "layout": keywords(batches.pad_batch),
  "model": None,
  "raters": keywords(raters.make_population),
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
STAGES = ("sft", "preference", "reward", "nash", "tournament", "report")

CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file, such as configs/docstrings.py[:tiny]."
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; made if absent.", required=True
)
STAGE = flags.DEFINE_enum(
  "stage", "all", ("all", *STAGES), "The one stage to run."
)


def jobs(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, Callable[[], dict]]:
  """The jobs in order, by folder: one a stage, one a policy of `nash`."""
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


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  check = functools.partial(check_keys, config)
  check("", SECTIONS)
  for path, keys in SECTIONS.items():
    if keys:
      check(path, keys)
  check("comparisons.drawing", keywords(preference.draw_comparisons) - {"seed"})
  check("nash.past", keywords(followers.past_policies))
  own = {"seed", "start", "deployed", "score", "followers"}
  own |= {"reference", "judge"}
  given = {"name", "folder", "seed", "updates_per_rollout"}
  template = keywords(preference_model.make_template) - {"barred"}
  for stage, module in TRAINED.items():
    check(f"{stage}.data", keywords(module.make_experiment) - own)
    check(f"{stage}.train", keywords(loop.train) - given)
    loop.check_intervals(stage, **config[stage].train)
    at_least_one(config, f"{stage}.data", "batch_size", "eval_examples")
    if "template" in config[stage]:
      check(f"{stage}.template", template)
  at_least_one(config, "comparisons.prompts", *task.SPLITS[:2])
  counts = ("pairs_per_prompt", "votes_per_pair", "batch_size")
  at_least_one(config, "comparisons.drawing", *counts)
  at_least_one(config, "tournament", "prompts", "batch_size")
  at_least_one(config, "layout", "max_response")
  raters.make_population(**config.raters)
  models.make_language_model(vocab_size=1, **config.model)
  sections = [config.sft, config.preference, config.reward]
  sections += [nash.run_section(config, name) for name in config.nash.runs]
  for section in sections:
    optimizer.make_optimizer(**section.optimizer)
  tournament.check(config)
  task.own_records(config)


def section_at(config: ml_collections.ConfigDict, path: str):
  """The part of a config with a dotted name; the whole for an empty one."""
  keys = path.split(".") if path else ()
  return functools.reduce(operator.getitem, keys, config)


def check_keys(
  config: ml_collections.ConfigDict, path: str, expected: Iterable[str]
) -> None:
  """Raises ValueError unless a section has just the expected keys."""
  section = section_at(config, path)
  missing = sorted(set(expected) - set(section))
  unknown = sorted(set(section) - set(expected))
  if missing or unknown:
    raise ValueError(
      f"{'.'.join(['config', path] if path else ['config'])}: missing "
      f"{missing}, unknown {unknown}; expected {sorted(expected)}"
    )


def at_least_one(
  config: ml_collections.ConfigDict, path: str, *names: str
) -> None:
  """Raises ValueError unless the named counts are 1 or more."""
  section = section_at(config, path)
  for name in names:
    if section[name] < 1:
      raise ValueError(
        f"config.{path}.{name}: got {section[name]}, expected 1 or more"
      )


def claim_workdir(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Writes the config into a new workdir, or checks that it is the same.

  Raises: ValueError that names the first setting that differs.
  """
  path = workdir / "config.json"
  mine = json.loads(config.to_json_best_effort())
  if path.exists():
    ours, old = _flat(mine), _flat(files.load_json(path))
    for key in sorted(set(ours) | set(old)):
      if ours.get(key, "absent") != old.get(key, "absent"):
        raise ValueError(
          f"{workdir}: belongs to another config, {key} was "
          f"{old.get(key, 'absent')!r} and is now "
          f"{ours.get(key, 'absent')!r}; choose another --workdir"
        )
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if {found.name for found in workdir.iterdir()} - {"config.json.partial"}:
      raise ValueError(
        f"{workdir}: is not empty and holds no config.json; choose another "
        "--workdir"
      )
    files.save_json(path, mine)
  except OSError as error:
    raise ValueError(
      f"{workdir}: cannot be a workdir ({error.strerror}); choose another "
      "--workdir"
    ) from None


def _flat(tree, prefix: str = "") -> dict:
  if not isinstance(tree, dict) or not tree:
    return {prefix: tree}
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
  return flat


def needed(config: ml_collections.ConfigDict, name: str) -> list[str]:
  """The jobs whose results a job reads."""
  before = {
    "sft": [],
    "preference": ["sft"],
    "reward": ["sft"],
    "tournament": list(jobs(config, pathlib.Path()))[:-2],
    "report": ["tournament"],
  }
  return before.get(name, ["sft", "preference", "reward"])


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, stage: str
) -> None:
  """Runs what is not done yet of one stage or of all."""
  check_config(config)
  claim_workdir(config, workdir)
  jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  todo = {
    name: job
    for name, job in jobs(config, workdir).items()
    if stage in ("all", name.split("/")[0])
  }
  finished = 0
  for name, job in todo.items():
    marker = workdir / name / "done.json"
    if marker.exists():
      finished += 1
      continue
    for need in needed(config, name):
      if not (workdir / need / "done.json").exists():
        raise ValueError(
          f"{name}: needs {need}, which is not finished; run it first, or all "
          "stages"
        )
    print(f"{name}: starts", flush=True)
    began = time.monotonic()
    results = job()
    seconds = time.monotonic() - began
    files.save_json(marker, {"seconds": seconds, "results": results})
    print(f"{name}: done in {seconds:.0f} s", flush=True)
  if finished == len(todo):
    print("all is done already")
  page = workdir / "report" / "index.html"
  if page.exists():
    print(f"report: {page}")


def _one_sentence(error: BaseException) -> str:
  text = str(error)
  if "Traceback" in text:  # a config file that failed: what it said last
    text = text.strip().splitlines()[-1]
  typo = re.search(r'Did you mean "(.+)" instead of "(.+)"', text)
  if typo:
    text = (
      f"--config: there is no setting {typo[2]!r}; did you mean {typo[1]!r}?"
    )
  elif isinstance(error, KeyError | AttributeError):
    text = f"--config: there is no setting {error.args[0]}"
  return " ".join(text.split()) or type(error).__name__


def _parse(argv: list[str]) -> list[str]:
  """Flags, with every mistake in them as one sentence and exit status 2."""
  try:
    given = [arg.partition("=") for arg in argv]
    for file in [value for name, _, value in given if name == "--config"]:
      if not os.path.isfile(file.split(":")[0]):
        raise ValueError(f"--config: there is no file {file.split(':')[0]!r}")
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise ValueError(f"{rest[1:]} are no flags")
    if CONFIG.value is None:
      raise ValueError("--config: must be given, configs/docstrings.py for one")
    CONFIG.value.to_dict()  # raises what the config file raised
    return rest
  except Exception as error:  # config files can raise anything
    print(f"nashmd_jax: {_one_sentence(error)}", file=sys.stderr)
    raise SystemExit(2) from None


def main(argv: list[str]) -> None:
  """Entry point for absl."""
  del argv
  logging.set_verbosity(logging.ERROR)
  try:
    run(CONFIG.value, pathlib.Path(WORKDIR.value), STAGE.value)
  except ValueError as error:
    raised_in = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1][0])
    if pathlib.Path(__file__).parent not in raised_in.parents:
      raise
    print(f"nashmd_jax: {_one_sentence(error)}", file=sys.stderr)
    raise SystemExit(2) from None
  except FloatingPointError as error:
    print(f"nashmd_jax: {_one_sentence(error)}", file=sys.stderr)
    raise SystemExit(1) from None


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
