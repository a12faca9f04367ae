"""Families of today: released configs, and what sets each of them apart."""

import math

from absl.testing import absltest, parameterized
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import files, mistakes, models
from nashmd_jax.hub import architectures, config_json
from nashmd_jax.models import decoder_config, positions
from nashmd_jax.stages import export
from tests import released

SIZES = dict(
  vocab_size=31, width=12, num_layers=1, num_heads=4, num_kv_heads=2,
  head_dim=6, mlp_dim=10, rope_base=100.0,
)  # fmt: skip


def read(**changes):
  return config_json.config_from_json(changes)


class ReleasedTest(parameterized.TestCase):
  @parameterized.parameters(*released.CONFIGS)
  def test_read_and_written(self, name):
    settings = released.CONFIGS[name]
    found = read(**settings)
    self.assertEqual(found.num_layers, settings["num_hidden_layers"])
    local = np.resize(np.array(found.local_layers), found.num_layers)
    self.assertEqual(local.sum(), released.LOCAL.get(name, 0))
    turned = np.resize(np.array(found.rotary_layers), found.num_layers)
    self.assertEqual((~turned).sum(), released.UNTURNED.get(name, 0))
    again = read(**architectures.config_to_json(found))
    self.assertEmpty(architectures.differences(again, found))
    ours = {"phi3": "llama"}.get(settings["model_type"])
    if settings["model_type"] == "mistral" and not local.any():
      ours = "llama"
    family = ours or settings["model_type"]
    self.assertEqual(architectures.family_of(found), family)

  def test_only_global_layers_of_olmo_3_are_slowed(self):
    found = read(**released.CONFIGS["OLMo 3 7B"])
    data = decoder_config.layer_data(found)
    plain = positions.rotary_frequencies(128, base=500_000.0, factor=1.0)
    np.testing.assert_array_equal(data.frequencies[0], plain)
    self.assertLess(data.frequencies[3, -1], plain[-1] / 7.9)
    np.testing.assert_allclose(data.stretch[:4], [1, 1, 1, 1.2079441541679836])

  def test_layers_that_do_not_rotate_are_not_stretched(self):
    settings = released.CONFIGS["SmolLM3 3B"] | {"rope_scaling": released.YARN}
    stretch = released.YARN["attention_factor"]
    np.testing.assert_allclose(
      decoder_config.layer_data(read(**settings)).stretch[:4],
      [stretch, stretch, stretch, 1],
    )

  @parameterized.parameters(
    (dict(partial_rotary_factor=0.75), "partial_rotary_factor = 0.75"),
    (dict(rope_scaling={"type": "longrope"}), "rope_type is 'longrope'"),
    (dict(rope_scaling={"type": "yarn", "factor": 2.0}), "rope_type is 'yarn'"),
  )
  def test_phi_4_mini_is_refused(self, changes, message):
    with self.assertRaisesRegex(mistakes.Mistake, message):
      read(**released.CONFIGS["Phi 4"] | changes)

  @parameterized.parameters(
    (dict(no_rope_layers=[1] * 35), "no list of the 36 layers"),
    (dict(no_rope_layers=[2] * 36), "others than 1, which rotates"),
    (dict(use_sliding_window=True), "use_sliding_window = True"),
  )
  def test_settings_of_smollm_3(self, changes, message):
    with self.assertRaisesRegex(mistakes.Mistake, message):
      read(**released.CONFIGS["SmolLM3 3B"] | changes)

  @parameterized.parameters(
    (dict(truncate=False), "truncate false"),
    (dict(mscale=1.0, mscale_all_dim=1.0), "mscale_all_dim"),
    (dict(beta_fast=1.0), "more than beta_slow"),
    (dict(attention_factor=-1.0), "attention_factor is -1.0"),
  )
  def test_settings_of_yarn(self, changes, message):
    scaling = released.YARN | changes
    with self.assertRaisesRegex(mistakes.Mistake, message):
      read(**released.CONFIGS["OLMo 3 7B"] | {"rope_scaling": scaling})


class ExportTest(absltest.TestCase):
  def test_adapters_cannot_stand_beside_fused_matrices(self):
    folder = epath.Path(self.create_tempdir().full_path)
    for name, refused in (("Phi 4", True), ("Mistral 7B v0.3", False)):
      files.save_json(folder / "config.json", released.CONFIGS[name])
      if refused:
        with self.assertRaisesRegex(mistakes.Mistake, "is a phi3, whose tens"):
          export.check_adaptable(folder)
      else:
        export.check_adaptable(folder)


class YarnTest(absltest.TestCase):
  def test_by_hand(self):
    # Base e: frequency i is e^(−i/4). Turns over 100 tokens: 100 / 2π e^(−i/4)
    # fall from 15.9; 8 of them at i = 4 ln(15.9 / 8) = 2.75, one at 11.07.
    yarn = positions.Yarn(fast=8.0, slow=1.0, length=100, stretch=1.0)
    found = positions.rotary_frequencies(8, base=math.e, factor=4.0, yarn=yarn)
    plain = np.exp(-np.arange(4) / 4)
    low, high = 2, 7  # rounded outwards, and at most one less than the head
    keep = 1 - np.clip((np.arange(4) - low) / (high - low), 0, 1)
    expected = plain * (keep + (1 - keep) / 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(keep, [1, 1, 1, 0.8])

  def test_the_stretch_is_on_queries_and_keys(self):
    x = jnp.arange(12.0).reshape(1, 2, 1, 6)
    where, turns = jnp.arange(2)[None], jnp.ones(3)
    np.testing.assert_allclose(
      positions.rotate(x, where, turns, jnp.float32(1.5)),
      1.5 * positions.rotate(x, where, turns),
      rtol=1e-6,
    )


class BlockTest(parameterized.TestCase):
  def logits(self, prompt, **changes):
    config = models.make_config(**SIZES | changes)
    model = models.make_model(config)
    params = jax.tree.map(
      lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(
        x.shape
      ),
      model.init(jax.random.key(0)),
    )  # fmt: skip
    prompts = jnp.array([prompt])
    mask, one = jnp.ones(prompts.shape, bool), jnp.zeros((1, 1), jnp.int32)
    return np.asarray(model.response_logits(params, prompts, mask, one))[0, 0]

  def test_a_layer_that_does_not_rotate_minds_no_order(self):
    for turned in (True, False):
      one, other = (
        self.logits(prompt, family="smollm3", rotary_layers=(turned,))
        for prompt in ([3, 9, 4, 7], [9, 4, 3, 7])
      )
      same = np.allclose(one, other, atol=1e-5)
      self.assertEqual(same, not turned)

  def test_a_norm_of_the_width_sees_all_heads(self):
    # The scale of one head's projection changes what all heads say.
    config = models.make_config(family="olmo2", **SIZES)
    model = models.make_model(config)
    params = model.init(jax.random.key(1))
    inner = params["layers"]
    self.assertNotIn("attention_norm", inner)
    self.assertEqual(inner["query_norm"]["scale"].shape, (1, 24))
    self.assertEqual(inner["key_norm"]["scale"].shape, (1, 12))
    # Multiplying all queries alike changes nothing behind such a norm.
    louder = jax.tree.map(lambda x: x, params)
    louder["layers"]["attention"]["query"] *= 7.0
    asked = jnp.array([[3, 9, 4]]), jnp.ones((1, 3), bool), jnp.array([[5]])
    np.testing.assert_allclose(
      model.response_logits(params, *asked),
      model.response_logits(louder, *asked),
      atol=1e-4,
    )
    louder["layers"]["attention"]["query"] = (
      params["layers"]["attention"]["query"].at[:, :, 0].multiply(7.0)
    )
    moved = model.response_logits(params, *asked) - model.response_logits(
      louder, *asked
    )
    self.assertGreater(float(jnp.abs(moved).max()), 1e-3)

  def test_what_norms_there_are(self):
    with self.assertRaisesRegex(ValueError, "query_key_norm: got 'all'"):
      models.make_model(
        models.make_config(family="llama", query_key_norm="all", **SIZES)
      )


if __name__ == "__main__":
  absltest.main()
