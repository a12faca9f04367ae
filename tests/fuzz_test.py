"""Some damaged files of every kind; `figures.endure_fuzz` has more of them."""

import pathlib

from absl.testing import absltest, parameterized

from tests import fuzz, fuzz_targets

EXAMPLES = 40
TARGETS = {target.name: target for target in fuzz_targets.all_targets()}


class FuzzTest(parameterized.TestCase):
  @parameterized.parameters(*TARGETS)
  def test_refused_in_a_sentence_or_taken_for_what_it_is(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertEmpty(fuzz.run(TARGETS[name], folder, EXAMPLES))


if __name__ == "__main__":
  absltest.main()
