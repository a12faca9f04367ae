"""Measured settling times against curves, and the study's table."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import declare, games, mistakes
from nashmd_jax.evaluation import game_study
from tests import games_oracle

TARGET_KL = 1e-6


def three_raters() -> games.Game:
  return games.make_game(
    preference=games.three_raters(0.1), reference=[1 / 3] * 3, kl_coef=0.1
  )


def settle(game, name, step_size, horizon, judged="logits"):
  time, last_kl = games.settling_time(
    game,
    step=games.ALGORITHMS[name].step,
    step_size=games.constant(step_size),
    judged=judged,
    target=games_oracle.target(game),
    target_kl=TARGET_KL,
    horizon=horizon,
  )
  return int(time), float(last_kl)


class SettlingTest(parameterized.TestCase):
  def test_two_responses_by_hand(self):
    """KL of a mirror step at ητ = ½: log-odds halve their distance.

    Two responses, uniform μ, P(0 ≻ 1) = 1, τ = ½: the log-odds 1 of the
    equilibrium are approached as 1 − 2^−t, for P(0 ≻ π) − P(1 ≻ π) is ½
    whatever π.
    """
    with jax.enable_x64(True):
      game = games.make_game(
        preference=[[0.5, 1], [0, 0.5]], reference=[0.5, 0.5], kl_coef=0.5
      )
      kls = [
        games.kl_divergence(
          jnp.array([1.0, 0.0]), jnp.array([1 - 2.0**-t, 0.0])
        )
        for t in range(20)
      ]
      expected = next(t for t, kl in enumerate(kls) if kl <= TARGET_KL)
      time, last = settle(game, "omd", 1.0, expected)
      self.assertEqual(time, expected)
      self.assertLess(last, TARGET_KL)
      self.assertEqual(settle(game, "omd", 1.0, expected - 1)[0], expected)

  @parameterized.parameters(("nash_md", 0.1), ("omd", 4.0), ("egpo", 5.0))
  def test_is_where_the_curve_stays_below(self, name, step_size):
    with jax.enable_x64(True):
      game, horizon = three_raters(), 600
      _, curves = games.solve(
        game,
        step=games.ALGORITHMS[name].step,
        step_size=games.constant(step_size),
        query=games.exact_query,
        logits=game.log_reference,
        iterations=2 * horizon,
        key=jax.random.key(0),
        measures={"kl": games.kl_to(games_oracle.target(game))},
        measure_every=1,
        judged="logits",
      )
      above = np.flatnonzero(np.asarray(curves["kl"]) > TARGET_KL)
      time, last = settle(game, name, step_size, horizon)
      self.assertEqual(time, above[-1] + 1)
      self.assertAlmostEqual(last, curves["kl"][-1], delta=1e-15)

  def test_passing_close_by_does_not_count(self):
    """A biased step: KL falls below the target once and rises again."""
    with jax.enable_x64(True):
      time, last = settle(three_raters(), "nash_md", 0.193, 600)
      self.assertEqual(time, 601)
      self.assertGreater(last, TARGET_KL)

  def test_best_step_of_those_given(self):
    with jax.enable_x64(True):
      game, sizes = three_raters(), jnp.array([0.5, 2.0, 4.4, 8.0])
      found = games.best_constant_step(
        game,
        step=games.omd,
        step_sizes=sizes,
        judged="logits",
        target=games_oracle.target(game),
        target_kl=TARGET_KL,
        horizon=300,
      )
      times = [settle(game, "omd", size, 300)[0] for size in sizes]
      self.assertEqual(float(found[0]), 4.4)
      self.assertEqual(int(found[1]), min(times))

  def test_without_a_step_that_settles_the_nearest(self):
    with jax.enable_x64(True):
      game, sizes = three_raters(), jnp.array([0.2, 0.3, 9.0])
      size, time, last = games.best_constant_step(
        game,
        step=games.nash_md,
        step_sizes=sizes,
        judged="logits",
        target=games_oracle.target(game),
        target_kl=TARGET_KL,
        horizon=300,
      )
      self.assertEqual(float(size), 0.2)
      self.assertEqual(int(time), 301)
      self.assertGreater(last, TARGET_KL)


class StudyTest(parameterized.TestCase):
  SETTINGS = {
    "references": {"dice": (0.5, 0.3, 0.2)},
    "kl_coef": 0.1,
    "target_kl": TARGET_KL,
    "horizon": 400,
    "ema_decay": 0.9,
    "step_sizes": {"smallest": 1.0, "largest": 10.0, "count": 5},
  }

  def test_rlhf_and_best_response_solve_another_problem(self):
    """The KL in the table is that of their closed-form ends."""
    with jax.enable_x64(True):
      game = games.make_game(
        preference=games_oracle.DICE, reference=[0.5, 0.3, 0.2], kl_coef=0.1
      )
      rows = {
        row["algorithm"]: row
        for row in game_study.study(**self.SETTINGS)
        if row["steps"] != "theory"
      }
      target = games_oracle.target(game)
      mu = np.array([0.5, 0.3, 0.2])
      rewards = games.fit_scores(np.outer(mu, mu) * games_oracle.DICE)
      ends = {
        "best_response": games.best_response(game, game.log_reference),
        "rlhf": game.log_reference + rewards / 0.1,
      }
      for name, end in ends.items():
        self.assertIsNone(rows[name]["iterations"])
        expected = float(games.kl_divergence(target, end))
        self.assertAlmostEqual(rows[name]["last_kl"], expected, delta=1e-9)
      self.assertEqual(rows["egpo"]["queries"], 2 * rows["egpo"]["iterations"])
      self.assertEqual(rows["rlhf"]["kl_coef"], 0.1)
      self.assertEqual(rows["onpo"]["kl_coef"], 0.0)

  @parameterized.named_parameters(
    (
      "game",
      {"references": {"poker": (0.5, 0.5)}},
      "got .'poker'., expected some",
    ),
    ("size", {"references": {"dice": (0.5, 0.5)}}, r"s.dice: .* \(2,\)"),
    (
      "zero",
      {"references": {"dice": (0.5, 0.5, 0.0)}},
      r"references.dice: got",
    ),
    ("tau", {"kl_coef": 0.0}, "games.kl_coef: got 0.0, .* above 0"),
    ("horizon", {"horizon": 3}, "games.horizon: got 3"),
    ("decay", {"ema_decay": 1.2}, "games.ema_decay: got 1.2"),
    (
      "sizes",
      {"step_sizes": {"smallest": 2.0, "largest": 1.0, "count": 5}},
      "games.step_sizes: .* smallest < largest",
    ),
  )
  def test_bad_settings(self, changes, message):
    def check(settings):
      declare.check(game_study.SETTINGS, settings, "games")
      findings = mistakes.Findings()
      game_study.check(settings, findings)
      findings.tell()

    check(self.SETTINGS)
    with self.assertRaisesRegex(ValueError, message):
      check(self.SETTINGS | changes)


if __name__ == "__main__":
  absltest.main()
