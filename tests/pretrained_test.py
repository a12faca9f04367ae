"""A run from folders and people's comparisons to folders, and its mistakes."""

import json
import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
import numpy as np
import pytest

from configs import tldr_decoder, tldr_t5
from nashmd_jax import files, models, sampling
from nashmd_jax.hub import folders, peft, pretrained
from nashmd_jax.models import lora
from nashmd_jax.nash import opponents
from nashmd_jax.stages import export
from tests import main_test

CONFIG = "configs/tldr_t5.py"


def tiny_config():
  return tldr_t5.get_config("tiny").unlock()


def on_one_device(shapes):
  place = SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda _: place, shapes)


class StartTest(parameterized.TestCase):
  VOCAB = 50

  def setUp(self):
    super().setUp()
    self.config = tiny_config()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)
    data = self.workdir / "data"
    data.mkdir()
    (data / "tokenizer.json").write_text("{}")
    made = pretrained.architecture(self.config, "model", vocab_size=self.VOCAB)
    self.place = pretrained.random_folder(self.workdir, "model")
    pretrained.write_random(
      self.place,
      made,
      tokenizer=data / "tokenizer.json",
      settings={"eos_token_id": 1},
      rng=jax.random.key(0),
    )

  def load(self, vocab_size=VOCAB):
    return pretrained.load_start(
      self.config, self.workdir, "model", vocab_size=vocab_size
    )

  def test_parameters_are_those_of_the_folder(self):
    start = self.load()
    self.assertEqual(start.folder, self.place)
    expected = models.make_model(start.config).init(jax.random.key(0))
    loaded = folders.load_pretrained(
      start.folder, on_one_device, dtype="bfloat16", remat="full"
    )
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)

  def test_a_folder_may_have_more_tokens_than_the_tokenizer(self):
    self.assertEqual(self.load(vocab_size=40).config.vocab_size, self.VOCAB)

  def test_no_folder_is_a_random_start(self):
    self.config.model.pretrained = None
    start = self.load()
    self.assertIsNone(start.folder)
    self.assertEqual(start.config.vocab_size, self.VOCAB)

  def test_tokenizer_of_another_model(self):
    with self.assertRaisesRegex(ValueError, "ids below 50, .* up to id 59;"):
      self.load(vocab_size=60)

  def test_sizes_that_differ_are_listed(self):
    self.config.model.update({"width": 24, "encoder_layers": 3})
    with self.assertRaisesRegex(
      ValueError, "has width 16, not 24, encoder_layers 1, not 3; leave"
    ):
      self.load()

  def test_another_family(self):
    self.config.model.pretrained = str(
      pathlib.Path(__file__).parent / "golden" / "llama"
    )
    with self.assertRaisesRegex(
      ValueError, "llama: is a llama, not the t5 that config.model says; lea"
    ):
      self.load(vocab_size=5)

  @parameterized.parameters(
    ("2b", dict(hidden_size=2304, num_hidden_layers=26), 9216, 8),
    ("9b", dict(hidden_size=3584, num_hidden_layers=42), 14_336, 16),
  )
  def test_layers_may_be_spelt_out_or_a_pattern(self, size, own, wide, heads):
    # What config.json of google/gemma-2-* say.
    place = self.workdir / "gemma"
    place.mkdir()
    settings = {
      "model_type": "gemma2",
      "attn_logit_softcapping": 50.0,
      "final_logit_softcapping": 30.0,
      "head_dim": 256,
      "hidden_activation": "gelu_pytorch_tanh",
      "intermediate_size": wide,
      "num_attention_heads": heads,
      "num_key_value_heads": heads // 2,
      "query_pre_attn_scalar": 256,
      "rms_norm_eps": 1e-6,
      "rope_theta": 10_000.0,
      "sliding_window": 4096,
      "vocab_size": 256_000,
    }
    (place / "config.json").write_text(json.dumps(settings | own))
    self.config = tldr_decoder.get_config(size).unlock()
    self.config.model.pretrained = str(place)
    start = self.load(vocab_size=256_000)
    self.assertLen(start.config.local_layers, own["num_hidden_layers"])
    self.config.model.local_layers = (True, True)
    with self.assertRaisesRegex(ValueError, r"has local_layers \(True, False"):
      self.load(vocab_size=256_000)

  def test_whether_policy_and_judge_start_alike(self):
    given = [self.config.model, self.config.judge_model]
    self.assertFalse(pretrained.same_start(self.config))  # folders of their own
    for section in given:
      section.pretrained = None
    self.assertFalse(pretrained.same_start(self.config))  # other sizes
    given[1].update({key: given[0][key] for key in given[1]})
    self.assertTrue(pretrained.same_start(self.config))
    for section in given:
      section.pretrained = "random"
    self.assertFalse(pretrained.same_start(self.config))


class ExportTest(absltest.TestCase):
  def test_a_mixture_of_adapters_comes_back_on_one_base(self):
    made = pretrained.architecture(tiny_config(), "model", vocab_size=30)
    made = made._replace(dtype="float32")
    folder = pathlib.Path(self.create_tempdir().full_path)
    base = models.make_model(made).init(jax.random.key(0))
    folders.save_pretrained(
      folder / "base",
      base,
      made,
      settings={},
      beside=None,
      max_file_bytes=folders.MAX_FILE_BYTES,
    )
    sets = {
      name: lora.init_lora(
        jax.random.key(number), base, rank=2, targets=("query", "up")
      )
      for number, name in enumerate(("policy", "reference"))
    }
    export.save_deployed(
      folder / "mixed",
      {"policy": 0.75, "reference": 0.25},
      sets,
      lambda place, adapters, others: peft.save_adapter(
        place, adapters, made, alpha=4.0, base=str(folder / "base")
      ),
    )
    found = export.load_deployed(folder / "mixed", on_one_device)
    self.assertEqual(found.lane, {"policy": 0.75, "reference": 0.25})
    for name, adapters in sets.items():
      expected = lora.attach(base, adapters, alpha=4.0)
      jax.tree.map(np.testing.assert_array_equal, found.sets[name], expected)
    first, second = (
      one["decoder"]["mlp"]["up"].matrix for one in found.sets.values()
    )
    self.assertIs(first, second)

  def test_a_mixture_comes_back_as_it_answered(self):
    made = pretrained.architecture(tiny_config(), "model", vocab_size=30)
    made = made._replace(dtype="float32")
    model = models.make_model(made)
    sets = {
      name: model.init(jax.random.key(number))
      for number, name in enumerate(("policy", "reference"))
    }
    mixture = opponents.make_opponent(
      opponent="mixture", mixture=0.25, mixture_end=0.0, mixture_steps=0
    )
    lane = opponents.deployed_lane(mixture, deploy="mixture", steps=4)
    folder = pathlib.Path(self.create_tempdir().full_path) / "nash_md"

    def save(place, params, others):
      folders.save_pretrained(
        place,
        params,
        made,
        settings={},
        beside=None,
        max_file_bytes=folders.MAX_FILE_BYTES,
      )

    export.save_deployed(folder, lane, sets, save)
    found = export.load_deployed(folder, on_one_device)
    self.assertEqual(found.lane, {"policy": 0.75, "reference": 0.25})
    prompts = jnp.arange(2, 14).reshape(3, 4)

    def answers(deployed):
      return sampling.rollout(
        deployed.model,
        deployed.sets,
        [deployed.lane],
        prompts=prompts,
        prompt_mask=prompts > 0,
        keys=sampling.row_keys(jax.random.key(5), jnp.arange(3), 1),
        max_response=6,
        temperature=1.0,
        eos_ids=(1,),
      )

    jax.tree.map(
      np.testing.assert_array_equal,
      answers(found),
      answers(export.Deployed(model, sets, lane)),
    )
    # A policy alone in its place is one, not a part of what was there.
    export.save_deployed(folder, {"policy": 1.0}, sets, save)
    self.assertEqual(
      export.load_deployed(folder, on_one_device).lane, {"policy": 1.0}
    )


def write_jsonl(path: pathlib.Path, rows) -> None:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_posts(folder: pathlib.Path, count: int) -> None:
  """Posts and comparisons in the schemas of the paper's data."""
  for name in ("posts", "comparisons"):
    (folder / name).mkdir()
  rng = np.random.default_rng(0)
  words = "tomato frost wheel noise garden bike uphill spoke green pick".split()

  def text(size):
    return " ".join(rng.choice(words, size))

  for split in ("train", "validation", "test"):
    posts = [
      {
        "id": f"{split}{number}",
        "subreddit": "gardening",
        "title": text(3),
        "post": text(20),
        "summary": text(5),
      }
      for number in range(count)
    ]
    write_jsonl(folder / "posts" / f"{split}-0.jsonl", posts)
    if split != "test":
      rows = [
        {
          "info": post,
          "summaries": [
            {"text": text(4), "policy": "a"},
            {"text": text(6), "policy": "b"},
          ],
          "choice": number % 2,
          "worker": "w",
        }
        for number, post in enumerate(posts)
      ]
      write_jsonl(folder / "comparisons" / f"{split}.jsonl", rows)


@pytest.mark.slow
class TldrTest(absltest.TestCase):
  def test_from_folders_and_comparisons_to_a_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    write_posts(folder, 24)
    workdir = folder / "run"
    out = main_test.run_main(
      f"--workdir={workdir}",
      f"--config.data.records={folder / 'posts'}",
      f"--config.data.comparisons={folder / 'comparisons'}",
      "--config.tournament.policies=('sft', 'nash_md')",
      "--config.tournament.judges=('preference',)",
      config=f"{CONFIG}:tiny",
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    self.assertIn("openai_comparisons", out.stdout)
    self.assertRegex(
      out.stdout,
      r"nash_md against sft 0\.\d+ .* by the learned preference model: ",
    )
    page = (workdir / "report" / "index.html").read_text()
    self.assertIn("a model that policies were trained against", page)
    self.assertNotIn("simulated raters", page)
    exported = folders.load_pretrained(
      workdir / "export" / "nash_md", on_one_device
    )
    self.assertEqual(exported.config.width, 16)
    origin = files.load_json(workdir / "export" / "nash_md" / "origin.json")
    self.assertEqual(list(origin), ["sft", "nash/nash_md"])
    made = origin["nash/nash_md"]["key"]["settings"]
    self.assertEqual(made["nash.mixture"], 0.125)
    self.assertTrue(
      (workdir / "export" / "nash_md" / "tokenizer.json").exists()
    )

  def test_what_must_be_given(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    out = main_test.run_main(f"--workdir={workdir}", config=CONFIG)
    self.assertEqual(out.returncode, 2)
    self.assertIn("needs to be told --config.data.records=…", out.stderr)

  def test_schema_of_another_kind(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    out = main_test.run_main(
      f"--workdir={workdir}",
      f"--config.data.comparisons={workdir}",
      "--config.data.comparisons_schema=tldr_posts",
    )
    self.assertEqual(out.returncode, 2)
    self.assertIn("schema 'tldr_posts' for a comparison", out.stderr)


if __name__ == "__main__":
  absltest.main()
