"""Where a model starts: at random, or in a folder of the Hugging Face layout.

A config section of a model holds its sizes and `pretrained`: None for a random
start, a folder, or "random" for a folder that the run writes first, with
random weights, so that all that reads folders is run without one.
"""

from typing import Any, NamedTuple

from etils import epath
import jax
import ml_collections

from nashmd_jax import mistakes, models
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import architectures, folders
from nashmd_jax.models import layers
from nashmd_jax.training import sharding

RANDOM = "random"
SECTIONS = ("model", "judge_model")


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
  return None if given in (None, RANDOM) else epath.Path(given)


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
  """The architecture of the sizes in the config.

  Raises: ValueError for one that cannot be.
  """
  sizes = _settings(config, section)
  del sizes["pretrained"]
  made = models.make_config(vocab_size=vocab_size, **sizes)
  models.make_model(made)
  return made


def load_start(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  section: str,
  *,
  vocab_size: int,
) -> Start:
  """The start of a model, the folder's architecture checked against the config.

  Args:
    vocab_size: of the tokenizer; a folder may have more tokens than it.
  Raises: ValueError that lists the sizes in which folder and config differ.
  """
  place = folder(config, workdir, section)
  wanted = architecture(config, section, vocab_size=vocab_size)
  if place is None:
    return Start(wanted, None)
  found = folders.load_config(place, **_numerics(wanted))
  if found.vocab_size < vocab_size:
    raise mistakes.Mistake(
      f"{place}: has {found.vocab_size} tokens, the tokenizer {vocab_size}; "
      "they do not belong together"
    )
  wanted = wanted._replace(vocab_size=found.vocab_size)
  family, other = map(architectures.family_of, (found, wanted))
  if type(found) is not type(wanted):
    raise mistakes.Mistake(
      f"{place}: is a {family}, config.{section} describes a {other}; set the "
      "family and the sizes of the folder"
    )
  differ = architectures.differences(found, wanted)
  if differ:
    listed = ", ".join(
      f"{name} {value!r}, not {other!r}"
      for name, (value, other) in differ.items()
    )
    raise mistakes.Mistake(
      f"{place}: is another architecture than config.{section}: has {listed}; "
      "set these sizes in the config"
    )
  return Start(found, place)


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


def token_settings(tokenizer: tokenizer_lib.Tokenizer) -> dict[str, int]:
  """What config.json says of a tokenizer for a model without a folder."""
  return {
    "eos_token_id": tokenizer.eos_id,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
  }


def _settings(config: ml_collections.ConfigDict, section: str) -> dict:
  settings = config.model.to_dict()
  if section != "model":
    settings |= config[section].to_dict()
  return settings


def _numerics(made: Any) -> dict[str, str]:
  """How an architecture is computed, which its folder does not say."""
  return {name: getattr(made, name) for name in layers.Numerics._fields}
