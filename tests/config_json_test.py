"""Files as they are found: read as transformers reads them, or one sentence.

What it reads was asked of its release 5.23, `AutoConfig.for_model(...)`.
"""

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.hub import config_json
from nashmd_jax.models import decoder_config

LLAMA = {
  "model_type": "llama",
  "vocab_size": 64,
  "hidden_size": 16,
  "num_hidden_layers": 4,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "intermediate_size": 32,
  "max_position_embeddings": 4096,
}
QWEN2, QWEN3, GEMMA2, GEMMA3 = (
  LLAMA | {"model_type": name}
  for name in ("qwen2", "qwen3", "gemma2", "gemma3_text")
)
T5 = {
  "model_type": "t5",
  "vocab_size": 64,
  "d_model": 16,
  "num_heads": 2,
  "d_kv": 8,
  "d_ff": 32,
  "num_layers": 2,
  "feed_forward_proj": "gated-gelu",
  "tie_word_embeddings": False,
}
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
}
SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW = {"use_sliding_window": True, "sliding_window": 8}


def without(settings, *keys):
  return {key: value for key, value in settings.items() if key not in keys}


def scaled(**rotation):
  return LLAMA | {"rope_scaling": rotation}


def renewed(**rotation):
  return LLAMA | {"rope_parameters": rotation}


class ReadTest(parameterized.TestCase):
  @parameterized.parameters(
    (LLAMA, {"head_dim": 4, "rope_base": 1e4, "norm_epsilon": 1e-6}),
    (LLAMA | {"head_dim": None}, {"head_dim": 4}),
    (without(LLAMA, "num_key_value_heads"), {"num_kv_heads": 4}),
    (QWEN2 | {"num_key_value_heads": None}, {"num_kv_heads": 4}),
    (QWEN2 | {"num_attention_heads": 1, "hidden_size": 8}, {"head_dim": 8}),
    (QWEN3, {"head_dim": 128, "tied": False}),
    (GEMMA2, {"head_dim": 256, "tied": True, "logit_soft_cap": 30.0}),
    (GEMMA2 | {"final_logit_softcapping": None}, {"logit_soft_cap": None}),
    (scaled(type="linear", factor=4), {"rope_factor": 4.0}),
    (scaled(rope_type="default"), {"rope_factor": 1.0}),
    (LLAMA | {"rope_scaling": None, "rope_parameters": {}}, {}),
    (scaled(**LLAMA3), {"rope_bands": (1.0, 4.0, 4096)}),
    (
      scaled(**LLAMA3) | {"original_max_position_embeddings": 32},
      {"rope_bands": (1.0, 4.0, 32)},
    ),
    (
      renewed(**LLAMA3, rope_theta=5e5, original_max_position_embeddings=64),
      {"rope_base": 5e5, "rope_factor": 8.0, "rope_bands": (1.0, 4.0, 64)},
    ),
    (renewed(rope_type="default", partial_rotary_factor=1.0), {}),
    (QWEN3 | {"sliding_window": 8}, {"window": None}),
    (QWEN3 | {"use_sliding_window": True}, {"window": None}),
    (
      QWEN3 | WINDOW | {"max_window_layers": 3},
      {"window": 8, "local_layers": (False, False, False, True)},
    ),
    (
      QWEN2 | {"use_sliding_window": True, "layer_types": [FULL, SLIDING] * 2},
      {"window": 4096, "local_layers": (False, True, False, True)},
    ),
    (GEMMA2, {"window": 4096, "local_layers": (True, False, True, False)}),
    (GEMMA3, {"local_layers": (True,) * 4, "rope_base": 1e6}),
    (
      GEMMA3 | {"sliding_window_pattern": 3},
      {"local_layers": (True, True, False, True)},
    ),
    (
      GEMMA3
      | {
        "rope_parameters": {
          FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
          SLIDING: {"rope_type": "default", "rope_theta": 2e4},
        }
      },
      {"rope_base": 5e5, "rope_factor": 8.0, "local_rope_base": 2e4},
    ),
    (T5, {"encoder_layers": 2, "decoder_layers": 2, "max_distance": 128}),
    (T5 | {"num_decoder_layers": None}, {"decoder_layers": 2}),
    (T5 | {"dense_act_fn": "gelu_new", "is_gated_act": True}, {}),
    (T5 | {"tie_word_embeddings": True, "scale_decoder_outputs": False}, {}),
    (T5 | {"pad_token_id": 1, "decoder_start_token_id": 0}, {}),
  )
  def test_as_transformers_does(self, settings, expected):
    found = config_json.config_from_json(settings)._asdict()
    self.assertEqual({name: found[name] for name in expected}, expected)

  def test_the_text_of_a_model_of_text_and_images(self):
    # What google/gemma-3-4b-it says of its text, and leaves out.
    text = {
      "hidden_size": 2560,
      "intermediate_size": 10_240,
      "model_type": "gemma3_text",
      "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024,
    }
    whole = {
      "architectures": ["Gemma3ForConditionalGeneration"],
      "model_type": "gemma3",
      "eos_token_id": [1, 106],
      "text_config": text,
      "vision_config": {"hidden_size": 1152, "model_type": "siglip"},
    }
    found = config_json.config_from_json(whole)
    self.assertEqual(found, config_json.config_from_json(text))
    self.assertEqual(
      (found.vocab_size, found.num_heads, found.num_kv_heads, found.head_dim),
      (262_208, 8, 4, 256),
    )
    self.assertEqual(found.window, 1024)
    self.assertEqual(sum(found.local_layers), 29)
    self.assertNotIn("vision_config", config_json.text_settings(whole))
    decoder_config.check_config(found)


class RefusedTest(parameterized.TestCase):
  @parameterized.parameters(
    ([], "is no object but a list"),
    (LLAMA | {"model_type": ["llama"]}, "model_type is .*, expected one of"),
    (
      LLAMA | {"architectures": ["LlamaForSequenceClassification"]},
      "SequenceClassification.*, expected .'LlamaForCausalLM'",
    ),
    (LLAMA | {"quantization_config": {"quant_method": "fp8"}}, "not quantised"),
    ({"model_type": "gemma3", "text_config": None}, "text_config is null"),
    (LLAMA | {"num_attention_heads": "4"}, "num_attention_heads is '4', exp"),
    (LLAMA | {"vocab_size": None}, "vocab_size is None, expected a whole"),
    (LLAMA | {"hidden_size": 18}, "4 heads do not divide 18"),
    (without(LLAMA, "vocab_size", "hidden_size"), "missing .'vocab_size', 'h"),
    (LLAMA | {"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6', expected a n"),
    (LLAMA | {"tie_word_embeddings": None}, "tie_word_embeddings is None, ex"),
    (LLAMA | {"hidden_act": "gelu"}, "hidden_act = 'gelu' .only 'silu'"),
    (LLAMA | {"attention_bias": True}, "attention_bias = True"),
    (QWEN2 | {"mlp_bias": True}, "of qwen2, mlp_bias = True"),
    (LLAMA | {"residual_multiplier": 0.22}, "residual_multiplier = 0.22"),
    (LLAMA | {"no_rope_layers": [0, 1]}, "no_rope_layers"),
    (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    (renewed(partial_rotary_factor=0.5), "partial_rotary_factor is not 1"),
    (LLAMA | {"rope_scaling": []}, "rope_scaling is a list, expected an obj"),
    (scaled(factor=4.0), "a factor and no rope_type"),
    (scaled(type="linear"), "factor is None, expected a number"),
    (scaled(type="dynamic", factor=2.0), "rope_type is 'dynamic', expected"),
    (scaled(rope_type="su", factor=2.0), "rope_type is 'su', exp"),
    (renewed(rope_type="longrope"), "rope_type is 'longrope', expected"),
    (scaled(rope_type="default", mrope_section=[1, 2]), "mrope_section"),
    (scaled(**LLAMA3 | {"high_freq_factor": 1.0}), "low_freq_factor is 1.0"),
    (
      without(scaled(**LLAMA3), "max_position_embeddings"),
      "original_max_position_embeddings is None",
    ),
    (renewed(rope_theta="5e5"), "rope_theta is '5e5', expected a number"),
    (renewed(**{FULL: {"rope_type": "default"}}), "has full_attention, which"),
    (
      scaled(type="linear", factor=4.0)
      | {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
      "rope_scaling and rope_parameters differ in .'factor'",
    ),
    (GEMMA3 | {"rope_parameters": {"rope_theta": 3.0}}, "has neither full"),
    (
      GEMMA3
      | {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2}}},
      "rope_type of sliding_attention is not default",
    ),
    (GEMMA2 | {"layer_types": [SLIDING, FULL]}, "no list of the 4 layers"),
    (
      QWEN3 | {"layer_types": ["linear_attention", FULL, [], FULL]},
      "layer_types has others than",
    ),
    (QWEN3 | {"layer_types": [SLIDING] * 4}, "sliding_window is None, expec"),
    (GEMMA2 | {"sliding_window": None}, "sliding_window is None, expected"),
    (GEMMA2 | {"sliding_window_pattern": 6}, "sliding_window_pattern = 6"),
    (GEMMA3 | {"sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
    (T5 | {"dense_act_fn": "relu"}, "dense_act_fn = 'relu'"),
    (T5 | {"dense_act_fn": "gelu"}, "dense_act_fn = 'gelu'"),
    (T5 | {"is_gated_act": False}, "is_gated_act = False"),
    (without(T5, "tie_word_embeddings"), "tie_word_embeddings = True"),
    (T5 | {"tie_word_embeddings": None}, "tie_word_embeddings = True"),
    (without(T5, "feed_forward_proj"), "feed_forward_proj = 'relu'"),
    (T5 | {"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
    (T5 | {"decoder_start_token_id": 101}, "decoder_start_token_id = 101"),
  )
  def test_in_one_short_sentence(self, settings, message):
    with self.assertRaisesRegex(mistakes.Mistake, message) as caught:
      config_json.config_from_json(settings)
    (sentence,) = caught.exception.sentences
    self.assertStartsWith(sentence, "config.json: ")
    self.assertLess(len(sentence), 200)


if __name__ == "__main__":
  absltest.main()
