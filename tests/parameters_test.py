"""Parameters of documented code as short real text."""

import collections
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from nashmd_jax.data import parameters, sources

NUMPY = '''
def solve(matrix, rhsVector=None, rtol=1e-3):
  """Solve a linear system.

  It may be sparse.

  Parameters
  ----------
  matrix : array_like
    The ``square`` matrix, of the system (M, M). Not read.
  rhsVector : {array, None}, optional
    If `True`, right hand sides; none.
  rtol : float
    1e-3 is enough.
  deep : bool
    Deep.

  Returns
  -------
  x : array
    Of the solution.
  """
'''
GOOGLE = '''
class MakeBatch:
  """Makes a batch.

  Args:
    size: number of
      examples.
    *args: passed on.

  Attributes:
    left: what is left over.
  """
'''


class ParametersTest(parameterized.TestCase):
  def found(self, **files):
    root = pathlib.Path(self.create_tempdir().full_path)
    for name, text in files.items():
      (root / f"{name}.py").write_text(text)
    self.left_out = collections.Counter()
    found = parameters.find_records((root,), (), self.left_out)
    return [(module, one["prompt"], one["response"]) for module, one in found]

  def test_parameters_of_two_styles(self):
    self.assertEqual(
      self.found(three=NUMPY, two=GOOGLE),
      [
        (
          "three",
          "matrix of solve: solve a linear system",
          "the square matrix of the system",
        ),
        (
          "three",
          "rhs vector of solve: solve a linear system",
          "if true right hand sides",
        ),
        ("two", "size of make batch: makes a batch", "number of examples"),
        ("two", "args of make batch: makes a batch", "passed on"),
      ],
    )
    self.assertEqual(+self.left_out, {"not all words": 1, "response length": 1})

  def test_no_prompt_stands_twice_and_no_answer_too_often(self):
    files = {
      f"m{i}": GOOGLE.replace("MakeBatch", f"Make{'abcdefgh'[i]}")
      for i in range(8)
    }
    found = self.found(**files, z=GOOGLE.replace("MakeBatch", "Makea"))
    self.assertLen(found, 2 * parameters.ALIKE)
    self.assertLen({prompt for _, prompt, _ in found}, 2 * parameters.ALIKE)
    self.assertEqual(self.left_out["seen before"], 2)
    self.assertEqual(self.left_out["one of many"], 6)

  def test_words_are_common_in_the_training_split(self):
    self.enter_context(mock.patch.object(parameters, "VOCABULARY", 3))
    other = next(name for name in "abcdefghijklmnop" if not trained(name))
    often = GOOGLE.replace("MakeBatch", "Make").replace("examples", "rows rows")
    found = self.found(two=GOOGLE, **{other: often})
    self.assertEqual(
      [(module, response) for module, _, response in found],
      [("two", "number of examples")],
    )
    self.assertEqual(self.left_out["rare words"], 3)


def trained(module):
  return sources.split_of(module) == "train"


if __name__ == "__main__":
  absltest.main()
