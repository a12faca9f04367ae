"""Whole steps of the family against the gradients of their objectives."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import numpy as np

from figures import family_page
from tests import certificate, family_moments, family_oracle
from tests import gradient_oracle as oracle

PAGE = pathlib.Path(__file__).parent.parent / family_page.PAGE


class HeldTest(parameterized.TestCase):
  """On pairs of the last iterate, held to it and to others."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @parameterized.parameters(
    (family_oracle.of_mnpo, 1, "mnpo", 2),
    (family_oracle.of_magnet, 2, 2),
    (family_oracle.of_sppo, 1),
  )
  def test_expectation_is_the_gradient_of_the_objective(
    self, measure, length, *given
  ):
    found = measure(oracle.make_world(length), *given)
    self.assertLess(found, certificate.BAR)


class MomentsTest(parameterized.TestCase):
  """What is learnt of another policy's responses, and of records."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def test_a_loss_on_comparisons_is_that_on_who_wrote_them(self):
    found = family_moments.offline(oracle.make_world(2), "ipo")
    self.assertLess(found, certificate.BAR)

  @parameterized.parameters("product", "prefix")
  def test_only_the_product_is_exact(self, name):
    bias, _ = family_moments.ratio(oracle.make_world(2), name, np.inf)
    exact = name == "product"
    self.assertTrue(bias < certificate.BAR if exact else bias > 0.01, bias)


class PageTest(absltest.TestCase):
  def test_names_every_method_and_its_command(self):
    text = PAGE.read_text()
    for method in family_page.METHODS:
      self.assertIn(family_page.line(method), text)
      self.assertIn(family_page.command(method), text)


if __name__ == "__main__":
  absltest.main()
