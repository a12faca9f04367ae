"""The best response by rejection: who is accepted, what is told, refused."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import mistakes, pipeline
from nashmd_jax.nash import checks, rejection, settings
from nashmd_jax.nash import play as play_lib
from nashmd_jax.stages import text
from nashmd_jax.worlds import rest
from tests import gradient_oracle as oracle
from tests import plays, rejection_oracle, small_worlds
from tests.rivals_test import made_config

TAU = 0.3


class ProbabilityTest(parameterized.TestCase):
  def test_by_hand(self):
    # e⁻¹ (1 + 1/2 + 1/2 · 1/8).
    found = rejection.probability(jnp.array([0.5, 0.25]), kl_coef=1.0)
    np.testing.assert_allclose(found, np.exp(-1) * 1.5625, rtol=1e-6)

  @parameterized.parameters((1.0, 0.3), (0.2, 0.6), (0.1, 0.5))
  def test_its_mean_over_votes_is_what_rejection_asks(self, kl_coef, win):
    count = rejection.voters(kl_coef)
    votes = np.random.default_rng(0).random((200_000, count)) < win
    found = rejection.probability(jnp.float32(votes), kl_coef=kl_coef)
    error = 4 * np.std(found) / np.sqrt(len(found))
    np.testing.assert_allclose(
      np.mean(found), np.exp((win - 1) / kl_coef), atol=error
    )

  def test_exactly_so_of_few_voters(self):
    votes = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    weight = np.prod(np.where(votes > 0, 0.3, 0.7), axis=1)
    found = rejection.probability(jnp.float32(votes), kl_coef=2.0)
    # e^(−½) Σ_{k ≤ 4} .15^k / k! = .606531 · 1.161834.
    np.testing.assert_allclose(weight @ found, 0.704688, rtol=1e-5)

  def test_never_above_one(self):
    found = rejection.probability(jnp.ones(40), kl_coef=0.1)
    np.testing.assert_allclose(found, 1, rtol=1e-6)

  @parameterized.parameters(
    # Of a Poisson law of mean 5: above 12 .0020, above 13 .0007.
    (0.2, 13),
    (1.0, 5),
  )
  def test_voters(self, kl_coef, count):
    self.assertEqual(rejection.voters(kl_coef), count)

  def test_told(self):
    accepted = jnp.array([[True, False], [False, False]])
    found = rejection.told(accepted)
    np.testing.assert_array_equal(found["accepted"], [0.5, 0.0])
    np.testing.assert_array_equal(found["none_accepted"], [0.0, 1.0])


class DrawnTest(absltest.TestCase):
  """A rollout, none of it replaced."""

  def test_accepted_are_the_best_response(self):
    with jax.enable_x64(True):
      world = oracle.make_world(2)
      rows = rejection_oracle.drawn(world, TAU, 8, 0)
      log_mu, log_pi = (
        oracle.log_policy(world, world.sets[name])
        for name in ("reference", "policy")
      )
      wins = jnp.einsum("xyz,xz->xy", world.win, jnp.exp(log_pi))
      chance = np.exp(log_mu + (wins - 1) / TAU)  # that y is proposed and taken
    tokens, accepted = rows["written"][:, 1:], np.asarray(rows["accepted"])
    for x in range(oracle.PROMPTS):
      of_x = np.asarray(rows["prompts"][:, 0]) == x
      total = accepted[of_x].size
      for y, one in enumerate(np.asarray(world.tokens)):
        same = np.all(np.asarray(tokens[of_x]) == one, axis=-1)
        share = np.mean(same & accepted[of_x])
        expected = chance[x, y]
        # Five deviations, of 28 shares.
        error = 5 * np.sqrt(expected / total)
        np.testing.assert_allclose(share, expected, atol=error)
    weights = np.asarray(rows["weights"])
    np.testing.assert_array_equal(weights, np.where(accepted, 1 / 8, 0))

  def test_a_prompt_without_one_is_left_out(self):
    play = rejecting_play()
    sets = start(play)
    batch = jax.tree.map(jnp.asarray, plays.batches(1, rows=8)[0])
    rows = roll(play, sets)(batch)
    none = ~np.any(np.asarray(rows["accepted"]), axis=1)
    self.assertBetween(none.sum(), 1, 7)

    @jax.jit
    def gradient(rows):
      def value(params):
        found, metrics = play_lib.loss(play, params, sets, rows, None)
        return found.value, metrics

      return jax.grad(value, has_aux=True)(sets["policy"])

    kept = np.flatnonzero(~none)
    part = {
      k: v[(2 * kept[:, None] + np.arange(2)).ravel()]
      if len(v) == 16
      else v[kept]
      for k, v in rows.items()
    }
    (found, metrics), (expected, _) = gradient(rows), gradient(part)
    np.testing.assert_allclose(
      found["logits"], expected["logits"], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(metrics["none_accepted"].value, none.mean())
    np.testing.assert_allclose(
      metrics["accepted"].value, np.mean(rows["accepted"]), rtol=1e-6
    )

  def test_a_part_of_the_batch_is_drawn_as_the_whole(self):
    play = rejecting_play()
    sets = start(play)
    batch = jax.tree.map(jnp.asarray, plays.batches(1, rows=8)[0])
    run = roll(play, sets)
    whole = run(batch)["accepted"]
    part = run(jax.tree.map(lambda x: x[2:4], batch))["accepted"]
    np.testing.assert_array_equal(part, whole[2:4])


def rejecting_play() -> play_lib.Play:
  """Two responses of the learner, and two proposals to them."""
  opponent = rejection.make_opponent(kl_coef=TAU, proposals=1)
  return plays.make_play(samples=2, kl_coef=TAU)._replace(opponent=opponent)


def roll(play: play_lib.Play, sets: dict):
  """(batch) -> rows."""
  return jax.jit(
    lambda batch: play_lib.rollout(play, sets, batch, jax.random.key(0), 0)
  )


def start(play: play_lib.Play) -> dict:
  names = ("policy", "reference")
  return {n: play.model.init(jax.random.key(i)) for i, n in enumerate(names)}


class SettingsTest(parameterized.TestCase):
  def test_comes_to_rest_at_the_equilibrium(self):
    config = small_worlds.small_config(opponent="rejection", mixture=1.0)
    section = settings.run_section(config, small_worlds.RUN)
    opponent = settings.make_opponent(section)
    self.assertEqual(rest.weight_on_reference(opponent, 4), 0.0)

  @parameterized.parameters(
    (dict(kl_coef=0.05), "nash.kl_coef: got 0.05 for the opponent 'rejection'"),
    (dict(loss="ipo"), "nash.opponent: got 'rejection' for the loss 'ipo'"),
    (dict(design="group"), "the design 'group'"),
  )
  def test_what_cannot_be_played(self, changes, sentence):
    config = small_worlds.small_config(opponent="rejection", **changes)
    findings = mistakes.Findings()
    checks.check_play(config.nash, "win_prob", findings)
    self.assertIn(sentence, "\n".join(findings.sentences))

  @parameterized.parameters(
    (dict(judge="raters"), "nash.judge: got 'raters' for the opponent"),
    (dict(judge="reward"), "nash.opponent: got 'rejection' for the loss"),
  )
  def test_what_no_judge_can(self, changes, sentence):
    own = {"opponent": "rejection", "kl_coef": 0.2, "deploy": "last"}
    config = made_config(("rs",), (), rs=own | changes)
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    self.assertIn(sentence, "\n".join(caught.exception.sentences))


if __name__ == "__main__":
  absltest.main()
