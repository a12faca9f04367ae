"""Where a model starts: at random, or in a folder of the Hugging Face layout.

A config section of a model holds `pretrained`: a folder, which says family and
sizes itself; or, with both of them beside it, None for a random start, or
"random" for a folder that the run writes first, with random weights, so that
all that reads folders is run without one.
"""

from typing import Any, NamedTuple

from etils import epath
import jax
import ml_collections

from nashmd_jax import declare, files, mistakes, models, pipeline
from nashmd_jax.data import conversations
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import architectures, config_json, folders
from nashmd_jax.models import layers
from nashmd_jax.models import settings as settings_lib
from nashmd_jax.training import sharding

RANDOM = "random"
STAND_IN = "a folder, given later: "  # before what tells two of them apart
SECTIONS = ("model", "judge_model")
SETTINGS = {
  "pretrained": declare.text(
    "Folder of the model in the Hugging Face layout, here or gs://; random for "
    "one that the run writes first; None for a random start.",
    optional=True,
  ),
  **settings_lib.SETTINGS,
}
_NUMERICS = layers.Numerics._fields
_ADVICE = (
  "leave out of the config what the folder says, as "
  "configs/tldr_decoder.py:folder does"
)


class Start(NamedTuple):
  """A model and where its parameters come from.

  Attributes:
    config: the architecture.
    folder: of the parameters; None for random ones.
  """

  config: Any
  folder: epath.Path | None


def folder(
  config: ml_collections.ConfigDict, workdir: epath.PathLike, section: str
) -> epath.Path | None:
  """The folder that a model starts in, whether it is there yet or not.

  Args:
    section: of `SECTIONS`; the judge's holds what differs from the policy's.
  """
  given = _settings(config, section)["pretrained"]
  if given is None:
    return None
  if given == RANDOM:
    return random_folder(workdir, section)
  return epath.Path(given)


def given_folder(
  config: ml_collections.ConfigDict, section: str
) -> epath.Path | None:
  """The folder of the user's that a model starts in; None for any other."""
  given = _settings(config, section)["pretrained"]
  if given in (None, RANDOM) or given.startswith(STAND_IN):
    return None
  return epath.Path(given)


def embedded(config: ml_collections.ConfigDict) -> int | None:
  """How many tokens all models in folders know; None without such a folder.

  A folder without a config.json, which no model starts in, is passed over.
  """
  places = {given_folder(config, section) for section in SECTIONS} - {None}
  sizes = [
    folders.load_config(place).vocab_size
    for place in places
    if _has_config(place)
  ]
  return min(sizes, default=None)


def _has_config(place: epath.Path) -> bool:
  """Whether a folder says what its model is."""
  try:
    return (place / folders.CONFIG).exists()
  except OSError:  # no name that a folder could have
    return False


def random_folder(workdir: epath.PathLike, section: str) -> epath.Path:
  """The folder that a run writes for a model that starts "random"."""
  return epath.Path(workdir) / "start" / section


def same_start(config: ml_collections.ConfigDict) -> bool:
  """Whether the judge's model starts as the policy's does, bit for bit."""
  own, judge = (_settings(config, section) for section in SECTIONS)
  return own == judge and own["pretrained"] != RANDOM


def architecture(
  config: ml_collections.ConfigDict, section: str, *, vocab_size: int
) -> Any:
  """The architecture of the user's folder, or else of the config's sizes.

  Args:
    vocab_size: without a folder, which has its own.
  Raises: ValueError for one that cannot be, or that the config contradicts.
  """
  place = given_folder(config, section)
  if place is not None:
    return _of_folder(place, config, section)
  sizes = _settings(config, section)
  del sizes["pretrained"]
  if "family" not in sizes:
    raise mistakes.Mistake(
      f"config.{section}: names no folder in pretrained and no family; give "
      "one of the two, sizes beside a family"
    )
  made = models.make_config(vocab_size=vocab_size, **sizes)
  models.make_model(made)
  return made


def settings(config: ml_collections.ConfigDict, section: str) -> dict[str, Any]:
  """The settings of a model by dotted name, whoever says its sizes.

  What a job depends on: of a folder all that is computed, however much of it
  the config says as well.
  """
  if not config[section] or given_folder(config, section) is None:
    return pipeline.settings(config, section)
  made = architecture(config, section, vocab_size=0)
  found = architectures.plainest(made)._asdict() | {
    "pretrained": str(given_folder(config, section)),
    "family": architectures.family_of(made),
  }
  return pipeline.flat(pipeline.plain(found), section)


def facts(config: ml_collections.ConfigDict) -> dict[str, str | None]:
  """A hash of what the folder of each model holds; None for no such folder."""
  places = {section: given_folder(config, section) for section in SECTIONS}
  return {
    section: None if place is None else folders.fingerprint(place)
    for section, place in places.items()
  }


def load_start(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  section: str,
  *,
  vocab_size: int,
) -> Start:
  """The start of a model, the folder's architecture checked against the config.

  Args:
    vocab_size: of the tokenizer, see `Tokenizer`; a folder may know more.
  Raises: ValueError that lists the sizes in which folder and config differ.
  """
  place = folder(config, workdir, section)
  if place is None:
    made = architecture(config, section, vocab_size=vocab_size)
    return Start(made, None)
  found = _of_folder(place, config, section)
  if found.vocab_size < vocab_size:
    raise mistakes.Mistake(
      f"{place}: knows the tokens of ids below {found.vocab_size}, the "
      f"tokenizer has text up to id {vocab_size - 1}; they do not belong "
      "together"
    )
  return Start(found, place)


def _of_folder(place, config, section) -> Any:
  """The architecture of a folder, with the numerics of the config.

  Raises: ValueError that lists what else the config says of it and is not so.
  """
  if not _has_config(place):
    raise mistakes.Mistake(
      f"{section}.pretrained: got {mistakes.quote(str(place))}, where there is "
      f"no {folders.CONFIG}; name a model's folder, in the Hugging Face layout"
    )
  said = _said(config, section)
  numerics = {key: said.pop(key) for key in _NUMERICS if key in said}
  found = folders.load_config(place, **numerics)
  models.make_model(found)
  family = architectures.family_of(found)
  other = said.pop("family", family)
  if other != family:
    raise mistakes.Mistake(
      f"{place}: is a {family}, not the {other} that config.{section} says; "
      f"{_ADVICE}"
    )
  unknown = sorted(set(said) - set(found._fields))
  if unknown:
    raise mistakes.Mistake(
      f"config.{section}: a {family}, as {place} is one, has no {unknown}; "
      f"{_ADVICE}"
    )
  differ = architectures.differences(found, found._replace(**said))
  if differ:
    # Not what follows from another, as the scale does from the head's size.
    listed = ", ".join(
      f"{name} {mistakes.quote(value)}, not {mistakes.quote(other)}"
      for name, (value, other) in differ.items()
      if name in said
    )
    raise mistakes.Mistake(
      f"{place}: is another architecture than config.{section} says, has "
      f"{listed}; {_ADVICE}"
    )
  return found


def init_params(
  start: Start, model: models.LanguageModel, devices: sharding.Devices, rng
) -> Any:
  """The parameters that a model starts with, as they are stored.

  Args:
    start: of the model.
    model: its functions.
    devices: of the run.
    rng: a key, for a random start.
  """
  if start.folder is None:
    return sharding.store(devices, model.init, rng)
  loaded = folders.load_pretrained(
    start.folder,
    lambda shapes: sharding.shardings(shapes, devices),
    **_numerics(start.config),
  )
  return loaded.params


def write_random(
  place: epath.PathLike,
  made: Any,
  *,
  tokenizer: epath.PathLike,
  settings: dict[str, Any],
  rng: jax.Array,
) -> None:
  """Writes a folder with random weights.

  Args:
    place: the folder.
    made: the architecture.
    tokenizer: a tokenizer.json, copied into the folder.
    settings: of config.json, such as "eos_token_id".
    rng: of the weights.
  """
  folders.save_pretrained(
    place,
    jax.jit(models.make_model(made).init)(rng),
    made,
    settings=settings,
    beside=epath.Path(tokenizer).parent,
    max_file_bytes=folders.MAX_FILE_BYTES,
  )


def token_settings(tokenizer: tokenizer_lib.Tokenizer) -> dict[str, Any]:
  """What config.json says of a tokenizer for a model without a folder."""
  return {
    **end_settings(tokenizer),
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
  }


def end_settings(tokenizer: tokenizer_lib.Tokenizer) -> dict[str, Any]:
  """What config.json says of the tokens that a policy ends a response with."""
  ids = list(tokenizer.eos_ids)
  return {"eos_token_id": ids if len(ids) > 1 else ids[0]}


def check_positions(
  config: ml_collections.ConfigDict, findings: mistakes.Findings
) -> None:
  """Collects the folders whose models do not know as many positions."""
  layout = config.layout
  turns = conversations.Turns(**config.turns)
  longest = layout.prompt_buckets[-1] + turns.width(layout.max_response)
  for place in {given_folder(config, section) for section in SECTIONS} - {None}:
    if not _has_config(place):
      continue  # told where the model is made
    settings = config_json.text_settings(
      files.load_json(place / folders.CONFIG)
    )
    known = settings.get("max_position_embeddings")
    if type(known) is int and known < longest:
      findings.sentences.append(
        f"{place}: knows {known} positions (max_position_embeddings), and "
        "layout.prompt_buckets and layout.max_response ask for "
        f"{longest}{turns.told}; lower one of them"
      )


def _settings(config: ml_collections.ConfigDict, section: str) -> dict:
  """The settings of a model; the judge's are those that differ."""
  own = config[section].to_dict()
  return own if section == "model" else config.model.to_dict() | own


def _said(config: ml_collections.ConfigDict, section: str) -> dict:
  """What the config says of the model in a folder.

  The policy's sizes are not said of a folder that is the judge's own.
  """
  said, own = _settings(config, section), config[section].to_dict()
  if given_folder(config, section) is not None and "pretrained" in own:
    said = {key: said[key] for key in said if key in {*own, *_NUMERICS}}
  return {key: said[key] for key in said if key != "pretrained"}


def _numerics(made: Any) -> dict[str, str]:
  """How an architecture is computed, which its folder does not say."""
  return {name: getattr(made, name) for name in _NUMERICS}
