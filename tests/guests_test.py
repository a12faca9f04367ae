"""Policies of others: what lies at a path, and what cannot play."""

import json
import pathlib

from absl.testing import absltest, parameterized

from configs import docstrings
from nashmd_jax import mistakes, pipeline
from nashmd_jax.stages import guests, judging, policies, text, tournament

ROWS = [
  {"id": str(i), "prompt": f"p{i}", "response": f"r{i}"} for i in range(3)
]


class GuestsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def made(self, name, text=""):
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path

  def config(self, path, policy=None):
    config = docstrings.get_config("tiny").copy_and_resolve_references()
    with config.unlocked():
      config.tournament.guests = {
        "guest": {"path": str(path), "policy": policy}
      }
      config.tournament.policies = ("sft", "guest")
    return config

  def sentences(self, config):
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    return "\n".join(caught.exception.sentences)

  def lines(self, rows):
    return self.made("said.jsonl", "".join(json.dumps(r) + "\n" for r in rows))

  def workdir(self):
    runs = {"nash": {"runs": {"a": {}, "b": {}}}}
    self.made("run/config.json", json.dumps({"pipeline": "text", **runs}))
    for job in ("sft", "nash/a"):
      self.made(f"run/{job}/done.json", "{}")
    return self.folder / "run"

  def test_what_lies_at_a_path(self):
    self.made("hub/config.json", '{"model_type": "llama"}')
    self.made("lora/adapter_config.json", "{}")
    for path, kind in (
      (self.lines([]), guests.FILE),
      (self.workdir(), guests.WORKDIR),
      (self.folder / "hub", guests.FOLDER),
      (self.folder / "lora", guests.ADAPTERS),
    ):
      config = self.config(path)
      found = guests.kind_of("guest", config.tournament.guests.guest)
      self.assertEqual(found, kind)

  def test_answers_by_id_whatever_their_order(self):
    config = self.config(self.lines(ROWS[::-1]))
    guest = config.tournament.guests.guest
    self.assertEqual(guests.texts("guest", guest, ROWS), ["r0", "r1", "r2"])
    twice = [ROWS[1], ROWS[1]]
    self.assertEqual(guests.texts("guest", guest, twice), ["r1", "r1"])

  @parameterized.parameters(
    (ROWS[:2], "has no response of 1 of the records that guest"),
    ([*ROWS, ROWS[0] | {"response": "r"}], "has two responses of the record"),
    ([{"id": "0"}], "line 1"),
  )
  def test_a_file_that_does_not_answer(self, said, sentence):
    guest = self.config(self.lines(said)).tournament.guests.guest
    with self.assertRaisesRegex(mistakes.Mistake, sentence):
      guests.texts("guest", guest, ROWS)

  def test_nothing_is_trained_for_a_guest(self):
    config = self.config(self.lines(ROWS))
    pipeline.check(text.PIPELINE, config)
    self.assertEqual(judging.trained_runs(config), [])
    self.assertNotIn("nash/guest", tournament.needs(config, "tournament"))

  def test_another_file_is_another_tournament(self):
    config = self.config(self.lines(ROWS))
    before = policies.reads(config)
    self.assertEqual(before, policies.reads(config))
    self.lines(ROWS[:1])
    self.assertNotEqual(before, policies.reads(config))

  @parameterized.parameters(
    ("nowhere", None, "is neither a file of JSON lines"),
    ("run", None, "for a workdir; name sft or one of its runs"),
    ("run", "b", "'b' is not trained in .*expected one of .'sft', 'a'."),
    ("run", "c", "'c' is not trained in"),
    ("said.jsonl", "sft", "for what is no workdir .file.; leave it out"),
  )
  def test_who_cannot_play(self, path, policy, sentence):
    self.workdir()
    self.lines(ROWS)
    told = self.sentences(self.config(self.folder / path, policy))
    self.assertRegex(told, f"tournament.guests.guest.*{sentence}")
    self.assertLess(len(told), 500)

  def test_its_name_is_nobody_elses(self):
    config = self.config(self.lines(ROWS))
    with config.unlocked():
      config.tournament.guests = {"rlhf": config.tournament.guests.guest}
      config.tournament.policies = ("sft", "rlhf")
    self.assertIn("is the name of another policy", self.sentences(config))


if __name__ == "__main__":
  absltest.main()
