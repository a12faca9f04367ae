"""Steps of the algorithms, and the scan that runs and measures them."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import games
from tests import games_bounds, games_oracle

RPS = games.ROCK_SCISSORS_PAPER
GAP = {"gap": games.duality_gap}


def solve(game, step, size, **changes):
  """`games.solve` with the arguments that most tests share."""
  return games.solve(
    game,
    **{
      "step": step,
      "step_size": games.constant(size),
      "query": games.exact_query,
      "logits": game.log_reference,
      "iterations": 100,
      "key": jax.random.key(0),
      "measures": GAP,
      "measure_every": 1,
      "judged": "logits",
    }
    | changes,
  )


def rps_game(kl_coef: float) -> games.Game:
  return games.make_game(
    preference=RPS, reference=[0.7, 0.2, 0.1], kl_coef=kl_coef
  )


class TheoryTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (function.__name__, function, bar)
    for _, function, bar in games_oracle.IDENTITIES
  )
  def test_identity(self, function, bar):
    with jax.enable_x64(True):
      self.assertLessEqual(function(), bar)

  def test_bounds_at_every_iteration(self):
    worst = games_bounds.largest_excess((2, 7), 20, (1.0, 0.1, 0.01), 300)
    self.assertLessEqual(worst.pop("distance"), 1e-12)
    for name, ratio in worst.items():
      self.assertLessEqual(ratio, 1.0, msg=name)

  def test_bound_holds_on_average_with_sampled_votes(self):
    game = rps_game(0.5)
    target = games.regularised_equilibrium(
      game, tolerance=1e-5, max_iterations=1000
    ).log_policy

    @jax.jit
    @jax.vmap
    def run(key):
      return solve(
        game,
        games.nash_md,
        None,
        step_size=games.decreasing_steps(game.kl_coef),
        query=games.sampled_votes(1),
        key=key,
        iterations=400,
        measures={"kl": games.kl_to(target)},
      )[1]["kl"]

    kl = np.mean(run(jax.random.split(jax.random.key(0), 64)), axis=0)
    bound = games.decreasing_step_bound(game.kl_coef, np.arange(401))
    self.assertTrue((kl[1:] <= bound[1:]).all())
    self.assertGreater(kl[400], 1e-5)  # noise leaves what exact play does not


class StepsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("ema_that_forgets_is_omd", games.nash_ema(0.0), games.omd),
    ("no_mixture_is_omd", games.fixed_mixture(0.0), games.omd),
    (
      "all_reference_is_best_response",
      games.fixed_mixture(1.0),
      games.best_response_to_reference,
    ),
    (
      "ema_that_never_moves_is_best_response",
      games.nash_ema(1.0),
      games.best_response_to_reference,
    ),
    ("mixture_eta_tau_is_nash_md", games.fixed_mixture(0.05), games.nash_md),
  )
  def test_equal_to_three_steps_of(self, step, other):
    with jax.enable_x64(True):
      game = games_oracle.random_game(0, 6, 0.1)
      one, two = (
        solve(game, which, 0.5, iterations=3)[0] for which in (step, other)
      )
      np.testing.assert_allclose(
        jax.nn.softmax(one.logits), jax.nn.softmax(two.logits), atol=1e-14
      )

  def test_nash_ema_by_hand(self):
    with jax.enable_x64(True):
      game, size, decay = games_oracle.random_game(1, 4, 0.2), 0.7, 0.75
      mu = np.exp(game.log_reference)
      matrix, tau = np.asarray(game.preference), float(game.kl_coef)
      policy = average = mu
      for _ in range(3):
        policy = (
          policy ** (1 - size * tau)
          * mu ** (size * tau)
          * np.exp(size * matrix @ average)
        )
        policy = policy / policy.sum()
        average = decay * average + (1 - decay) * policy
      state, _ = solve(game, games.nash_ema(decay), size, iterations=3)
      np.testing.assert_allclose(
        jax.nn.softmax(state.logits), policy, atol=1e-14
      )
      np.testing.assert_allclose(np.exp(state.average), average, atol=1e-14)

  def test_onpo_by_hand(self):
    with jax.enable_x64(True):
      game, size = games_oracle.random_game(2, 4, 0.0), 0.3
      matrix = np.asarray(game.preference)
      policy = np.exp(game.log_reference)
      before = policy
      for _ in range(4):
        power = 2 * matrix @ policy - matrix @ before
        before, policy = policy, policy * np.exp(size * power)
        policy = policy / policy.sum()
      state, _ = solve(game, games.onpo, size, iterations=4)
      np.testing.assert_allclose(
        jax.nn.softmax(state.logits), policy, atol=1e-14
      )

  def test_averages_are_of_all_policies_with_the_start(self):
    with jax.enable_x64(True):
      game = games_oracle.random_game(3, 5, 0.0)
      policies = [np.exp(game.log_reference)]
      for count in range(1, 5):
        state, _ = solve(game, games.mwu, 0.5, iterations=count)
        policies.append(np.asarray(jax.nn.softmax(state.logits)))
      np.testing.assert_allclose(
        np.exp(state.average), np.mean(policies, 0), atol=1e-14
      )
      state, _ = solve(game, games.fictitious_play, 0.0, iterations=1)
      start = np.exp(game.log_reference)
      best = np.eye(5)[np.argmax(np.asarray(game.preference) @ start)]
      np.testing.assert_allclose(
        np.exp(state.average), (start + best) / 2, atol=1e-14
      )

  def test_where_best_response_and_rlhf_end(self):
    with jax.enable_x64(True):
      game = games_oracle.random_game(4, 5, 0.1)
      rewards = jnp.asarray(games.fit_scores(game.preference))
      ends = {
        games.best_response_to_reference: games.best_response(
          game, game.log_reference
        ),
        games.rlhf(rewards): game.log_reference + rewards / game.kl_coef,
      }
      for step, end in ends.items():
        state, _ = solve(game, step, 1.0, iterations=500, measure_every=500)
        self.assertLess(games.kl_divergence(end, state.logits), 1e-20)


class UnregularisedTest(absltest.TestCase):
  """τ = 0 on rock-scissors-paper, whose equilibrium is uniform."""

  def run_it(self, name: str, size: float):
    """The policy and gap of the last iterate, the judged gap at both ends."""
    algorithm = games.ALGORITHMS[name]
    with jax.enable_x64(True):
      game = rps_game(0.0)
      state, curves = solve(
        game,
        algorithm.step,
        size,
        iterations=60_000,
        measure_every=60_000,
        judged=algorithm.judged,
      )
      last = games.duality_gap(game, state.logits)
      policy = np.asarray(jax.nn.softmax(state.logits))
      return policy, float(last), np.asarray(curves["gap"])

  def test_onpo_converges_in_the_last_iterate(self):
    policy, _, gap = self.run_it("onpo", 1 / 8)
    np.testing.assert_allclose(policy, np.full(3, 1 / 3), atol=1e-9)
    self.assertLess(gap[-1], 1e-9)

  def test_mwu_converges_on_average_only(self):
    _, last, gap = self.run_it("mwu", 0.1)
    self.assertLess(gap[-1], gap[0] / 10)
    self.assertGreater(last, gap[0])

  def test_fictitious_play_converges_on_average(self):
    _, last, gap = self.run_it("fictitious_play", 0.0)
    self.assertLess(gap[-1], 1e-2)
    self.assertEqual(last, 0.5)


class SolveTest(parameterized.TestCase):
  def test_measures_at_the_right_iterations(self):
    game = rps_game(0.1)
    _, each = solve(game, games.omd, 0.3, iterations=12)
    last, fourth = solve(game, games.omd, 0.3, iterations=12, measure_every=4)
    self.assertLen(each["gap"], 13)
    np.testing.assert_array_equal(fourth["gap"], each["gap"][::4])
    self.assertAlmostEqual(
      each["gap"][0], games.duality_gap(game, game.log_reference)
    )
    self.assertEqual(last.iteration, 12)

  def test_schedule_sees_the_iteration(self):
    game = rps_game(0.1)
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    state, _ = solve(game, games.omd, None, step_size=schedule, iterations=2)
    byhand = games.init_state(game.log_reference)
    for size in (1.0, 0.9):
      byhand = games.omd(
        jax.random.key(0), byhand, game, size, games.exact_query
      )
    np.testing.assert_allclose(state.logits, byhand.logits, atol=1e-6)

  def test_maps_over_games_temperatures_steps_and_keys_in_one_program(self):
    matrices = games.random_preferences(
      jax.random.key(0), contexts=3, responses=4
    )
    game = games.make_game(
      preference=matrices,
      reference=[0.4, 0.3, 0.2, 0.1],
      kl_coef=[0.1, 0.5, 1.0],
    )
    sizes = jnp.array([0.1, 0.3])
    keys = jax.random.split(jax.random.key(1), 5)
    traces = []

    def one(game, size, key):
      traces.append(None)
      return solve(
        game,
        games.nash_md,
        size,
        query=games.sampled_opponents(2),
        key=key,
        iterations=20,
        measures={"rate": games.win_rate_over(game.log_reference)},
      )[1]["rate"]

    over_keys = jax.vmap(one, in_axes=(None, None, 0))
    over_sizes = jax.vmap(over_keys, in_axes=(None, 0, None))
    together = jax.jit(jax.vmap(over_sizes, in_axes=(0, None, None)))
    rates = together(game, sizes, keys)
    together(game, 2 * sizes, keys)
    self.assertLen(traces, 1)
    self.assertEqual(rates.shape, (3, 2, 5, 21))
    alone = one(jax.tree.map(lambda part: part[2], game), sizes[1], keys[4])
    np.testing.assert_allclose(rates[2, 1, 4], alone, atol=1e-5)
    self.assertGreater(np.std(rates[0, 0, :, -1]), 0)

  @parameterized.named_parameters(
    ("opponents", games.sampled_opponents),
    ("votes", games.sampled_votes),
  )
  def test_sampled_queries_are_unbiased(self, make):
    game = games.make_game(
      preference=games_oracle.DICE, reference=[0.6, 0.3, 0.1], kl_coef=0.1
    )
    keys = jax.random.split(jax.random.key(0), 20_000)
    query = functools.partial(make(3), game=game, logits=game.log_reference)
    drawn = jax.vmap(lambda key: query(key))(keys)
    exact = games.win_probs(game, game.log_reference)
    # A mean of 60,000 values within [0, 1]: five standard errors.
    np.testing.assert_allclose(drawn.mean(0), exact, atol=5 * 0.5 / 60_000**0.5)
    self.assertGreater(np.asarray(drawn).std(0).min(), 0)

  def test_both_queries_of_a_step_have_keys_of_their_own(self):
    game, keys = rps_game(0.1), []

    def query(key, game, logits):
      keys.append(jax.random.key_data(key).tolist())
      return games.exact_query(key, game, logits)

    for name, algorithm in games.ALGORITHMS.items():
      keys.clear()
      state = games.init_state(game.log_reference)
      algorithm.step(jax.random.key(3), state, game, 0.1, query)
      self.assertLen(keys, algorithm.queries, msg=name)
      self.assertLen({tuple(key) for key in keys}, algorithm.queries, msg=name)

  @parameterized.named_parameters(
    ("uneven", {"iterations": 10, "measure_every": 3}, "got 10 and 3"),
    ("none", {"iterations": 0}, "got 0 and 1"),
    ("judged", {"judged": "best"}, "judged: .* got 'best'"),
  )
  def test_bad_input(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      solve(rps_game(0.1), games.omd, 0.1, **changes)


if __name__ == "__main__":
  absltest.main()
