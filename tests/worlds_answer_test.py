"""What is planted in a world, and its exact answers."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from figures import landing
from nashmd_jax import games, mistakes
from nashmd_jax.nash import algorithms, opponents, settings, ways
from nashmd_jax.worlds import answer as answer_lib
from nashmd_jax.worlds import planted, rest, stage
from tests import small_worlds


class PlantedTest(parameterized.TestCase):
  def test_cycle_alone_by_hand(self):
    # σ(1) = .731059: three kinds, each against the next one.
    world = planted.make_world(**small_worlds.SMALL)
    for matrix in world.preference:
      values = np.unique(matrix.round(6))
      np.testing.assert_allclose(values, [0.268941, 0.5, 0.731059], atol=2e-6)
      self.assertLen(np.unique(matrix.round(6), axis=0), 3)
      first = matrix[0] > 0.6  # kinds: of EOS alone, beaten by it, the third
      third = matrix[0] < 0.4
      self.assertTrue((matrix[np.ix_(first, third)] > 0.6).all())

  def test_brevity_alone_by_hand(self):
    world = planted.make_world(
      **small_worlds.SMALL | {"cycle": 0.0, "brevity": 0.5}
    )
    # EOS alone is one token against two: σ(.5) = .622459.
    np.testing.assert_allclose(world.preference[:, 0, 1:], 0.622459, atol=1e-6)
    np.testing.assert_allclose(world.preference[:, 1:, 1:], 0.5)

  def test_seed_decides_everything(self):
    settings = small_worlds.SMALL | {"noise": 1.0}
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
    world = planted.make_world(**small_worlds.SMALL | {"noise": 1.0})
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
    world, model = small_worlds.make_world_and_model(
      small_worlds.small_config()
    )
    params = model.init(jax.random.key(3))
    found = answer_lib.exact_log_probs(world, model, params, temperature=1.0)
    np.testing.assert_allclose(jnp.exp(found).sum(1), 1, rtol=1e-5)
    prompts = jnp.asarray(world.prompts)
    tokens = jnp.tile(jnp.asarray(world.space.tokens[-1:]), (len(prompts), 1))
    logits = model.response_logits(params, prompts, prompts > 0, tokens)
    root = jax.nn.log_softmax(logits[:, 0])
    for row, expected in zip(found, root, strict=True):
      by_prefix = games.conditionals(world.space, row)
      np.testing.assert_allclose(by_prefix[0], expected, atol=1e-5)

  @parameterized.parameters(
    ("policy_gradient", 0.0),
    ("policy_gradient", 0.5),
    ("policy_gradient", 1.0),
    ("dpo", 0.0),
  )
  def test_distances_from_the_answer_are_zero(self, loss, mixture):
    config = small_worlds.small_config(loss=loss, kl_coef=0.1, mixture=mixture)
    world, answer = stage.solve(config, config.nash)
    with jax.enable_x64(True):
      found, from_start = (
        jax.tree.map(float, answer_lib.distances(world, answer, jnp.asarray(x)))
        for x in (answer.policy, answer.reference)
      )
    self.assertLess(found["kl"], 1e-18)
    self.assertGreater(from_start["kl"], 0.01)
    if loss == "dpo":  # rests elsewhere, though it plays itself
      self.assertGreater(found["equilibrium_kl"], 0.1)
      self.assertGreater(found["gap"], 0.01)
      return
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

  @parameterized.parameters(
    # (changes of the section, β at the end of its training)
    (dict(mixture=0.125, mixture_end=0.5), 0.125),
    (dict(mixture=0.125, mixture_end=0.5, mixture_steps=2), 0.5),
    # Cut short: 4 of 8 steps, half of the way.
    (dict(mixture=0.125, mixture_end=0.5, mixture_steps=8), 0.3125),
    (dict(opponent="self"), 0.0),
    (dict(opponent="reference"), 1.0),
    (dict(opponent="moving_average"), 0.0),
    (dict(opponent="moving_average_mixture", mixture=0.25), 0.25),
  )
  def test_weight_is_that_at_the_end_of_the_training(self, changes, beta):
    config = small_worlds.small_config(**changes)
    section = settings.run_section(config, small_worlds.RUN)
    opponent = settings.make_opponent(section)
    found = rest.weight_on_reference(opponent, section.train.steps)
    self.assertEqual(found, beta)

  def test_a_run_of_its_own_length_has_its_own_weight(self):
    config = small_worlds.small_config(
      mixture=0.0, mixture_end=1.0, mixture_steps=8
    )
    config.nash.runs[small_worlds.RUN] = {"train": {"steps": 6}}
    section = settings.run_section(config, small_worlds.RUN)
    _, found = stage.solve(config, section)
    self.assertEqual(found.mixture_weight, 0.75)


def expected_gradient(loss, game, logits, mixed):
  """Of the loss of one-token responses, with respect to the logits f[Y]."""
  algorithm = algorithms.make_algorithm(
    scores="win_prob",
    loss=loss,
    updates_per_rollout=1,
    judge_ahead=0,
    clip=0.2,
    ratio="product",
    design="all",
    orders="one",
    desired_share=0.4,
    pessimism=0.1,
    follower_kl_coef=0.4,
  )
  paired = algorithm.way is ways.PAIRED

  def read(logits, tokens):
    log_probs = jax.nn.log_softmax(logits)
    kl = jnp.sum(jnp.exp(log_probs) * (log_probs - game.log_reference))
    return {
      "log_prob": log_probs[tokens],
      "ref_log_prob": game.log_reference[tokens],
      "token_kl": jnp.broadcast_to(kl, tokens.shape),
    }

  def of_pair(logits, y, other):
    tokens = jnp.stack([y, other] if paired else [y])[:, None]
    one = jnp.ones((1, 1))
    rows = {
      "answers": one * game.preference[y, other],
      "judged": one > 0,
      "weights": one,
      "responses": tokens,
      "responses_mask": tokens >= 0,
    }
    return algorithm.loss(read(logits, tokens), rows, game.kl_coef)[0].value

  y, other = (x.reshape(-1) for x in jnp.indices(game.preference.shape))
  slopes = jax.vmap(jax.grad(of_pair), (None, 0, 0))(logits, y, other)
  weight = jnp.exp((mixed if paired else logits)[y] + mixed[other])
  return weight @ slopes


class RestTest(parameterized.TestCase):
  def game(self, kl_coef=0.2):
    world = planted.make_world(
      **small_worlds.SMALL | {"vocab_size": 5, "max_response": 1, "noise": 1.0}
    )
    reference = jax.nn.softmax(jnp.array([0.5, -0.3, 0.2, 0.0, 0.9]))
    return world.space, games.make_game(
      preference=world.preference[0], reference=reference, kl_coef=kl_coef
    )

  @parameterized.parameters(
    (loss, mixture)
    for loss in sorted(
      set(rest.FIXED_POINTS) - {*algorithms.ANCHORED, algorithms.HALVED}
    )
    for mixture in ((0.0,) if loss == "sppo" else (0.0, 0.5, 1.0))
  )
  def test_expected_gradient_is_zero_there_and_not_elsewhere(
    self, loss, mixture
  ):
    kwargs = dict(mixture=mixture, tolerance=1e-12, max_iterations=1000)
    with jax.enable_x64(True):
      space, game = self.game()
      solvers = (games.mixture_fixed_point, rest.fitted_fixed_point)
      own, another = (
        solve(space, game, start=game.log_reference, **kwargs)
        for solve in sorted(solvers, key=lambda x: x != rest.fixed_point(loss))
      )
      here, there = (
        jnp.abs(expected_gradient(loss, game, x.log_policy, x.log_mixture))
        for x in (own, another)
      )
    self.assertLess(np.asarray(here).max(), 1e-12)
    self.assertGreater(np.asarray(there).max(), 1e-3)

  @parameterized.parameters(0.1, 0.2, 1.0)
  def test_dpo_rests_where_its_scores_are_the_bradley_terry_fit(self, kl_coef):
    with jax.enable_x64(True):
      space, game = self.game(kl_coef)
      found, again = (
        rest.fitted_fixed_point(
          space,
          game,
          mixture=0.0,
          tolerance=1e-12,
          max_iterations=5000,
          start=start,
        )
        for start in (game.log_reference, jnp.array([0.0, 1, 2, 3, 4]))
      )
      pi = np.exp(found.log_policy)
      wins = np.outer(pi, pi) * np.asarray(game.preference)
      scores = kl_coef * np.asarray(found.log_policy - game.log_reference)
    np.testing.assert_allclose(pi.sum(), 1)
    np.testing.assert_allclose(
      scores - scores.mean(), games.fit_scores(wins), atol=1e-9
    )
    np.testing.assert_allclose(again.log_policy, found.log_policy, atol=1e-9)

  def test_refuses_lanes_that_are_no_mixture(self):
    def weight(*lanes):
      opponent = opponents.Opponent(
        "mine:lanes", lambda step: lanes, None, None
      )
      return rest.weight_on_reference(opponent, 4)

    self.assertEqual(weight((1.0, {"policy": 0.5, "reference": 0.5})), 0.5)
    half = (0.5, {"policy": 1.0}), (0.5, {"reference": 1.0})
    for lanes in (
      [(1.0, {"policy": 1.0, "reference": 1.0})],
      [(1.0, {"policy": 2.0, "reference": -1.0})],
      [(1.0, {"interpolation": 1.0})],
      half,
    ):
      with self.assertRaisesRegex(mistakes.Mistake, "no exact answer .*mine"):
        weight(*lanes)


if __name__ == "__main__":
  absltest.main()
