"""Whole steps of the family against the gradients of their objectives."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import numpy as np

from figures import family_page
from tests import (
  certificate,
  family_moments,
  family_oracle,
  family_records,
)
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
  """What is learnt of another policy's responses."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @parameterized.parameters("product", "prefix")
  def test_only_the_product_is_exact(self, name):
    bias, _ = family_moments.ratio(oracle.make_world(2), name, np.inf)
    exact = name == "product"
    self.assertTrue(bias < certificate.BAR if exact else bias > 0.01, bias)


class RecordsTest(parameterized.TestCase):
  """What is learnt of records that μ wrote."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @parameterized.parameters(("ipo", 2), ("pepo", 1))
  def test_a_loss_on_comparisons_is_that_on_who_wrote_them(self, loss, length):
    found = family_records.of_pairs(oracle.make_world(length), loss)
    self.assertLess(found, certificate.BAR)

  @parameterized.parameters("rdro", "una", "una_score")
  def test_a_loss_on_labels_is_that_on_the_parts_of_who_wrote(self, loss):
    found = family_records.of_unary(oracle.make_world(1), loss)
    self.assertLess(found, certificate.BAR)

  def test_kto_is_exact_at_the_point_of_its_batch_alone(self):
    error, bias = family_records.of_kto(oracle.make_world(1), 2)
    self.assertLess(error, certificate.BAR)
    self.assertBetween(bias, 0.01, 0.1)

  def test_records_are_what_the_reference_wrote(self):
    world = oracle.make_world(2)
    mu = np.exp(family_records.reference(world))
    for found in (family_records.labelled(world), family_records.scored(world)):
      self.assertGreater(found.prob.min(), 0)
      wrote = np.zeros(mu.shape)
      np.add.at(wrote, (found.x, found.y), found.prob)
      np.testing.assert_allclose(wrote, mu / 2, rtol=1e-12)
      desired = found.prob @ found.label
      np.testing.assert_allclose(desired, family_records.SHARE, rtol=1e-12)


class PageTest(absltest.TestCase):
  def test_names_every_method_and_its_command(self):
    text = PAGE.read_text()
    for method in family_page.METHODS:
      self.assertIn(family_page.line(method), text)
      self.assertIn(family_page.command(method), text)


if __name__ == "__main__":
  absltest.main()
