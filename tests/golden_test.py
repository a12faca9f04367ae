"""Tiny runs give the metrics that they gave before the seams were opened."""

import pathlib

from absl.testing import absltest
import pytest

from tests import golden_metrics, main_test, small_records


class GoldenTest(absltest.TestCase):
  def check(self, name: str) -> None:
    if golden_metrics.machine() != golden_metrics.recorded()["machine"]:
      self.skipTest(f"recorded on {golden_metrics.recorded()['machine']}")
    folder = pathlib.Path(self.create_tempdir().full_path)
    flags = golden_metrics.flags(name, small_records.write(folder / "records"))
    out = main_test.run_main(
      f"--workdir={folder / 'run'}", *flags, config=f"configs/{name}.py:tiny"
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    self.assertEmpty(golden_metrics.differences(name, folder / "run"))

  def test_worlds(self):
    self.check("worlds")

  @pytest.mark.slow
  def test_t5_from_a_folder(self):
    self.check("tldr_t5")

  @pytest.mark.slow
  def test_decoder_from_a_folder(self):
    self.check("tldr_decoder")


if __name__ == "__main__":
  absltest.main()
