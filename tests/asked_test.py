"""What of a config is not as its file has it, and what a job ran on."""

import pathlib

from absl.testing import absltest
import jax

from nashmd_jax import asked, files, machine, mistakes
from tests import main_test

FILE = str(main_test.ROOT / "configs" / "docstrings.py")


class AskedTest(absltest.TestCase):
  def test_what_flags_and_trials_set(self):
    config = asked.load_config(f"{FILE}:tiny")
    found = asked.differences(f"{FILE}:tiny", config)
    self.assertEqual(found, {"config": f"{FILE}:tiny", "changed": {}})
    with config.unlocked():
      config.nash.mixture = 0.5
      config.tournament.policies = ("sft", "nash_md")
      config.nash.runs.nash_md.kl_coef = 0.5
    changed = asked.differences(f"{FILE}:tiny", config)["changed"]
    self.assertEqual(changed["nash.mixture"], [0.125, 0.5])
    self.assertEqual(changed["tournament.policies"][1], ["sft", "nash_md"])
    self.assertEqual(changed["nash.runs.nash_md.kl_coef"], [asked.ABSENT, 0.5])
    path = pathlib.Path(self.create_tempdir().full_path) / asked.NAME
    files.save_json(path, {"config": FILE, "changed": changed})
    self.assertEqual(asked.load(path), (FILE, changed))

  def test_what_a_file_must_hold(self):
    path = pathlib.Path(self.create_tempdir().full_path) / asked.NAME
    for changed in ([], {"seed": 1}, {"seed": [1]}):
      files.save_json(path, {"config": FILE, "changed": changed})
      with self.assertRaisesRegex(mistakes.Mistake, "asked.json: is not what"):
        asked.load(path)


class MachineTest(absltest.TestCase):
  def test_it_is_described(self):
    found = machine.describe()
    self.assertEqual(found["jax"], jax.__version__)
    self.assertEqual(found["devices"], jax.device_count())
    self.assertGreater(found["memory_gib"], 0.1)
    self.assertNotEmpty(found["nashmd_jax"])


if __name__ == "__main__":
  absltest.main()
