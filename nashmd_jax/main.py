"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir.
"""

from collections.abc import Sequence
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

from nashmd_jax import files, hyper, pipelines, trials
from nashmd_jax.evaluation import collect

CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file, such as configs/docstrings.py[:tiny]."
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run, made if absent; out/ and the name of the config if not "
  "given.",
)
STAGE = flags.DEFINE_string(
  "stage",
  "all",
  "The one stage to run; all of the config's if not given. Of a sweep also "
  "trials, which lists them, and collect, which aggregates them.",
)
TRIAL = flags.DEFINE_integer(
  "trial", None, "Number of the trial to run if the config is a sweep, from 0."
)
SWEEP_STAGES = ("trials", "collect")


def pipeline_of(
  config: ml_collections.ConfigDict, stage: str
) -> pipelines.Pipeline:
  """The pipeline that a config names.

  Raises: ValueError if it names none, or if the stage is not one of it.
  """
  name = config.pipeline if "pipeline" in config else None
  if name not in pipelines.PIPELINES:
    raise ValueError(
      f"config.pipeline: got {name!r}, expected one of "
      f"{sorted(pipelines.PIPELINES)}"
    )
  pipeline = pipelines.PIPELINES[name]
  if stage not in ("all", *pipeline.stages):
    raise ValueError(
      f"--stage: got {stage!r}, expected all or one of {pipeline.stages}"
    )
  return pipeline


def default_workdir(config_flag: str) -> pathlib.Path:
  """out/worlds-games for configs/worlds.py:games."""
  file, _, variant = config_flag.partition(":")
  name = pathlib.Path(file).stem
  return pathlib.Path("out") / (f"{name}-{variant}" if variant else name)


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


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stage: str,
  trial: trials.Trial | None,
) -> None:
  """Runs what is not done yet of one stage or of all; of a trial, if given."""
  pipeline = pipeline_of(config, stage)
  pipeline.check(config)
  claim_workdir(config, workdir)
  if trial is not None:
    trials.claim(trial)
  jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  todo = {
    name: job
    for name, job in pipeline.jobs(config, workdir).items()
    if stage in ("all", name.split("/")[0])
  }
  finished = 0
  for name, job in todo.items():
    marker = workdir / name / "done.json"
    if marker.exists():
      finished += 1
      continue
    for need in pipeline.needed(config, name):
      if not (workdir / need / "done.json").exists():
        raise ValueError(
          f"{name}: needs {need}, which is not finished; run it first, or all "
          "stages"
        )
    print(f"{name}: starts", flush=True)
    began = time.monotonic()
    try:
      results = job()
    except Exception as error:
      trials.save_failure(workdir, name, error)
      raise
    seconds = time.monotonic() - began
    files.save_json(marker, {"seconds": seconds, "results": results})
    trials.clear_failure(workdir)
    print(f"{name}: done in {seconds:.0f} s", flush=True)
  if finished == len(todo):
    print("all is done already")
  page = workdir / pipeline.page
  if page.exists():
    print(f"results: {page}")


def run_sweep(
  sweep: hyper.Sweep,
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stage: str,
  number: int | None,
  given: Sequence[str],
) -> None:
  """Runs one trial of a sweep, or lists or collects all of them.

  Args:
    sweep: what each trial sets in the config.
    config: the base.
    workdir: of the sweep.
    stage: of the trial, or one of `SWEEP_STAGES`.
    number: of the trial; None for a stage of the sweep.
    given: settings of the config that the command line has set.
  """
  found = trials.all_trials(config, sweep, given=given, workdir=workdir)
  if (stage in SWEEP_STAGES) != (number is None):
    raise ValueError(
      f"--config: is a sweep of {len(found)} trials; give either --trial or "
      f"--stage, one of {SWEEP_STAGES}"
    )
  if (workdir / "config.json").exists():
    raise ValueError(
      f"{workdir}: belongs to a single run; choose another --workdir"
    )
  if number is not None:
    trial = trials.chosen(found, number)
    run(trial.config, trial.folder, stage, trial)
  elif stage == "trials":
    _list_trials(found)
  else:
    collect.run([_entry(trial) for trial in found], workdir)


def _list_trials(found: Sequence[trials.Trial]) -> None:
  for trial in found:
    mistake = _mistake(trial)
    if mistake:
      raise ValueError(f"trial {trial.number}: {mistake}")
    print(f"{trial.number:03d} {trials.describe(trial.overrides)}")
  print(f"{len(found)} trials, 0 to {len(found) - 1}")


def _entry(trial: trials.Trial) -> collect.Entry:
  """A trial for `collect`, which must be the one that its folder holds."""
  mistake = None
  if (trial.folder / "config.json").exists():
    claim_workdir(trial.config, trial.folder)
    trials.claim(trial)
  else:
    mistake = _mistake(trial)
  jobs = pipeline_of(trial.config, "all").jobs(trial.config, trial.folder)
  return collect.Entry(trial, tuple(jobs), mistake)


def _mistake(trial: trials.Trial) -> str | None:
  """What is wrong with the config of a trial, before anything runs."""
  try:
    pipeline_of(trial.config, "all").check(trial.config)
  except ValueError as error:
    return str(error)
  return None


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
    config_flag = config_flags.get_config_filename(flags.FLAGS["config"])
    if WORKDIR.value is None:
      workdir = default_workdir(config_flag)
    else:
      workdir = pathlib.Path(WORKDIR.value)
    sweep = trials.load_sweep(config_flag)
    if sweep is not None:
      given = flags.FLAGS["config"].override_values
      run_sweep(sweep, CONFIG.value, workdir, STAGE.value, TRIAL.value, given)
    elif TRIAL.value is not None or STAGE.value in SWEEP_STAGES:
      raise ValueError(
        f"--config: {config_flag} defines no get_hyper, so that it is no "
        "sweep and has no trials"
      )
    else:
      run(CONFIG.value, workdir, STAGE.value, None)
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
