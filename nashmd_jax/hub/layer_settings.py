"""How the layers of a config.json see: rotary positions and windows."""

from typing import Any, NoReturn

from nashmd_jax import mistakes
from nashmd_jax.hub import config_keys
from nashmd_jax.models import decoder

Json = config_keys.Json
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LENGTH = "original_max_position_embeddings"
KINDS = ("default", "linear", "llama3")


def refuse(sentence: str) -> NoReturn:
  """Raises a Mistake of the config.json."""
  raise mistakes.Mistake(f"config.json: {sentence}")


def whole(settings: Json, key: str) -> int:
  """A count of 1 or more."""
  value = settings[key]
  if type(value) is not int or value < 1:
    refuse(f"{key} is {value!r}, expected a whole number of 1 or more")
  return value


def number(settings: Json, key: str) -> float:
  """A number above 0."""
  value = settings.get(key)
  if type(value) not in (int, float) or not value > 0:
    refuse(f"{key} is {value!r}, expected a number above 0")
  return float(value)


def rotation(family: str, settings: Json) -> dict[str, Any]:
  """Rotary fields, in the older form or in the newer `rope_parameters`."""
  older, newer = (
    _object(settings, key) for key in ("rope_scaling", "rope_parameters")
  )
  fields = {}
  if family == "gemma3_text":
    if newer and not {LOCAL, GLOBAL} & set(newer):
      refuse(f"rope_parameters has neither {GLOBAL} nor {LOCAL}")
    local = {
      "rope_theta": settings["rope_local_base_freq"],
      **_object(newer, LOCAL),
    }
    newer = _object(newer, GLOBAL)
    if _scaling(local, settings):
      refuse(f"the rope_type of {LOCAL} is not default, the only one known")
    fields["local_rope_base"] = number(local, "rope_theta")
  differ = [key for key in older if older[key] != newer.get(key, older[key])]
  if differ:
    refuse(f"rope_scaling and rope_parameters differ in {differ}")
  scaling = {"rope_theta": settings["rope_theta"], **older, **newer}
  fields["rope_base"] = number(scaling, "rope_theta")
  return fields | _scaling(scaling, settings)


def _scaling(scaling: Json, settings: Json) -> dict[str, Any]:
  """What slows the rotation down; nothing if nothing does."""
  kind = scaling.get("rope_type") or scaling.get("type") or "default"
  if kind not in KINDS:
    refuse(f"rope_type is {kind!r}, expected one of {KINDS}")
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
  low, high = (number(scaling, f"{x}_freq_factor") for x in ("low", "high"))
  if low >= high:
    refuse(f"low_freq_factor is {low}, expected less than {high}, the high one")
  lengths = (
    settings.get(LENGTH),
    scaling.get(LENGTH),
    settings.get("max_position_embeddings"),
  )
  length = next((one for one in lengths if one is not None), None)
  length = whole({LENGTH: length}, LENGTH)
  return {"rope_factor": factor, "rope_bands": (low, high, length)}


def locality(family: str, settings: Json) -> dict[str, Any]:
  """Which layers are local, and the window they see."""
  depth, window = settings["num_hidden_layers"], settings.get("sliding_window")
  qwen = family.startswith("qwen")
  if family == "llama" or qwen and not settings.get("use_sliding_window"):
    window = None
  types = settings.get("layer_types")
  if types is not None:
    if not isinstance(types, list) or len(types) != depth:
      refuse(f"layer_types is no list of the {depth} layers")
    if not set(map(str, types)) <= {LOCAL, GLOBAL}:
      refuse(f"layer_types has others than {LOCAL} and {GLOBAL}")
    local = tuple(kind == LOCAL for kind in types)
  elif window is None and (qwen or family == "llama"):
    return {}
  elif qwen:
    first = settings.get("max_window_layers", 28)
    if type(first) is not int:
      refuse(f"max_window_layers is {first!r}, expected a whole number")
    local = tuple(i >= first for i in range(depth))
  else:
    key = "sliding_window_pattern"
    usual = len(decoder.FAMILIES[family]["local_layers"])
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
