"""Methods in games of written responses, against what is known of them."""

import pathlib
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
from scipy import special

from figures import (
  paper_found,
  paper_reward,
  paper_sections,
  paper_worlds,
)
from nashmd_jax.games import payoffs, preference_game
from tests import planted_paper


class WorldsTest(absltest.TestCase):
  def test_methods_end_where_theory_has_them(self):
    price, ring = 0.2, payoffs.three_raters(0.2)
    with jax.enable_x64(True):
      game = preference_game.make_game(
        preference=ring[None], reference=np.full(3, 1 / 3), kl_coef=price
      )
      ends = {
        beta: np.asarray(paper_worlds._train(game, beta, 0.5, 400))[0]
        for beta in (0.0, 0.5, 1.0)
      }
    for beta, logits in ends.items():
      # π ∝ exp(P m / τ), m ∝ π^(1 − β) with an even μ.
      mixed = special.softmax((1 - beta) * logits)
      np.testing.assert_allclose(
        special.log_softmax(logits),
        special.log_softmax(ring @ mixed / price),
        atol=1e-9,
      )

  def test_a_longer_run_goes_further_and_noise_costs(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    found = paper_found.load(
      planted_paper.write(folder, planted_paper.PAPER, prompts=8)
    )
    for where, name, value in (
      (paper_reward, "SIZE", 4),
      (paper_worlds, "PRICES", (0.1,)),
    ):
      self.enter_context(mock.patch.object(where, name, value))
    solved = paper_worlds.solve(paper_reward.games_of(found))
    self.assertLen(solved, 6)
    pair = (paper_found.SELF_PLAY, "best_response")
    rate = {
      (one.time, one.noise): told[pair][0] for one, told in solved.items()
    }
    # Without a ring nothing is lost by playing on.
    for time in paper_worlds.TIMES:
      self.assertGreaterEqual(rate[time, 0.0], 0.5)
    self.assertGreater(rate[128.0, 0.0], rate[2.0, 0.0])
    self.assertLess(rate[128.0, 2.0], rate[128.0, 0.0])
    page = "".join(paper_sections.worlds(solved))
    self.assertIn(f"| τ 0.1 | **{rate[2.0, 0.0]:.3f}** |", page)
    empty = paper_reward.games_of(found._replace(prompts=[]))
    self.assertEmpty(paper_worlds.solve(empty))


if __name__ == "__main__":
  absltest.main()
