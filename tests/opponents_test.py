"""Opponents as lanes and sets: schedules, sets of one rollout, deployment."""

import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import opponents
from nashmd_jax.training import followers


def make(opponent, **changes):
  kwargs = dict(mixture=0.25, mixture_end=0.25, mixture_steps=0)
  return opponents.make_opponent(opponent=opponent, **(kwargs | changes))


def lane_of(opponent, step=0):
  """The one lane of an opponent that has no second."""
  ((weight, lane),) = opponent.lanes(step)
  assert weight == 1.0
  return lane


def brought(function):
  """A module `mine` with a user's function `write`, while the block runs."""
  module = types.ModuleType("mine")
  module.write = function
  return mock.patch.dict(sys.modules, {"mine": module})


class LaneTest(parameterized.TestCase):
  def test_constant_weight_is_a_number_at_every_step(self):
    lane = jax.jit(lambda step: (lane_of(make("mixture"), step), step))
    self.assertEqual(
      lane_of(make("mixture"), 7), {"policy": 0.75, "reference": 0.25}
    )
    jax.eval_shape(lane, jnp.int32(7))
    traced = lane_of(make("mixture"), jnp.int32(7))
    self.assertIsInstance(traced["policy"], float)

  @parameterized.parameters((0, 0.4), (5, 0.2), (10, 0.0), (99, 0.0))
  def test_weight_decays_linearly(self, step, expected):
    made = make("mixture", mixture=0.4, mixture_end=0.0, mixture_steps=10)
    lane = lane_of(made, jnp.int32(step))
    np.testing.assert_allclose(lane["reference"], expected, atol=1e-6)
    np.testing.assert_allclose(lane["policy"], 1 - expected, atol=1e-6)

  def test_the_average_can_be_mixed_with_the_reference(self):
    self.assertEqual(
      lane_of(make("moving_average_mixture")), {"ema": 0.75, "reference": 0.25}
    )

  @parameterized.parameters(
    ("self", set()),
    ("mixture", set()),
    ("reference", set()),
    ("interpolation", set()),
    ("moving_average", {"ema"}),
    ("moving_average_mixture", {"ema"}),
    ("past", {"past"}),
    ("anchor", {"iterate"}),
  )
  def test_followers_are_those_that_it_reads(self, name, expected):
    self.assertEqual(make(name).follows, expected)

  @parameterized.parameters(
    (dict(mixture=-0.1), "nash.mixture: got -0.1"),
    (dict(mixture=1.5), "nash.mixture: got 1.5"),
    (dict(mixture=float("nan")), "nash.mixture: got nan"),
    (dict(mixture_end=2.0), "nash.mixture_end: got 2.0"),
    (dict(mixture_steps=-1), "nash.mixture_steps: got -1"),
    (dict(opponent="nobody"), "nash.opponent: got 'nobody'"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      make(**({"opponent": "mixture"} | changes))


class BroughtTest(parameterized.TestCase):
  """Opponents as a user's module:function."""

  def test_several_lanes_with_weights(self):
    def write(beta):
      return [
        (0.5, {"policy": 1 - beta, "ema": beta}),
        (0.5, {"past_policy": 1.0}),
      ]

    with brought(write):
      made = make("mine:write")
    self.assertEqual(made.follows, {"ema", "past"})
    self.assertEqual(
      made.lanes(0),
      [(0.5, {"policy": 0.75, "ema": 0.25}), (0.5, {"past_policy": 1.0})],
    )

  def test_a_lane_alone_has_the_weight_one(self):
    with brought(lambda beta: {"reference": 1.0}):
      self.assertEqual(lane_of(make("mine:write")), {"reference": 1.0})

  @parameterized.parameters(
    ([(0.5, {"policy": 1.0})], "weights that sum to 0.5"),
    ({"judge": 1.0}, r"writes in the sets \['judge'\]"),
  )
  def test_mistakes(self, lanes, message):
    with brought(lambda beta: lanes):
      with self.assertRaisesRegex(ValueError, message):
        make("mine:write")


class SetsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.sets = {
      "policy": {"w": jnp.array([1.0, 2.0])},
      "reference": {"w": jnp.array([5.0, -2.0])},
      "past": followers.Past(
        {"w": jnp.arange(8.0).reshape(4, 2)}, jnp.int32(3)
      ),
    }

  def test_interpolation_by_hand(self):
    sets = make("interpolation").sets(self.sets, jax.random.key(0), 0)
    np.testing.assert_allclose(sets["interpolation"]["w"], [2.0, 1.0])
    self.assertEqual(set(sets), {*self.sets, "interpolation"})

  def test_interpolation_on_a_schedule(self):
    made = make("interpolation", mixture=0.5, mixture_end=0.0, mixture_steps=10)
    for step, expected in ((0, [3.0, 0.0]), (5, [2.0, 1.0]), (10, [1.0, 2.0])):
      sets = made.sets(self.sets, jax.random.key(0), jnp.int32(step))
      np.testing.assert_allclose(sets["interpolation"]["w"], expected)

  def test_past_draws_every_filled_slot_alike_and_no_other(self):
    def first(rng):
      sets = make("past").sets(self.sets, rng, 0)
      return sets["past_policy"]["w"][0]

    drawn = jax.vmap(first)(jax.random.split(jax.random.key(0), 3000))
    values, counts = np.unique(np.asarray(drawn), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 2.0, 4.0])
    # Four deviations of a binomial with p = 1/3: 4 √(3000 · 2/9) = 103.
    np.testing.assert_allclose(counts, 1000, atol=103)

  def test_anchor_is_the_newest_iterate(self):
    sets = {**self.sets, "iterate": {"w": jnp.array([[3.0], [7.0]])}}
    found = make("anchor").sets(sets, jax.random.key(0), 0)
    np.testing.assert_array_equal(found["anchor"]["w"], [3.0])

  def test_others_leave_the_sets_alone(self):
    for name in set(opponents.LANES) - {"interpolation", "past", "anchor"}:
      sets = make(name).sets(self.sets, jax.random.key(0), 0)
      self.assertIs(sets["policy"], self.sets["policy"])
      self.assertEqual(set(sets), set(self.sets))


class DeployedTest(parameterized.TestCase):
  @parameterized.parameters(
    ("self", {"policy": 1.0}),
    ("mixture", {"policy": 0.75, "reference": 0.25}),
    ("moving_average", {"ema": 1.0}),
    ("moving_average_mixture", {"ema": 0.75, "reference": 0.25}),
  )
  def test_the_mixture_that_was_played(self, opponent, expected):
    lane = opponents.deployed_lane(make(opponent), deploy="mixture", steps=9)
    self.assertEqual(lane, expected)

  @parameterized.parameters("reference", "interpolation", "past", "anchor")
  def test_who_played_no_mixture_deploys_none(self, opponent):
    with self.assertRaisesRegex(
      ValueError, f"nash.deploy: got 'mixture' for the opponent '{opponent}'"
    ):
      opponents.deployed_lane(make(opponent), deploy="mixture", steps=9)

  @parameterized.product(opponent=list(opponents.LANES), deploy=["last", "ema"])
  def test_policy_and_average_can_always_be_deployed(self, opponent, deploy):
    lane = opponents.deployed_lane(make(opponent), deploy=deploy, steps=9)
    self.assertEqual(lane, {"ema" if deploy == "ema" else "policy": 1.0})
    follows = {"ema"} if deploy == "ema" else set()
    self.assertEqual(opponents.follows(lane), follows)

  @parameterized.parameters(
    # From ½ to 0 in 400 steps, cut off where β is ¼.
    (200, {"policy": 0.75, "reference": 0.25}),
    (400, {"policy": 1.0}),
    (999, {"policy": 1.0}),
  )
  def test_a_schedule_is_deployed_where_the_run_ended(self, steps, expected):
    made = make("mixture", mixture=0.5, mixture_end=0.0, mixture_steps=400)
    lane = opponents.deployed_lane(made, deploy="mixture", steps=steps)
    self.assertEqual(lane, expected)
    for weight in lane.values():
      self.assertIsInstance(weight, float)

  def test_all_weight_on_the_reference_is_the_reference(self):
    lane = opponents.deployed_lane(
      make("mixture", mixture=1.0), deploy="mixture", steps=9
    )
    self.assertEqual(lane, {"reference": 1.0})

  def test_several_lanes_are_no_single_policy(self):
    with brought(lambda beta: [(0.5, {"policy": 1.0}), (0.5, {"ema": 1.0})]):
      made = make("mine:write")
    with self.assertRaisesRegex(ValueError, "set deploy to 'last'"):
      opponents.deployed_lane(made, deploy="mixture", steps=9)

  def test_mistake(self):
    with self.assertRaisesRegex(ValueError, "nash.deploy: got 'best'"):
      opponents.deployed_lane(make("mixture"), deploy="best", steps=9)


if __name__ == "__main__":
  absltest.main()
