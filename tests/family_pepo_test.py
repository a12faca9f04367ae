"""The curves of pessimism against plain loops, and what its rows hold."""

from absl.testing import absltest, parameterized
import jax
import numpy as np

from figures import family_pepo

BETA, STEP = family_pepo.KL_COEF, family_pepo.STEP
SIZES = dict(prompts=2, responses=4, pairs=6)
EPOCHS = (0, 1, 3)


def plainly(world: family_pepo.World, pessimism: float) -> list[np.ndarray]:
  """π after `EPOCHS`, prompt by prompt and pair by pair."""
  found = [np.zeros_like(world.log_reference) for _ in EPOCHS]
  for x, reference in enumerate(world.log_reference):
    gained = np.zeros_like(reference)  # log π/μ up to a constant
    for epoch in range(EPOCHS[-1] + 1):
      if epoch in EPOCHS:
        policy = np.exp(reference + gained)
        found[EPOCHS.index(epoch)][x] = policy / policy.sum()
      slope = np.zeros_like(gained)
      for (a, b), vote in zip(world.pairs[x], world.votes[x], strict=True):
        won, lost = (a, b) if vote else (b, a)
        margin = gained[won] - gained[lost] - np.log(1 + pessimism)
        push = BETA / (1 + np.exp(BETA * margin)) / len(world.pairs[x])
        slope[won] += push
        slope[lost] -= push
      gained = gained + STEP * slope
  return found


class CurvesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.world = family_pepo.make_world(3, **SIZES)

  @parameterized.parameters(0.0, 0.7)
  def test_policies_descend_the_loss(self, pessimism):
    found = family_pepo.trained(self.world, pessimism, EPOCHS)
    expected = plainly(self.world, pessimism)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-9)
    self.assertGreater(np.abs(expected[2] - expected[0]).max(), 0.01)

  def test_the_win_rate_is_that_against_the_reference(self):
    self.assertAlmostEqual(
      family_pepo.win_rate(self.world, self.world.log_reference), 0.5
    )
    best = np.argmax(self.world.preference.mean(-1), axis=-1)
    surely = np.full_like(self.world.log_reference, -np.inf)
    surely[np.arange(2), best] = 0.0
    self.assertGreater(family_pepo.win_rate(self.world, surely), 0.5)

  def test_members_share_no_comparison_unless_they_overlap(self):
    world = family_pepo.make_world(3, prompts=1, responses=4, pairs=24)
    world = world._replace(votes=np.arange(24.0)[None])
    for overlap, expected in ((0.0, 24), (0.25, 30)):
      seen = [
        vote
        for number in range(family_pepo.MEMBERS)
        for vote in family_pepo.part(world, number, overlap, 3).votes[0]
      ]
      self.assertEqual(set(seen), set(range(24)))
      self.assertLen(seen, expected)

  def test_an_ensemble_is_the_least_of_its_members(self):
    members = np.log(np.random.default_rng(0).dirichlet(np.ones(4), (3, 2)))
    found = family_pepo.joined(list(members), "minimum", 0.0)
    least = np.exp(members).min(0)
    np.testing.assert_allclose(
      np.exp(found), least / least.sum(-1, keepdims=True), rtol=1e-9
    )


class RowsTest(parameterized.TestCase):
  @parameterized.parameters((0.05, True), (0.15, False))
  def test_an_ensemble_that_falls_further_is_told(self, fall, holds):
    noise = 0.001 * np.arange(5)[:, None]
    rates = np.array([[0.5, 0.7, 0.6]]) + noise * [0, 0, 1]
    other = np.array([[0.5, 0.7, 0.7 - fall]]) + noise * [0, 0, -1]
    found = dict.fromkeys(family_pepo.ENSEMBLES, other)
    found |= {family_pepo.DPO: rates, family_pepo.MARGIN: rates}
    held = [row["holds"] for row in family_pepo.rows(found)]
    count = len(family_pepo.ENSEMBLES)
    self.assertEqual(held, [True, *[holds] * count, True])
    # t of 4 at 95 % is 2.776: .098 ∓ 2.776 · .00158 / √5.
    self.assertIn("0.098 (0.096 to 0.100)", family_pepo.section(found))


if __name__ == "__main__":
  absltest.main()
