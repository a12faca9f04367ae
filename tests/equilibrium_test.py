"""Equilibria against hand values and other methods; rates against steps."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from tests import games_oracle

UNIFORM = np.full(3, 1 / 3)


class MeasuresTest(absltest.TestCase):
  def test_kl_by_hand(self):
    with jax.enable_x64(True):
      one, two = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
      expected = 0.5 * np.log(5 / 9) + 0.5 * np.log(5)
      self.assertAlmostEqual(games.kl_divergence(one, two), expected, 14)
      self.assertEqual(games.kl_divergence(one + 3.0, one), 0)

  def test_small_kl_keeps_its_digits(self):
    with jax.enable_x64(True):
      logits, turn = (
        jnp.log(jnp.array([0.2, 0.3, 0.5])),
        jnp.array([1, -1, 0.5]),
      )
      policy = jax.nn.softmax(logits)
      variance = policy @ turn**2 - (policy @ turn) ** 2
      for size in (1e-3, 1e-6, 1e-9):
        found = games.kl_divergence(logits, logits + size * turn)
        # KL = variance / 2 · size² (1 + O(size)).
        ratio = found / (variance / 2 * size**2)
        self.assertLess(abs(ratio - 1), 2 * size + 1e-6)

  def test_kl_where_a_response_is_never_given(self):
    never = jnp.array([0.0, -jnp.inf])
    even = jnp.zeros(2)
    self.assertAlmostEqual(games.kl_divergence(never, even), np.log(2), 6)
    self.assertEqual(games.kl_divergence(even, never), np.inf)
    self.assertEqual(games.kl_divergence(never, never), 0)

  def test_gap_is_never_negative_and_zero_at_equilibrium_only(self):
    with jax.enable_x64(True):
      game = games_oracle.random_game(0, 9, 0.1)
      best = games_oracle.target(game)
      self.assertLess(games.duality_gap(game, best), 1e-24)
      for seed in range(5):
        other = games_oracle.random_logits(seed, 9)
        self.assertGreater(games.duality_gap(game, other), 1e-3)


class RegularisedTest(parameterized.TestCase):
  @parameterized.parameters(2, 10, 40)
  def test_fixed_point_within_the_certificate(self, responses):
    with jax.enable_x64(True):
      for tau in (1.0, 0.1, 0.01):
        game = games_oracle.random_game(responses, responses, tau)
        found = games_oracle.equilibrium(game, tolerance=1e-12)
        self.assertLessEqual(found.distance, 1e-12)
        wins = games.win_probs(game, found.log_policy)
        expected = jax.nn.log_softmax(game.log_reference + wins / tau)
        np.testing.assert_allclose(found.log_policy, expected, atol=1e-10)

  def test_certificate_bounds_the_true_distance(self):
    with jax.enable_x64(True):
      game = games_oracle.random_game(5, 12, 0.02)
      best = jnp.exp(games_oracle.target(game))
      for iterations in range(0, 40, 5):
        found = games_oracle.equilibrium(
          game, tolerance=0.0, max_iterations=iterations
        )
        true = jnp.abs(jnp.exp(found.log_policy) - best).sum()
        self.assertLessEqual(true, found.distance + 1e-12)

  def test_tiny_temperature_ends_with_an_honest_certificate(self):
    with jax.enable_x64(True):
      game = games_oracle.random_game(6, 20, 1e-4)
      found = games.regularised_equilibrium(
        game, tolerance=1e-12, max_iterations=3
      )
      self.assertEqual(found.iterations, 3)
      self.assertGreater(found.distance, 1e-3)

  def test_no_certificate_without_regularisation(self):
    game = games.make_game(
      preference=games.ROCK_SCISSORS_PAPER, reference=UNIFORM, kl_coef=0.0
    )
    found = games.regularised_equilibrium(
      game, tolerance=1e-3, max_iterations=5
    )
    self.assertEqual(found.distance, np.inf)


class NashTest(parameterized.TestCase):
  def test_random_games_to_round_off(self):
    for responses in (2, 5, 20, 50):
      matrix = games.random_preferences(
        jax.random.key(responses), contexts=1, responses=responses
      )[0]
      found = games.nash_equilibrium(
        matrix, reference=np.full(responses, 1 / responses)
      )
      self.assertLessEqual(found.gap, 1e-14)
      self.assertTrue(found.unique)
      self.assertAlmostEqual(found.policy.sum(), 1, 14)
      self.assertGreaterEqual(found.policy.min(), 0)

  def test_ties_up_to_round_off_are_solved(self):
    # What a float32 judge says of responses that are as good as one another.
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(150):
      count, levels = rng.integers(2, 9), rng.integers(1, 4)
      steps = rng.integers(-levels, levels + 1, size=(count, count))
      noise = rng.normal(size=(count, count)) * 10.0 ** -rng.integers(6, 10)
      half = np.triu(0.49 * steps / levels + noise, 1)
      found = games.nash_equilibrium(
        0.5 + half - half.T, reference=np.full(count, 1 / count)
      )
      gap = np.max((half - half.T) @ found.policy)
      self.assertAlmostEqual(found.gap, gap, 14)
      self.assertAlmostEqual(found.policy.sum(), 1, 12)
      worst = max(worst, gap)
    self.assertLessEqual(worst, 2e-5)

  def test_maximum_entropy_splits_a_copied_response(self):
    copied = np.array([0, 0, 1, 2])
    matrix = games.ROCK_SCISSORS_PAPER[np.ix_(copied, copied)]
    found = games.nash_equilibrium(matrix, reference=np.full(4, 1 / 4))
    self.assertFalse(found.unique)
    np.testing.assert_allclose(
      found.policy, [1 / 6, 1 / 6, 1 / 3, 1 / 3], atol=1e-12
    )

  @parameterized.named_parameters(
    ("inside", [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]),
    # Response 2 wins with 0.7 p + 0.1 (1 − p), at most ½: p is at most 2/3.
    ("on_the_boundary", [0.9, 0.05, 0.05], [2 / 3, 1 / 3, 0]),
    ("near_the_reference", [0.05, 0.9, 0.05], [1 / 19, 18 / 19, 0]),
  )
  def test_nearest_to_the_reference(self, reference, expected):
    matrix = [[0.5, 0.5, 0.3], [0.5, 0.5, 0.9], [0.7, 0.1, 0.5]]
    found = games.nash_equilibrium(matrix, reference=np.array(reference))
    self.assertFalse(found.unique)
    np.testing.assert_allclose(found.policy, expected, atol=1e-12)

  def test_is_the_limit_of_small_temperatures(self):
    rng = np.random.default_rng(0)
    for count in (3, 6):
      wins = np.triu(rng.choice([0, 0.5, 1], size=(12, count, count)), 1)
      below = np.tril(1 - np.swapaxes(wins, 1, 2), -1)
      matrices = wins + below + np.eye(count) / 2
      references = games_oracle.random_policies(count, 12, count)
      exact = [
        games.nash_equilibrium(matrix, reference=reference)
        for matrix, reference in zip(matrices, references, strict=True)
      ]
      self.assertLessEqual(max(found.gap for found in exact), 1e-14)
      self.assertIn(False, [found.unique for found in exact])
      with jax.enable_x64(True):
        cold = jax.vmap(games_oracle.equilibrium, (0, None))(
          games.make_game(
            preference=matrices, reference=references, kl_coef=4e-3
          ),
          1e-9,
        )
      self.assertLessEqual(np.asarray(cold.distance).max(), 1e-9)
      np.testing.assert_allclose(
        np.exp(cold.log_policy), [found.policy for found in exact], atol=0.05
      )

  @parameterized.named_parameters(
    ("contexts", np.full((2, 3, 3), 0.5), UNIFORM, "expected .Y, Y., got"),
    ("zero", np.full((3, 3), 0.5), [0.5, 0.5, 0.0], r"reference: .* \[2\]"),
    ("size", np.full((2, 2), 0.5), UNIFORM, r"expected shape \(2,\)"),
  )
  def test_bad_input(self, matrix, reference, message):
    with self.assertRaisesRegex(ValueError, message):
      games.nash_equilibrium(matrix, reference=np.asarray(reference))


class RatesTest(parameterized.TestCase):
  def jacobian_radius(self, name, game, logits, step_size) -> float:
    """Of the step itself, between log-ratios to the last response."""
    step = games.ALGORITHMS[name].step

    def move(ratios):
      now, last = jnp.split(ratios, 2)
      state = games.init_state(jnp.append(now, 0.0))._replace(
        iteration=jnp.ones((), jnp.int32),
        last_win_probs=games.win_probs(game, jnp.append(last, 0.0)),
      )
      after = step(jax.random.key(0), state, game, step_size, games.exact_query)
      return jnp.concatenate([after.logits[:-1] - after.logits[-1], now])

    ratios = logits[:-1] - logits[-1]
    matrix = jax.jacobian(move)(jnp.concatenate([ratios, ratios]))
    return np.abs(np.linalg.eigvals(matrix)).max()

  @parameterized.parameters("nash_md", "omd", "mmd", "egpo", "nash_mp")
  def test_radius_is_that_of_the_step(self, name):
    with jax.enable_x64(True):
      for responses, tau, size in ((6, 0.3, 0.4), (7, 0.05, 3)):
        game = games_oracle.random_game(responses, responses, tau)
        opponent = logits = games_oracle.target(game)
        if name == "nash_md":
          pull = size * tau
          opponent = games_oracle.target(
            game._replace(kl_coef=game.kl_coef / (1 - pull))
          )
          logits = (opponent - pull * game.log_reference) / (1 - pull)
        self.assertAlmostEqual(
          games.spectral_radius(name, game, opponent, step_size=size),
          self.jacobian_radius(name, game, logits, size),
          delta=1e-9,
        )

  def test_radius_of_onpo_at_an_interior_equilibrium(self):
    with jax.enable_x64(True):
      matrix = games.three_raters(0.1)
      game = games.make_game(preference=matrix, reference=UNIFORM, kl_coef=0.0)
      logits = jnp.log(games.nash_equilibrium(matrix, reference=UNIFORM).policy)
      for size in (0.125, 1.0, 4.0):
        self.assertAlmostEqual(
          games.spectral_radius("onpo", game, logits, step_size=size),
          self.jacobian_radius("onpo", game, logits, size),
          delta=1e-9,
        )

  @parameterized.parameters((0.95, True), (1.05, False))
  def test_largest_stable_step(self, share, converges):
    with jax.enable_x64(True):
      game = games.make_game(
        preference=games.ROCK_SCISSORS_PAPER,
        reference=[0.7, 0.2, 0.1],
        kl_coef=0.1,
      )
      target = games_oracle.target(game)
      size = share * games.largest_stable_step(game, target)
      _, curves = games.solve(
        game,
        step=games.omd,
        step_size=games.constant(size),
        query=games.exact_query,
        logits=game.log_reference,
        iterations=5000,
        key=jax.random.key(0),
        measures={"kl": games.kl_to(target)},
        measure_every=5000,
        judged="logits",
      )
      self.assertEqual(curves["kl"][-1] < 1e-12, converges)

  @parameterized.parameters("omd", "mmd", "egpo", "nash_mp")
  def test_local_rate_predicts_the_iterations(self, name):
    with jax.enable_x64(True):
      game, size = games_oracle.random_game(8, 6, 0.1), 0.5
      target = games_oracle.target(game)
      radius = games.spectral_radius(name, game, target, step_size=size)
      _, curves = games.solve(
        game,
        step=games.ALGORITHMS[name].step,
        step_size=games.constant(size),
        query=games.exact_query,
        logits=game.log_reference,
        iterations=400,
        key=jax.random.key(0),
        measures={"kl": games.kl_to(target)},
        measure_every=1,
        judged="logits",
      )
      kl = np.asarray(curves["kl"])
      taken = np.argmax(kl < 1e-16) - np.argmax(kl < 1e-6)
      predicted = games.iterations_to(1e-16, 1e-6, float(radius))
      self.assertAlmostEqual(taken / predicted, 1, delta=0.1)

  def test_bad_names(self):
    game = games_oracle.random_game(0, 3, 0.1)
    with self.assertRaisesRegex(ValueError, "name: .* got 'mwu'"):
      games.spectral_radius("mwu", game, game.log_reference, step_size=1.0)
    with self.assertRaisesRegex(ValueError, "name: .* got 'omd'"):
      games.linear_bound(
        1.0, name="omd", step_size=1.0, kl_coef=1.0, iteration=1
      )
    self.assertIsNone(games.theory_steps("fictitious_play", game, iterations=1))
    self.assertEqual(games.iterations_to(1e-6, 1.0, 1.1), np.inf)


if __name__ == "__main__":
  absltest.main()
