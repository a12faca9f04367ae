"""Oracle: the expectation of an estimator is the exact gradient.

The cases here are a part of `make certify`, which measures them all. Faults
are planted too: an oracle that did not see them would prove nothing.
"""

import functools
import pathlib
import types
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nashmd_jax import arrays
from nashmd_jax.losses import kl_forms
from nashmd_jax.nash import opponents
from nashmd_jax.nash import play as play_lib
from tests import (
  certificate,
  enumeration,
  gradient_oracle,
  paper_opponents,
  whole_step,
)

CAUGHT = 1e-6
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "certificate.md"


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

  @parameterized.named_parameters(named(certificate.STEPS))
  def test_so_is_that_of_a_whole_step(self, case):
    self.assertLess(measure(case, 2), certificate.BAR)

  def test_and_that_of_adapters(self):
    case = certificate.ADAPTERS[0]
    self.assertLess(measure(case, 2), certificate.BAR)

  @parameterized.named_parameters(named(certificate.ADAPTERS[1:]))
  @pytest.mark.slow
  def test_and_that_of_other_adapters(self, case):
    self.assertLess(measure(case, 2), certificate.BAR)

  @parameterized.named_parameters(named(certificate.ELSEWHERE))
  def test_oracle_catches_the_forms_found_elsewhere(self, case):
    self.assertGreater(measure(case, 3), 0.01)

  def test_page_names_every_case(self):
    page = PAGE.read_text()
    for case in certificate.ALL + certificate.ELSEWHERE:
      self.assertIn(certificate.line(case), page)

  def test_enumeration_is_complete(self):
    with jax.enable_x64(True):
      tokens, mask = enumeration.responses(4)
      logits = enumeration.table_model(4).init(jax.random.key(0))["logits"]
      log_probs = enumeration.sequence_log_probs(
        jax.nn.log_softmax(logits[0]), jnp.asarray(tokens), jnp.asarray(mask)
      )
      self.assertAlmostEqual(float(jnp.exp(log_probs).sum()), 1.0, places=12)


class SamplingTest(parameterized.TestCase):
  """A rollout draws from what the oracle says, at every prefix it meets."""

  @parameterized.parameters(*opponents.LANES)
  def test_each_token_is_drawn_from_the_exact_distribution(self, opponent):
    with jax.enable_x64(True):
      world = gradient_oracle.make_world(3)
      play = whole_step.make_play(world, opponent=opponent)
      tables = {
        name: np.stack(
          paper_opponents.TABLES[name](
            world.sets, gradient_oracle.MIXTURE, gradient_oracle.TEMPERATURE
          )
        )
        for name in ("self", opponent)
      }
      drawn = set()
      for seed in range(6 if opponent == "past" else 1):
        rows, found = whole_step.sampled_from(world, play, [0, 1] * 8, seed)
        prefixes = np.asarray(enumeration.prefix_ids(rows["written"]))
        worst = np.zeros((2, len(tables[opponent])))
        for (row, lane, n), log_probs in found.items():
          table = tables["self" if lane == 0 else opponent]
          expected = table[:, row % 2, prefixes[row, lane, n]]
          gap = np.abs(log_probs[None] - expected).max(axis=1)
          worst[lane] = np.maximum(worst[lane], gap)
        self.assertLess(worst[0].min(), 1e-12)
        self.assertLess(worst[1].min(), 1e-12)
        drawn.add(int(worst[1].argmin()))
        self.check_reported(rows, found)
    # Every stored policy is drawn, each for a rollout of its own.
    self.assertLen(drawn, len(tables[opponent]))

  def check_reported(self, rows, found):
    """What the loss reads as `behaviour_log_prob` is of the drawn tokens."""
    expected = np.zeros(rows["responses"].shape)
    for (row, lane, n), log_probs in found.items():
      if lane == 0:
        expected[row, n] = log_probs[rows["written"][row, 0, n]]
    np.testing.assert_array_equal(rows["responses"], rows["written"][:, 0])
    np.testing.assert_allclose(
      rows["behaviour_log_prob"], expected, rtol=1e-6, atol=1e-7
    )


def swapped_mixture():
  """β for 1 − β."""
  lane = {"mixture": lambda beta: {"policy": beta, "reference": 1.0 - beta}}
  return mock.patch.dict(opponents.LANES, lane)


def swapped_average_mixture():
  lane = {
    "moving_average_mixture": lambda beta: {
      "ema": beta,
      "reference": 1.0 - beta,
    }
  }
  return mock.patch.dict(opponents.LANES, lane)


def swapped_interpolation():
  def made(sets, rng, beta):
    return real(sets, rng, 1.0 - beta)

  real = opponents.MADE["interpolation"]
  return mock.patch.dict(opponents.MADE, {"interpolation": made})


def unstopped():
  """The gradient flows through the log-ratio."""
  open_lax = types.SimpleNamespace(stop_gradient=lambda x: x)
  return mock.patch.object(kl_forms, "lax", open_lax)


def sampled_warmer():
  """The temperature of sampling is not that of scoring."""

  def write(play, *rest):
    warmer = play._replace(temperature=1.1 * play.temperature)
    return real(warmer, *rest)

  real = play_lib.write
  return mock.patch.object(play_lib, "write", write)


def shifted_kl():
  """Σ_{m > n} for Σ_{m ≥ n}."""
  real = arrays.sum_to_go
  return mock.patch.object(
    arrays,
    "sum_to_go",
    lambda values, mask: real(values, mask) - jnp.where(mask, values, 0),
  )


def same_token_kl():
  """The log-ratio of token n alone."""
  return mock.patch.object(
    arrays, "sum_to_go", lambda values, mask: jnp.where(mask, values, 0)
  )


def answers_turned():
  """P(y′ ≻ y) for P(y ≻ y′)."""
  real = play_lib.ask
  return mock.patch.object(play_lib, "ask", lambda *args: 1 - real(*args))


FAULTS = (
  (swapped_mixture, "mixture"),
  (swapped_average_mixture, "moving_average_mixture"),
  (swapped_interpolation, "interpolation"),
  (unstopped, "mixture"),
  (sampled_warmer, "mixture"),
  (sampled_warmer, "self"),
  (shifted_kl, "mixture"),
  (same_token_kl, "mixture"),
  (answers_turned, "mixture"),
)


class FaultsTest(parameterized.TestCase):
  """Each planted fault lifts the error of a whole step over the bar."""

  @parameterized.parameters(*FAULTS)
  def test_is_caught(self, fault, opponent):
    with fault():
      self.assertGreater(step_error(opponent), CAUGHT)
    self.assertLess(sound_error(opponent), certificate.BAR)


def step_error(opponent: str) -> float:
  with jax.enable_x64(True):
    return whole_step.nash(gradient_oracle.make_world(2), opponent)


sound_error = functools.cache(step_error)


if __name__ == "__main__":
  absltest.main()
