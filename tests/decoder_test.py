"""Behaviour of decoder-only models behind the seam, and of their kernels."""

import contextlib
import io

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, mistakes, models, sampling
from nashmd_jax.models import attention, decoder_config, layers
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


class AttentionTest(parameterized.TestCase):
  def arguments(self, length=7, head_dim=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (4, 2, 2)
    return [
      jax.random.normal(key, (2, length, n, head_dim), dtype)
      for key, n in zip(keys, heads, strict=True)
    ]

  @parameterized.product(causal=[False, True], masked=[False, True])
  def test_kernels_agree(self, causal, masked):
    mask = jnp.arange(7)[None, None, None] < jnp.array([7, 4]).reshape(
      2, 1, 1, 1
    )
    bias = jax.random.normal(jax.random.key(1), (1, 4, 7, 7))
    got = [
      attention.attend(
        *self.arguments(),
        scale=0.3,
        causal=causal,
        mask=mask if masked else None,
        bias=bias,
        kernel=kernel,
      )
      for kernel in ("einsum", "xla")
    ]
    np.testing.assert_allclose(*got, atol=2e-6)

  @parameterized.parameters(
    dict(),
    dict(soft_cap=2.0),
    dict(head_dim=64),
    dict(head_dim=80, length=150),
    dict(head_dim=64, window=16),
    dict(length=200, window=130),
    dict(window=16, local=jnp.array(True)),
    dict(window=16, local=jnp.array(False)),
  )
  def test_splash_kernel_agrees(
    self, *, length=128, head_dim=128, soft_cap=None, window=None, local=True
  ):
    given = self.arguments(length=length, head_dim=head_dim)
    said = {"soft_cap": soft_cap, "window": window, "local": local}

    def splash(queries, *others):
      return attention._splash(queries * 0.1, *others, interpret=True, **said)

    def plain(*given):
      return attention.attend(
        *given, scale=0.1, causal=True, kernel="einsum", **said
      )

    np.testing.assert_allclose(splash(*given), plain(*given), atol=1e-5)

  def test_splash_has_the_same_gradient(self):
    given = self.arguments(length=140, head_dim=64)
    said = {"soft_cap": None, "window": 16, "local": jnp.array(True)}
    got, expected = (
      jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), argnums=(0, 1, 2))(
        *given
      )
      for f in (
        lambda q, *x: attention._splash(q * 0.1, *x, interpret=True, **said),
        lambda *x: attention.attend(
          *x, scale=0.1, causal=True, kernel="einsum", **said
        ),
      )
    )
    for a, b in zip(got, expected, strict=True):
      np.testing.assert_allclose(a, b, atol=2e-5)

  @parameterized.parameters("einsum", "xla")
  def test_a_query_sees_the_last_keys_of_its_window(self, kernel):
    queries, keys, _ = self.arguments(length=7)
    values = jnp.tile(jnp.eye(7, 8)[None, :, None], (2, 1, 2, 1))
    seen = attention.attend(
      queries, keys, values, scale=0.1, causal=True, window=3, kernel=kernel
    )
    t, s = np.mgrid[:7, :8]
    np.testing.assert_array_equal(
      np.asarray(seen[0, :, 0]) > 0, (s <= t) & (t - s < 3)
    )

  def test_what_is_used_in_place_of_a_kernel_is_told_once(self):
    attention._tell.cache_clear()
    out = io.StringIO()
    asked = dict(
      shape=(2, 256, 4, 64), dtype=jnp.dtype("float32"), causal=True,
      masked=False, biased=True, soft_cap=None,
    )  # fmt: skip
    with contextlib.redirect_stderr(out):
      for _ in range(3):
        attention.choose_kernel("tpu", **asked)
        attention.choose_kernel("auto", **asked)
        attention.choose_kernel("tpu", **(asked | {"biased": False}))
    self.assertEqual(
      out.getvalue(),
      "attention: xla in place of splash, which does not take a bias\n",
    )

  @parameterized.parameters("llama", "gemma3_text")
  def test_nothing_is_told_of_sequences_that_nobody_has(self, family):
    attention._tell.cache_clear()
    model, out = tiny_model(family, attention="tpu"), io.StringIO()
    with contextlib.redirect_stderr(out):
      params = model.init(jax.random.key(0))
    self.assertEqual(out.getvalue(), "")
    with contextlib.redirect_stderr(out):
      jax.eval_shape(
        model.response_logits, params, *t5_test.tiny_batch().values()
      )
    self.assertIn("fewer than 128 positions", out.getvalue())

  @parameterized.parameters(
    ("auto", {}, "xla"),
    ("auto", {"soft_cap": 3.0}, "einsum"),
    ("tpu", {}, "splash"),
    ("tpu", {"masked": True}, "xla"),
    ("gpu", {"dtype": jnp.dtype("bfloat16")}, "cudnn"),
    ("splash", {}, "splash"),
    ("splash", {"masked": True}, "xla"),
    ("splash", {"shape": (2, 100, 4, 128)}, "xla"),
    ("splash", {"shape": (2, 150, 4, 80)}, "splash"),
    ("splash", {"soft_cap": 3.0}, "splash"),
    ("cudnn", {}, "xla"),
    ("cudnn", {"dtype": jnp.dtype("bfloat16")}, "cudnn"),
    ("cudnn", {"dtype": jnp.dtype("bfloat16"), "biased": True}, "xla"),
    ("einsum", {}, "einsum"),
  )
  def test_choice(self, requested, changes, expected):
    asked = dict(
      shape=(2, 256, 4, 128),
      dtype=jnp.dtype("float32"),
      causal=True,
      masked=False,
      biased=False,
      soft_cap=None,
    )
    got = attention.choose_kernel(requested, **(asked | changes))
    self.assertEqual(got, expected)

  @parameterized.parameters(
    ("auto", "tpu", False, "tpu"),
    ("auto", "gpu", True, "gpu"),
    ("auto", "cpu", False, "auto"),
    # The compiler does not split splash, which one device may use.
    ("auto", "tpu", True, "auto"),
    ("einsum", "tpu", False, "einsum"),
    ("splash", "tpu", False, "splash"),
  )
  def test_what_devices_ask_for(self, requested, platform, split, expected):
    got = attention.on_devices(requested, platform=platform, split=split)
    self.assertEqual(got, expected)

  def test_a_kernel_that_is_not_split_is_a_mistake_on_several_devices(self):
    with self.assertRaisesRegex(mistakes.Mistake, "attention: got 'splash'"):
      attention.on_devices("splash", platform="tpu", split=True)

  def test_fully_masked_rows_are_finite(self):
    for kernel in ("einsum", "xla"):
      got = attention.attend(
        *self.arguments(),
        scale=1.0,
        mask=jnp.zeros((1, 1, 1, 7), bool),
        kernel=kernel,
      )
      self.assertTrue(jnp.isfinite(got).all())


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
    numerics = layers.Numerics("float32", "float32", "none", "auto")
    norm = layers.RMSNorm(2, 0.0, 1.0, numerics)
    x = jnp.array([[3.0, 4.0]])
    params = norm.init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["params"]["scale"], [0, 0])
    # √((9 + 16) / 2) = 5 / √2
    expected = np.array([[3, 4]]) * np.sqrt(2) / 5
    np.testing.assert_allclose(norm.apply(params, x), expected, rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
