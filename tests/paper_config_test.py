"""The config of the paper's tables: who plays, and what is swept."""

from absl.testing import absltest, parameterized

from configs import paper
from figures import paper_found
from nashmd_jax import pipeline
from nashmd_jax.judges import raters
from nashmd_jax.nash import settings
from nashmd_jax.stages import comparisons, exploit, judging, sft, text
from nashmd_jax.sweeps import hyper, trials


class PaperConfigTest(parameterized.TestCase):
  def test_the_policies_are_those_of_the_tables(self):
    config = paper.get_config("tiny")
    pipeline.check(text.PIPELINE, config)
    self.assertCountEqual(
      config.tournament.policies,
      [*paper_found.POLICIES, *paper_found.MIXTURES],
    )
    self.assertLen(judging.trained_runs(config), 11)
    lanes = {
      name: settings.policy_lane(config, name)
      for name in ("md_250", "md_250_mixture", "ema_999", "ema_999_average")
    }
    self.assertEqual(
      lanes,
      {
        "md_250": {"policy": 1.0},
        "md_250_mixture": {"policy": 0.75, "reference": 0.25},
        "ema_999": {"policy": 1.0},
        "ema_999_average": {"ema": 1.0},
      },
    )

  def test_decays_are_at_the_same_share_of_a_run(self):
    # .999 forgets in 1,000 of 10,000 steps, so in 20 of 200.
    config = paper.get_config("cpu")
    self.assertEqual(config.nash.train.steps, 200)
    decays = [config.nash.runs[name].ema.decay for name in paper.DECAYS]
    self.assertSequenceAlmostEqual(decays, [0.95, 0.975])
    full = paper.get_config("tldr").nash.runs
    self.assertSequenceAlmostEqual(
      [full[name].ema.decay for name in paper.DECAYS], paper.DECAYS.values()
    )

  def test_seeds_share_the_start_and_differ_in_who_votes(self):
    config = paper.get_config("cpu")
    sweep = paper.get_hyper(hyper, "cpu")
    self.assertLen(sweep, 5)
    a, b = (trials.override(config, one, where="x") for one in sweep[:2])
    self.assertEqual(sft.reads(a, "sft"), sft.reads(b, "sft"))
    (first, drawing), (second, _) = map(comparisons.voting, (a, b))
    self.assertLen(first, 12)
    self.assertNotEqual(set(first), set(second))
    self.assertNotIn("voters", drawing)
    others = {**config.raters, "weights": paper.SECOND_WEIGHTS}
    self.assertLen(raters.make_population(**others), 24)

  def test_a_mixture_solves_a_dearer_game(self):
    config = paper.get_config("cpu")
    self.assertEqual(config.nash.runs.md_250.mixture, 0.25)
    self.assertAlmostEqual(
      exploit.solves(config, "md_250_mixture"), config.nash.kl_coef / 0.75
    )
    for name in ("sft", "md_250", "rlhf", "ema_999_average"):
      self.assertIsNone(exploit.solves(config, name))

  def test_tau_is_swept_for_rlhf_by_itself(self):
    sweep = paper.get_hyper(hyper, "cpu_tau")
    config = paper.get_config("cpu")
    own = [one["nash.kl_coef"] / config.nash.kl_coef for one in sweep]
    self.assertEqual(own, list(paper.TAUS))
    runs = [one["nash.runs.rlhf.kl_coef"] for one in sweep]
    self.assertEqual(runs[1], config.nash.runs.rlhf.kl_coef)
    swept = paper.get_config("cpu_tau")
    pipeline.check(text.PIPELINE, swept)
    self.assertCountEqual(judging.trained_runs(swept), paper.SWEPT)
    self.assertRaises(ValueError, paper.get_config, "large")


if __name__ == "__main__":
  absltest.main()
