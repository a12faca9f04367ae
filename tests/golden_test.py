"""Tiny runs give the metrics that they gave before the seams were opened."""

import os
import pathlib
from unittest import mock

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
      f"--workdir={folder / 'run'}",
      *flags,
      config=f"configs/{name}.py:tiny",
      environ=golden_metrics.environ(),
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    self.assertEmpty(golden_metrics.differences(name, folder / "run"))

  def test_it_is_compiled_as_it_was(self):
    flags = {"XLA_FLAGS": "--xla_cpu_quicker"}
    flags["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    there = golden_metrics.recorded()["machine"]
    with mock.patch.dict(os.environ, flags):
      for machine in (there, "another"):
        with mock.patch.object(golden_metrics, "machine", lambda m=machine: m):
          found = golden_metrics.environ()
        self.assertEqual("quicker" in found["XLA_FLAGS"], machine != there)
        self.assertEqual(flags.keys() <= found.keys(), machine != there)

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
