"""Opponents as lanes and sets: schedules, sets of one rollout, deployment."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import opponents
from nashmd_jax.training import followers


def make(opponent, **changes):
  kwargs = dict(mixture=0.25, mixture_end=0.25, mixture_steps=0)
  return opponents.make_opponent(opponent=opponent, **(kwargs | changes))


class LaneTest(parameterized.TestCase):
  def test_constant_weight_is_a_number_at_every_step(self):
    lane = jax.jit(lambda step: (make("mixture").lane(step), step))
    self.assertEqual(
      make("mixture").lane(7), {"policy": 0.75, "reference": 0.25}
    )
    jax.eval_shape(lane, jnp.int32(7))
    self.assertIsInstance(make("mixture").lane(jnp.int32(7))["policy"], float)

  @parameterized.parameters((0, 0.4), (5, 0.2), (10, 0.0), (99, 0.0))
  def test_weight_decays_linearly(self, step, expected):
    made = make("mixture", mixture=0.4, mixture_end=0.0, mixture_steps=10)
    lane = made.lane(jnp.int32(step))
    np.testing.assert_allclose(lane["reference"], expected, atol=1e-6)
    np.testing.assert_allclose(lane["policy"], 1 - expected, atol=1e-6)

  def test_the_average_can_be_mixed_with_the_reference(self):
    self.assertEqual(
      make("moving_average_mixture").lane(0), {"ema": 0.75, "reference": 0.25}
    )

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

  def test_past_draws_every_filled_slot_alike_and_no_other(self):
    def first(rng):
      sets = make("past").sets(self.sets, rng, 0)
      return sets["past_policy"]["w"][0]

    drawn = jax.vmap(first)(jax.random.split(jax.random.key(0), 3000))
    values, counts = np.unique(np.asarray(drawn), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 2.0, 4.0])
    # Four deviations of a binomial with p = 1/3: 4 √(3000 · 2/9) = 103.
    np.testing.assert_allclose(counts, 1000, atol=103)

  def test_others_leave_the_sets_alone(self):
    for name in set(opponents.LANES) - {"interpolation", "past"}:
      sets = make(name).sets(self.sets, jax.random.key(0), 0)
      self.assertIs(sets["policy"], self.sets["policy"])
      self.assertEqual(set(sets), set(self.sets))


class DeployedTest(parameterized.TestCase):
  @parameterized.parameters(
    ("last", 0.25, 0, {"policy": 1.0}),
    ("ema", 0.25, 0, {"ema": 1.0}),
    ("mixture", 0.25, 0, {"policy": 0.75, "reference": 0.25}),
    ("mixture", 0.25, 10, {"policy": 1.0}),
    ("mixture", 1.0, 0, {"reference": 1.0}),
  )
  def test_lane(self, deploy, mixture, steps, expected):
    lane = opponents.make_deployed(
      deploy=deploy, mixture=mixture, mixture_end=0.0, mixture_steps=steps
    )
    self.assertEqual(lane, expected)

  def test_mistake(self):
    with self.assertRaisesRegex(ValueError, "nash.deploy: got 'best'"):
      opponents.make_deployed(
        deploy="best", mixture=0.1, mixture_end=0.1, mixture_steps=0
      )


if __name__ == "__main__":
  absltest.main()
