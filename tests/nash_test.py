"""What a user is told about a section `nash`, before anything runs."""

from absl.testing import absltest, parameterized

from configs import docstrings
from nashmd_jax.stages import nash, tournament


def section(**changes):
  config = docstrings.get_config("tiny").unlock()
  config.nash.runs = {"one": changes}
  return nash.run_section(config.lock(), "one")


class SectionTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(loss="ipo", opponent="self"),
    dict(loss="policy_gradient_exact_kl", judge="reward", samples=4),
    dict(updates_per_rollout=4, clip=0.1),
    dict(judge="votes", mixture=0.5, mixture_end=0.0, mixture_steps=100),
    dict(opponent="past", past={"law": "exponential"}),
    dict(deploy="mixture"),
  )
  def test_good_sections(self, **changes):
    checked = section(**changes)
    for key, value in changes.items():
      if key != "past":
        self.assertEqual(checked[key], value)

  @parameterized.parameters(
    (dict(judge="me"), "nash.judge: got 'me'"),
    (dict(loss="ppo"), "nash.loss: got 'ppo'"),
    (
      dict(loss="ipo", judge="reward"),
      r"nash.loss: got 'ipo', expected one of \['policy_gradient', .* reward",
    ),
    (dict(loss="dpo", kl_coef=0.0), "nash.kl_coef: got 0 for the loss 'dpo'"),
    (dict(kl_coef=-1.0), "nash.kl_coef: got -1.0"),
    (dict(samples=0), "nash.samples: got 0"),
    (dict(temperature=0.0), "nash.temperature: got 0.0"),
    (dict(updates_per_rollout=0), "nash: got updates_per_rollout 0"),
    (dict(updates_per_rollout=2, clip=0.0), "and clip 0.0"),
    (
      dict(updates_per_rollout=2, judge="reward"),
      "several updates on one rollout are for 'policy_gradient' on a win_prob",
    ),
    (dict(deploy="best"), "nash.deploy: got 'best'"),
    (dict(past={"law": "recent"}), "past.law: got 'recent'"),
    (dict(lss="ipo"), "nash.runs.one: .* does not fit the keys"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      section(**changes)

  def test_tournament_plays_what_a_run_deploys(self):
    config = docstrings.get_config("tiny").unlock()
    config.nash.runs = {"a": {"deploy": "mixture"}, "b": {}}
    config.lock()
    lanes = [
      tournament.deployed_lane(config, name) for name in ("sft", "a", "b")
    ]
    mixture = {"policy": 0.875, "reference": 0.125}
    self.assertEqual(lanes, [{"policy": 1.0}, mixture, {"policy": 1.0}])


if __name__ == "__main__":
  absltest.main()
