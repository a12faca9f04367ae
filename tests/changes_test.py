"""Changed settings that are let through: what stands, and what is noted."""

import pathlib

from absl.testing import absltest

from nashmd_jax import changes, files, mistakes, workdir

FACTS = {"records": "abc"}


def keys(seed=0, beta=0.5, records="abc"):
  """Keys of a stage, of one that reads it, and of one that reads both."""
  first = workdir.make_key(
    {"seed": seed, "sft.lr": 1}, {"records": records}, {}
  )
  second = workdir.make_key({"nash.beta": beta}, {}, {"sft": first})
  third = workdir.make_key({}, {}, {"sft": first, "nash": second})
  return {"sft": first, "nash": second, "report": third}


class ChangesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    for job, key in keys().items():
      workdir.begin(self.folder, job, key)

  def noted(self, job):
    return files.load_json(self.folder / job / "key.json").get("allowed")

  def refused(self, wanted, names):
    lines = changes.allow(self.folder, wanted, names)
    with self.assertRaises(mistakes.Mistake) as caught:
      workdir.check_keys(self.folder, wanted)
    return lines, caught.exception.sentences

  def test_nothing_changed_is_nothing_noted(self):
    self.assertEmpty(changes.allow(self.folder, keys(), ["seed"]))
    self.assertIsNone(self.noted("sft"))
    workdir.check_keys(self.folder, keys())

  def test_what_is_named_stands_with_all_that_was_made_of_it(self):
    wanted = keys(seed=1)
    lines = changes.allow(self.folder, wanted, ["seed"])
    self.assertEqual(
      lines,
      [
        "sft: stands, although seed was 0 and is now 1",
        "nash: stands, although what it needs has changed",
        "report: stands, although what it needs has changed",
      ],
    )
    workdir.check_keys(self.folder, wanted)
    self.assertEqual(self.noted("sft"), [{"seed": [0, 1]}])
    self.assertEqual(self.noted("report"), [{}])
    self.assertEmpty(changes.allow(self.folder, wanted, ["seed"]))
    again = keys(seed=2)
    changes.allow(self.folder, again, ["seed"])
    self.assertEqual(self.noted("sft"), [{"seed": [0, 1]}, {"seed": [1, 2]}])

  def test_what_is_not_named_is_refused_as_a_list(self):
    wanted = keys(seed=1, beta=0.25, records="x")
    lines, (first, second) = self.refused(wanted, ["seed"])
    self.assertEmpty(lines)
    self.assertIn("seed was 0 and is now 1; records was 'abc'", first)
    self.assertIn("nash.beta was 0.5 and is now 0.25", second)
    self.assertIn("--allow_config_change=nash.beta", second)
    self.assertIsNone(self.noted("sft"))

  def test_sections_and_facts_are_names_too(self):
    wanted = keys(beta=0.25, records="x")
    self.assertLen(changes.allow(self.folder, wanted, ["nash", "records"]), 3)
    workdir.check_keys(self.folder, wanted)

  def test_a_name_that_nothing_depends_on(self):
    with self.assertRaisesRegex(mistakes.Mistake, "depends on nash.bet;"):
      changes.allow(self.folder, keys(beta=1), ["nash.bet"])

  def test_what_another_workdir_made_is_not_touched(self):
    place = self.folder / "mine"
    place.mkdir()
    (place / "sft").symlink_to(self.folder / "sft")
    self.assertEmpty(changes.allow(place, keys(seed=1), ["seed"]))
    self.assertIsNone(self.noted("sft"))

  def test_what_was_let_through_is_not_reused(self):
    wanted = keys(seed=1)
    changes.allow(self.folder, wanted, ["seed"])
    workdir.finish(self.folder, "sft", {}, 1.0)
    mine = self.folder / "mine"
    self.assertIsNone(workdir.reuse(mine, "sft", wanted["sft"], [self.folder]))


if __name__ == "__main__":
  absltest.main()
