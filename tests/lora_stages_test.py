"""Adapters through the stages: what is trained, held, saved and written."""

import pathlib
import shutil
import tempfile

from absl.testing import absltest, parameterized
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tldr_decoder, tldr_t5
from nashmd_jax import models
from nashmd_jax import task as task_lib
from nashmd_jax.hub import peft, pretrained
from nashmd_jax.judges import scorers, table
from nashmd_jax.models import lora
from nashmd_jax.stages import (
  comparisons,
  export,
  judge_templates,
  judging,
  preference,
)
from nashmd_jax.training import checkpoints, metrics, optimizer, sharding, state
from tests import hub_test, lora_runs, small_records

TRAINED = ("sft", "preference", "reward", "nash/mixed", "nash/followed")
RATES = dict(
  learning_rate=1e-3, warmup_steps=0, decay_steps=0, max_grad_norm=1.0
)  # fmt: skip
OPTIMIZERS = {
  "adamw": dict(name="adamw", b1=0.9, b2=0.98, weight_decay=0.1, **RATES),
  "adafactor": dict(name="adafactor", decay_rate=0.8, **RATES),
}


def assert_equal(found, expected) -> None:
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def differs(one, other) -> bool:
  return any(
    (a != b).any()
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
  )


@pytest.mark.slow
class StagesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.config = lora_runs.config(small_records.write(folder / "records"))
    cls.workdir = folder / "run"
    cls.ends = lora_runs.run(cls.config, cls.workdir)
    cls.task = lora_runs.load_task(cls.config, cls.workdir)
    shapes = task_lib.trained_shapes(cls.task, "model")
    cls.size = lora_runs.numbers(shapes)
    cls.base = jax.device_get(task_lib.base_params(cls.task, "model"))

  def saved(self, job: str, name: str = "params"):
    return jax.device_get(
      task_lib.load_trained(self.task, "model", self.workdir / job, name=name)
    )

  def test_the_path_ends_in_a_report(self):
    self.assertCountEqual(self.ends, TRAINED)
    for job in TRAINED:
      rows = metrics.load_metrics(self.workdir / job / "metrics.jsonl")
      self.assertTrue(np.isfinite([row["loss"] for row in rows]).all(), job)
    self.assertTrue((self.workdir / "report" / "index.html").exists())

  @parameterized.parameters(*TRAINED)
  def test_the_base_stays_and_is_held_once(self, job):
    end = self.ends[job]
    assert_equal(end.frozen["base"], self.base)
    for name, held in {**end.frozen, "params": end.params}.items():
      if name != "base":
        self.assertEqual(lora_runs.numbers(held), self.size, name)
    judges = ("preference", "reward") if job == "nash/mixed" else ()
    sets = {"base", *judges}
    if job.startswith("nash"):
      sets |= {"reference", "preference"}
    self.assertEqual(set(end.frozen), sets)

  def test_the_reference_is_the_adapters_of_sft(self):
    for job in ("nash/mixed", "nash/followed"):
      assert_equal(self.ends[job].frozen["reference"], self.saved("sft"))
      self.assertTrue(differs(self.ends[job].params, self.saved("sft")))

  def test_only_adapters_are_saved(self):
    for job in TRAINED:
      held = lora_runs.saved_shapes(self.workdir / job)
      step = held["optimizer"].pop("step")
      self.assertEqual(step, ())
      sizes = {"params": 1, "optimizer": 2}
      if job == "nash/followed":
        sizes |= {"ema": 1, "past": 2}
      self.assertEqual(set(held), set(sizes))
      for name, copies in sizes.items():
        arrays = {path: x for path, x in held[name].items() if x != ()}
        total = sum(np.prod(shape, dtype=int) for shape in arrays.values())
        self.assertEqual(total, copies * self.size, (job, name))
        for path in arrays:
          self.assertRegex(path, r"(query|value)/(a|b)$")

  def test_where_judges_start(self):
    starts = {}
    for kind in ("preference", "reward"):
      drawn = comparisons.load(self.config, self.workdir)
      built = preference.make_experiment(
        self.config, self.task, kind, drawn, self.workdir
      )
      starts[kind], frozen = built.init(None)
      self.assertEqual(set(frozen), {"base"})
      self.assertTrue(differs(self.ends[kind].params, starts[kind]))
    assert_equal(starts["preference"], self.saved("sft"))
    for path, leaf in jax.tree.leaves_with_path(starts["reward"]):
      self.assertEqual(bool(leaf.any()), path[-1].key == "a")

  def test_followers_are_adapters_that_follow(self):
    end = self.ends["nash/followed"]
    start, average = self.saved("sft"), end.followers["ema"]
    self.assertTrue(differs(average, start))
    self.assertTrue(differs(average, end.params))
    past = end.followers["past"]
    self.assertEqual(int(past.count), 3)  # θ_0, then after 2 and 4 steps
    assert_equal(jax.tree.map(lambda x: x[1], past.snapshots),
                 self.saved_at("nash/followed", 2))  # fmt: skip

  def saved_at(self, job, step):
    folder = self.workdir / job
    with checkpoints.make_checkpointer(folder) as checkpointer:
      like = jax.tree.map(jnp.zeros_like, self.ends[job].params)
      held = checkpointer.orbax.load_checkpointables(step, {"params": like})
    return jax.device_get(held["params"])

  def test_a_resumed_run_is_the_uncut_one(self):
    job, copy = "nash/followed", self.workdir.parent / "cut"
    shutil.copytree(self.workdir, copy)
    shutil.rmtree(copy / job / "checkpoints" / "4")
    end = lora_runs.run(self.config, copy, job)[job]
    assert_equal(end, self.ends[job])
    rows = (metrics.load_metrics(w / job / "metrics.jsonl")
            for w in (copy, self.workdir))  # fmt: skip
    self.assertEqual(*rows)

  def test_a_whole_folder_gives_the_logits_of_base_and_adapters(self):
    batch = tokens(self.task)
    for name, lane, trained in (
      ("mixed", {"policy": 0.875, "reference": 0.125}, "policy reference"),
      ("followed", {"policy": 1.0}, "ema"),
    ):
      folder = self.workdir / "export" / name
      found = export.load_deployed(folder, hub_test.one_device)
      self.assertEqual(found.lane, lane)
      names = dict(zip(lane, trained.split(), strict=True))
      self.assertNotEmpty(list(folder.rglob("tokenizer.json")))
      stored = {
        "policy": self.saved(f"nash/{name}"),
        "reference": self.saved("sft"),
        **self.ends[f"nash/{name}"].followers,
        "base": self.base,
      }
      for which, own in names.items():
        ready = jax.jit(lambda sets, own=own: self.task.ready(sets, [own]))
        np.testing.assert_allclose(
          found.model.response_logits(found.sets[which], *batch),
          self.task.model.response_logits(ready(stored)[own], *batch),
          atol=1e-4,
        )


def tokens(task: task_lib.Task) -> list[jax.Array]:
  """Prompts, their mask, and responses, of the first tokens there are."""
  prompts, responses = (
    3 + jnp.arange(rows * 6).reshape(rows, 6) % (task.tokenizer.vocab_size - 3)
    for rows in (4, 4)
  )
  return [prompts, prompts > 4, responses]


class SizeTest(parameterized.TestCase):
  """A checkpoint of adapters of rank 8 is at most 5 % of a whole one."""

  @parameterized.parameters(*OPTIMIZERS)
  def test_of_t5_large(self, name):
    made = pretrained.architecture(
      tldr_t5.get_config(), "model", vocab_size=32_128
    )
    model = models.make_model(made)
    whole = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    self.assertGreater(lora_runs.numbers(whole), 7e8)
    tx = optimizer.make_optimizer(**OPTIMIZERS[name])

    def size(params):
      return lora_runs.numbers((params, jax.eval_shape(tx.init, params)))

    def adapters(targets):
      return jax.eval_shape(
        lambda: lora.init_lora(
          jax.random.key(0), whole, rank=8, targets=targets
        )
      )

    for targets in (lora_runs.TARGETS, tuple(lora.INPUT_AXES)):
      share = size(adapters(targets)) / size(whole)
      self.assertBetween(share, 1e-4, 0.05, targets)

  @parameterized.parameters(*OPTIMIZERS)
  def test_on_disk(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertLessEqual(share_on_disk(name, folder), 0.05)


def share_on_disk(name: str, folder: pathlib.Path) -> float:
  """Bytes of a checkpoint of adapters of rank 8, of one of all parameters."""
  made = models.make_config(
    family="t5", vocab_size=2048, width=256, num_heads=4, head_dim=64,
    mlp_dim=1024, encoder_layers=1, decoder_layers=1, num_buckets=8,
    max_distance=16,
  )  # fmt: skip
  whole = models.make_model(made).init(jax.random.key(0))
  adapters = lora.init_lora(
    jax.random.key(0), whole, rank=8, targets=lora_runs.TARGETS
  )
  tx = optimizer.make_optimizer(**OPTIMIZERS[name])
  sizes = []
  for number, params in enumerate((whole, adapters)):
    place = folder / str(number)
    now = state.init_state(params, {"base": whole}, tx, {})
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    with checkpoints.make_checkpointer(place) as checkpointer:
      checkpoints.save(checkpointer, 1, now, batches)
    files = [path for path in place.rglob("*") if path.is_file()]
    sizes.append(sum(path.stat().st_size for path in files))
  return sizes[1] / sizes[0]


class FolderTest(parameterized.TestCase):
  @pytest.mark.slow
  def test_adapters_of_t5_beside_the_folder_they_started_in(self):
    self.check_folder(tldr_t5)

  @pytest.mark.slow
  def test_adapters_of_a_decoder_beside_the_folder_they_started_in(self):
    self.check_folder(tldr_decoder)

  def check_folder(self, file):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made = file.get_config("tiny").unlock()
    records = small_records.write(folder / "records")
    made.data.update({"records": str(records), "schema": "summary"})
    made.lora.update(
      {"rank": lora_runs.RANK, "targets": tuple(lora.INPUT_AXES)}
    )
    made.export.update({"policies": ("sft",), "form": "peft"})
    workdir = folder / "run"
    end = lora_runs.run(made, workdir, "start", "sft", "export")["sft"]
    task = lora_runs.load_task(made, workdir)
    start = task_lib.base_params(task, "model")
    # As it is run and kept, the base is in bfloat16; its folder is not.
    assert_equal(end.frozen["base"], sharding.cast(start, "bfloat16"))
    place = workdir / "export" / "sft"
    told = peft.load_settings(place)["base_model_name_or_path"]
    self.assertEqual(told, str(workdir.absolute() / "start" / "model"))
    self.assertFalse((place / "model.safetensors").exists())
    found = export.load_deployed(place, hub_test.one_device)
    expected = lora.attach(start, end.params, alpha=made.lora.alpha)
    assert_equal(found.sets["policy"], expected)
    before = found.model.response_logits(start, *tokens(task))
    after = found.model.response_logits(expected, *tokens(task))
    self.assertGreater(float(jnp.abs(after - before).max()), 1e-6)

  def test_a_judge_of_another_start_has_a_base_of_its_own(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made = lora_runs.config(small_records.write(folder / "records"))
    made.judge_model.width, made.preference.start_from_sft = 24, False
    lora_runs.run(made, folder, "start")
    task = lora_runs.load_task(made, folder)
    sets = judging.load_sets(made, task, folder, [], *pretrained.SECTIONS)
    self.assertEqual(set(sets), {"base", "judge_base"})
    sets["reward"] = task_lib.init_trained(task, "judge_model")
    prompts, mask, responses = tokens(task)
    segments = (prompts, mask), (responses, responses > 0)
    scorer = table.find("reward", setting="nash.judge")
    judge = judging.token_judge(made, task, scorer)
    whole = scorers.make_reward_scorer(
      task.judge_model,
      sets["judge_base"],
      judge_templates.make_template(made, task.tokenizer, "reward"),
    )
    found = jax.jit(lambda sets: judge(sets)(*segments))(sets)
    np.testing.assert_allclose(found, whole(*segments), rtol=1e-4, atol=1e-5)
    self.assertGreater(float(jnp.abs(found).min()), 0)


if __name__ == "__main__":
  absltest.main()
