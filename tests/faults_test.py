"""The table of injected faults: every sentence and every status."""

import pathlib
import re

from absl.testing import absltest, parameterized

from figures import faults as page
from nashmd_jax.nash import warnings
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


class PageTest(absltest.TestCase):
  def test_tells_of_each_what_is_said(self):
    # `make faults` writes it anew.
    text = page.PAGE.read_text(encoding="utf-8")
    self.assertStartsWith(text, page.HEAD)
    for area, those in faults.AREAS.items():
      self.assertIn(f"\n## {area}\n\n{page.TO_DO[area]}\n", text)
      for fault in those:
        (line,) = re.findall(
          rf"^\| {re.escape(fault.name)} \| (.*) \|$", text, re.MULTILINE
        )
        said, _, status = re.sub(r"\\(.)", r"\1", line).rpartition(" | ")
        self.assertRegex(said, fault.says)
        self.assertEqual(status, str(fault.status))

  def test_tells_every_warning(self):
    lines = page.PAGE.read_text(encoding="utf-8").splitlines()
    for line in page.warned():
      self.assertIn(line, lines)
    for name in warnings.RULES:
      self.assertTrue(any(line.startswith(f"| `{name}` |") for line in lines))


if __name__ == "__main__":
  absltest.main()
