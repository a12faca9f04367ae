"""Designs of comparison: which pairs are asked about, in which orders."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.nash import play as play_lib
from nashmd_jax.nash import ways
from tests import certificate, enumeration, gradient_oracle, plays, whole_step

DESIGNED = [
  case
  for case in certificate.STEPS
  if any(word in case.algorithm for word in ("circular", "group", "orders"))
]


def asked(samples: int, design: str, orders: str = "one", **settings):
  """The pairs of a play, and how many responses are the learner's."""
  play = plays.make_play(
    samples=samples, design=design, orders=orders, **settings
  )
  made = play_lib.algorithms_lanes(play, 0)
  i, j = play.algorithm.way.asks(len(made.own), len(made.other))
  return list(zip(i.tolist(), j.tolist(), strict=True)), len(made.own)


class PairsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(loss="ipo"), 2),  # four responses of the opponent
    (dict(opponent="self", design="group_circular"), 4),
    (dict(design="circular"), 2),
  )
  def test_a_ring_shows_each_response_once_first_and_once_second(
    self, settings, samples
  ):
    pairs, _ = asked(samples, **({"design": "circular"} | settings))
    self.assertLen(pairs, 4)  # of twelve ordered ones
    for side in (0, 1):
      self.assertCountEqual([pair[side] for pair in pairs], range(4))

  def test_a_ring_across_has_a_response_of_each_side_in_every_pair(self):
    pairs, own = asked(3, "circular")
    self.assertLen(pairs, 6)
    for pair in pairs:
      self.assertLen([one for one in pair if one < own], 1)
    self.assertEqual(asked(1, "circular")[0], [(0, 1)])

  def test_a_group_has_each_pair_once(self):
    pairs, own = asked(4, "group", opponent="self")
    self.assertEqual((len(pairs), own), (6, 4))

  def test_both_orders_ask_each_pair_twice(self):
    one, _ = asked(2, "circular")
    both, _ = asked(2, "circular", "both")
    self.assertEqual(both, [*one, *((j, i) for i, j in one)])

  @parameterized.parameters(
    ("nash.design", dict(design="ring")),
    ("nash.design", dict(design="group")),  # the opponent is a mixture
    ("nash.design", dict(design="group", loss="ipo")),
    ("nash.design", dict(design="circular", scores="reward")),
    ("nash.orders", dict(orders="any")),
    ("nash.orders", dict(orders="both", scores="reward")),
    ("nash.samples", dict(design="group", opponent="self", samples=1)),
  )
  def test_what_cannot_be_is_refused(self, setting, settings):
    with self.assertRaisesRegex(mistakes.Mistake, f"^{setting}: "):
      play_lib.algorithms_lanes(plays.make_play(**settings), 0)


class ScoresTest(parameterized.TestCase):
  def test_by_hand(self):
    way = ways.DESIGNS[ways.VERSUS]["group_circular"]
    i, j = way.asks(3, 0)
    table = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]])
    answers = jnp.array([table[i, j]])
    nothing = jnp.zeros((1, 0))

    def found(judged):
      given = way.scores(
        jnp.where(judged, answers, 0), judged, nothing, ways.Asked(3, i, j)
      )
      return given["win_prob"], given["counted"]

    win_prob, counted = found(jnp.ones((1, 3), bool))
    np.testing.assert_allclose(win_prob, [0.6, 0.35, 0.55], rtol=1e-6)
    self.assertTrue(counted.all())
    # Without 0 against 1 each of them has its other neighbour left.
    win_prob, counted = found(jnp.array([[False, True, True]]))
    np.testing.assert_allclose(win_prob, [0.3, 0.6, 0.55], rtol=1e-6)
    self.assertTrue(counted.all())
    _, counted = found(jnp.array([[False, True, False]]))
    np.testing.assert_array_equal(counted, [False, True, True])

  def test_a_pair_is_known_when_both_orders_are(self):
    way = ways.designed(ways.PAIRED, "all", "both", loss="ipo")
    asked = ways.Asked(2, *way.asks(2, 0))
    answers = jnp.array([[0.9, 0.3], [0.9, 0.3]])
    judged = jnp.array([[True, True], [True, False]])
    found = way.scores(answers, judged, jnp.zeros((2, 0)), asked)
    np.testing.assert_allclose(found["win_prob"][0, 0, 1], 0.8, rtol=1e-6)
    np.testing.assert_array_equal(found["judged"][:, 0, 1], [True, False])
    self.assertFalse(found["judged"][:, 0, 0].any())


class GradientTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (case.algorithm.replace(" ", "_"), case) for case in DESIGNED
  )
  def test_is_exact(self, case):
    with jax.enable_x64(True):
      error = case.measure(gradient_oracle.make_world(2))
    self.assertLess(error, certificate.BAR)

  def test_both_orders_forgive_a_judge_that_prefers_the_first(self):
    with jax.enable_x64(True):
      world = gradient_oracle.make_world(2)
      fair = enumeration.table_judge(world.win, world.length)

      def biased(keys, prompts, y, y_opp):
        # More for the first place where the response is a long one.
        length = jnp.sum(y[1], axis=1) + jnp.sum(y_opp[1], axis=1)
        return fair(keys, prompts, y, y_opp) + 0.1 * length

      exact = gradient_oracle.exact_nash(world, "self")
      errors = {
        orders: whole_step.error(
          world,
          whole_step.make_play(
            world,
            opponent="self",
            orders=orders,
            judge=lambda sets: biased,
          ),
          exact,
        )
        for orders in ways.ORDERS
      }
    self.assertLess(errors["both"], certificate.BAR)
    self.assertGreater(errors["one"], 0.01)


if __name__ == "__main__":
  absltest.main()
