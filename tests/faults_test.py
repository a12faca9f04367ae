"""The table of injected faults: every sentence and every status."""

import pathlib

from absl.testing import absltest, parameterized

from tests import faults

TABLE = {fault.name: fault for fault in faults.FAULTS}


class FaultsTest(parameterized.TestCase):
  @parameterized.parameters(*TABLE)
  def test_ends_in_its_sentence(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertEqual(faults.holds(TABLE[name], folder), "")

  def test_there_are_enough_and_most_are_found_before_training(self):
    self.assertLen(TABLE, len(faults.FAULTS))
    self.assertGreater(len(TABLE), 30)
    self.assertLess(sum(fault.later for fault in faults.FAULTS), 10)


if __name__ == "__main__":
  absltest.main()
