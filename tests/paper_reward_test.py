"""Where RLHF ends in games with rings, by whose pairs it saw."""

import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
from scipy import special

from figures import paper_found, paper_reward, paper_sections
from nashmd_jax.games import payoffs
from nashmd_jax.judges import raters
from tests import planted_paper


class RewardTest(parameterized.TestCase):
  @parameterized.parameters((0.1, 0), (-0.1, 1))
  def test_the_reward_of_three_raters_is_that_of_the_paper(self, epsilon, best):
    game = payoffs.three_raters(epsilon)
    self.assertTrue(raters.has_ring(game))
    found = paper_reward.rlhf(game, np.full(3, 1 / 3), 0.01)
    self.assertEqual(found.argmax(), best)

  def test_without_a_ring_sampling_does_not_matter(self):
    scores = np.array([1.0, 0.2, -0.4])
    game = special.expit(scores[:, None] - scores)
    self.assertFalse(raters.has_ring(game))
    for sampling in ([0.2, 0.3, 0.5], [0.9, 0.05, 0.05]):
      found = paper_reward.rlhf(game, np.array(sampling), 0.5)
      np.testing.assert_allclose(found, special.log_softmax(scores / 2))
    own = paper_reward.own_sampling(game, 0.5)
    np.testing.assert_allclose(own, special.softmax(scores / 2))

  def test_with_one_it_does(self):
    game = payoffs.three_raters(0.1)
    evenly, other = (
      paper_reward.rlhf(game, np.array(sampling), 0.1)
      for sampling in ([1 / 3] * 3, [0.2, 0.2, 0.6])
    )
    self.assertGreater(np.abs(evenly - other).max(), 0.1)
    # Each win rate against what is sampled is that of the fit.
    sampling = np.array([0.2, 0.2, 0.6])
    scores = 4 * 0.1 * other
    fitted = special.expit(scores[:, None] - scores) @ sampling
    np.testing.assert_allclose(fitted, game @ sampling)

  def test_games_are_of_the_texts_of_all_trials(self):
    found = paper_found.load(
      planted_paper.write(
        pathlib.Path(self.create_tempdir().full_path),
        planted_paper.PAPER,
        prompts=6,
      )
    )
    self.enter_context(mock.patch.object(paper_reward, "SIZE", 3))
    games = paper_reward.games_of(found)
    first, *_ = games
    texts = [of[0] for one in found.seeds for of in one.texts.values()]
    words = np.array([len(text.split()) for text in dict.fromkeys(texts)][:3])
    more = words[None] - words[:, None]
    np.testing.assert_allclose(
      first, special.expit(planted_paper.SHARPNESS * more)
    )
    fits = paper_reward.fits(games, found.game["kl_coef"])
    self.assertEqual((fits.games, fits.cyclic, fits.few), (6, 0, 0))
    page = "".join(paper_sections.rewards(fits))
    self.assertIn("make 6 games of the exact raters", page)
    self.assertIn(f"| by RLHF | {fits.gap['own'][0]:.3f} (", page)
    for figures in (fits.gap, fits.kl):
      values = [one[0] for one in figures.values()]
      np.testing.assert_allclose(values, values[0], rtol=1e-6)
      self.assertGreater(values[0], 0)


if __name__ == "__main__":
  absltest.main()
