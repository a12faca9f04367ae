"""Stage `export`: trained policies as folders that transformers and vLLM load.

A policy that answers alone is one folder: of whole parameters, or of adapters
that peft loads beside their base. A deployed mixture is no network: it is a
folder of folders, one a parameter set, with their weights in `mixture.json`,
which `load_deployed` reads back as a lane.
`origin.json` says which jobs policy and reference are from, and what those were
made of.
"""

from collections.abc import Callable, Mapping
import functools
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath
import jax

from nashmd_jax import (
  declare,
  files,
  mistakes,
  models,
  pipeline,
  sampling,
  tokenization,
)
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.hub import (
  architectures,
  config_json,
  config_keys,
  folders,
  peft,
  pretrained,
)
from nashmd_jax.models import lora
from nashmd_jax.nash import settings
from nashmd_jax.stages import beside_weights, deployed, policies, sft
from nashmd_jax.training import distributed

Config = pipeline.Config
Save = Callable[[epath.Path, Any, beside_weights.Files], None]
NAME = "export"
FORMS = ("whole", "peft")
SETTINGS = {
  "policies": declare.several(
    declare.text("What is written as folders: sft, or runs of nash.runs.")
  ),
  "form": declare.text(
    "Whole parameters, or adapters beside the folder that they adapt.",
    one_of=FORMS,
  ),
}
MIXTURE, ORIGIN = "mixture.json", "origin.json"
TOLD = {ORIGIN, beside_weights.CARD}  # of a mixture as a whole
# Of a config.json, what tells how the folder itself was written.
OURS = (
  "dtype",
  "torch_dtype",
  "transformers_version",
  "_name_or_path",
  "auto_map",
)


NAMES = ("model_type", "architectures")


class Deployed(NamedTuple):
  """A policy as it answers.

  Attributes:
    model: of every set.
    sets: parameters by name; adapters share the matrices of their base.
    lane: weights of their log-probabilities; see `sampling`.
  """

  model: models.LanguageModel
  sets: dict[str, Any]
  lane: sampling.Lane


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, str]:
  """Writes a folder for each of `config.export.policies`, and where it is."""
  task = task_lib.load_task(config, workdir)
  save = _whole(task) if config.export.form == "whole" else _adapters(task)
  tokenizer, _ = tokenization.load_tokenizer(config, workdir, task.splits)
  written: dict[str, str] = {}
  for name in config.export.policies:
    lane = settings.policy_lane(config, name)
    place = workdir / policies.policy_job(config, name)
    sets = deployed.load_sets(task, lane, place, workdir / sft.NAME)
    folder = workdir / job / name
    jobs = dict.fromkeys([sft.NAME, policies.policy_job(config, name)])
    origin = {one: workdir_lib.origin(workdir, one) for one in jobs}
    others, said = beside_weights.make_files(
      config, task, tokenizer, name, lane=lane, origin=origin
    )
    others[ORIGIN] = (json.dumps(origin, indent=1) + "\n").encode()
    save_deployed(folder, lane, sets, save, others)
    written[name] = str(folder)
    for phrase in said:
      print(f"export: {name}: as it was trained, {phrase}")
    print(f"export: {name} in {folder}")
  return written


def _whole(task: task_lib.Task) -> Save:
  """Saves a set as whole parameters, adapters added to their base."""
  start, base = task.starts["model"], task_lib.bases(task, "model")
  add = functools.partial(lora.merge, alpha=task.lora.alpha)

  def save(folder, trained, others):
    folders.save_pretrained(
      folder,
      jax.jit(add)(*base.values(), trained) if base else trained,
      start.config,
      settings=_settings(task, start),
      beside=start.folder,
      max_file_bytes=folders.MAX_FILE_BYTES,
      others=others,
    )

  return save


def _adapters(task: task_lib.Task) -> Save:
  """Saves a set as the adapters that it is, which name where their base is."""
  start = task.starts["model"]
  base = str(start.folder)
  if "://" not in base:
    base = str(pathlib.Path(base).absolute())

  def save(folder, trained, others):
    peft.save_adapter(
      folder,
      trained,
      start.config,
      alpha=task.lora.alpha,
      base=base,
      others=others,
    )

  return save


def save_deployed(
  folder: epath.PathLike,
  lane: sampling.Lane,
  sets: Mapping[str, Any],
  save: Save,
  others: beside_weights.Files | None = None,
) -> None:
  """Writes one folder, or one for each set of a mixture and its weights.

  Args:
    folder: of the policy.
    lane: see `Deployed`.
    sets: what is saved, by name.
    save: (folder, set, files beside it) -> None.
    others: contents of files beside the weights, by name.
  """
  others = others or {}
  folder = epath.Path(folder)
  if distributed.is_first():
    (folder / MIXTURE).unlink(missing_ok=True)
  folders.clear(folder)
  for name, place in _places(folder, lane).items():
    save(place, sets[name], others)
  if len(lane) > 1:
    folders.save_others(
      folder, {name: others[name] for name in TOLD & {*others}}
    )
    folders.save_json(folder / MIXTURE, dict(lane))


def _places(folder: epath.Path, lane: sampling.Lane) -> dict[str, epath.Path]:
  return {name: folder if len(lane) == 1 else folder / name for name in lane}


def _settings(task: task_lib.Task, start: pretrained.Start) -> dict[str, Any]:
  """What config.json holds besides sizes: the pretrained one's, or our own."""
  if start.folder is not None:
    written = {*architectures.config_to_json(start.config), *OURS}
    found = config_json.text_settings(
      files.load_json(start.folder / "config.json")
    )
    kept = {key: found[key] for key in found if key not in written}
    if found["model_type"] == "mistral":
      # A Llama by what it computes, and by its tensors.
      kept |= {key: found[key] for key in NAMES if key in found}
    return kept | pretrained.end_settings(task.tokenizer)
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
  folder, lane = epath.Path(folder), {"policy": 1.0}
  if (folder / MIXTURE).exists():
    lane = _load_lane(folder / MIXTURE)

  @functools.cache
  def whole(place):
    return folders.load_pretrained(place, shard, **numerics)

  sets, places = {}, _places(folder, lane)
  for name, place in places.items():
    if not (place / peft.CONFIG).exists():
      found = whole(place)
      sets[name] = found.params
      continue
    settings = peft.load_settings(place)
    found = whole(epath.Path(settings["base_model_name_or_path"]))
    adapters = peft.load_adapter(place, found, shard)
    sets[name] = lora.attach(
      found.params, adapters, alpha=settings["lora_alpha"]
    )
  return Deployed(model=found.model, sets=sets, lane=lane)


def _load_lane(path: epath.Path) -> sampling.Lane:
  """Weights by the names of folders beside the file."""
  lane = files.load_object(path)
  fine = all(
    declare.NAME.fullmatch(name)
    and type(weight) in (int, float)
    and 0 < weight <= 1
    for name, weight in lane.items()
  )
  if not fine or len(lane) < 2:
    raise mistakes.Mistake(
      f"{path}: got {mistakes.quote(lane)}, expected weights by name; export "
      "the policy anew"
    )
  return lane


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the policies to write, and their form."""
  for name in config.export.policies:
    with findings.collect():
      policies.policy_job(config, name, setting="export.policies")
  with findings.collect():
    form = config.export.form
    if form == "peft" and not (config.lora.rank and config.model.pretrained):
      raise mistakes.Mistake(
        "export.form: got 'peft', which writes adapters beside the folder that "
        "they adapt; set lora.rank and model.pretrained, or the form to 'whole'"
      )
    place = pretrained.given_folder(config, "model")
    if form == "peft" and place is not None:
      check_adaptable(place)


def check_adaptable(place: epath.Path) -> None:
  """Raises Mistake for a folder whose tensors adapters cannot stand beside."""
  family = files.load_object(place / folders.CONFIG).get("model_type")
  if isinstance(family, str) and family in config_keys.OUR_NAMES:
    raise mistakes.Mistake(
      f"export.form: got 'peft', but {place} is a {family}, whose tensors hold "
      "several of the matrices that are adapted here; set the form to 'whole'"
    )


def needs(config: Config, job: str) -> list[str]:
  """SFT, and the policies that are written."""
  jobs = [policies.policy_job(config, name) for name in config.export.policies]
  return list(dict.fromkeys([sft.NAME, *jobs]))


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [NAME] if config.export.policies else [],
  needs=needs,
  reads=lambda config, job: pipeline.settings(config, NAME, "lora"),
  run=run,
)
