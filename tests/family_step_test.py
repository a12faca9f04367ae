"""Whole steps of the family against the gradients of their objectives."""

from absl.testing import absltest, parameterized
import jax

from tests import certificate, family_oracle
from tests import gradient_oracle as oracle


class HeldTest(parameterized.TestCase):
  """On pairs of the last iterate, held to it and to others."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @parameterized.parameters(
    (family_oracle.of_mnpo, "mnpo", 2),
    (family_oracle.of_magnet, 2),
    (family_oracle.of_sppo,),
  )
  def test_expectation_is_the_gradient_of_the_objective(self, measure, *given):
    found = measure(oracle.make_world(2), *given)
    self.assertLess(found, certificate.BAR)

  def test_dno_is_biased_by_how_few_the_others_are(self):
    self.assertGreater(family_oracle.of_dno(oracle.make_world(1), 1), 0.01)


if __name__ == "__main__":
  absltest.main()
