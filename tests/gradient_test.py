"""Oracle: the expectation of an estimator is the exact gradient.

The cases here are a part of `make certify`, which measures them all.
"""

import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp

from figures import certify
from tests import certificate, enumeration, gradient_oracle


def measure(case: certificate.Case, length: int) -> float:
  with jax.enable_x64(True):
    return case.measure(gradient_oracle.make_world(length))


def named(cases) -> list[tuple]:
  return [
    (f"{case.algorithm}_{case.opponent}_{case.form}".replace(" ", "_"), case)
    for case in cases
  ]


class GradientTest(parameterized.TestCase):
  @parameterized.named_parameters(
    named(
      case
      for case in certificate.CASES
      if case.opponent in ("mixture", "past", "–")
      or case.algorithm == "online IPO = self-play"
    )
  )
  def test_expectation_is_the_exact_gradient(self, case):
    self.assertLess(measure(case, 3), certificate.BAR)

  @parameterized.product(number=[0, 2], length=[1, 5])
  def test_whatever_the_length(self, number, length):
    self.assertLess(measure(certificate.CASES[number], length), certificate.BAR)

  @parameterized.named_parameters(named(certificate.ELSEWHERE))
  def test_oracle_catches_the_forms_found_elsewhere(self, case):
    self.assertGreater(measure(case, 3), 0.01)

  def test_page_names_every_case(self):
    page = (pathlib.Path(__file__).parent.parent / certify.PAGE).read_text()
    for case in certificate.CASES + certificate.ELSEWHERE:
      self.assertIn(certify.line(case), page)

  def test_enumeration_is_complete(self):
    with jax.enable_x64(True):
      tokens, mask = enumeration.responses(4)
      logits = enumeration.table_model(4).init(jax.random.key(0))["logits"]
      log_probs = enumeration.sequence_log_probs(
        jax.nn.log_softmax(logits[0]), jnp.asarray(tokens), jnp.asarray(mask)
      )
      self.assertAlmostEqual(float(jnp.exp(log_probs).sum()), 1.0, places=12)


if __name__ == "__main__":
  absltest.main()
