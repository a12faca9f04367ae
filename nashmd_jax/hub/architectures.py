"""Our configs from and to what Hugging Face writes in config.json.

Nothing here reads a file; the names of tensors are in `tensor_names`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.models import decoder, layers, t5

Config = t5.T5Config | decoder.DecoderConfig
Json = Mapping[str, Any]


CLASSES = {
  "llama": "LlamaForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma2": "Gemma2ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
  "t5": "T5ForConditionalGeneration",
}
# Their name for each field of our config.
T5_KEYS = {
  "vocab_size": "vocab_size",
  "width": "d_model",
  "num_heads": "num_heads",
  "head_dim": "d_kv",
  "mlp_dim": "d_ff",
  "encoder_layers": "num_layers",
  "decoder_layers": "num_decoder_layers",
  "num_buckets": "relative_attention_num_buckets",
  "max_distance": "relative_attention_max_distance",
  "norm_epsilon": "layer_norm_epsilon",
}
DECODER_KEYS = {
  "vocab_size": "vocab_size",
  "width": "hidden_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "num_kv_heads": "num_key_value_heads",
  "head_dim": "head_dim",
  "mlp_dim": "intermediate_size",
  "norm_epsilon": "rms_norm_eps",
  "tied": "tie_word_embeddings",
}
SOFT_CAP_KEYS = {
  "attention_soft_cap": "attn_logit_softcapping",
  "logit_soft_cap": "final_logit_softcapping",
}
# Settings that our code has no other value for.
FIXED = {
  "t5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
  "llama": {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"},
  "qwen2": {"hidden_act": "silu"},
  "qwen3": {"attention_bias": False, "hidden_act": "silu"},
  "gemma2": {
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "use_bidirectional_attention": None,
  },
  "gemma3_text": {
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "use_bidirectional_attention": False,
  },
}
# Settings that a file may leave out, as transformers does.
ABSENT = {
  "t5": {
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6,
  },
  "llama": {"rope_theta": 1e4, "rms_norm_eps": 1e-6},
  "qwen2": {"rope_theta": 1e4, "rms_norm_eps": 1e-6, "sliding_window": None},
  "qwen3": {"rope_theta": 1e4, "rms_norm_eps": 1e-6, "sliding_window": None},
  "gemma2": {
    "rope_theta": 1e4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
  },
  "gemma3_text": {
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
  },
}


def family_of(config: Config) -> str:
  """The family, as config.json names it, that a config belongs to.

  Raises: ValueError for a config that is none of them.
  """
  if isinstance(config, t5.T5Config):
    return "t5"
  traits = {
    "qwen2": config.qkv_bias,
    "gemma2": config.post_norms and not config.query_key_norm,
    "gemma3_text": config.post_norms and config.query_key_norm,
    "qwen3": config.query_key_norm and not config.post_norms,
    "llama": True,
  }
  return next(name for name, is_it in traits.items() if is_it)


def config_from_json(settings: Json) -> Config:
  """Our config from the contents of a config.json.

  Raises: ValueError that lists what is unknown, missing or not supported.
  """
  family = settings.get("model_type")
  if family not in CLASSES:
    raise mistakes.Mistake(
      f"config.json: model_type is {family!r}, expected one of "
      f"{sorted(CLASSES)}"
    )
  settings = {**ABSENT[family], **settings}
  if family == "t5" and "scale_decoder_outputs" in settings:
    # Newer files say so what older ones said by an untied head.
    settings["tie_word_embeddings"] = settings["scale_decoder_outputs"]
  others = [
    f"{key} = {settings[key]!r} (only {value!r} is known)"
    for key, value in FIXED[family].items()
    if key in settings and (settings[key] or False) != (value or False)
  ]
  if family == "t5":
    settings.setdefault("num_decoder_layers", settings.get("num_layers"))
    keys = T5_KEYS
  else:
    settings.setdefault("tie_word_embeddings", False)
    if settings.get("head_dim") is None and "num_attention_heads" in settings:
      heads = settings["num_attention_heads"]
      settings["head_dim"] = settings["hidden_size"] // heads
    keys = DECODER_KEYS
  missing = [key for key in keys.values() if settings.get(key) is None]
  if others or missing:
    raise mistakes.Mistake(
      f"config.json of {family}: {'; '.join(others) or 'nothing unsupported'}; "
      f"missing {missing}"
    )
  fields = {ours: settings[theirs] for ours, theirs in keys.items()}
  if family == "t5":
    return t5.T5Config(**fields)
  fields |= _rotation(settings) | _locality(family, settings)
  if family.startswith("gemma"):
    fields["query_scale"] = settings["query_pre_attn_scalar"] ** -0.5
    for ours, theirs in SOFT_CAP_KEYS.items():
      fields[ours] = settings.get(theirs)
  return decoder.DecoderConfig(**(decoder.FAMILIES[family] | fields))


def config_to_json(config: Config) -> dict[str, Any]:
  """The contents of a config.json, in the older form that all versions read.

  What our config does not hold, such as the ids of special tokens, is absent.

  Raises: ValueError for an architecture that no family has.
  """
  settings = _settings(config)
  wrong = differences(config_from_json(settings), config)
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
  local = np.resize(np.array(config.local_layers, bool), config.num_layers)
  near, window = config.local_rope_base, config.window
  if near is None and not scaled:
    near = config.rope_base
  if not local.any():
    near = window = None
  return config._replace(
    rope_bands=tuple(config.rope_bands or ()) if scaled else (),
    local_rope_base=near,
    window=window,
    local_layers=tuple(local.tolist()),
    query_scale=round(config.query_scale or config.head_dim**-0.5, 9),
  )


def _settings(config: Config) -> dict[str, Any]:
  family = family_of(config)
  keys = T5_KEYS if family == "t5" else DECODER_KEYS
  settings = {
    "model_type": family,
    "architectures": [CLASSES[family]],
    "torch_dtype": config.param_dtype,
    **{theirs: getattr(config, ours) for ours, theirs in keys.items()},
    **FIXED[family],
  }
  if family == "t5":
    return settings | {
      "is_encoder_decoder": True,
      "decoder_start_token_id": t5.START_ID,
    }
  settings["rope_theta"] = config.rope_base
  settings["rope_scaling"] = _scaling(config)
  if family.startswith("gemma"):
    scale = config.query_scale or config.head_dim**-0.5
    settings["query_pre_attn_scalar"] = round(scale**-2)
    for ours, theirs in SOFT_CAP_KEYS.items():
      settings[theirs] = getattr(config, ours)
  if family == "gemma3_text":
    settings["rope_local_base_freq"] = config.local_rope_base
  if any(config.local_layers):
    depth = config.num_layers
    local = np.resize(np.array(config.local_layers), depth)
    settings["sliding_window"] = config.window
    settings["layer_types"] = [
      "sliding_attention" if here else "full_attention" for here in local
    ]
    if family.startswith("qwen"):
      settings["use_sliding_window"] = True
  return settings


def _scaling(config):
  if config.rope_factor == 1.0:
    return None
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


def _rotation(settings: Json) -> dict[str, Any]:
  """Rotary fields, in the older form or in the newer `rope_parameters`."""
  newer = settings.get("rope_parameters") or {}
  by_kind = newer.get("full_attention", newer)
  local = newer.get("sliding_attention") or {}
  scaling = {**(settings.get("rope_scaling") or {}), **by_kind}
  fields = {
    "rope_base": float(scaling.get("rope_theta", settings["rope_theta"]))
  }
  if "rope_local_base_freq" in settings:
    base = local.get("rope_theta", settings["rope_local_base_freq"])
    fields["local_rope_base"] = float(base)
  kind = scaling.get("rope_type", scaling.get("type", "default"))
  if kind not in ("default", "linear", "llama3"):
    raise mistakes.Mistake(
      f"config.json: rope_type is {kind!r}, expected default, linear or llama3"
    )
  if kind != "default":
    fields["rope_factor"] = float(scaling["factor"])
  if kind == "llama3":
    fields["rope_bands"] = (
      scaling["low_freq_factor"],
      scaling["high_freq_factor"],
      scaling["original_max_position_embeddings"],
    )
  return fields


def _locality(family: str, settings: Json) -> dict[str, Any]:
  depth, window = settings["num_hidden_layers"], settings.get("sliding_window")
  if family == "llama" or not window:
    return {}
  if family in ("qwen2", "qwen3") and not settings.get("use_sliding_window"):
    return {}
  types = settings.get("layer_types")
  if types is not None:
    local = tuple(kind == "sliding_attention" for kind in types)
  elif family in ("qwen2", "qwen3"):
    first = settings.get("max_window_layers", 28)
    local = tuple(i >= first for i in range(depth))
  else:
    every = settings.get("sliding_window_pattern", len(_pattern(family)))
    local = tuple(bool((i + 1) % every) for i in range(depth))
  return {"window": window, "local_layers": local}


def _pattern(family):
  return decoder.FAMILIES[family]["local_layers"]
