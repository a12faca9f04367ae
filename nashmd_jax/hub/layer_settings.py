"""How the layers of a config.json see: rotary positions and windows."""

import math
from typing import Any, NoReturn

import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.hub import config_keys
from nashmd_jax.models import decoder_config, positions

Json = config_keys.Json
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LENGTH = "original_max_position_embeddings"
MOST, MOST_LAYERS = 2**24, 2**12  # of anything, and of layers
LARGEST = float(np.finfo(np.float32).max)
KINDS = ("default", "linear", "llama3", "yarn")
# Families whose windows are in some layers, and in all of them.
PATTERNED = ("gemma2", "gemma3_text", "olmo3")
WINDOWED = ("mistral", "phi3")


def refuse(sentence: str) -> NoReturn:
  """Raises a Mistake of the config.json."""
  raise mistakes.Mistake(f"config.json: {sentence}")


def whole(settings: Json, key: str) -> int:
  """A count of 1 or more, of anything that a model has."""
  value = settings[key]
  if type(value) is not int or not 1 <= value <= MOST:
    refuse(
      f"{key} is {mistakes.quote(value)}, expected a whole number from 1 to "
      f"{MOST:,}"
    )
  return value


def number(settings: Json, key: str) -> float:
  """A number above 0."""
  value = settings.get(key)
  if type(value) not in (int, float) or not 0 < value <= LARGEST:
    refuse(f"{key} is {mistakes.quote(value)}, expected a number above 0")
  return float(value)


def rotation(family: str, settings: Json) -> dict[str, Any]:
  """Rotary fields, in the older form or in the newer `rope_parameters`."""
  older, newer = (
    _object(settings, key) for key in ("rope_scaling", "rope_parameters")
  )
  fields = {}
  if family in ("gemma3_text", "olmo3"):
    if newer and not {LOCAL, GLOBAL} & set(newer):
      refuse(f"rope_parameters has neither {GLOBAL} nor {LOCAL}")
    base = settings.get("rope_local_base_freq", settings["rope_theta"])
    local = {"rope_theta": base, **_object(newer, LOCAL)}
    newer = _object(newer, GLOBAL)
    if _scaling(family, local, settings):
      refuse(f"the rope_type of {LOCAL} is not default, the only one known")
    fields["local_rope_base"] = number(local, "rope_theta")
  differ = [key for key in older if older[key] != newer.get(key, older[key])]
  if differ:
    refuse(f"rope_scaling and rope_parameters differ in {differ}")
  scaling = {"rope_theta": settings["rope_theta"], **older, **newer}
  fields["rope_base"] = number(scaling, "rope_theta")
  return fields | _scaling(family, scaling, settings)


def _scaling(family: str, scaling: Json, settings: Json) -> dict[str, Any]:
  """What slows the rotation down; nothing if nothing does."""
  kind = scaling.get("rope_type") or scaling.get("type") or "default"
  known = [one for one in KINDS if family != "phi3" or one == "default"]
  if kind not in known:
    refuse(f"rope_type is {mistakes.quote(kind)}, expected one of {known}")
  if scaling.get("partial_rotary_factor") not in (None, 1):
    refuse("partial_rotary_factor is not 1, but whole heads are rotated here")
  for key in (LOCAL, GLOBAL, "mrope_section"):
    if scaling.get(key) is not None:
      refuse(f"the rotation has {key}, which is not known of this family")
  if kind == "default":
    if scaling.get("factor") not in (None, 1):
      refuse("the rotation has a factor and no rope_type that says what for")
    return {}
  factor = number(scaling, "factor")
  if kind == "linear":
    return {"rope_factor": factor}
  length = _length(scaling, settings)
  if kind == "yarn":
    return {"rope_factor": factor, "rope_yarn": _yarn(scaling, factor, length)}
  low, high = (number(scaling, f"{x}_freq_factor") for x in ("low", "high"))
  if low >= high:
    refuse(f"low_freq_factor is {low}, expected less than {high}, the high one")
  return {"rope_factor": factor, "rope_bands": (low, high, length)}


def _yarn(scaling: Json, factor: float, length: int) -> positions.Yarn:
  if scaling.get("truncate", True) is not True:
    refuse("the yarn has truncate false, which is not known here")
  if scaling.get("mscale") and scaling.get("mscale_all_dim"):
    refuse("the yarn has mscale and mscale_all_dim, which are not known here")
  usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
  told = {"attention_factor": usual, "beta_fast": 32.0, "beta_slow": 1.0}
  told |= {key: scaling[key] for key in told if scaling.get(key) is not None}
  fast, slow, stretch = (
    number(told, key) for key in ("beta_fast", "beta_slow", "attention_factor")
  )
  if fast <= slow:
    refuse(f"beta_fast is {fast}, expected more than beta_slow, {slow}")
  return positions.Yarn(fast, slow, length, stretch)


def _length(scaling: Json, settings: Json) -> int:
  """Tokens of the texts that a slowed rotation was first trained on."""
  lengths = (
    settings.get(LENGTH),
    scaling.get(LENGTH),
    settings.get("max_position_embeddings"),
  )
  length = next((one for one in lengths if one is not None), None)
  return whole({LENGTH: length}, LENGTH)


def rotary_layers(settings: Json) -> tuple[bool, ...]:
  """Which layers rotate, of a family in which some do not."""
  depth = settings["num_hidden_layers"]
  listed = settings.get("no_rope_layers")
  if listed is None:
    every = whole(
      {"no_rope_layer_interval": 4} | settings, "no_rope_layer_interval"
    )
    return tuple(bool((i + 1) % every) for i in range(depth))
  if not isinstance(listed, list) or len(listed) != depth:
    refuse(f"no_rope_layers is no list of the {depth} layers")
  if not {*map(str, listed)} <= {"0", "1"}:
    refuse("no_rope_layers has others than 1, which rotates, and 0")
  return tuple(bool(one) for one in listed)


def locality(family: str, settings: Json) -> dict[str, Any]:
  """Which layers are local, and the window they see."""
  depth, window = settings["num_hidden_layers"], settings.get("sliding_window")
  qwen = family.startswith("qwen")
  if family not in (*PATTERNED, *WINDOWED) and not (
    qwen and settings.get("use_sliding_window")
  ):
    window = None
  types = settings.get("layer_types")
  if types is not None:
    if not isinstance(types, list) or len(types) != depth:
      refuse(f"layer_types is no list of the {depth} layers")
    if not set(map(str, types)) <= {LOCAL, GLOBAL}:
      refuse(f"layer_types has others than {LOCAL} and {GLOBAL}")
    local = tuple(kind == LOCAL for kind in types)
  elif window is None and family not in PATTERNED:
    return {}
  elif family in WINDOWED:
    local = (True,) * depth
  elif qwen:
    first = settings.get("max_window_layers", 28)
    if type(first) is not int:
      refuse(
        f"max_window_layers is {mistakes.quote(first)}, expected a whole number"
      )
    local = tuple(i >= first for i in range(depth))
  else:
    key = "sliding_window_pattern"
    usual = len(decoder_config.FAMILIES[family]["local_layers"])
    every = whole({key: usual} | settings, key)
    local = tuple(bool((i + 1) % every) for i in range(depth))
  if not any(local):
    return {"local_layers": (False,)}
  return {
    "window": whole({"sliding_window": window}, "sliding_window"),
    "local_layers": local,
  }


def _object(settings: Json, key: str) -> dict[str, Any]:
  """The object under a key, empty if it is absent or null."""
  value = settings.get(key)
  if value is None:
    return {}
  if not isinstance(value, dict):
    refuse(f"{key} is a {type(value).__name__}, expected an object")
  return value
