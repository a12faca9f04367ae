"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir, 75 saved on SIGTERM:
start it again. The same command on every host makes one run of them all.
"""

from collections.abc import Callable, Sequence
import contextlib
import functools
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

from nashmd_jax import files
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax.stages import games as games_stage
from nashmd_jax.stages import text
from nashmd_jax.sweeps import collect, hyper, trials
from nashmd_jax.training import distributed
from nashmd_jax.worlds import stage as worlds_stage

CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file, such as configs/docstrings.py[:tiny]."
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run, made if absent; out/ and the name of the config if not "
  "given.",
)
MARKER = "done.json"
STAGE = flags.DEFINE_string(
  "stage",
  "all",
  "The one stage to run; all of the config's if not given. pod_check compiles "
  "every program for the slice of --topology instead. Of a sweep also trials, "
  "which lists them, and collect, which aggregates them.",
)
TRIAL = flags.DEFINE_integer(
  "trial", None, "Number of the trial to run if the config is a sweep, from 0."
)
TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:4x4", "TPU slice of --stage=pod_check."
)
POD_CHECK = "pod_check"
SWEEP_STAGES = ("trials", "collect")
PIPELINES = {
  "text": text.PIPELINE,
  "games": games_stage.PIPELINE,
  "worlds": worlds_stage.PIPELINE,
}


def pipeline_of(
  config: ml_collections.ConfigDict, stage: str
) -> pipeline_lib.Pipeline:
  """The pipeline that a config names.

  Raises: ValueError if it names none, or if the stage is not one of it.
  """
  name = config.pipeline if "pipeline" in config else None
  if name not in PIPELINES:
    raise ValueError(
      f"config.pipeline: got {name!r}, expected one of {sorted(PIPELINES)}"
    )
  pipeline = PIPELINES[name]
  stages = pipeline.stages
  if pipeline.pod_check is not None:
    stages += (POD_CHECK,)
  if stage not in ("all", *stages):
    raise ValueError(f"--stage: got {stage!r}, expected all or one of {stages}")
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
  distributed.on_first(functools.partial(_claim, config, workdir, trial))
  if distributed.anywhere(not (workdir / "config.json").exists()):
    raise ValueError(
      f"{workdir}: not every process sees what process 0 wrote there; choose a "
      "--workdir that all hosts share"
    )
  jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jobs = pipeline.jobs(config, workdir)
  done = distributed.on_first(
    lambda: [name for name in jobs if (workdir / name / MARKER).exists()]
  )
  chosen = [name for name in jobs if stage in ("all", name.split("/")[0])]
  todo = [name for name in chosen if name not in done]
  for name in todo:
    for need in pipeline.needed(config, name):
      if need not in done:
        raise ValueError(
          f"{name}: needs {need}, which is not finished; run it first, or all "
          "stages"
        )
    distributed.stop_if_asked()
    job = jobs[name]
    if name.split("/")[0] in pipeline.alone:
      job = functools.partial(distributed.on_first, job)
    _run_job(name, job, workdir)
    done.append(name)
  if not todo:
    print("all is done already")
  page = workdir / pipeline.page
  if page.exists():
    print(f"results: {page}")


def _claim(config, workdir, trial) -> None:
  claim_workdir(config, workdir)
  if trial is not None:
    trials.claim(trial)


def _run_job(name: str, job: Callable[[], dict], workdir: pathlib.Path) -> None:
  """Runs a job; leaves its results, or why it failed, in the workdir."""
  print(f"{name}: starts", flush=True)
  began = time.monotonic()
  try:
    results = job()
  except Exception as error:
    if distributed.is_first():
      trials.save_failure(workdir, name, error)
    raise
  seconds = time.monotonic() - began

  def finish():
    outcome = {"seconds": seconds, "results": results}
    files.save_json(workdir / name / MARKER, outcome)
    trials.clear_failure(workdir)

  distributed.on_first(finish)
  print(f"{name}: done in {seconds:.0f} s", flush=True)


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
    if STAGE.value == POD_CHECK:
      check = pipeline_of(CONFIG.value, POD_CHECK).pod_check
      check(CONFIG.value, TOPOLOGY.value, print)
      return
    distributed.start()
    with contextlib.ExitStack() as stack:
      if not distributed.is_first():  # its errors are shown all the same
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
      _run_or_sweep(_workdir())
    status = 0
  except distributed.Preempted as stopped:
    print(f"nashmd_jax: {stopped}; start it again to go on", file=sys.stderr)
    status = distributed.EXIT_PREEMPTED
  except (ValueError, FloatingPointError) as error:
    if _is_fault(error):
      distributed.fail()
      raise
    print(f"nashmd_jax: {_one_sentence(error)}", file=sys.stderr)
    status = 2 if isinstance(error, ValueError) else 1
  except Exception:
    distributed.fail()
    raise
  distributed.finish(status)


def _run_or_sweep(workdir: pathlib.Path) -> None:
  config_flag = config_flags.get_config_filename(flags.FLAGS["config"])
  sweep = trials.load_sweep(config_flag)
  if sweep is not None:
    given = flags.FLAGS["config"].override_values
    run_sweep(sweep, CONFIG.value, workdir, STAGE.value, TRIAL.value, given)
  elif TRIAL.value is not None or STAGE.value in SWEEP_STAGES:
    raise ValueError(
      f"--config: {config_flag} defines no get_hyper, so that it is no sweep "
      "and has no trials"
    )
  else:
    run(CONFIG.value, workdir, STAGE.value, None)


def _workdir() -> pathlib.Path:
  given = WORKDIR.value
  if given is None:
    return default_workdir(
      config_flags.get_config_filename(flags.FLAGS["config"])
    )
  if "://" in given:
    raise ValueError(
      f"--workdir: got the address {given}, expected a folder; mount the "
      "bucket and give its place in the file system"
    )
  return pathlib.Path(given)


def _is_fault(error: ValueError | FloatingPointError) -> bool:
  """Whether the program is to blame, for what it called raised the error."""
  raised_in = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1][0])
  ours = pathlib.Path(__file__).parent in raised_in.parents
  return isinstance(error, ValueError) and not ours


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
