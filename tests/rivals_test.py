"""Runs that are trained against another run: who is first, what β, refusals."""

from absl.testing import absltest, parameterized

from configs import docstrings
from figures import exploiters
from nashmd_jax import mistakes, pipeline
from nashmd_jax.nash import settings
from nashmd_jax.stages import exploit, judging, nash, text
from tests import small_worlds

ADVERSARY = {"opponent": "rival", "rival": "nash_md", "deploy": "last"}


def made_config(policies=("nash_md",), adversaries=("adversary",), **runs):
  config = docstrings.get_config("tiny").copy_and_resolve_references()
  with config.unlocked():
    config.tournament.policies = ("sft",)
    config.exploit.policies, config.exploit.adversaries = policies, adversaries
    config.nash.runs.update(runs)
  return config


class RunsTest(parameterized.TestCase):
  def test_rivals_are_trained_first(self):
    second = ADVERSARY | {"rival": "adversary"}
    config = made_config(("adversary", "nash_md"), ("second",), second=second)
    self.assertEqual(
      judging.trained_runs(config), ["nash_md", "adversary", "second"]
    )
    self.assertIn("nash/nash_md", nash.needs(config, "nash/adversary"))
    self.assertIn("nash/adversary", exploit.needs(config, "exploit"))

  def test_a_run_answers_in_another_way_without_being_trained_again(self):
    config = made_config(("nash_md", "mixed"), ())
    config.nash.deployed = {"mixed": {"run": "nash_md", "deploy": "mixture"}}
    pipeline.check(text.PIPELINE, config)
    self.assertEqual(judging.trained_runs(config), ["nash_md"])
    self.assertEqual(
      settings.policy_lane(config, "mixed"),
      {"policy": 0.875, "reference": 0.125},
    )
    self.assertEqual(settings.policy_lane(config, "nash_md"), {"policy": 1.0})
    self.assertEqual(exploit.needs(config, "exploit")[1:2], ["nash/nash_md"])
    self.assertIn(
      "nash.deployed.mixed.deploy", exploit.reads(config, "exploit")
    )
    self.assertNotIn("mixed", str(nash.reads(config, "nash/nash_md")))

  @parameterized.parameters(
    ("nash_md", "ema", "keeps no moving average"),
    ("best_response", "mixture", "plays no mixture of the policy"),
    ("none", "last", "is neither 'sft' nor one of nash.runs"),
  )
  def test_ways_in_which_a_run_cannot_answer(self, run, deploy, expected):
    config = made_config(("other",), ())
    config.nash.deployed = {"other": {"run": run, "deploy": deploy}}
    with self.assertRaisesRegex(mistakes.Mistake, expected):
      pipeline.check(text.PIPELINE, config)

  def test_a_run_cannot_be_its_own_rival_in_another_way(self):
    config = made_config()
    config.nash.deployed = {"same": {"run": "adversary", "deploy": "last"}}
    config.nash.runs.adversary.rival = "same"
    with self.assertRaisesRegex(mistakes.Mistake, "none can be trained first"):
      settings.run_section(config, "adversary")

  @parameterized.parameters(
    ({}, 0.0),
    ({"deploy": "mixture"}, 0.125),
    ({"deploy": "mixture", "mixture": 0.0, "mixture_end": 0.5,
      "mixture_steps": 8}, 0.25),
  )  # fmt: skip
  def test_plays_what_its_rival_deploys(self, rival, beta):
    config = made_config(nash_md=rival)
    section = settings.run_section(config, "adversary")
    self.assertEqual((section.mixture, section.mixture_end), (beta, beta))
    ((weight, lane),) = settings.make_opponent(section).lanes(0)
    self.assertEqual(weight, 1.0)
    self.assertEqual(lane, {"rival": 1 - beta, "reference": beta})

  @parameterized.parameters(
    ({"adversary": {"rival": None}}, "nash.rival: not given"),
    ({"adversary": {"rival": "nobody"}}, "nash.runs: no run 'nobody'"),
    ({"adversary": {"rival": "adversary"}}, "so that none can be trained"),
    ({"nash_md": ADVERSARY | {"rival": "adversary"}},
     "'adversary' plays 'nash_md' plays 'adversary'"),
    ({"adversary": {"deploy": "mixture"}}, "plays no mixture of the policy"),
    ({"adversary": {"opponent": "self"}}, "'adversary' plays no rival"),
    ({"adversary": {"rival": "sft"}}, "plays 'sft', which is not one of"),
  )  # fmt: skip
  def test_what_cannot_be_played_is_refused(self, runs, sentence):
    config = made_config(**runs)
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    self.assertIn(sentence, "\n".join(caught.exception.sentences))

  def test_a_world_has_no_other_run(self):
    config = small_worlds.small_config()
    config.nash.runs = {"a": {"opponent": "rival"}}
    with self.assertRaisesRegex(mistakes.Mistake, "this config has no"):
      settings.run_section(config, "a")


class PopulationTest(parameterized.TestCase):
  def population(self, policies=("nash_md", "sft"), weights=(3.0, 1.0), **runs):
    own = {
      "opponent": "population",
      "population": {"policies": policies, "weights": weights},
    }
    return made_config(("crowd",), (), crowd=own, **runs)

  def test_each_writes_in_a_lane_of_its_own_and_is_trained_first(self):
    config = self.population()
    self.assertEqual(judging.trained_runs(config), ["nash_md", "crowd"])
    needed = nash.needs(config, "nash/crowd")
    self.assertEqual(needed, ["sft", "preference", "nash/nash_md"])
    section = settings.run_section(config, "crowd")
    self.assertEqual(
      list(settings.make_opponent(section).lanes(0)),
      [(0.75, {"population_0": 1.0}), (0.25, {"population_1": 1.0})],
    )
    self.assertEqual(
      settings.played(section),
      {"population_0": "nash_md", "population_1": "sft"},
    )
    pipeline.check(text.PIPELINE, config)

  @parameterized.parameters(
    (dict(policies=()), "nash.population: got 0 policies and 2 weights"),
    (dict(policies=("sft", "nobody")), "nash.runs: no run 'nobody'"),
    (dict(policies=("sft", "crowd")), "'crowd' plays 'crowd', so that none"),
    (dict(nash_md={"deploy": "mixture"}), "'nash_md' deploys a mixture"),
    (
      dict(nash_md={"opponent": "rival", "rival": "crowd"}),
      "'crowd' plays 'nash_md' plays 'crowd'",
    ),
  )
  def test_what_cannot_be_played_is_refused(self, changes, sentence):
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, self.population(**changes))
    self.assertIn(sentence, "\n".join(caught.exception.sentences))


class AdversaryTest(absltest.TestCase):
  def test_finds_most_of_the_exact_gap(self):
    """Trained by sampling alone, against a policy far from the equilibrium."""
    found, gap = exploiters.adversary(steps=60)
    self.assertGreater(gap, 0.05)
    self.assertGreater(found / gap, 0.8)
    self.assertLess(found, gap + 1e-4)


if __name__ == "__main__":
  absltest.main()
