"""What Hugging Face's config.json holds of each family, and by which names.

Data alone; `config_json` reads a file by it, `architectures` writes one.
"""

from collections.abc import Mapping
from typing import Any

from nashmd_jax.models import decoder_config, t5

Config = t5.T5Config | decoder_config.DecoderConfig
Json = Mapping[str, Any]


CLASSES = {
  "llama": "LlamaForCausalLM",
  "mistral": "MistralForCausalLM",
  "phi3": "Phi3ForCausalLM",
  "smollm3": "SmolLM3ForCausalLM",
  "olmo2": "Olmo2ForCausalLM",
  "olmo3": "Olmo3ForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma2": "Gemma2ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
  "t5": "T5ForConditionalGeneration",
}
# The family of ours that computes the same.
OUR_NAMES = {"phi3": "llama"}
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
# Settings that our code has no other value for, written into every file.
FIXED = {
  "t5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
  "llama": {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"},
  "mistral": {"hidden_act": "silu"},
  "phi3": {"attention_bias": False, "hidden_act": "silu"},
  "smollm3": {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "use_sliding_window": False,
  },
  "olmo2": {"attention_bias": False, "hidden_act": "silu"},
  "olmo3": {"attention_bias": False, "hidden_act": "silu"},
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
# The same of settings that no file needs; null is as good.
_MORE = {
  "add_cross_attention": False,
  "alibi": False,
  "attention_chunk_size": None,
  "attention_multiplier": None,
  "attention_out_bias": False,
  "clip_qkv": None,
  "embedding_multiplier": 1.0,
  "is_causal": True,
  "logit_scale": 1.0,
  "logits_scaling": 1.0,
  "mlp_bias": False,
  "no_rope_layers": None,
  "num_experts": 0,
  "num_local_experts": 0,
  "partial_rotary_factor": 1.0,
  "residual_multiplier": 1.0,
  "rope_interleave": False,
  "scale_depth": None,
  "scale_emb": 1.0,
  "use_bidirectional_attention": False,
}
MORE = dict.fromkeys(CLASSES, _MORE) | {
  "llama": _MORE | {"qk_layernorm": False, "use_qk_norm": False},
  "smollm3": {k: v for k, v in _MORE.items() if k != "no_rope_layers"},
  "gemma2": _MORE | {"sliding_window_pattern": 2},
  "t5": {
    "decoder_start_token_id": t5.START_ID,
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
  },
}
# Settings that a file may leave out, and what transformers then takes; None
# is worked out of others.
_ABSENT = {
  "rope_theta": 1e4,
  "rms_norm_eps": 1e-6,
  "tie_word_embeddings": False,
}
_OLMO = _ABSENT | {
  "num_key_value_heads": None,
  "head_dim": None,
  "rms_norm_eps": 1e-5,
}
_QWEN = _ABSENT | {"num_key_value_heads": 32, "sliding_window": 4096}
ABSENT = {
  "t5": {
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6,
    "num_decoder_layers": None,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
  },
  "llama": _ABSENT | {"num_key_value_heads": None, "head_dim": None},
  "mistral": _ABSENT
  | {"num_key_value_heads": 8, "head_dim": None, "sliding_window": 4096},
  "phi3": _ABSENT
  | {"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-5},
  "smollm3": _ABSENT
  | {
    "num_key_value_heads": 4,
    "head_dim": None,
    "rope_theta": 2e6,
    "tie_word_embeddings": True,
  },
  "olmo2": _OLMO,
  # What an older file says of the rotation its local layers do not mind.
  "olmo3": _OLMO
  | {"rope_theta": 5e5, "rope_local_base_freq": 5e5, "sliding_window": 4096},
  "qwen2": _QWEN | {"head_dim": None},
  "qwen3": _QWEN | {"head_dim": 128},
  "gemma2": _ABSENT
  | {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
  },
  # Folders of text and images leave out most of it.
  "gemma3_text": _ABSENT
  | {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
  },
}
