"""The Stackelberg game: its loss, the second turn, where both players rest."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games, losses, mistakes
from nashmd_jax.nash import checks, second_turn
from nashmd_jax.nash import play as play_lib
from nashmd_jax.worlds import rest
from tests import gradient_oracle as oracle
from tests import small_worlds, stackelberg_oracle, whole_step


class LossTest(absltest.TestCase):
  def test_gradients_by_hand(self):
    # y pays log-ratio 1, y′ ½; P = .7, τ_L = .2, τ_F = .1.
    # Leader: .7 + .1 · ½ − ½ − .2 = .05. Follower: .3 − ½ − .1 · ½ = −.25.
    def loss(log_prob, follower_log_prob):
      one = jnp.ones((1, 1), bool)
      return losses.stackelberg_loss(
        log_prob=log_prob,
        ref_log_prob=jnp.full((1, 1), -2.0),
        follower_log_prob=follower_log_prob,
        follower_ref_log_prob=jnp.full((1, 1), -2.0),
        win_prob=jnp.array([0.7]),
        mask=one,
        follower_mask=one,
        kl_coef=0.2,
        follower_kl_coef=0.1,
      )

    given = jnp.full((1, 1), -1.0), jnp.full((1, 1), -1.5)
    slopes = jax.grad(lambda *x: loss(*x)[0].value, argnums=(0, 1))(*given)
    np.testing.assert_allclose(slopes[0], [[-0.05]], rtol=1e-5)
    np.testing.assert_allclose(slopes[1], [[0.25]], rtol=1e-5)
    metrics = {name: x.value for name, x in loss(*given)[1].items()}
    np.testing.assert_allclose(metrics["win_prob"], 0.7)
    np.testing.assert_allclose(metrics["follower_kl"], 0.5)
    np.testing.assert_allclose(metrics["game"], 0.55, rtol=1e-6)


class SecondTurnTest(absltest.TestCase):
  def test_prompt_of_the_second_turn_by_hand(self):
    batch = {
      "prompts": jnp.array([[5, 6, 0], [5, 6, 7]]),
      "prompts_mask": jnp.array([[True, True, False], [True] * 3]),
    }
    tokens = jnp.array([[[8, 1], [1, 0]], [[8, 8], [8, 1]]])
    mask = jnp.array([[[True, True], [True, False]], [[True, True]] * 2])
    found, there = second_turn.prompts(batch, tokens, mask, (9, 3))
    np.testing.assert_array_equal(
      found,
      [
        [5, 6, 8, 1, 9, 3, 0],
        [5, 6, 1, 9, 3, 0, 0],
        [5, 6, 7, 8, 8, 9, 3],
        [5, 6, 7, 8, 1, 9, 3],
      ],
    )
    np.testing.assert_array_equal(there.sum(1), [6, 5, 7, 7])

  def test_answers_are_of_their_own_responses_and_keys(self):
    self.enterContext(jax.enable_x64(True))
    world = oracle.make_world(2)
    sets = stackelberg_oracle.make_sets(2)
    play = stackelberg_oracle.make_play(world, samples=2)
    batch = whole_step.prompts_batch(np.arange(8) % 2)
    run = jax.jit(
      lambda batch: play_lib.rollout(play, sets, batch, jax.random.key(3), 0)
    )
    whole = run(batch)
    part = run(jax.tree.map(lambda x: x[2:4], batch))
    for name in ("written", "answers"):
      np.testing.assert_array_equal(part[name], whole[name][2:4])
    # [B, 2K]: y of both samples, then the answers to them, each beside its y.
    answers = np.asarray(whole["written"])[:, 2:].reshape(16, -1)
    np.testing.assert_array_equal(whole["follower_responses"], answers)
    read = np.asarray(whole["follower_prompts"])[:, 1:]
    size = np.asarray(whole["responses_mask"]).sum(1)
    for row, y, n in zip(read, whole["responses"], size, strict=True):
      expected = [*np.asarray(y)[:n], *stackelberg_oracle.INSTRUCTION]
      np.testing.assert_array_equal(row[: n + 2], expected)


class RestTest(parameterized.TestCase):
  def test_no_gradient_is_left_at_the_point_of_rest(self):
    with jax.enable_x64(True):
      world = oracle.make_world(1)
      sets = stackelberg_oracle.make_sets(1)
      log_mu, log_first = stackelberg_oracle.both_logs(world, sets["reference"])
      solved = [
        rest.leader_fixed_point(
          games.make_game(
            preference=world.win[x],
            reference=jnp.exp(log_mu[x]),
            kl_coef=oracle.KL_COEF,
          ),
          log_first[x],
          follower_kl_coef=stackelberg_oracle.FOLLOWER_KL_COEF,
        )
        for x in range(2)
      ]
      leader, follower = (jnp.stack(one) for one in zip(*solved, strict=True))
      # One token: a table's logits are τ log-probs, in the order of responses.
      table = jnp.concatenate([leader, follower.reshape(-1, 3)])
      order = jnp.argsort(world.tokens[:, 0])
      logits = oracle.TEMPERATURE * table[:, order]
      policy = sets["policy"]["logits"].at[:, 0].set(logits)
      there = sets | {"policy": {"logits": policy}}
      play = stackelberg_oracle.make_play(world)
      moved, left = (
        np.abs(stackelberg_oracle.expected(world, one, play)).max()
        for one in (sets, there)
      )
    self.assertGreater(moved, 1e-2)
    self.assertLess(left, 1e-12)

  @parameterized.parameters(
    (dict(opponent="mixture"), "choose the opponent 'self'"),
    (dict(updates_per_rollout=2), "nash.updates_per_rollout: got 2"),
    (dict(design="circular"), "nash.design: got 'circular'"),
  )
  def test_what_cannot_be_played(self, changes, sentence):
    own = {"opponent": "self", "loss": "stackelberg"} | changes
    config = small_worlds.small_config(**own)
    findings = mistakes.Findings()
    checks.check_play(config.nash, "win_prob", findings)
    self.assertIn(sentence, "\n".join(findings.sentences))


if __name__ == "__main__":
  absltest.main()
