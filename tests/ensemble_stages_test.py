"""Ensembles through the stages: members, tournament, page, refusals."""

import json
import pathlib

from absl.testing import absltest, parameterized
import jax
import numpy as np

from configs import docstrings
from nashmd_jax import lanes, mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.data import records as records_lib
from nashmd_jax.nash import settings
from nashmd_jax.stages import (
  comparisons,
  judging,
  learnt_from,
  policies,
  text,
  tournament,
)
from nashmd_jax.training import journal
from tests import lora_runs, main_test, small_records


def made_config(**ensembles):
  """Two members that learn from a half each, and who answers with them."""
  config = docstrings.get_config("tiny").copy_and_resolve_references()
  with config.unlocked():
    config.nash.optimizer.learning_rate = 0.01  # a policy that is not sft
    half = {"loss": "pepo", "design": "records", "judge": "raters", "watch": ()}
    config.nash.runs = {
      "left": half | {"split": {"parts": 2, "part": 0}},
      "right": half | {"split": {"parts": 2, "part": 1}},
    }
    of = {"rule": "minimum", "deviations": 1.0, "proposals": 0}
    config.nash.ensembles = {
      "alone": of | {"members": ("left",)},
      "both": of | {"members": ("left", "sft")},
      "whole": of | {"members": ("left", "sft"), "proposals": 4},
      "halves": of | {"members": ("left", "right")},
    }
    for name, changes in ensembles.items():
      config.nash.ensembles[name].update(changes)
    config.tournament.policies = ("sft", "whole", "both")
    config.tournament.judges = ("raters",)
    config.tournament.log_ratio = True
  return config


def write_comparisons(folder: pathlib.Path) -> str:
  """Comparisons of responses of one word."""
  folder.mkdir()
  for split, count in {"train": 11, "validation": 2}.items():
    rows = [
      small_records.record(i)
      | {"response_a": "sea", "response_b": "lamp", "prob_a": i % 2}
      for i in range(count)
    ]
    for row in rows:
      del row["response"]
    records_lib.save_records(folder / f"{split}.jsonl", rows)
  return str(folder)


class StagesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = main_test.made_folder(cls)
    cls.config = made_config().unlock()
    records = small_records.write(folder / "records")
    cls.config.data.update({
      "records": str(records), "schema": "summary",
      "comparisons": write_comparisons(folder / "comparisons"),
    })  # fmt: skip
    cls.config.lora.rank = lora_runs.RANK
    cls.workdir = folder / "run"
    lora_runs.run(cls.config, cls.workdir)
    cls.task = lora_runs.load_task(cls.config, cls.workdir)
    cls.results = json.loads(
      (cls.workdir / "tournament" / "results.json").read_text()
    )

  def write(self, *names: str, count: int = 8, batch_size: int = 8):
    """What these answer, in the places that they have here."""
    config = self.config.copy_and_resolve_references()
    with config.unlocked():
      config.tournament.policies = names
      config.tournament.batch_size = batch_size
    rows = self.task.splits["test"][:count]
    with lora_runs.on_one_device():
      return policies.write_all(
        config, self.task, self.workdir, rows, journal.anew
      )

  def test_members_learn_from_halves(self):
    splits = comparisons.load(self.config, self.workdir)
    found = [
      learnt_from.training_records(
        settings.run_section(self.config, name), splits, self.config.seed
      )
      for name in ("left", "right")
    ]
    self.assertEqual(sorted(map(len, found)), [5, 6])
    self.assertCountEqual(
      [row["id"] for half in found for row in half],
      [row["id"] for row in splits["train"]],
    )
    held = task_lib.load_trained(self.task, "model", self.workdir / "nash/left")
    start = task_lib.load_trained(self.task, "model", self.workdir / "sft")
    same = jax.tree.map(lambda a, b: bool((a == b).all()), held, start)
    self.assertFalse(all(jax.tree.leaves(same)))

  def test_one_member_is_that_policy_bit_for_bit(self):
    alone, left = self.write("alone"), self.write("left")
    self.assertEqual(alone.responses["alone"], left.responses["left"])
    np.testing.assert_array_equal(
      alone.log_ratios["alone"], left.log_ratios["left"]
    )

  def test_it_enters_tournament_and_report_like_others(self):
    self.assertEqual(self.results["policies"], ["sft", "whole", "both"])
    self.assertEqual(set(self.results["ensembles"]), {"both", "whole"})
    self.assertNotIn("acceptance", self.results["ensembles"]["both"])
    whole = self.results["ensembles"]["whole"]
    self.assertBetween(whole["acceptance"], 0.01, 0.97)
    self.assertLessEqual(whole["none"], 1 - whole["acceptance"] + 1e-6)
    page = (self.workdir / "report" / "index.html").read_text()
    self.assertIn(
      "both was not trained: it answers with the least of the probabilities at "
      "each token of left, sft.",
      page,
    )
    self.assertIn("Of 4 proposals a response it takes", page)

  def test_log_ratios_are_told_of_what_is_known(self):
    folder = self.workdir / "tournament" / "responses"
    found = {
      name: records_lib.load_records(folder / f"{name}.jsonl", "summary")
      for name in ("both", "whole")
    }
    ratios = [row["log_ratio"] for row in found["both"]]
    self.assertTrue(np.isfinite(ratios).all())
    self.assertGreater(np.abs(ratios).max(), 0)
    self.assertNotIn("log_ratio", found["whole"][0])

  def test_what_is_proposed_does_not_depend_on_the_batch(self):
    # With 4 proposals a response: 2 prompts at a time, and 1.
    answers = self.write("sft", "whole", count=3, batch_size=4)
    place = self.workdir / "tournament" / "responses" / "whole.jsonl"
    rows = records_lib.load_records(place, "summary")[:3]
    self.assertEqual(
      answers.responses["whole"], [row["response"] for row in rows]
    )


class SettingsTest(parameterized.TestCase):
  def test_members_are_trained_and_depended_on(self):
    config = made_config()
    self.assertEqual(judging.trained_runs(config), ["left"])
    self.assertEqual(
      tournament.needs(config, "tournament"),
      ["sft", "nash/left"],
    )
    found = tournament.reads(config, "tournament")
    self.assertEqual(found["nash.ensembles.both.rule"], "minimum")
    self.assertNotIn("nash.ensembles.alone.rule", found)
    self.assertEqual(
      settings.policy_lane(config, "both"),
      lanes.Ensemble(("member_0", "member_1"), "minimum", 1.0),
    )
    self.assertEqual(
      settings.policy_lane(config, "whole"),
      lanes.Rejection(("member_0", "member_1"), 4),
    )
    pipeline.check(text.PIPELINE, config)

  def test_the_one_of_the_config_waits_to_be_named(self):
    config = docstrings.get_config("tiny").copy_and_resolve_references()
    with config.unlocked():
      config.tournament.policies = ("sft", "pepo")
    pipeline.check(text.PIPELINE, config)
    self.assertEqual(
      judging.trained_runs(config), ["pepo_0", "pepo_1", "pepo_2"]
    )

  @parameterized.parameters(
    (dict(members=("nobody",)), "nash.ensembles.both.members: 'nobody' is n"),
    (dict(members=("whole",)), "members: 'whole' is an ensemble, which"),
    (dict(members=("mixed",)), "members: 'mixed' deploys a mixture"),
    (dict(members=()), "expected a tuple of texts, 1 or more of them"),
    (dict(rule="mean"), "both.rule: got 'mean', expected one of ('minimum'"),
    (dict(deviations=-1.0), "both.deviations: got -1.0"),
    (
      dict(rule="lower", proposals=3),
      "nash.ensembles.both.proposals: got 3 for the rule 'lower', which is of",
    ),
  )  # fmt: skip
  def test_what_cannot_answer(self, changes, sentence):
    config = made_config(both=changes)
    with config.unlocked():
      config.nash.runs.mixed = {"deploy": "mixture"}
    self.assert_told(config, sentence)

  @parameterized.parameters(
    ({"nash.runs.both": {}}, "nash.ensembles: 'both' is the name of another"),
    ({"export.policies": ("both",)}, "export.policies: 'both' is an ensemble"),
    ({"exploit.policies": ("whole",)}, "draws whole responses by rejection"),
    (
      {"nash.runs.left.opponent": "rival", "nash.runs.left.rival": "both"},
      "nash.rival: 'both' is an ensemble",
    ),
    ({"nash.runs.left.split.part": 2}, "nash.split.part: got 2 of 2 parts"),
  )
  def test_where_it_is_none(self, changes, sentence):
    config = made_config()
    with config.unlocked():
      for name, value in changes.items():
        _set(config, name, value)
    self.assert_told(config, sentence)

  def assert_told(self, config, sentence):
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    self.assertIn(sentence, "\n".join(caught.exception.sentences))

  def test_tokens_of_an_ensemble_may_be_exploited(self):
    config = made_config()
    with config.unlocked():
      config.exploit.policies = ("both",)
    pipeline.check(text.PIPELINE, config)


def _set(config, name: str, value) -> None:
  *path, last = name.split(".")
  for key in path:
    config = config[key]
  config[last] = value


if __name__ == "__main__":
  absltest.main()
