"""Folders in and out; golden ones, which transformers wrote and computed."""

import json
import pathlib
import shutil

from absl.testing import absltest, parameterized
from etils import epath
import jax
import jax.numpy as jnp
from jax.sharding import (
  AxisType,
  NamedSharding,
  PartitionSpec,
  SingleDeviceSharding,
)
import numpy as np

from nashmd_jax import models, sampling
from nashmd_jax.hub import folders, safetensors

GOLDEN = pathlib.Path(__file__).parent / "golden"
FAMILIES = (
  "llama", "mistral", "phi3", "smollm3", "olmo2", "olmo3", "qwen2", "qwen3",
  "gemma2", "gemma3_text", "t5",
)  # fmt: skip
SETTINGS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
NO_EOS = -1


def one_device(shapes):
  """Every parameter whole on the first device."""
  place = SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda _: place, shapes)


def greedy(pretrained: folders.Pretrained, batch, length: int) -> np.ndarray:
  """The most probable continuation of each prompt, int32[B, length]."""
  rows = len(batch["prompts"])
  out = sampling.rollout(
    pretrained.model,
    {"policy": pretrained.params},
    [{"policy": 1.0}],
    prompts=jnp.asarray(batch["prompts"]),
    prompt_mask=jnp.asarray(batch["prompt_mask"]),
    keys=sampling.row_keys(jax.random.key(0), jnp.arange(rows), 1),
    max_response=length,
    temperature=1.0,
    eos_ids=(NO_EOS,),
    choose=sampling.greedy,
  )
  return np.asarray(out.tokens[:, 0])


def save(folder, pretrained: folders.Pretrained, **changes) -> None:
  """Writes a folder with the goldens' special tokens."""
  arguments = dict(settings=SETTINGS, beside=None, max_file_bytes=10**9)
  folders.save_pretrained(
    folder, pretrained.params, pretrained.config, **(arguments | changes)
  )


class GoldenTest(parameterized.TestCase):
  def load(self, family):
    found = folders.load_pretrained(GOLDEN / family, one_device)
    expected = safetensors.load_file(
      epath.Path(GOLDEN / family / "expected.safetensors")
    )
    return found, expected

  @parameterized.parameters(*FAMILIES)
  def test_logits(self, family):
    found, expected = self.load(family)
    names = ("prompts", "prompt_mask", "responses")
    batch = [jnp.asarray(expected[name]) for name in names]
    got = found.model.response_logits(found.params, *batch)
    self.assertEqual(got.dtype, jnp.float32)
    np.testing.assert_allclose(got, expected["logits"], atol=1e-4)

  @parameterized.parameters(*FAMILIES)
  def test_greedy_continuation(self, family):
    found, expected = self.load(family)
    got = greedy(found, expected, expected["continuation"].shape[1])
    np.testing.assert_array_equal(got, expected["continuation"])

  @parameterized.parameters(*FAMILIES)
  def test_written_folder_is_read_back_bit_for_bit(self, family):
    found, _ = self.load(family)
    folder = pathlib.Path(self.create_tempdir())
    # Small files, so that there are many, and an index.
    save(folder, found, max_file_bytes=30_000, beside=GOLDEN / family)
    self.assertGreater(len(list(folder.glob("model-*.safetensors"))), 2)
    again = folders.load_pretrained(folder, one_device)
    self.assertEqual(again.config, found.config)
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


class PlacementTest(parameterized.TestCase):
  def test_each_device_gets_its_part(self):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def split_vocabulary(shapes):
      # 8 devices: the stacked mlp matrices [N, D, F = 40] along F.
      def rule(path, leaf):
        wide = path[-1].key in ("gate", "up")
        spec = PartitionSpec(None, None, "data") if wide else PartitionSpec()
        return NamedSharding(mesh, spec)

      return jax.tree_util.tree_map_with_path(rule, shapes)

    config = tiny_config()
    made = models.make_model(config)
    start = folders.Pretrained(config, made, made.init(jax.random.key(0)))
    folder = pathlib.Path(self.create_tempdir())
    save(folder, start)
    found = folders.load_pretrained(folder, split_vocabulary)
    gate = found.params["layers"]["mlp"]["gate"]
    self.assertEqual(gate.sharding.spec, PartitionSpec(None, None, "data"))
    self.assertEqual(gate.addressable_shards[0].data.shape, (3, 12, 5))
    jax.tree.map(np.testing.assert_array_equal, found.params, start.params)

  def test_bfloat16_weights_and_computation(self):
    config = tiny_config()._replace(param_dtype="bfloat16", dtype="bfloat16")
    made = models.make_model(config)
    start = folders.Pretrained(config, made, made.init(jax.random.key(0)))
    folder = pathlib.Path(self.create_tempdir())
    save(folder, start)
    self.assertEqual(
      json.loads((folder / "config.json").read_text())["torch_dtype"],
      "bfloat16",
    )
    wide = folders.load_pretrained(folder, one_device)
    half = folders.load_pretrained(
      folder, one_device, param_dtype="bfloat16", dtype="bfloat16"
    )
    jax.tree.map(np.testing.assert_array_equal, half.params, start.params)
    tokens = jnp.array([[3, 4, 5]])
    batch = (tokens, tokens > 0, tokens)
    got = half.model.response_logits(half.params, *batch)
    self.assertEqual(got.dtype, jnp.float32)
    expected = wide.model.response_logits(wide.params, *batch)
    np.testing.assert_allclose(got, expected, atol=0.05)


def tiny_config():
  return models.make_config(
    family="llama",
    vocab_size=13,
    width=12,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    head_dim=6,
    mlp_dim=40,
    rope_base=100.0,
  )


class MistakesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir()) / "model"
    shutil.copytree(GOLDEN / "llama", self.folder)

  def change_config(self, **changes):
    path = self.folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | changes))

  def refused(self, regex):
    with self.assertRaisesRegex(ValueError, regex):
      folders.load_pretrained(self.folder, one_device)

  def test_all_that_does_not_fit_is_listed_at_once(self):
    path = self.folder / folders.WEIGHTS
    tensors = safetensors.load_file(epath.Path(path))
    tensors["stranger"] = np.zeros(2, np.float32)
    del tensors["model.norm.weight"]
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1]
    safetensors.save_file(
      epath.Path(path),
      {key: (x.shape, x.dtype) for key, x in tensors.items()},
      tensors.__getitem__,
    )
    self.refused(
      r"missing: model\.norm\.weight; unknown: stranger; of another shape: "
      rf"{name} is \[43, 36\], not \[44, 36\]"
    )

  def test_unknown_architecture(self):
    self.change_config(model_type="mamba")
    self.refused("model_type is 'mamba', expected one of")

  def test_settings_that_are_not_supported(self):
    self.change_config(attention_bias=True, mlp_bias=True)
    self.refused("attention_bias = True .*; mlp_bias = True")

  def test_other_rotary_scaling(self):
    self.change_config(rope_parameters={"rope_type": "dynamic"})
    self.refused("rope_type is 'dynamic'")

  def test_no_weights(self):
    (self.folder / folders.WEIGHTS).rename(self.folder / "pytorch_model.bin")
    self.refused("only safetensors are read")

  def test_cut_off_weights(self):
    path = self.folder / folders.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    self.refused("bytes for what takes")

  def test_an_architecture_that_no_family_has_is_not_written(self):
    config = tiny_config()._replace(logit_soft_cap=3.0)
    start = folders.Pretrained(config, None, {})
    with self.assertRaisesRegex(ValueError, r"\['logit_soft_cap'\] have"):
      save(self.folder / "new", start)
    self.assertFalse((self.folder / "new").exists())

  def test_no_config(self):
    (self.folder / "config.json").unlink()
    self.refused("config.json: cannot be read")


if __name__ == "__main__":
  absltest.main()
