"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir.
"""

from collections.abc import Callable
import functools
import inspect
import json
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

from nashmd_jax import models, preference_model
from nashmd_jax.data import batches, raters
from nashmd_jax.evaluation import report, tournament
from nashmd_jax.experiments import nash, preference, sft
from nashmd_jax.training import loop, optimizer

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
    "report": job(report.run, config, workdir),
  }


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  expected = {
    "seed", "data", "tokenizer", "layout", "model", "raters", "comparisons",
    "sft", "preference", "reward", "nash", "tournament",
  }  # fmt: skip
  if set(config) != expected:
    raise ValueError(
      f"config: missing {sorted(expected - set(config))}, unknown "
      f"{sorted(set(config) - expected)}"
    )
  check = functools.partial(check_keywords, config)
  check("layout", batches.pad_batch)
  check("raters", raters.make_population)
  check("comparisons.drawing", preference.draw_comparisons, "seed")
  check("sft.data", sft.make_experiment, "seed")
  for kind in ("preference", "reward"):
    given = ("template", "start", "seed")
    check(f"{kind}.data", preference.make_experiment, *given)
    check(f"{kind}.template", preference_model.make_template)
  given = ("lanes", "reference", "judge", "seed")
  check("nash.data", nash.make_experiment, *given)
  for stage in ("sft", "preference", "reward", "nash"):
    check(f"{stage}.train", loop.train, "name", "folder", "seed")
    loop.check_intervals(stage, **config[stage].train)
  raters.make_population(**config.raters)
  models.make_language_model(vocab_size=1, **config.model)
  sections = [config.sft, config.preference, config.reward]
  sections += [nash.run_section(config, name) for name in config.nash.runs]
  for section in sections:
    optimizer.make_optimizer(**section.optimizer)
  for name in config.tournament.policies:
    tournament.policy_checkpoints(config, pathlib.Path(), name)


def check_keywords(
  config: ml_collections.ConfigDict,
  path: str,
  function: Callable,
  *given: str,
) -> None:
  """Raises ValueError unless a section is a function's keyword arguments.

  Args:
    path: dotted name of the section.
    function: what it is unpacked into.
    *given: keyword arguments that the program adds by itself.
  """
  section = config
  for part in path.split("."):
    if part not in section:
      raise ValueError(f"config.{path}: is missing")
    section = section[part]
  parameters = inspect.signature(function).parameters.values()
  expected = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
  expected -= set(given)
  missing = sorted(expected - set(section))
  unknown = sorted(set(section) - expected)
  if missing or unknown:
    raise ValueError(
      f"config.{path}: missing {missing}, unknown {unknown}; expected "
      f"{sorted(expected)}"
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
    try:
      theirs = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
      raise ValueError(f"{path}: not JSON; is {workdir} a workdir?") from None
    ours, old = _flat(mine), _flat(theirs)
    for key in sorted(set(ours) | set(old)):
      if ours.get(key, "absent") != old.get(key, "absent"):
        raise ValueError(
          f"{workdir}: belongs to another config, {key} was "
          f"{old.get(key, 'absent')!r} and is now "
          f"{ours.get(key, 'absent')!r}; choose another --workdir"
        )
    return
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f"{workdir}: is not empty and holds no config.json; choose another "
      "--workdir"
    )
  workdir.mkdir(parents=True, exist_ok=True)
  _save_json(path, mine)


def _flat(tree, prefix: str = "") -> dict:
  if not isinstance(tree, dict) or not tree:
    return {prefix: tree}
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
  return flat


def _save_json(path: pathlib.Path, value) -> None:
  partial = path.with_name(path.name + ".partial")
  partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
  os.replace(partial, path)


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
    print(f"{name}: starts", flush=True)
    began = time.monotonic()
    marker.parent.mkdir(parents=True, exist_ok=True)
    results = job()
    seconds = time.monotonic() - began
    _save_json(marker, {"seconds": seconds, "results": results})
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
