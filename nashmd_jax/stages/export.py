"""Stage `export`: trained policies as folders that transformers and vLLM load.

A policy that answers alone is one folder. A deployed mixture is no network: it
is a folder of folders, one a parameter set, with their weights in
`mixture.json`, which `load_deployed` reads back as a lane.
"""

from collections.abc import Callable, Mapping
import functools
import pathlib
from typing import Any, NamedTuple

from etils import epath
import jax

from nashmd_jax import files, mistakes, models, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.hub import architectures, folders, peft, pretrained
from nashmd_jax.models import lora
from nashmd_jax.stages import sft, tournament

Config = pipeline.Config
NAME = "export"
FORMS = ("whole", "peft")
MIXTURE = "mixture.json"
# Of a config.json, what tells how the folder itself was written.
OURS = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")


class Deployed(NamedTuple):
  """A policy as it answers.

  Attributes:
    model: of every set.
    sets: parameters by name.
    lane: weights of their log-probabilities; see `sampling`.
  """

  model: models.LanguageModel
  sets: dict[str, Any]
  lane: sampling.Lane


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, str]:
  """Writes a folder for each of `config.export.policies`, and where it is."""
  task = task_lib.load_task(config, workdir)
  start = task.starts["model"]
  written = {}
  for name in config.export.policies:
    lane = tournament.deployed_lane(config, name)
    place = workdir / tournament.policy_job(config, name)
    sets = tournament.load_sets(task, lane, place, workdir / sft.NAME)
    folder = workdir / job / name
    if config.export.form == "peft":
      _save_adapters(folder, lane, sets, task, base=str(start.folder))
    else:
      save_deployed(
        folder,
        Deployed(task.model, whole(task, lane, sets), lane),
        start.config,
        settings=_settings(task, start),
        beside=start.folder or epath.Path(workdir) / "data",
      )
    written[name] = str(folder)
    print(f"export: {name} in {folder}")
  return written


def whole(
  task: task_lib.Task, lane: sampling.Lane, sets: Mapping[str, Any]
) -> dict[str, Any]:
  """The sets of a lane as whole parameters, adapters added to their base."""
  if not task.lora.rank:
    return {name: sets[name] for name in lane}
  base = sets[task_lib.BASES["model"]]
  merge = jax.jit(functools.partial(lora.merge, alpha=task.lora.alpha))
  return {name: merge(base, sets[name]) for name in lane}


def _save_adapters(folder, lane, sets, task, *, base: str) -> None:
  """The adapters of each set, as peft loads them beside their base."""
  folder = epath.Path(folder)
  for name in lane:
    peft.save_adapter(
      folder if len(lane) == 1 else folder / name,
      sets[name],
      task.starts["model"].config,
      alpha=task.lora.alpha,
      base=base,
    )
  if len(lane) > 1:
    folders.save_json(folder / MIXTURE, dict(lane))


def save_deployed(
  folder: epath.PathLike,
  deployed: Deployed,
  config: Any,
  *,
  settings: dict[str, Any],
  beside: epath.PathLike | None,
) -> None:
  """Writes one folder, or one for each set of a mixture and its weights.

  Args:
    folder: of the policy.
    deployed: the policy.
    config: the architecture.
    settings, beside: see `folders.save_pretrained`.
  """
  folder, lane = epath.Path(folder), deployed.lane
  for name, params in deployed.sets.items():
    folders.save_pretrained(
      folder if len(lane) == 1 else folder / name,
      params,
      config,
      settings=settings,
      beside=beside,
      max_file_bytes=folders.MAX_FILE_BYTES,
    )
  if len(lane) > 1:
    folders.save_json(folder / MIXTURE, dict(lane))


def _settings(task: task_lib.Task, start: pretrained.Start) -> dict[str, Any]:
  """What config.json holds besides sizes: the pretrained one's, or our own."""
  if start.folder is not None:
    written = {*architectures.config_to_json(start.config), *OURS}
    found = files.load_json(start.folder / "config.json")
    return {key: found[key] for key in found if key not in written}
  return pretrained.token_settings(task.tokenizer)


def load_deployed(
  folder: epath.PathLike, shard: Callable[[Any], Any], **numerics: str
) -> Deployed:
  """Reads what stage `export` wrote.

  Args:
    folder: of a policy.
    shard, **numerics: see `folders.load_pretrained`.
  Raises: ValueError for a folder that is not whole.
  """
  folder = epath.Path(folder)
  lane = {"policy": 1.0}
  places = {"policy": folder}
  if (folder / MIXTURE).exists():
    lane = files.load_json(folder / MIXTURE)
    places = {name: folder / name for name in lane}
  loaded = {
    name: folders.load_pretrained(place, shard, **numerics)
    for name, place in places.items()
  }
  return Deployed(
    model=next(iter(loaded.values())).model,
    sets={name: one.params for name, one in loaded.items()},
    lane=lane,
  )


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the policies to write, and their form."""
  for name in config.export.policies:
    with findings.collect("export"):
      tournament.policy_job(config, name)
  with findings.collect():
    form = config.export.form
    if form not in FORMS:
      raise mistakes.Mistake(
        f"export.form: got {form!r}, expected one of {FORMS}"
      )
    if form == "peft" and not (config.lora.rank and config.model.pretrained):
      raise mistakes.Mistake(
        "export.form: got 'peft', which writes adapters beside the folder that "
        "they adapt; set lora.rank and model.pretrained, or the form to 'whole'"
      )


def needs(config: Config, job: str) -> list[str]:
  """SFT, and the policies that are written."""
  jobs = [
    tournament.policy_job(config, name) for name in config.export.policies
  ]
  return list(dict.fromkeys([sft.NAME, *jobs]))


STAGE = pipeline.Stage(
  name=NAME,
  keys={NAME: {"policies", "form"}},
  check=check,
  jobs=lambda config: [NAME] if config.export.policies else [],
  needs=needs,
  reads=lambda config, job: pipeline.settings(config, NAME, "lora"),
  run=run,
)
