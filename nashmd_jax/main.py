"""Runs the stages of a config: flags → config → stages.

  python -m nashmd_jax.main --config=configs/docstrings.py --workdir=DIR

Every stage has its folder in the workdir, is skipped when finished and goes
on from its last checkpoint when it was cut off. Exit status: 0 done, 1 the
run failed, 2 a mistake in flags, config, data or workdir.
"""

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

from nashmd_jax import files, pipelines

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
  "The one stage to run; all of the config's if not given. pod_check compiles "
  "every program for the slice of --topology instead.",
)
TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:4x4", "TPU slice of --stage=pod_check."
)
POD_CHECK = "pod_check"


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
  config: ml_collections.ConfigDict, workdir: pathlib.Path, stage: str
) -> None:
  """Runs what is not done yet of one stage or of all."""
  pipeline = pipeline_of(config, stage)
  pipeline.check(config)
  claim_workdir(config, workdir)
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
    results = job()
    seconds = time.monotonic() - began
    files.save_json(marker, {"seconds": seconds, "results": results})
    print(f"{name}: done in {seconds:.0f} s", flush=True)
  if finished == len(todo):
    print("all is done already")
  page = workdir / pipeline.page
  if page.exists():
    print(f"results: {page}")


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
    if WORKDIR.value is None:
      config_flag = config_flags.get_config_filename(flags.FLAGS["config"])
      workdir = default_workdir(config_flag)
    else:
      workdir = pathlib.Path(WORKDIR.value)
    run(CONFIG.value, workdir, STAGE.value)
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
