"""What a folder says of its model need not be said by the config."""

import json
import pathlib
import shutil

from absl.testing import absltest, parameterized

from configs import tldr_decoder, tldr_t5, votes
from nashmd_jax import mistakes, tokenization
from nashmd_jax.capacity import pod_check
from nashmd_jax.hub import folders, pretrained
from nashmd_jax.stages import text, trained
from tests import judge_folder_test

GOLDEN = pathlib.Path(__file__).parent / "golden"


def config_of(model, judge=None, variant="tiny_folder"):
  config = tldr_decoder.get_config(variant).unlock()
  config.model.pretrained = str(model)
  config.judge_model.pretrained = str(judge or model)
  return config


class FolderStartTest(parameterized.TestCase):
  def load(self, config, section="model"):
    return pretrained.load_start(config, "nowhere", section, vocab_size=5)

  @parameterized.parameters("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
  def test_any_decoder_without_a_size_in_the_config(self, family):
    config = config_of(GOLDEN / family)
    config.model.attention = "xla"
    for section in pretrained.SECTIONS:
      found = self.load(config, section).config
      expected = folders.load_config(
        GOLDEN / family, dtype="bfloat16", remat="full", attention="xla"
      )
      self.assertEqual(found, expected)
    with config.unlocked():
      config.tokenizer.file = "tokenizer.json"
      text.PIPELINE.check(config, findings := mistakes.Findings())
    self.assertEmpty(findings.sentences)

  def test_any_t5(self):
    config = tldr_t5.get_config("folder").unlock()
    config.model.pretrained = str(GOLDEN / "t5")
    self.assertEqual(self.load(config).config.width, 28)

  def test_a_judge_of_another_family(self):
    config = config_of(GOLDEN / "llama", GOLDEN / "qwen2")
    # Said of the policy; the judge's folder is not asked for it.
    config.model.update({"family": "llama", "tied": False})
    self.assertFalse(self.load(config).config.qkv_bias)
    self.assertTrue(self.load(config, "judge_model").config.qkv_bias)
    config.judge_model.head_dim = 99
    with self.assertRaisesRegex(mistakes.Mistake, "judge_model says.* not 99;"):
      self.load(config, "judge_model")

  @parameterized.parameters(
    (
      {"width": 1},
      "qwen2: is another .*config.model says, has width 40, not 1;",
    ),
    ({"family": "llama"}, "qwen2: is a qwen2, not the llama that config.model"),
    ({"encoder_layers": 1}, r"a qwen2, as .* has no \['encoder_layers'\]"),
    ({"dtype": "int4"}, "model.dtype: got 'int4'"),
  )
  def test_what_contradicts_the_folder(self, said, message):
    config = config_of(GOLDEN / "qwen2")
    config.model.update(said)
    with self.assertRaisesRegex(ValueError, message):
      self.load(config)

  def test_a_job_depends_on_what_the_folder_says(self):
    place = pathlib.Path(self.create_tempdir().full_path) / "model"
    shutil.copytree(GOLDEN / "gemma2", place)
    config = config_of(place)
    first = trained.reads(config, "judge_model")
    self.assertEqual(first["model.width"], 36)
    self.assertEqual(first["judge_model.family"], "gemma2")
    # The same said twice, in another spelling.
    config.model.local_layers = (True, False)
    self.assertEqual(trained.reads(config, "judge_model"), first)
    settings = json.loads((place / "config.json").read_text())
    settings["rms_norm_eps"] = 0.5
    (place / "config.json").write_text(json.dumps(settings))
    second = trained.reads(config, "judge_model")
    changed = {key for key in first if first[key] != second[key]}
    self.assertEqual(
      changed, {"model.norm_epsilon", "judge_model.norm_epsilon"}
    )

  def test_tokens_that_the_model_does_not_know(self):
    place = pathlib.Path(self.create_tempdir().full_path) / "model"
    shutil.copytree(GOLDEN / "llama", place)
    known = folders.load_config(place).vocab_size
    words = ("river", "lamp", *map(str, range(known - 5)))
    judge_folder_test.write(place, words, added=("<image>", "<audio>"))
    config = config_of(place)
    config.tokenizer.update({"eos_token": "</s>", "bos_token": None})

    def load():
      _, tokenizer = tokenization.load_tokenizer(config, place, {})
      return tokenizer

    tokenizer = load()
    self.assertEqual(tokenizer.vocab_size, known)
    self.assertEqual(tokenizer.special_ids, (0, 1, 2))
    self.assertEqual(tokenizer.encode("lamp"), [4])
    self.assertLess(max(tokenizer.encode("<image> lamp <audio>")), known)
    start = pretrained.load_start(
      config, place, "model", vocab_size=tokenizer.vocab_size
    )
    self.assertEqual(start.config.vocab_size, known)
    config.tokenizer.eos_token = "<image>"
    with self.assertRaisesRegex(
      mistakes.Mistake, f"'<image>' is id {known}, and the model has ids below"
    ):
      load()
    # A word is not a mark: text may have it at any place.
    judge_folder_test.write(place, (*words, "stone"))
    config.tokenizer.eos_token = "</s>"
    with self.assertRaisesRegex(
      mistakes.Mistake, f"has text up to id {known};"
    ):
      pretrained.load_start(
        config, place, "model", vocab_size=load().vocab_size
      )

  def test_neither_folder_nor_sizes(self):
    for config in (votes.get_config("smollm2"), tldr_t5.get_config("folder")):
      with self.assertRaisesRegex(mistakes.Mistake, "model: names no folder"):
        pod_check.checked(text.PIPELINE, config)
    with config.unlocked():
      config.model.update({"family": "llama", "width": 3, "depth": 2})
    with self.assertRaisesRegex(
      ValueError, r"missing \['head_dim', .* unknown \['depth'\]"
    ):
      self.load(config)


if __name__ == "__main__":
  absltest.main()
