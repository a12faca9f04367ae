"""Behaviour of decoder-only models behind the seam, and of their kernels."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, models, sampling
from nashmd_jax.models import decoder_config, layers
from tests import t5_test

VOCAB = t5_test.VOCAB
SIZES = dict(
  vocab_size=VOCAB,
  width=16,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_dim=24,
  rope_base=100.0,
)
GEMMA = dict(window=3, attention_soft_cap=2.0, logit_soft_cap=3.0)
CASES = {
  "llama": {"rope_factor": 8.0, "rope_bands": (1.0, 4.0, 16)},
  "qwen2": {},
  # Three layers: local, local, global.
  "gemma3_text": GEMMA | {"local_layers": (True, True, False)},
}


def tiny_model(family: str, **changes) -> models.LanguageModel:
  """A decoder of a few thousand parameters."""
  sizes = SIZES | CASES[family] | changes
  return models.make_language_model(family=family, **sizes)


class DecoderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.batch = t5_test.tiny_batch()

  def logits(self, model, params, **changes):
    return model.response_logits(params, *(self.batch | changes).values())

  @parameterized.parameters(*CASES)
  def test_padding_does_not_matter_on_either_side(self, family):
    model = tiny_model(family)
    params = model.init(jax.random.key(0))
    expected = self.logits(model, params)
    prompts, mask = self.batch["prompts"], self.batch["prompt_mask"]
    for before, behind in ((0, 5), (4, 0), (2, 3)):
      pad = ((0, 0), (before, behind))
      got = self.logits(
        model,
        params,
        prompts=jnp.pad(prompts, pad, constant_values=3),
        prompt_mask=jnp.pad(mask, pad),
      )
      np.testing.assert_allclose(got, expected, atol=5e-6)

  @parameterized.parameters(*CASES)
  def test_decode_loop_gives_the_teacher_forced_log_probs(self, family):
    model = tiny_model(family)
    sets = {
      name: model.init(jax.random.key(i))
      for i, name in enumerate(("policy", "reference"))
    }
    lanes = [{"policy": 1.0}, {"policy": 0.7, "reference": 0.3}]
    out = sampling.rollout(
      model,
      sets,
      lanes,
      prompts=self.batch["prompts"],
      prompt_mask=self.batch["prompt_mask"],
      keys=sampling.row_keys(jax.random.key(3), jnp.arange(4), 2),
      max_response=6,
      temperature=0.7,
      eos_ids=(1,),
    )
    for i, lane in enumerate(lanes):
      tokens, mask = out.tokens[:, i], out.mask[:, i]
      mixed = sum(
        weight
        * arrays.log_softmax(
          self.logits(model, sets[name], responses=tokens), 0.7
        )
        for name, weight in lane.items()
      )
      expected = arrays.token_log_probs(mixed, tokens, 1.0)
      np.testing.assert_allclose(
        out.log_prob[:, i], jnp.where(mask, expected, 0), atol=2e-5
      )

  def test_next_logits_are_those_of_the_asked_position(self):
    model = tiny_model("gemma3_text")
    params = model.init(jax.random.key(0))
    lengths = jnp.array([0, 2, 5, 3])
    got = model.next_logits(params, *self.batch.values(), lengths)
    expected = self.logits(model, params)[jnp.arange(4), lengths]
    np.testing.assert_allclose(got, expected, atol=2e-6)

  def test_position_sees_what_is_before_it_and_in_the_window(self):
    # One local layer alone: token n reads the three inputs up to itself.
    model = tiny_model("gemma3_text", num_layers=1, local_layers=(True,))
    params = model.init(jax.random.key(0))
    batch = [self.batch["prompts"][:1], self.batch["prompt_mask"][:1]]

    @jax.jit
    def logits(tokens):
      return model.response_logits(params, *batch, tokens)[0]

    responses = self.batch["responses"][:1]
    for m in range(6):
      changed = logits(responses.at[0, m].add(1) % VOCAB) - logits(responses)
      moved = np.abs(np.asarray(changed)).max(axis=1) > 1e-6
      n = np.arange(6)
      np.testing.assert_array_equal(moved, (n > m) & (n <= m + 3))

  def test_empty_prompt_is_the_token_zero(self):
    model = tiny_model("llama")
    params = model.init(jax.random.key(0))
    none = jnp.zeros_like(self.batch["prompt_mask"])
    start = jnp.zeros_like(self.batch["prompts"])
    got = self.logits(model, params, prompt_mask=none)
    first = none.at[:, 0].set(True)
    expected = self.logits(model, params, prompts=start, prompt_mask=first)
    np.testing.assert_array_equal(got, expected)

  @parameterized.parameters("full", "dots")
  def test_rematerialisation_changes_no_gradient(self, remat):
    def gradient(model):
      params = model.init(jax.random.key(0))
      grad = jax.jit(jax.grad(lambda p: jnp.sum(self.logits(model, p) ** 2)))
      return grad(params), "remat" in str(jax.make_jaxpr(grad)(params))

    expected, plain = gradient(tiny_model("qwen2"))
    got, again = gradient(tiny_model("qwen2", remat=remat))
    self.assertEqual((plain, again), (False, True))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4),
      got,
      expected,
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
      if path[-1].key != "key_bias":  # a constant to every softmax
        self.assertGreater(float(jnp.abs(leaf).max()), 1e-3, msg=str(path))

  def test_bfloat16_decodes_and_logits_stay_float32(self):
    half = tiny_model("gemma3_text", dtype="bfloat16", param_dtype="bfloat16")
    params = half.init(jax.random.key(0))
    cache, fed = half.prefill(
      params, self.batch["prompts"], self.batch["prompt_mask"], 2, 3
    )
    logits, cache = half.decode(params, cache, fed)
    self.assertEqual(logits.dtype, jnp.float32)
    self.assertEqual(cache.keys.dtype, jnp.bfloat16)
    expected = self.logits(half, params)[:, 0]
    np.testing.assert_allclose(logits[::2], expected, atol=0.06)

  def test_architectures_that_cannot_be(self):
    for changes, message in (
      ({"num_kv_heads": 3}, "num_kv_heads: got 3, expected a divisor"),
      ({"head_dim": 5}, "head_dim: got 5"),
      ({"local_layers": (True,)}, "window: got none"),
      ({"dtype": "float16"}, "dtype: got 'float16'"),
      ({"remat": "some"}, "remat: got 'some'"),
      ({"attention": "flash"}, "attention: got 'flash'"),
    ):
      with self.assertRaisesRegex(ValueError, f"model.{message}"):
        tiny_model("llama", **changes)


class LayerDataTest(absltest.TestCase):
  def test_hand_values(self):
    # K = 4, base 100: frequencies 1 and 1/10; local layers at base 9: 1, 1/3.
    config = decoder_config.DecoderConfig(
      **(SIZES | {"head_dim": 4, "rope_factor": 2.0}),
      window=5,
      local_layers=(True, False),
      local_rope_base=9.0,
    )
    data = decoder_config.layer_data(config)
    np.testing.assert_array_equal(data.window, [5, decoder_config.NO_WINDOW, 5])
    np.testing.assert_allclose(
      data.frequencies, [[1, 1 / 3], [0.5, 0.05], [1, 1 / 3]], rtol=1e-6
    )

  def test_norm_with_an_offset_starts_at_one(self):
    numerics = layers.Numerics("float32", "float32", "none", "auto", "scan")
    norm = layers.RMSNorm(2, 0.0, 1.0, numerics)
    x = jnp.array([[3.0, 4.0]])
    params = norm.init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["params"]["scale"], [0, 0])
    # √((9 + 16) / 2) = 5 / √2
    expected = np.array([[3, 4]]) * np.sqrt(2) / 5
    np.testing.assert_allclose(norm.apply(params, x), expected, rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
