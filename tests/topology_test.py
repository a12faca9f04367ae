"""One process or two: the same training, and either goes on from the other."""

import pathlib

from absl.testing import absltest
import pytest

from tests import processes, topology

BAR = 1e-5


class MistakeTest(absltest.TestCase):
  def test_what_process_0_finds_ends_both_with_one_sentence(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "thesis.tex").write_text("precious")
    statuses, outs, errors = processes.run(
      [
        "nashmd_jax.main",
        f"--config={topology.CONFIG}:tiny",
        f"--workdir={folder}",
      ],
      processes=2,
      devices=1,
    )
    self.assertEqual(statuses, [2, 2], msg=errors)
    for error in errors:
      self.assertIn("holds no config.json", error)
      self.assertNotIn("Traceback", error)
    self.assertNotIn("starts", outs[1])


@pytest.mark.slow
class TopologyTest(absltest.TestCase):
  """Minutes: stages of the tiny configs are compiled for four devices."""

  def test_stages_on_one_process_and_on_two(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    for name, worst in topology.measure(root).items():
      with self.subTest(name):
        self.assertLessEqual(worst, BAR)

  def test_whole_run_with_split_parameters(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    worst, differ = topology.whole_run(root)
    self.assertLessEqual(worst, BAR)
    self.assertEqual(differ, 0)


if __name__ == "__main__":
  absltest.main()
