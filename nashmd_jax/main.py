"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir, 75 saved on SIGTERM
and 130 on SIGINT: start it again. The same command on every host makes one run
of them all.
"""

import gc

# Loading and tracing make objects by the million, none of them garbage.
gc.set_threshold(50_000, 10, 10)

from collections.abc import Sequence
import contextlib
import functools
import os
import pathlib
import re
import sys

from absl import app, flags, logging
import jax
import ml_collections
from ml_collections import config_flags

from nashmd_jax import explain, inspection, jobs, mistakes, none_flags, status
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.capacity import pod_check
from nashmd_jax.stages import games, text
from nashmd_jax.sweeps import collect, hyper, trials
from nashmd_jax.training import distributed, ending, memory, sharding
from nashmd_jax.worlds import stage as worlds

none_flags.register()
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
  "The one stage to run; all of the config's if not given. check only checks "
  "settings and files; pod_check compiles every program for the slice of "
  "--topology; status says where the workdir stands, and inspect what --what "
  "holds; both change nothing. Of a sweep also trials, which lists them, and "
  "collect, which aggregates them.",
)
WHAT = flags.DEFINE_string(
  "what",
  None,
  "What --stage=inspect shows: a job of the workdir, perhaps with the step of "
  "a checkpoint, as nash/nash_md:800, or a folder of weights or adapters.",
)
REUSE = flags.DEFINE_list(
  "reuse",
  [],
  "Workdirs whose finished stages are linked to where they are the same: of "
  "the same settings, data and earlier stages.",
)
REPLAY = flags.DEFINE_string(
  "replay",
  None,
  "Job and step, as nash/nash_md:12, of a step that changed nothing and was "
  "kept: computes it again and says where its numbers are not finite.",
)
ALLOW = flags.DEFINE_list(
  "allow_config_change",
  [],
  "Settings, such as nash.kl_coef, of which what is in the workdir may have "
  "been made otherwise; it stands, and its key.json says so.",
)
TRIAL = flags.DEFINE_integer(
  "trial", None, "Number of the trial to run if the config is a sweep, from 0."
)
EXPLAIN = flags.DEFINE_string(
  "explain",
  None,
  "Says what a setting is, such as nash.mixture, or each of a section, such as "
  "nash, and runs nothing; all prints docs/settings.md.",
)
TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:4x4", "TPU slice of --stage=pod_check."
)
CHECK, POD_CHECK, STATUS, INSPECT = "check", "pod_check", "status", "inspect"
# (workdir, jobs) -> lines; they only look.
LOOKS = {
  STATUS: status.lines,
  INSPECT: lambda *run: inspection.lines(*run, WHAT.value),
}
SWEEP_STAGES = ("trials", "collect")
PIPELINES = {
  "text": text.PIPELINE,
  "games": games.PIPELINE,
  "worlds": worlds.PIPELINE,
}
POD_CHECKS = {"text": pod_check.check_config}


def pipeline_of(
  config: ml_collections.ConfigDict, stage: str
) -> pipeline_lib.Pipeline:
  """The pipeline that a config names.

  Raises: Mistake if it names none, or if the stage is not one of it.
  """
  name = config.pipeline if "pipeline" in config else None
  if not isinstance(name, str) or name not in PIPELINES:
    raise mistakes.Mistake(
      f"config.pipeline: got {mistakes.quote(name)}, expected one of "
      f"{sorted(PIPELINES)}"
    )
  stages = tuple(stage.name for stage in PIPELINES[name].stages)
  stages += (CHECK, *LOOKS, *((POD_CHECK,) if name in POD_CHECKS else ()))
  if stage not in ("all", *stages):
    raise mistakes.Mistake(
      f"--stage: got {mistakes.quote(stage)}, expected all or one of {stages}"
    )
  return PIPELINES[name]


def explained(name: str) -> str:
  """What `--explain` says of a setting or a section of the config, or all."""
  if name == "all":
    pages = {name: one.declared() for name, one in PIPELINES.items()}
    return explain.page(pages).rstrip()
  settings = pipeline_of(CONFIG.value, "all").declared()
  return explain.explain(settings, CONFIG.value.to_dict(), name)


def default_workdir(config_flag: str) -> pathlib.Path:
  """out/worlds-games for configs/worlds.py:games."""
  file, _, variant = config_flag.partition(":")
  name = pathlib.Path(file).stem
  return pathlib.Path("out") / (f"{name}-{variant}" if variant else name)


def run(
  config: ml_collections.ConfigDict,
  place: jobs.Place,
  stage: str,
  trial: trials.Trial | None = None,
) -> None:
  """Runs what is not done yet of one stage or of all; of a trial, if given."""
  pipeline = pipeline_of(config, stage)
  if stage in LOOKS:
    print(*LOOKS[stage](place.workdir, pipeline.jobs(config)), sep="\n")
    return
  distributed.together(lambda: pipeline_lib.check(pipeline, config))
  if stage == CHECK:
    print(f"nothing is wrong with it; jobs: {', '.join(pipeline.jobs(config))}")
    return
  further = functools.partial(trials.claim, trial) if trial else lambda: None
  with (
    jobs.on_disk(place.workdir),
    jobs.undone(place),
    jobs.claimed(config, place, further),
  ):
    _keep_programs((place.store or place.workdir).parent)
    if "devices" in config:
      sharding.compile_as(config.devices.compile)
    if REPLAY.value is not None:
      jobs.replay(pipeline, config, place.workdir, REPLAY.value)
      return
    jobs.run(pipeline, config, place, None if stage == "all" else stage)


def _keep_programs(folder: pathlib.Path) -> None:
  """Keeps what is compiled in a folder for all workdirs beside it."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(folder / "xla_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


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
  for trial in found:
    _check_settings(trial)
  if stage != STATUS and (stage in SWEEP_STAGES) != (number is None):
    raise mistakes.Mistake(
      f"--config: is a sweep of {len(found)} trials; give either --trial or "
      f"--stage, one of {(*SWEEP_STAGES, STATUS)}"
    )
  if (workdir / "config.json").exists():
    raise mistakes.Mistake(
      f"{workdir}: belongs to a single run; choose another --workdir"
    )
  if number is not None:
    trial = trials.chosen(found, number)
    reuse = workdir_lib.names(REUSE.value)
    further = (reuse, workdir / "shared", ALLOW.value, _config_flag())
    run(trial.config, jobs.Place(trial.folder, *further), stage, trial)
  elif stage == "trials":
    _list_trials(found)
  elif stage == STATUS:
    print(*collect.status([_entry(trial) for trial in found]), sep="\n")
  else:
    collect.run([_entry(trial) for trial in found], workdir)


def _check_settings(trial: trials.Trial) -> None:
  """Raises Mistake for what a trial sets and cannot be."""
  findings = mistakes.Findings()
  with findings.collect(f"trial {trial.number}"):
    pipeline = pipeline_of(trial.config, "all")
    pipeline_lib.check_settings(pipeline, trial.config)
  findings.tell()


def _list_trials(found: Sequence[trials.Trial]) -> None:
  for trial in found:
    mistake = _mistake(trial)
    if mistake:
      raise mistakes.Mistake(f"trial {trial.number}: {mistake}")
    print(f"{trial.number:03d} {trials.describe(trial.overrides)}")
  print(f"{len(found)} trials, 0 to {len(found) - 1}")


def _entry(trial: trials.Trial) -> collect.Entry:
  """A trial for `collect`, which must be the one that its folder holds."""
  mistake = None
  stages = pipeline_of(trial.config, "all").jobs(trial.config)
  if (trial.folder / workdir_lib.CONFIG).exists():
    trials.claim(trial)
    workdir_lib.check_settings(
      trial.folder,
      {job: stage.reads(trial.config, job) for job, stage in stages.items()},
    )
  else:
    mistake = _mistake(trial)
  return collect.Entry(trial, tuple(stages), mistake)


def _mistake(trial: trials.Trial) -> str | None:
  """What is wrong with the config of a trial, before anything runs."""
  try:
    pipeline_lib.check(pipeline_of(trial.config, "all"), trial.config)
  except mistakes.Mistake as error:
    return str(error)
  return None


def one_sentence(error: BaseException) -> str:
  """What is wrong with the flags, by what absl or a config file raised."""
  text = str(error)
  if "Traceback" in text:  # a config file that failed: what it said last
    text = text.strip().splitlines()[-1]
  typo = re.search(r'Did you mean "(.+)" instead of "(.+)"', text)
  if typo:
    meant, said = map(mistakes.quote, typo.groups())
    text = f"--config: there is no setting {said}; did you mean {meant}?"
  elif isinstance(error, KeyError | AttributeError):
    text = f"--config: there is no setting {error.args[0]}"
  return mistakes.brief(text) or type(error).__name__


def _parse(argv: list[str]) -> list[str]:
  """Flags, with every mistake in them as one sentence and exit status 2."""
  try:
    given = [arg.partition("=") for arg in argv]
    for file in [value for name, _, value in given if name == "--config"]:
      if not os.path.isfile(file.split(":")[0]):
        raise mistakes.Mistake(
          f"--config: there is no file {mistakes.quote(file.split(':')[0])}"
        )
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise mistakes.Mistake(f"{rest[1:]} are no flags")
    if CONFIG.value is None:
      raise mistakes.Mistake(
        "--config: must be given, configs/docstrings.py for one"
      )
    CONFIG.value.to_dict()  # raises what the config file raised
    file = _config_flag().split(":")[0]
    sys.path.append(os.path.dirname(os.path.abspath(file)))
    return rest
  except Exception as error:  # config files can raise anything
    print(f"nashmd_jax: {one_sentence(error)}", file=sys.stderr)
    raise SystemExit(2) from None


def main(argv: list[str]) -> None:
  """Entry point for absl."""
  del argv
  logging.set_verbosity(logging.ERROR)
  try:
    if EXPLAIN.value is not None:
      print(explained(EXPLAIN.value))
      return
    if STAGE.value == POD_CHECK:
      pipeline = pipeline_of(CONFIG.value, POD_CHECK)
      check = POD_CHECKS[CONFIG.value.pipeline]
      check(pipeline, CONFIG.value, TOPOLOGY.value, print)
      return
    if STAGE.value in LOOKS:
      jax.config.update("jax_platforms", "cpu")  # a run may have all others
      _run_or_sweep(_workdir())
      return
    memory.run_in_main_thread()
    distributed.start()
    memory.keep_pages()
    with contextlib.ExitStack() as stack:
      if not distributed.is_first():  # its errors are shown all the same
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
      _run_or_sweep(_workdir())
    status = 0
  except ending.Preempted as stopped:
    ending.tell(f"{stopped}; start it again to go on")
    status = ending.status()
  except mistakes.Mistake as error:
    for sentence in error.sentences:
      print(f"nashmd_jax: {mistakes.plain(sentence)}", file=sys.stderr)
    status = 2
  except (FloatingPointError, mistakes.Fault) as error:
    ending.tell(str(error))
    status = 1
  except Exception:
    distributed.fail()
    raise
  distributed.finish(status)


def _config_flag() -> str:
  return config_flags.get_config_filename(flags.FLAGS["config"])


def _run_or_sweep(workdir: pathlib.Path) -> None:
  config_flag = _config_flag()
  sweep = trials.load_sweep(config_flag)
  if sweep is not None:
    given = flags.FLAGS["config"].override_values
    run_sweep(sweep, CONFIG.value, workdir, STAGE.value, TRIAL.value, given)
  elif TRIAL.value is not None or STAGE.value in SWEEP_STAGES:
    raise mistakes.Mistake(
      f"--config: {config_flag} defines no get_hyper, so that it is no sweep "
      "and has no trials"
    )
  else:
    reuse = workdir_lib.names(REUSE.value)
    place = jobs.Place(workdir, reuse, None, ALLOW.value, config_flag)
    run(CONFIG.value, place, STAGE.value)


def _workdir() -> pathlib.Path:
  given = WORKDIR.value
  if given is None:
    return default_workdir(_config_flag())
  if "://" in given:
    raise mistakes.Mistake(
      f"--workdir: got the address {given}, expected a folder; mount the "
      "bucket and give its place in the file system"
    )
  return pathlib.Path(given)


def cli() -> None:
  """The command `nashmd`."""
  with ending.in_time():
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
  cli()
