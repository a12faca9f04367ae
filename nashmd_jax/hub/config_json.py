"""A config.json of Hugging Face's read as one of our configs.

What transformers makes of a file is what is read, or the file is refused:
no setting that changes what a model computes is passed over.
"""

from typing import Any

from nashmd_jax import mistakes
from nashmd_jax.hub import config_keys, layer_settings
from nashmd_jax.hub.layer_settings import number, refuse, whole
from nashmd_jax.models import decoder_config, t5

Config = config_keys.Config
Json = config_keys.Json
# Of a family with images, whose text part is one of ours.
MULTIMODAL = {"gemma3": ("gemma3_text", "Gemma3ForConditionalGeneration")}
PARTS = ("text_config", "vision_config", "audio_config")


def text_settings(settings: Json) -> dict[str, Any]:
  """The settings of a folder's text part, which may be all of it.

  Raises: ValueError for a file that holds no settings.
  """
  if not isinstance(settings, dict):
    refuse(f"is no object but {_kind(settings)}; get the file again")
  family = settings.get("model_type")
  if not isinstance(family, str) or family not in MULTIMODAL:
    return dict(settings)
  text = settings.get("text_config")
  if not isinstance(text, dict):
    refuse(f"text_config is {_kind(text)}, expected the settings of the text")
  name, own_class = MULTIMODAL[family]
  classes = settings.get("architectures") or [own_class]
  if classes != [own_class]:
    refuse(
      f"architectures is {mistakes.quote(classes)}, expected {[own_class]!r}"
    )
  above = {
    key: value
    for key, value in settings.items()
    if key not in (*PARTS, "architectures")
  }
  return above | {"model_type": name} | text


def config_from_json(settings: Json) -> Config:
  """Our config from the contents of a config.json.

  Raises: ValueError that names what is unknown, missing or not supported.
  """
  settings = text_settings(settings)
  family = settings.get("model_type")
  if not isinstance(family, str) or family not in config_keys.CLASSES:
    refuse(
      f"model_type is {mistakes.quote(family)}, expected one of "
      f"{sorted(config_keys.CLASSES)}"
    )
  for key in ("quantization_config", "compression_config"):
    if settings.get(key):
      refuse(f"has a {key}; take the folder that is not quantised")
  wanted = [config_keys.CLASSES[family]]
  if (settings.get("architectures") or wanted) != wanted:
    found = mistakes.quote(settings["architectures"])
    refuse(f"architectures is {found}, expected {wanted}")
  settings = {**config_keys.ABSENT[family], **settings}
  if family == "t5":
    return _t5(settings)
  return _decoder(family, settings)


def _t5(settings: dict[str, Any]) -> t5.T5Config:
  tied = settings["tie_word_embeddings"] is not False
  # Newer files say so what older ones said by an untied head.
  settings["tie_word_embeddings"] = settings.get("scale_decoder_outputs", tied)
  if settings["num_decoder_layers"] is None:
    settings["num_decoder_layers"] = settings.get("num_layers")
  _check_fixed("t5", settings)
  return t5.T5Config(**_fields(config_keys.T5_KEYS, settings))


def _decoder(
  family: str, settings: dict[str, Any]
) -> decoder_config.DecoderConfig:
  _check_fixed(family, settings)
  if settings["num_key_value_heads"] is None:
    settings["num_key_value_heads"] = settings.get("num_attention_heads")
  if settings["head_dim"] is None:
    keys = ("hidden_size", "num_attention_heads")
    if all(key in settings for key in keys):
      width, heads = (whole(settings, key) for key in keys)
      if width % heads:
        refuse(f"has no head_dim, and {heads} heads do not divide {width}")
      settings["head_dim"] = width // heads
    else:
      del settings["head_dim"]
  fields = _fields(config_keys.DECODER_KEYS, settings)
  fields |= layer_settings.rotation(family, settings)
  fields |= layer_settings.locality(family, settings)
  if family.startswith("gemma"):
    fields["query_scale"] = number(settings, "query_pre_attn_scalar") ** -0.5
    for ours, theirs in config_keys.SOFT_CAP_KEYS.items():
      given = settings.get(theirs) is not None
      fields[ours] = number(settings, theirs) if given else None
  if family == "smollm3":
    fields["rotary_layers"] = layer_settings.rotary_layers(settings)
  traits = decoder_config.FAMILIES[config_keys.OUR_NAMES.get(family, family)]
  return decoder_config.DecoderConfig(**(traits | fields))


def _check_fixed(family: str, settings: Json) -> None:
  """Refuses all settings that our code has another value for."""
  others = [
    f"{key} = {mistakes.quote(settings[key])} (only {value!r} is known)"
    for key, value in config_keys.FIXED[family].items()
    if key in settings and (settings[key] or False) != (value or False)
  ]
  others += [
    f"{key} = {mistakes.quote(settings[key])} (only {value!r} is known)"
    for key, value in config_keys.MORE[family].items()
    if key not in config_keys.FIXED[family]
    if settings.get(key) not in (None, [], value)
  ]
  if others:
    refuse(f"of {family}, {mistakes.some(others, between='; ')}")


def _fields(keys: Json, settings: Json) -> dict[str, Any]:
  """The fields of our config that stand there under a name of their own."""
  missing = [key for key in keys.values() if key not in settings]
  if missing:
    refuse(f"of {settings['model_type']}, missing {missing}")
  found = {}
  for ours, theirs in keys.items():
    if ours == "tied":
      found[ours] = settings[theirs]
      if not isinstance(found[ours], bool):
        refuse(
          f"{theirs} is {mistakes.quote(found[ours])}, expected true or false"
        )
    elif ours == "norm_epsilon":
      found[ours] = number(settings, theirs)
    else:
      found[ours] = whole(settings, theirs)
      if ours.endswith("layers") and found[ours] > layer_settings.MOST_LAYERS:
        refuse(
          f"{theirs} is {found[ours]}, expected at most "
          f"{layer_settings.MOST_LAYERS:,}"
        )
  return found


def _kind(value: Any) -> str:
  return "null" if value is None else f"a {type(value).__name__}"
