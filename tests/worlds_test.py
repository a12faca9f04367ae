"""Planted worlds: what is planted, the exact answer, and a landing."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from figures import landing
from nashmd_jax import games, main
from nashmd_jax.worlds import planted, training

SMALL = dict(
  vocab_size=3,
  max_response=2,
  prompts=2,
  prompt_length=2,
  cycle=1.0,
  brevity=0.0,
  noise=0.0,
  seed=0,
)


def small_config(**nash):
  config = landing.load_config("tiny").copy_and_resolve_references()
  config.nash.update(nash)
  return config


def made(config):
  world = planted.make_world(**config.world)
  model = training.make_model(config, world)
  return world, training.make_game(world, model, config.nash)


class PlantedTest(parameterized.TestCase):
  def test_cycle_alone_by_hand(self):
    # σ(1) = .731059: three kinds, each against the next one.
    world = planted.make_world(**SMALL)
    for matrix in world.preference:
      values = np.unique(matrix.round(6))
      np.testing.assert_allclose(values, [0.268941, 0.5, 0.731059], atol=2e-6)
      self.assertLen(np.unique(matrix.round(6), axis=0), 3)
      first = matrix[0] > 0.6  # kinds: of EOS alone, beaten by it, the third
      third = matrix[0] < 0.4
      self.assertTrue((matrix[np.ix_(first, third)] > 0.6).all())

  def test_brevity_alone_by_hand(self):
    world = planted.make_world(**SMALL | {"cycle": 0.0, "brevity": 0.5})
    # EOS alone is one token against two: σ(.5) = .622459.
    np.testing.assert_allclose(world.preference[:, 0, 1:], 0.622459, atol=1e-6)
    np.testing.assert_allclose(world.preference[:, 1:, 1:], 0.5)

  def test_seed_decides_everything(self):
    settings = SMALL | {"noise": 1.0}
    one, same, other = (
      planted.make_world(**settings | {"seed": seed}) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.preference, same.preference)
    self.assertGreater(np.abs(one.preference - other.preference).max(), 0.1)
    self.assertLen(np.unique(one.prompts, axis=0), 2)

  def test_default_is_cyclic(self):
    world = planted.make_world(**landing.load_config("neural").world)
    self.assertGreater(games.cyclic_share(world.preference).min(), 0.2)

  def test_judge_looks_the_pair_up(self):
    world = planted.make_world(**SMALL | {"noise": 1.0})
    tables = {"prompts": world.prompts, "preference": world.preference}
    tables = jax.tree.map(jnp.asarray, tables)
    rng = np.random.default_rng(0)
    x, y, other = rng.integers(0, [[2], [7], [7]], (3, 50))
    rows = [
      (jnp.asarray(world.space.tokens[i]), jnp.asarray(world.space.mask[i]))
      for i in (y, other)
    ]
    prompts = jnp.asarray(world.prompts[x])
    judge = planted.make_judge(world.space, tables)
    found = judge(None, (prompts, prompts > 0), *rows)
    np.testing.assert_allclose(found, world.preference[x, y, other], rtol=1e-6)


class AnswerTest(parameterized.TestCase):
  def test_policy_by_enumeration_is_a_distribution_of_its_model(self):
    world, game = made(small_config())
    params = game.model.init(jax.random.key(3))
    found = training.exact_log_probs(world, game, params)
    np.testing.assert_allclose(jnp.exp(found).sum(1), 1, rtol=1e-5)
    prompts = jnp.asarray(world.prompts)
    tokens = jnp.tile(jnp.asarray(world.space.tokens[-1:]), (len(prompts), 1))
    logits = game.model.response_logits(params, prompts, prompts > 0, tokens)
    root = jax.nn.log_softmax(logits[:, 0])
    for row, expected in zip(found, root, strict=True):
      by_prefix = games.conditionals(world.space, row)
      np.testing.assert_allclose(by_prefix[0], expected, atol=1e-5)

  @parameterized.parameters(0.0, 0.5, 1.0)
  def test_distances_from_the_answer_are_zero(self, mixture):
    world, game = made(small_config())
    start = game.model.init(jax.random.key(0))
    reference = training.exact_log_probs(world, game, start)
    answer = training.solve(
      world, log_reference=reference, kl_coef=0.1, mixture=mixture
    )
    with jax.enable_x64(True):
      found, from_start = (
        jax.tree.map(float, training.distances(world, answer, jnp.asarray(x)))
        for x in (answer.policy, answer.reference)
      )
    self.assertLess(found["kl"], 1e-18)
    self.assertGreater(from_start["kl"], 0.01)
    if mixture == 0:
      self.assertLess(found["equilibrium_kl"], 1e-18)
      self.assertLess(found["gap"], 1e-18)
    else:
      self.assertGreater(found["equilibrium_kl"], 1e-3)
    if mixture == 0.5:  # two tokens: near that equilibrium, but not there
      self.assertBetween(found["mixture_kl"], 1e-9, 1e-2)
      self.assertBetween(found["mixture_gap"], 1e-9, 1e-2)
    else:
      self.assertLess(found["mixture_kl"], 1e-9)

  def test_mixture_of_one_token_is_the_hot_equilibrium(self):
    config = landing.load_config("one_token")
    found = landing.exact_distances(config, 0.1, 0.5)
    self.assertLess(found["log"], 1e-9)


class StageTest(parameterized.TestCase):
  def test_batches_hold_every_prompt_as_often_and_keep_their_place(self):
    config = small_config()
    world, game = made(config)
    start = game.model.init(jax.random.key(0))
    answer = training.solve(
      world,
      log_reference=training.exact_log_probs(world, game, start),
      kl_coef=0.2,
      mixture=0.5,
    )
    experiment = training.make_experiment(world, game, answer, batch_size=8)
    batches = experiment.batches()
    first, state = next(batches), batches.get_state()
    second = next(batches)
    rows, counts = np.unique(first["prompts"], axis=0, return_counts=True)
    self.assertLen(rows, 4)
    np.testing.assert_array_equal(counts, 2)
    np.testing.assert_array_equal(second["example_ids"], np.arange(8, 16))
    again = experiment.batches()
    again.set_state(state)
    np.testing.assert_array_equal(
      next(again)["example_ids"], second["example_ids"]
    )
    with self.assertRaisesRegex(ValueError, "multiple of the 4 prompts"):
      training.make_experiment(world, game, answer, batch_size=6)

  @parameterized.parameters("neural", "one_token", "tiny")
  def test_configs_pass_the_check(self, variant):
    main.PIPELINES["worlds"].check(landing.load_config(variant))

  @parameterized.parameters(
    ({"opponent": "past"}, "no exact answer"),
    ({"judge": "reward"}, "planted"),
  )
  def test_refuses_games_without_an_answer(self, change, message):
    config = small_config(**change)
    with self.assertRaisesRegex(ValueError, message):
      main.PIPELINES["worlds"].check(config)

  def test_refuses_more_prompts_than_there_are(self):
    with self.assertRaisesRegex(ValueError, "world.prompts: got 5"):
      planted.make_world(**SMALL | {"prompts": 5})

  def test_lands_at_its_answer_and_nowhere_else(self):
    # In float32, by sampling, through the loop. Self-play would rest at the
    # equilibrium, a best response further off, a wrong sign nowhere.
    config = small_config(kl_coef=0.15, samples=8)
    config.world.update({"max_response": 1, "vocab_size": 5})
    config.nash.data.batch_size = 64
    config.nash.optimizer.update({"warmup_steps": 10, "decay_steps": 400})
    config.nash.train.update({
      "steps": 400, "log_every": 100, "eval_every": 100, "save_every": 400
    })  # fmt: skip
    # Collectives among eight devices on one core can time out.
    alone = jax.devices()[:1]
    with (
      mock.patch.object(jax, "devices", return_value=alone),
      tempfile.TemporaryDirectory() as folder,
    ):
      found = training.run(config, pathlib.Path(folder), "nash_md_half")
    self.assertLess(found["eval/kl"], 3e-3)
    self.assertGreater(found["eval/equilibrium_kl"], 8e-3)
    self.assertLess(found["eval/mixture_kl"], 2e-3)


if __name__ == "__main__":
  absltest.main()
