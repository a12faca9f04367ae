"""The game itself: who is run, who is asked, with which keys."""

from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import optax

from nashmd_jax import sampling
from nashmd_jax.judges import scorers
from nashmd_jax.nash import algorithms, opponents
from nashmd_jax.nash import play as game_lib
from nashmd_jax.training import followers, loop, sharding, state
from tests import enumeration, gradient_oracle, variance

ROWS, MAX_RESPONSE = 8, 4


def first_token_judge(keys, prompts, y, y_opp):
  """Prefers the higher first token, softly and antisymmetrically."""
  del keys, prompts
  return jax.nn.sigmoid((y[0][:, 0] - y_opp[0][:, 0]) / 3.0)


def make_game(
  model, *, loss="policy_gradient", judge=first_token_judge, scores="win_prob",
  samples=1, **opponent,
) -> game_lib.Game:  # fmt: skip
  settings = dict(
    opponent="mixture", mixture=0.25, mixture_end=0.25, mixture_steps=0
  )
  return game_lib.Game(
    model=model,
    opponent=opponents.make_opponent(**(settings | opponent)),
    judge=lambda sets: judge,
    rule=algorithms.make_rule(
      scores=scores, loss=loss, updates_per_rollout=1, clip=0.2
    ),
    samples=samples,
    kl_coef=0.1,
    temperature=0.8,
    max_response=MAX_RESPONSE,
    eos_id=enumeration.EOS,
  )


def make_batch() -> dict[str, jax.Array]:
  prompts = jnp.arange(ROWS, dtype=jnp.int32)[:, None] % 2
  return {
    "prompts": prompts,
    "prompts_mask": prompts == prompts,
    "example_ids": 10 + jnp.arange(ROWS),
  }


class GameTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model = enumeration.table_model(MAX_RESPONSE)
    names = ("policy", "reference", "ema", "past")
    keys = jax.random.split(jax.random.key(0), len(names))
    self.sets = {
      name: self.model.init(key) for name, key in zip(names, keys, strict=True)
    }
    stack = jax.tree.map(lambda x: x[None], self.sets["past"])
    self.sets["past"] = followers.Past(stack, jnp.int32(1))
    self.batch = make_batch()

  def rollout(self, game, sets=None, batch=None):
    sets = sets or self.sets
    step = jax.jit(lambda *args: game_lib.rollout(game, sets, *args))
    return step(batch or self.batch, jax.random.key(5), jnp.int32(0))

  def decoded(self, game) -> set[str]:
    """Names of the sets whose `decode` is called in a rollout."""
    names = {id(tree): name for name, tree in self.sets.items()}
    seen = set()

    def decode(params, cache, tokens):
      seen.add(names.get(id(params), "made"))
      return self.model.decode(params, cache, tokens)

    self.rollout(game._replace(model=self.model._replace(decode=decode)))
    return seen

  @parameterized.parameters(
    (dict(opponent="self"), {"policy"}),
    (dict(mixture=0.0), {"policy"}),
    (dict(mixture=1.0), {"policy", "reference"}),
    (dict(mixture=0.0, mixture_steps=5), {"policy", "reference"}),
    (dict(opponent="moving_average"), {"policy", "ema"}),
    (dict(opponent="moving_average_mixture", mixture=0.0), {"policy", "ema"}),
    (dict(opponent="past"), {"policy", "made"}),
    (dict(loss="ipo", mixture=1.0), {"reference"}),
  )
  def test_only_sets_of_positive_weight_are_decoded(self, settings, expected):
    self.assertEqual(self.decoded(make_game(self.model, **settings)), expected)

  @parameterized.parameters(
    ("policy_gradient", 1), ("policy_gradient", 3), ("ipo", 2),
    ("policy_gradient_exact_kl", 2),
  )  # fmt: skip
  def test_shapes_and_a_finite_gradient(self, loss, samples):
    game = make_game(self.model, loss=loss, samples=samples)
    batch = self.rollout(game)
    rows = ROWS * samples * (2 if loss == "ipo" else 1)
    self.assertEqual(batch["responses"].shape, (rows, MAX_RESPONSE))
    grads, metrics = jax.grad(
      lambda params: game_lib.loss(game, params, batch, None), has_aux=True
    )(self.sets["policy"])
    self.assertGreater(optax.tree.norm(grads), 0)
    self.assertTrue(np.isfinite(list(metrics.values())).all())

  def test_win_prob_is_the_mean_over_the_opponents(self):
    game = make_game(self.model, samples=3)
    lanes = [opponents.LEARNER] * 3 + [game.opponent.lane(0)] * 3
    write_rng = jax.random.split(jax.random.key(5), 3)[0]
    written = sampling.rollout(
      self.model,
      self.sets,
      lanes,
      prompts=self.batch["prompts"],
      prompt_mask=self.batch["prompts_mask"],
      keys=sampling.row_keys(write_rng, self.batch["example_ids"], 6),
      max_response=MAX_RESPONSE,
      temperature=0.8,
      eos_id=enumeration.EOS,
    )
    first = written.tokens[:, :, 0]
    margin = first[:, :3, None] - first[:, None, 3:]
    expected = jax.nn.sigmoid(margin / 3.0).mean(axis=2).reshape(-1)
    batch = self.rollout(game)
    np.testing.assert_allclose(batch["win_prob"], expected, rtol=1e-6)
    np.testing.assert_array_equal(
      batch["responses"], written.tokens[:, :3].reshape(-1, MAX_RESPONSE)
    )

  def test_pairs_are_asked_once_and_win_prob_is_antisymmetric(self):
    asked = []

    def judge(keys, prompts, y, y_opp):
      asked.append(len(keys))
      return first_token_judge(keys, prompts, y, y_opp)

    batch = self.rollout(
      make_game(self.model, loss="dpo", samples=2, judge=judge)
    )
    self.assertEqual(asked, [ROWS * 6])
    win_prob = np.asarray(batch["win_prob"])
    self.assertEqual(win_prob.shape, (ROWS, 4, 4))
    np.testing.assert_allclose(
      win_prob + win_prob.transpose(0, 2, 1), 1.0, rtol=1e-6
    )
    first = batch["responses"][:, 0].reshape(ROWS, 4)
    margin = first[:, :, None] - first[:, None, :]
    np.testing.assert_allclose(win_prob, jax.nn.sigmoid(margin / 3), rtol=1e-6)

  @parameterized.parameters(1, 3)
  def test_baseline_of_rlhf(self, samples):
    def scorer(prompts, y):
      del prompts
      return y[0][:, 0].astype(jnp.float32)

    game = make_game(
      self.model, scores="reward", judge=scorer, samples=samples,
      opponent="reference",
    )  # fmt: skip
    batch = self.rollout(game)
    reward = batch["responses"][:, 0].reshape(ROWS, samples)
    np.testing.assert_array_equal(batch["reward"], reward.reshape(-1))
    if samples == 1:
      versus = self.rollout(
        make_game(self.model, opponent="reference", judge=lambda k, p, y, z:
          z[0][:, 0].astype(jnp.float32))
      )  # fmt: skip
      np.testing.assert_array_equal(batch["baseline"], versus["win_prob"])
    else:
      others = (reward.sum(1, keepdims=True) - reward) / 2
      np.testing.assert_allclose(batch["baseline"], others.reshape(-1))

  def test_samples_have_keys_of_their_own(self):
    seen = []

    def rollout(*args, keys, **kwargs):
      jax.debug.callback(seen.append, jax.random.key_data(keys))
      return sampling_rollout(*args, keys=keys, **kwargs)

    sampling_rollout = sampling.rollout
    with mock.patch.object(sampling, "rollout", rollout):
      jax.block_until_ready(self.rollout(make_game(self.model, samples=4)))
      jax.effects_barrier()
    data = np.asarray(seen[0]).reshape(8 * ROWS, -1)
    self.assertLen(np.unique(data, axis=0), 8 * ROWS)

  @parameterized.parameters(1, 2, 4)
  def test_micro_batches_complete_as_the_whole(self, size):
    game = make_game(
      self.model, samples=2, judge=scorers.votes(first_token_judge)
    )
    whole = self.rollout(game)
    step = jax.jit(lambda batch: self.rollout(game, batch=batch))
    for start in range(0, ROWS, size):
      part = step(jax.tree.map(lambda x, i=start: x[i : i + size], self.batch))
      rows = slice(2 * start, 2 * (start + size))
      for name in ("responses", "win_prob"):
        np.testing.assert_array_equal(part[name], whole[name][rows])

  @parameterized.parameters(1, 2, 8)
  def test_devices_complete_as_one(self, count):
    devices = np.array(jax.devices()[:count])
    mesh = jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    game = make_game(
      self.model, samples=2, judge=scorers.votes(first_token_judge)
    )
    step = jax.jit(
      lambda sets, batch: game_lib.rollout(
        game, sets, batch, jax.random.key(5), jnp.int32(0)
      )
    )
    got = step(
      jax.device_put(self.sets, sharding.replicated(mesh)),
      sharding.shard_batch(self.batch, mesh),
    )
    whole = self.rollout(game)
    for name in ("responses", "win_prob"):
      np.testing.assert_array_equal(got[name], whole[name])

  @parameterized.parameters(
    ("policy", "reference"), ("reference", "moving_average"),
    ("ema", "reference"),
  )  # fmt: skip
  def test_a_moved_set_moves_no_other(self, moved, opponent):
    # IPO's responses are all of the opponent.
    game = make_game(self.model, loss="ipo", opponent=opponent)
    shifted = jax.tree.map(lambda x: x + 0.5, self.sets[moved])
    before, after = (
      self.rollout(game, sets)
      for sets in (self.sets, self.sets | {moved: shifted})
    )
    np.testing.assert_array_equal(before["responses"], after["responses"])
    if moved != "reference":
      np.testing.assert_array_equal(before["reference"], after["reference"])


class VotesTest(absltest.TestCase):
  def test_votes_follow_the_preference(self):
    count = 4000
    y = (jnp.full((count, 1), 5), jnp.ones((count, 1), bool))
    y_opp = (jnp.full((count, 1), 3), jnp.ones((count, 1), bool))
    keys = jax.random.split(jax.random.key(0), count)
    votes = scorers.votes(first_token_judge)(keys, y, y, y_opp)
    self.assertEqual(set(np.asarray(votes).tolist()), {0.0, 1.0})
    expected = 1 / (1 + np.exp(-2 / 3))
    # Four deviations of a binomial: 4 √(.66 · .34 / 4000) = .030.
    np.testing.assert_allclose(votes.mean(), expected, atol=0.03)


class StepTest(absltest.TestCase):
  def test_successive_steps_differ_and_a_step_can_be_repeated(self):
    model, batch = enumeration.table_model(MAX_RESPONSE), make_batch()
    start = model.init(jax.random.key(0))
    game = make_game(model, opponent="self")
    experiment = loop.Experiment(
      init=None,
      rollout=lambda *args: game_lib.rollout(game, *args),
      loss=lambda *args: game_lib.loss(game, *args),
      batches=None,
      evaluate=None,
      followers={},
    )
    still = optax.sgd(0.0)
    step = jax.jit(
      loop.make_train_step(
        experiment, still, seed=0, ema_decay=0.9, updates_per_rollout=1
      )
    )
    now = state.init_state(
      start, {"reference": start}, still, loop.all_followers(experiment, 0.9)
    )
    again, first = step(now, batch)
    _, second = step(again, batch)
    _, repeated = step(now, batch)
    self.assertEqual(first["win_prob"], repeated["win_prob"])
    self.assertNotEqual(first["win_prob"], second["win_prob"])


class VarianceTest(absltest.TestCase):
  def test_whole_steps_have_the_enumerated_mean_and_variance(self):
    # 500 steps: the error of their mean is about 5 % of its norm.
    with jax.enable_x64(True):
      world = gradient_oracle.make_world(3)
      game = variance.make_game(world, samples=4)
      drawn = variance.step_gradients(game, world.sets, 500, 0)
      exact = gradient_oracle.exact_nash(world, "mixture")
      self.assertLess(gradient_oracle.error(drawn.mean(0), exact), 0.12)
      expected = variance.exact_variance(world, 4)
    self.assertLess(abs(variance.total_variance(drawn) / expected - 1), 0.2)


if __name__ == "__main__":
  absltest.main()
