"""EGPO: the loss and its half steps, from one start, saved and left out."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays, games, losses, mistakes
from nashmd_jax.nash import checks, settings
from nashmd_jax.training import followers, half_steps, state, step
from nashmd_jax.training import settings as training_settings
from tests import gradient_oracle as oracle
from tests import half_steps_oracle, small_worlds


class LossTest(absltest.TestCase):
  def test_by_hand(self):
    # m = 1.5; (.7 − .4)/.1 = 3: (1.5 − 3)² = 2.25.
    loss, metrics = losses.egpo_loss(
      log_ratio=jnp.array([[1.0, -0.5], [9.0, 1.0]]),
      wins=jnp.array([[0.7, 0.4], [0.1, jnp.nan]]),
      wins_known=jnp.array([[True, True], [True, False]]),
      kl_coef=0.1,
    )
    np.testing.assert_allclose(loss.value, 2.25, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"].value, 1.0)

  def test_the_first_half_is_a_step_of_online_ipo(self):
    with jax.enable_x64(True):
      found = half_steps_oracle.first_is_online_ipo(oracle.make_world(1))
    self.assertLess(found, 1e-9)


def game_experiment(game: games.Game) -> step.Experiment:
  """EGPO's half steps on exact log-policies of one game, no sampling."""

  def loss(params, sets, rows, rng):
    del rng
    start = followers.iterate(sets["iterate"], 0)
    log_pi = jax.nn.log_softmax(start + params - jax.lax.stop_gradient(params))
    wins = game.preference @ rows["against"][0]
    left = log_pi - game.log_reference - wins / game.kl_coef
    # Of the logits: any weights will do, and uniform ones are a tabular step.
    value = jnp.mean((left[:, None] - left[None]) ** 2)
    return arrays.Mean(value, jnp.ones(())), {}

  def rollout(sets, batch, rng, at):
    del rng, at
    return {**batch, "against": jax.nn.softmax(sets["policy"])[None]}

  return step.Experiment(
    init=None,
    rollout=rollout,
    host=None,
    loss=loss,
    batches=None,
    evaluate=None,
    followers={"iterate": followers.iterates(every=2, count=1)},
    optimizer=half_steps.half_steps,
  )


class StepsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.game = games.make_game(
      preference=np.array([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]),
      reference=jnp.array([0.7, 0.2, 0.1]),
      kl_coef=0.3,
    )
    self.eta = 0.2
    # The gradient of the mean of squares is 4/|Y| (left − mean left).
    rate = self.eta * 0.3 * 3 / 4
    made = game_experiment(self.game)
    tx = made.optimizer(optax.sgd(rate))
    programs = step.make_programs(
      made, tx, seed=0, updates_per_rollout=1, micro_batches=1
    )
    self.take = jax.jit(programs.step)
    start = jnp.array([0.3, -0.2, 0.1])
    self.state = state.init_state(start, {}, tx, made.followers)

  def batch(self):
    return {"example_ids": jnp.arange(1)}

  def policy(self):
    return jax.nn.log_softmax(self.state.params)

  def test_two_steps_are_an_iteration_of_egpo(self):
    """(1 − ητ) log π_t + ητ log μ + η P π_{t+½}, by the formula."""
    game, eta = self.game, self.eta

    def moved(log_pi, against):
      mixed = (1 - eta * game.kl_coef) * log_pi
      mixed += eta * game.kl_coef * game.log_reference
      return jax.nn.log_softmax(
        mixed + eta * game.preference @ jnp.exp(against)
      )

    for _ in range(3):
      log_pi = self.policy()
      self.state, _ = self.take(self.state, self.batch())
      half = moved(log_pi, log_pi)
      np.testing.assert_allclose(self.policy(), half, atol=2e-6)
      self.state, _ = self.take(self.state, self.batch())
      np.testing.assert_allclose(self.policy(), moved(log_pi, half), atol=2e-6)

  def test_a_first_half_that_is_left_out_leaves_a_plain_step(self):
    self.state, _ = self.take(self.state, self.batch())
    self.state, _ = self.take(self.state, self.batch())
    start = self.policy()
    # As the loop leaves a step out: nothing changes but the number.
    self.state = self.state._replace(step=self.state.step + 1)
    self.state, _ = self.take(self.state, self.batch())
    kept = jax.nn.log_softmax(followers.iterate(
      self.state.followers["iterate"], 0
    ))  # fmt: skip
    np.testing.assert_allclose(kept, self.policy(), atol=1e-6)
    self.assertGreater(np.abs(self.policy() - start).max(), 1e-3)
    # The next iteration starts where that one ended.
    np.testing.assert_allclose(
      self.state.opt_state.start, self.state.params, atol=1e-6
    )


class SettingsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(iterate={"every": 50}), "nash.iterate.every: got 50"),
    (dict(iterate={"coef": 0.1}), "nash.iterate.coef: got 0.1"),
    (dict(opponent="mixture"), "choose the opponent 'self'"),
    (dict(kl_coef=0.0), "nash.kl_coef: got 0 for the loss 'egpo'"),
  )
  def test_what_cannot_be_played(self, changes, sentence):
    own = {"opponent": "self", "loss": "egpo", "iterate": {"every": 2}}
    config = small_worlds.small_config(**(own | changes))
    findings = mistakes.Findings()
    checks.check_play(config.nash, "win_prob", findings)
    self.assertIn(sentence, "\n".join(findings.sentences))

  @parameterized.parameters((1, False), (2, True), (4, True))
  def test_a_schedule_counts_iterations(self, decay_steps, fits):
    config = small_worlds.small_config(
      opponent="self", loss="egpo", optimizer={"decay_steps": decay_steps}
    )
    findings = mistakes.Findings()
    training_settings.check_together(
      "nash",
      config.nash,
      findings,
      steps_counted=settings.steps_counted(config.nash),
    )
    told = "\n".join(findings.sentences)
    self.assertEqual(fits, "decay_steps" not in told, told)

  def test_keeps_the_last_iterate(self):
    config = small_worlds.small_config(opponent="self", loss="egpo")
    self.assertEqual(list(settings.played_followers(config.nash)), ["iterate"])


if __name__ == "__main__":
  absltest.main()
