"""Weights as they are found: the right tensor is read, or one sentence."""

import json
import pathlib
import shutil

from absl.testing import absltest, parameterized
from etils import epath
import jax
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.hub import folders, safetensors, weights
from tests import hub_test

ONE, TWO = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def write(path: pathlib.Path, tensors) -> None:
  safetensors.save_file(
    epath.Path(path),
    {name: (x.shape, x.dtype) for name, x in tensors.items()},
    tensors.__getitem__,
  )


class FolderCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "model"

  def take(self, family):
    """A golden folder without its weights, and these."""
    shutil.copytree(hub_test.GOLDEN / family, self.folder)
    path = self.folder / weights.WEIGHTS
    tensors = safetensors.load_file(epath.Path(path))
    path.unlink()
    return tensors

  def headers(self):
    return weights.load_headers(epath.Path(self.folder))

  def chosen(self):
    config = folders.load_config(self.folder)
    return weights.chosen(self.folder, config, self.headers())

  def refused(self, regex, load=None):
    with self.assertRaisesRegex(mistakes.Mistake, regex) as caught:
      (load or self.chosen)()
    self.assertStartsWith(str(caught.exception), str(self.folder))
    self.assertLess(len(str(caught.exception)) - len(str(self.folder)), 200)


class IndexTest(FolderCase):
  def setUp(self):
    super().setUp()
    own = self.take("llama")
    self.names = sorted(own)
    half = len(own) // 2
    self.first, self.second = (
      {name: own[name] for name in part}
      for part in (self.names[:half], self.names[half:])
    )
    self.where = dict.fromkeys(self.first, ONE) | dict.fromkeys(
      self.second, TWO
    )

  def index(self, value):
    (self.folder / weights.INDEX).write_text(json.dumps(value))

  def test_the_file_that_the_index_names_for_a_tensor(self):
    name = self.names[0]
    old = {name: np.zeros_like(self.first[name])}
    write(self.folder / ONE, self.first)
    write(self.folder / TWO, self.second | old)
    self.index({"weight_map": self.where})
    found = self.headers()
    self.assertEqual(found[name].path.name, ONE)
    np.testing.assert_array_equal(
      safetensors.load_tensor(found[name]), self.first[name]
    )
    self.index({"weight_map": self.where | {name: TWO}})
    self.assertEqual(self.headers()[name].path.name, TWO)

  @parameterized.parameters(
    (None, f"has {ONE}, {TWO} but no {weights.INDEX}"),
    ([], "maps no tensor to a file"),
    ({"metadata": {}}, "maps no tensor to a file"),
    ({"weight_map": {}}, "maps no tensor to a file"),
    ({"weight_map": []}, "maps no tensor to a file"),
    ({"weight_map": {"x": None}}, "names None; only safetensors"),
    ({"weight_map": {"x": "pytorch_model.bin"}}, "names pytorch_model.bin; on"),
    ({"weight_map": {"x": "../model.safetensors"}}, "names ../model"),
    ({"weight_map": {"x": ONE}}, f"x not in the file that {weights.INDEX}"),
    (
      {"weight_map": {str(i): f"{i}.safetensors" for i in range(5)}},
      f"names 0.* and 2 more, not there; there is {ONE}, {TWO}, so get",
    ),
  )
  def test_an_index_that_does_not_belong(self, value, message):
    write(self.folder / ONE, self.first)
    write(self.folder / TWO, self.second)
    if value is not None:
      self.index(value)
    self.refused(message)

  def test_two_models_in_one_folder(self):
    write(self.folder / ONE, self.first)
    write(self.folder / TWO, self.second)
    write(self.folder / weights.WEIGHTS, self.first | self.second)
    self.index({"weight_map": self.where})
    self.refused("holds both model.safetensors and .* delete the old one")
    self.index({"weight_map": dict.fromkeys(self.where, weights.WEIGHTS)})
    self.assertLen(self.headers(), len(self.names))


class NamesTest(FolderCase):
  def put(self, tensors):
    write(self.folder / weights.WEIGHTS, tensors)

  @parameterized.parameters("encoder", "decoder", "both")
  def test_the_embedding_of_t5_under_its_other_names(self, which):
    own = self.take("t5")
    words = own.pop("shared.weight")
    for stack in ("encoder", "decoder"):
      if which in (stack, "both"):
        own[f"{stack}.embed_tokens.weight"] = words
    self.put(own)
    found = folders.load_pretrained(self.folder, hub_test.one_device)
    np.testing.assert_array_equal(found.params["embedding"], words)

  def test_an_embedding_of_t5_that_differs(self):
    own = self.take("t5")
    for other in (own["shared.weight"] + 1, np.full((3, 3), np.nan, "float32")):
      self.put(own | {"encoder.embed_tokens.weight": other})
      self.refused("encoder.embed_tokens.weight is another matrix than shared")

  def test_a_head_beside_a_tied_embedding(self):
    own = self.take("gemma2")
    words = own["model.embed_tokens.weight"]
    self.put(own | {weights.HEAD: words})
    self.assertEqual(set(self.chosen()), set(own))
    for head in (words * 2, words[:7], words.astype(np.float16)):
      self.put(own | {weights.HEAD: head})
      self.refused("lm_head.weight is another .* set tie_word_embeddings to fa")

  @parameterized.parameters(
    ("language_model.model.", "language_model.lm_head.weight"),
    ("model.language_model.", "lm_head.weight"),
  )
  def test_the_text_of_a_model_of_text_and_images(self, prefix, head):
    own = self.take("gemma3_text")
    eyes = {
      "vision_tower.patch.weight": np.ones(3, np.float32),
      "model.multi_modal_projector.norm.weight": np.ones(3, np.float32),
    }
    named = {prefix + name.removeprefix("model."): x for name, x in own.items()}
    named[head] = own["model.embed_tokens.weight"]
    self.put(named | eyes)
    found = self.chosen()
    self.assertEqual(set(found), set(own))
    for name, x in own.items():
      np.testing.assert_array_equal(safetensors.load_tensor(found[name]), x)

  @parameterized.parameters(
    ("score.weight", "a head of scores"),
    ("v_head.summary.weight", "a head of scores"),
    ("base_model.model.model.norm.weight", "adapters beside their base"),
    ("model.layers.0.mlp.up_proj.lora_A.weight", "merge them"),
    ("model.layers.0.mlp.up_proj.weight_scale", "quantised weights"),
  )
  def test_folders_of_another_kind(self, name, message):
    own = self.take("llama")
    self.put(own | {name: np.ones(3, np.float32)})
    self.refused(message)

  def test_other_prefixes_and_types(self):
    own = self.take("llama")

    def load():
      folders.load_pretrained(self.folder, hub_test.one_device)

    self.put({f"transformer.{name}": x for name, x in own.items()})
    self.refused(
      "no tensor has a name .* model.embed_tokens.*is transformer", load
    )
    self.put({name: x.astype(np.int32) for name, x in own.items()})
    self.refused("not of floating point: .* is int32, .* more", load)

  @parameterized.parameters(
    (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer to wei"),
    (b"\x02" + bytes(7) + b"[]", "no header of safetensors"),
  )
  def test_what_is_no_weights(self, content, message):
    self.take("llama")
    (self.folder / weights.WEIGHTS).write_bytes(content)
    self.refused(message)

  @parameterized.parameters("F8_E4M3", "I8")
  def test_types_that_are_not_known(self, dtype):
    self.take("llama")
    entry = {"dtype": dtype, "shape": [1], "data_offsets": [0, 1]}
    text = json.dumps({"lm_head.weight": entry}).encode()
    (self.folder / weights.WEIGHTS).write_bytes(
      len(text).to_bytes(8, "little") + text + b"0"
    )
    self.refused(f"type {dtype}, .* not quantised")


class SavedOverTest(FolderCase):
  @parameterized.parameters(
    (30_000, 10**9), (10**9, 30_000), (30_000, 60_000), (10**9, 10**9)
  )
  def test_what_was_saved_last_is_what_is_read(self, before, after):
    found = folders.load_pretrained(
      hub_test.GOLDEN / "qwen2", hub_test.one_device
    )
    hub_test.save(self.folder, found, max_file_bytes=before)
    for name in (*folders.ADAPTERS, "merges.txt", "notes.txt"):
      (self.folder / name).write_text("{}")
    last = found._replace(params=jax.tree.map(lambda x: x + 1, found.params))
    hub_test.save(
      self.folder,
      last,
      max_file_bytes=after,
      beside=hub_test.GOLDEN / "qwen2",
    )
    again = folders.load_pretrained(self.folder, hub_test.one_device)
    jax.tree.map(np.testing.assert_array_equal, again.params, last.params)
    # No adapters and no tokenizer of before; what is not a model's stays.
    names = {path.name for path in self.folder.iterdir()}
    self.assertEmpty(names & set((*folders.ADAPTERS, "merges.txt")))
    self.assertIn("notes.txt", names)


if __name__ == "__main__":
  absltest.main()
