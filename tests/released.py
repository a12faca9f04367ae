"""What the config.json of released models says of their architecture.

Sizes and flags alone; `make models` builds each of them in transformers,
without weights, and compares every tensor.
"""

LLAMA3 = {
  "rope_type": "llama3",
  "factor": 32.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192,
}
YARN = {
  "rope_type": "yarn",
  "factor": 8.0,
  "beta_fast": 32.0,
  "beta_slow": 1.0,
  "attention_factor": 1.2079441541679836,
  "original_max_position_embeddings": 8192,
}


def sizes(
  model_type, vocabulary, width, mlp, depth, heads, keys, positions, **further
):
  return {
    "model_type": model_type,
    "vocab_size": vocabulary,
    "hidden_size": width,
    "intermediate_size": mlp,
    "num_hidden_layers": depth,
    "num_attention_heads": heads,
    "num_key_value_heads": keys,
    "max_position_embeddings": positions,
    **further,
  }


CONFIGS = {
  "Llama 3.2 1B": sizes(
    "llama", 128_256, 2048, 8192, 16, 32, 8, 131_072, head_dim=64,
    rope_theta=500_000.0, rope_scaling=LLAMA3, rms_norm_eps=1e-5,
    tie_word_embeddings=True, attention_bias=False, mlp_bias=False,
  ),
  "SmolLM2 135M": sizes(
    "llama", 49_152, 576, 1536, 30, 9, 3, 8192, rope_theta=100_000,
    rms_norm_eps=1e-5, tie_word_embeddings=True, rope_interleaved=False,
  ),
  "SmolLM3 3B": sizes(
    "smollm3", 128_256, 2048, 11_008, 36, 16, 4, 65_536,
    rope_theta=5_000_000.0, rope_scaling=None, no_rope_layer_interval=4,
    no_rope_layers=[1, 1, 1, 0] * 9, sliding_window=None,
    layer_types=["full_attention"] * 36, use_sliding_window=False,
    rms_norm_eps=1e-6, tie_word_embeddings=True, max_window_layers=28,
  ),
  "Mistral 7B v0.3": sizes(
    "mistral", 32_768, 4096, 14_336, 32, 32, 8, 32_768,
    rope_theta=1_000_000.0, sliding_window=None, rms_norm_eps=1e-5,
    tie_word_embeddings=False,
  ),
  "Mistral 7B v0.1": sizes(
    "mistral", 32_000, 4096, 14_336, 32, 32, 8, 32_768, rope_theta=10_000.0,
    sliding_window=4096, rms_norm_eps=1e-5, tie_word_embeddings=False,
  ),
  "OLMo 2 7B": sizes(
    "olmo2", 100_352, 4096, 11_008, 32, 32, 32, 4096, rope_theta=500_000,
    rope_scaling=None, rms_norm_eps=1e-6, attention_bias=False,
    tie_word_embeddings=False,
  ),
  "OLMo 3 7B": sizes(
    "olmo3", 100_278, 4096, 11_008, 32, 32, 32, 65_536, rope_theta=500_000,
    rope_scaling=YARN, sliding_window=4096, rms_norm_eps=1e-6,
    layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 8,
    attention_bias=False, tie_word_embeddings=False,
  ),
  "Phi 4": sizes(
    "phi3", 100_352, 5120, 17_920, 40, 40, 10, 16_384, rope_theta=250_000,
    rope_scaling=None, sliding_window=None, rms_norm_eps=1e-5,
    original_max_position_embeddings=16_384, attention_bias=False,
    tie_word_embeddings=False,
  ),
  "Qwen 2.5 0.5B": sizes(
    "qwen2", 151_936, 896, 4864, 24, 14, 2, 32_768, rope_theta=1_000_000.0,
    sliding_window=32_768, use_sliding_window=False, max_window_layers=24,
    rms_norm_eps=1e-6, tie_word_embeddings=True,
  ),
  "Qwen 3 0.6B": sizes(
    "qwen3", 151_936, 1024, 3072, 28, 16, 8, 40_960, head_dim=128,
    rope_theta=1_000_000, rope_scaling=None, sliding_window=None,
    use_sliding_window=False, max_window_layers=28, rms_norm_eps=1e-6,
    attention_bias=False, tie_word_embeddings=True,
  ),
  "Gemma 2 2B": sizes(
    "gemma2", 256_000, 2304, 9216, 26, 8, 4, 8192, head_dim=256,
    rope_theta=10_000.0, sliding_window=4096, query_pre_attn_scalar=256,
    attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6,
    attention_bias=False,
  ),
  "Gemma 3 1B": sizes(
    "gemma3_text", 262_144, 1152, 6912, 26, 4, 1, 32_768, head_dim=256,
    rope_theta=1_000_000, rope_local_base_freq=10_000, rope_scaling=None,
    sliding_window=512, sliding_window_pattern=6, query_pre_attn_scalar=256,
    attn_logit_softcapping=None, final_logit_softcapping=None,
    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6,
    attention_bias=False,
  ),
}  # fmt: skip
# Layers that see a window, and layers that do not rotate.
LOCAL = {
  "Mistral 7B v0.1": 32, "OLMo 3 7B": 24, "Gemma 2 2B": 13, "Gemma 3 1B": 22,
}  # fmt: skip
UNTURNED = {"SmolLM3 3B": 9}
