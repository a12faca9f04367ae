"""Policies of others in a tournament, by where they lie.

A file of responses, a policy of another workdir, a folder in the Hugging Face
layout, or one of adapters on this run's model: what lies at the path says which
it is. Each answers with its own tokenizer and chat template.
"""

from collections.abc import Mapping, Sequence
import hashlib
import pathlib
from typing import Any, NamedTuple

from etils import epath
import ml_collections

from nashmd_jax import declare, files, mistakes, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import records
from nashmd_jax.hub import folders, peft
from nashmd_jax.models import lora
from nashmd_jax.nash import opponents, settings
from nashmd_jax.stages import deployed, judging
from nashmd_jax.training import sharding

Config = pipeline.Config
SETTINGS = {
  declare.ANY: {
    "path": declare.text(
      "Responses as JSON lines, another workdir, a folder in the Hugging Face "
      "layout, or one of adapters on this model."
    ),
    "policy": declare.text(
      "Of another workdir: sft, or one of its runs.", optional=True
    ),
  }
}
FILE, WORKDIR, FOLDER, ADAPTERS = "file", "workdir", "folder", "adapters"


class Guest(NamedTuple):
  """A policy that answers with the task that it belongs to.

  Attributes:
    task: of its own.
    sets: its parameter sets, the base of adapters among them.
    lane: in which it answers.
  """

  task: task_lib.Task
  sets: task_lib.Sets
  lane: sampling.Lane


def playing(config: Config) -> dict[str, Config]:
  """The guests that the tournament plays, by name."""
  return judging.playing(config, "guests")


def kind_of(name: str, guest: Config) -> str:
  """What lies at the path of a guest.

  Raises: Mistake for a path at which nothing lies that could answer.
  """
  path, setting = epath.Path(guest.path), f"tournament.guests.{name}.path"
  if ".jsonl" in path.name and path.is_file():
    return FILE
  if (path / peft.CONFIG).exists():
    return ADAPTERS
  if (path / folders.CONFIG).exists():
    told = files.load_json(path / folders.CONFIG)
    found = isinstance(told, Mapping) and "pipeline" in told
    return WORKDIR if found else FOLDER
  raise mistakes.Mistake(
    f"{setting}: {path} is neither a file of JSON lines, nor a workdir, nor a "
    "folder with a model or adapters"
  )


def texts(
  name: str, guest: Config, rows: Sequence[records.Record]
) -> list[str]:
  """The responses of a file, by the ids of the records.

  Raises: Mistake for a record that it does not answer, or answers twice.
  """
  said: dict[str, str] = {}
  for row in records.load_records(pathlib.Path(guest.path), "summary"):
    if said.setdefault(row["id"], row["response"]) != row["response"]:
      raise mistakes.Mistake(
        f"{guest.path}: has two responses of the record "
        f"{mistakes.quote(row['id'])}; expected one of each"
      )
  absent = list(dict.fromkeys(r["id"] for r in rows if r["id"] not in said))
  if absent:
    raise mistakes.Mistake(
      f"{guest.path}: has no response of {len(absent)} of the records that "
      f"{name} has to answer, such as {mistakes.quote(absent[0])}; their ids "
      "are those in tournament/responses/written.jsonl of a finished run"
    )
  return [said[row["id"]] for row in rows]


def load(
  config: Config, workdir: pathlib.Path, name: str, guest: Config
) -> Guest:
  """A guest that is no file.

  Args:
    config: of the run.
    workdir: of the run, whose data and tokenizer adapters answer with.
    name: of the guest.
    guest: its settings, checked.
  """
  kind = kind_of(name, guest)
  if kind == WORKDIR:
    return _of_workdir(config, guest)
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.lora.rank = 0
    if kind == FOLDER:
      config.model = {"pretrained": guest.path}
      config.judge_model = {}
      config.tokenizer.update({"file": None, "eos_token": None})
      config.tokenizer.bos_token = None
  task = task_lib.load_task(config, workdir)
  params = task_lib.base_params(task, "model")
  if kind == ADAPTERS:
    params = _with_adapters(task, params, guest.path)
  return Guest(task, {"policy": params}, opponents.LEARNER)


def _with_adapters(task: task_lib.Task, params: Any, path: str) -> Any:
  base = folders.Pretrained(task.starts["model"].config, task.model, params)
  told = peft.load_settings(path)
  adapters = peft.load_adapter(
    path, base, lambda shapes: sharding.shardings(shapes, task.devices)
  )
  return lora.attach(params, adapters, alpha=told["lora_alpha"])


def _of_workdir(config: Config, guest: Config) -> Guest:
  """A policy of a workdir, whose config may lack sections that came later."""
  other = pathlib.Path(guest.path)
  later, told = pipeline.plain(config), _config_of(guest)
  config = ml_collections.ConfigDict({**later, **told})
  task = task_lib.load_task(config, other)
  lane = settings.policy_lane(config, guest.policy)
  place, start = other / deployed.run_job(guest.policy), other / settings.START
  sets = task_lib.bases(task, "model")
  return Guest(
    task, {**sets, **deployed.load_sets(task, lane, place, start)}, lane
  )


def _config_of(guest: Config) -> dict[str, Any]:
  return files.load_json(pathlib.Path(guest.path) / workdir_lib.CONFIG)


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the guests that play."""
  for name, guest in playing(config).items():
    with findings.collect():
      _check(name, guest)


def _check(name: str, guest: Config) -> None:
  setting, kind = f"tournament.guests.{name}", kind_of(name, guest)
  if (guest.policy is not None) != (kind == WORKDIR):
    raise mistakes.Mistake(
      f"{setting}.policy: got {mistakes.quote(guest.policy)} for "
      + (
        "a workdir; name sft or one of its runs"
        if kind == WORKDIR
        else f"what is no workdir ({kind}); leave it out"
      )
    )
  if kind != WORKDIR:
    return
  path, told = pathlib.Path(guest.path), _config_of(guest)
  known = [settings.START, *told.get("nash", {}).get("runs", {})]
  done = [one for one in known if _is_done(path, one)]
  if guest.policy not in done:
    raise mistakes.Mistake(
      f"{setting}.policy: {mistakes.quote(guest.policy)} is not trained in "
      f"{path}; expected one of {done}"
    )


def _is_done(workdir: pathlib.Path, policy: str) -> bool:
  return workdir_lib.is_done(workdir, deployed.run_job(policy))


def reads(config: Config) -> dict[str, Any]:
  """Of the guests that play their settings, and what lies there."""
  found = {}
  for name, guest in playing(config).items():
    setting = f"tournament.guests.{name}"
    found |= pipeline.settings(config, setting)
    found[f"{setting} (contents)"] = _contents(name, guest)
  return found


def _contents(name: str, guest: Config) -> str | None:
  """A hash of what a guest answers with; None if nothing is there."""
  with mistakes.Findings().collect():
    kind, path = kind_of(name, guest), epath.Path(guest.path)
    if kind == FILE:
      return hashlib.sha256(files.read_bytes(path)).hexdigest()
    if kind == ADAPTERS:
      return hashlib.sha256(files.read_bytes(path / peft.WEIGHTS)).hexdigest()
    if kind == FOLDER:
      return folders.fingerprint(path)
    job = deployed.run_job(str(guest.policy))
    return workdir_lib.load_key(pathlib.Path(path) / job / workdir_lib.KEY)[
      "hash"
    ]
  return None
