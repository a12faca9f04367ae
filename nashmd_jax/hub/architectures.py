"""Which family an architecture is of, and its config.json.

Nothing here touches a file; the names of tensors are in `tensor_names`.
"""

from typing import Any

from nashmd_jax import mistakes
from nashmd_jax.hub import config_json, config_keys
from nashmd_jax.models import layers, t5
from nashmd_jax.models.decoder_config import by_layer

Config = config_keys.Config


def family_of(config: Config) -> str:
  """The family, as config.json names it, that a config belongs to.

  Raises: ValueError for a config that is none of them.
  """
  if isinstance(config, t5.T5Config):
    return "t5"
  local, both = any(config.local_layers), config.pre_norms and config.post_norms
  traits = {
    "qwen2": config.qkv_bias,
    "gemma2": both and not config.query_key_norm,
    "gemma3_text": both,
    "olmo3": config.post_norms and local,
    "olmo2": config.post_norms,
    "qwen3": config.query_key_norm,
    "smollm3": not all(config.rotary_layers),
    "mistral": local,
    "llama": True,
  }
  return next(name for name, is_it in traits.items() if is_it)


def config_to_json(config: Config) -> dict[str, Any]:
  """The contents of a config.json, in the older form that all versions read.

  What our config does not hold, such as the ids of special tokens, is absent.

  Raises: ValueError for an architecture that no family has.
  """
  settings = _settings(config)
  wrong = differences(config_json.config_from_json(settings), config)
  if wrong:
    raise mistakes.Mistake(
      f"model: the fields {list(wrong)} have values that no config.json of "
      f"{settings['model_type']} can tell"
    )
  return settings


def differences(found: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
  """Where two configs of one class compute something else.

  Two spellings of one architecture do not differ, nor do numerics.

  Returns: (the value found, the value wanted) by the name of the field.
  """
  one, other = plainest(found)._asdict(), plainest(wanted)._asdict()
  return {
    name: (value, other[name])
    for name, value in one.items()
    if value != other[name] and name not in layers.Numerics._fields
  }


def plainest(config: Config) -> Config:
  """The same architecture, spelt in the one way that all spellings share."""
  if isinstance(config, t5.T5Config):
    return config
  scaled = config.rope_factor != 1.0
  local = by_layer(config.local_layers, config)
  near, window = config.local_rope_base, config.window
  if near is None and not scaled:
    near = config.rope_base
  if not local.any():
    near = window = None
  rotary = by_layer(config.rotary_layers, config)
  return config._replace(
    rope_yarn=tuple(config.rope_yarn or ()) if scaled else (),
    rotary_layers=tuple(rotary.tolist()),
    rope_bands=tuple(config.rope_bands or ()) if scaled else (),
    local_rope_base=near,
    window=window,
    local_layers=tuple(local.tolist()),
    query_scale=round(config.query_scale or config.head_dim**-0.5, 9),
  )


def _settings(config: Config) -> dict[str, Any]:
  family = family_of(config)
  keys = config_keys.T5_KEYS if family == "t5" else config_keys.DECODER_KEYS
  settings = {
    "model_type": family,
    "architectures": [config_keys.CLASSES[family]],
    "torch_dtype": config.param_dtype,
    **{theirs: getattr(config, ours) for ours, theirs in keys.items()},
    **config_keys.FIXED[family],
  }
  if family == "t5":
    return settings | {
      "is_encoder_decoder": True,
      "decoder_start_token_id": t5.START_ID,
    }
  base, scaling = config.rope_base, _scaling(config)
  if family == "olmo3":
    local = base if config.local_rope_base is None else config.local_rope_base
    settings["rope_parameters"] = {
      "full_attention": {"rope_type": "default", "rope_theta": base}
      | (scaling or {}),
      "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
  else:
    settings |= {"rope_theta": base, "rope_scaling": scaling}
  if family.startswith("gemma"):
    scale = config.query_scale or config.head_dim**-0.5
    settings["query_pre_attn_scalar"] = round(scale**-2)
    for ours, theirs in config_keys.SOFT_CAP_KEYS.items():
      settings[theirs] = getattr(config, ours)
  if family == "smollm3":
    rotary = by_layer(config.rotary_layers, config)
    settings["no_rope_layers"] = rotary.astype(int).tolist()
  if family == "gemma3_text":
    settings["rope_local_base_freq"] = config.local_rope_base
  if any(config.local_layers):
    settings["sliding_window"] = config.window
    if family != "mistral":
      settings["layer_types"] = [
        "sliding_attention" if here else "full_attention"
        for here in by_layer(config.local_layers, config)
      ]
    if family.startswith("qwen"):
      settings["use_sliding_window"] = True
  return settings


def _scaling(config):
  if config.rope_factor == 1.0:
    return None
  if config.rope_yarn is not None:
    fast, slow, length, stretch = config.rope_yarn
    return {
      "rope_type": "yarn",
      "factor": config.rope_factor,
      "beta_fast": fast,
      "beta_slow": slow,
      "attention_factor": stretch,
      "original_max_position_embeddings": length,
    }
  if config.rope_bands is None:
    return {"rope_type": "linear", "factor": config.rope_factor}
  low, high, length = config.rope_bands
  return {
    "rope_type": "llama3",
    "factor": config.rope_factor,
    "low_freq_factor": low,
    "high_freq_factor": high,
    "original_max_position_embeddings": length,
  }
