"""What a user is told about a section `nash`, before anything runs."""

from absl.testing import absltest, parameterized

from configs import docstrings
from nashmd_jax import declare, mistakes
from nashmd_jax.nash import checks, settings
from nashmd_jax.stages import nash


def config_of(changes):
  """The tiny config with one run, which makes these changes."""
  config = docstrings.get_config("tiny").unlock()
  config.nash.runs = {"one": changes}
  return config.lock()


def section(**changes):
  """The section of that run, not checked."""
  return settings.run_section(config_of(changes), "one")


def check(**changes):
  """The same, checked: raises all that is wrong with it."""
  findings = mistakes.Findings()
  made = config_of(changes)
  findings.sentences += declare.faults(
    nash.SETTINGS, made.nash.to_dict(), "nash"
  )
  findings.tell()
  found = settings.run_section(made, "one")
  checks.check(found, findings)
  findings.tell()
  return found


class SectionTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(loss="ipo", opponent="self"),
    dict(loss="policy_gradient_exact_kl", judge="reward", samples=4),
    dict(updates_per_rollout=4, clip=0.1),
    dict(judge="votes", mixture=0.5, mixture_end=0.0, mixture_steps=100),
    dict(judge="raters", samples=2),
    dict(opponent="past", past={"law": "exponential"}),
    dict(opponent="moving_average", deploy="mixture"),
    dict(deploy="mixture"),
    dict(loss="inpo", opponent="anchor", iterate={"coef": 0.2}),
    dict(loss="mnpo", iterate={"coef": 0.2, "weights": (0.5, 0.3)}),
    dict(loss="sppo", kl_coef=0.0, iterate={"coef": 0.2}),
    dict(loss="dno", opponent="self"),
  )
  def test_good_sections(self, **changes):
    checked = check(**changes)
    for key, value in changes.items():
      if key not in ("past", "iterate"):
        self.assertEqual(checked[key], value)

  @parameterized.parameters(
    (dict(judge="me"), "nash.judge: got 'me'"),
    (dict(loss="ppo"), "nash.loss: got 'ppo'"),
    (
      dict(loss="ipo", judge="reward"),
      r"nash.loss: got 'ipo', expected one of \['grpo', 'kto', 'policy_gradi",
    ),
    (dict(loss="dpo", kl_coef=0.0), "nash.kl_coef: got 0 for the loss 'dpo'"),
    (dict(kl_coef=-1.0), "nash.runs.one.kl_coef: got -1.0"),
    (dict(samples=0), "nash.runs.one.samples: got 0"),
    (dict(temperature=0.0), "nash.runs.one.temperature: got 0.0"),
    (dict(updates_per_rollout=0), "one.updates_per_rollout: got 0"),
    (dict(updates_per_rollout=2, clip=0.0), "nash.runs.one.clip: got 0.0"),
    (
      dict(updates_per_rollout=2, judge="reward"),
      "what another policy wrote is for 'policy_gradient' on a win_prob",
    ),
    (dict(deploy="best"), "nash.runs.one.deploy: got 'best'"),
    (
      dict(deploy="mixture", opponent="past"),
      "nash.deploy: got 'mixture' for the opponent 'past'",
    ),
    (dict(past={"law": "recent"}), "past.law: got 'recent'"),
    (dict(ema={"decay": 1.0}), "ema.decay: got 1.0"),
    (dict(iterate={"every": 0}), "iterate.every: got 0"),
    (dict(iterate={"weights": ()}), r"iterate.weights: got \(\)"),
    (dict(loss="sppo", kl_coef=0.0), "nash.kl_coef: got 0 for the loss 'sppo'"),
    (dict(loss="inpo"), "nash.iterate.coef: got 0 for the loss 'inpo'"),
    (
      dict(loss="inpo", iterate={"coef": 0.1, "weights": (1.0, 1.0)}),
      r"nash.iterate.weights: got \(1.0, 1.0\) for the loss 'inpo'",
    ),
    (
      dict(loss="policy_gradient_exact_kl", iterate={"coef": 0.1}),
      "nash.iterate.coef: got 0.1 for the loss 'policy_gradient_exact_kl'",
    ),
    (dict(lss="ipo"), r"nash.runs.one: .* unknown \['lss'\]; expected"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      check(**changes)

  @parameterized.parameters(
    dict(samples=0, deploy="best", kl_coef=float("nan")),
    dict(loss="ppo", opponent="me"),
  )
  def test_all_mistakes_are_told_at_once(self, **changes):
    with self.assertRaises(mistakes.Mistake) as caught:
      check(**changes)
    self.assertLen(caught.exception.sentences, len(changes))
    for sentence in caught.exception.sentences:
      self.assertStartsWith(sentence, "nash.")

  def test_a_run_that_there_is_not(self):
    config = docstrings.get_config("tiny")
    with self.assertRaisesRegex(ValueError, "nash.runs: no run 'two' among"):
      settings.run_section(config, "two")

  @parameterized.parameters(
    (dict(), {"policy": 1.0}),
    (dict(deploy="mixture"), {"policy": 0.875, "reference": 0.125}),
    # The tiny config trains for 4 steps.
    (
      dict(deploy="mixture", mixture=0.5, mixture_end=0.0, mixture_steps=8),
      {"policy": 0.75, "reference": 0.25},
    ),
  )
  def test_what_a_run_deploys(self, changes, expected):
    self.assertEqual(settings.deployed_lane(section(**changes)), expected)

  def test_tournament_plays_what_a_run_deploys(self):
    config = docstrings.get_config("tiny").unlock()
    config.nash.runs = {"a": {"deploy": "mixture"}, "b": {}}
    config.lock()
    lanes = [settings.policy_lane(config, name) for name in ("sft", "a", "b")]
    mixture = {"policy": 0.875, "reference": 0.125}
    self.assertEqual(lanes, [{"policy": 1.0}, mixture, {"policy": 1.0}])

  @parameterized.parameters(
    (dict(), []),
    (dict(opponent="past"), ["past"]),
    (dict(deploy="ema"), ["ema"]),
    (dict(opponent="past", deploy="ema"), ["ema", "past"]),
    (dict(opponent="moving_average_mixture", deploy="mixture"), ["ema"]),
    (dict(opponent="anchor"), ["iterate"]),
    (dict(iterate={"coef": 0.1}, deploy="ema"), ["ema", "iterate"]),
    (dict(iterate={"coef": 0.1, "anchor": "ema"}), ["ema"]),
  )
  def test_followers_are_those_that_are_played_or_deployed(
    self, changes, expected
  ):
    self.assertEqual(
      list(settings.make_followers(section(**changes))), expected
    )

  @parameterized.parameters(
    (dict(), {"reference": 1.0}, 0.1),
    (dict(coef=0.3), {"reference": 0.25, "anchor": 0.75}, 0.4),
    (
      dict(coef=0.3, weights=(2.0, 1.0)),
      {"reference": 0.25, "anchor": 0.5, "anchor_1": 0.25},
      0.4,
    ),
    (dict(coef=0.3, anchor="ema"), {"reference": 0.25, "ema": 0.75}, 0.4),
    (dict(coef=0.3, kl_coef=0.0), {"anchor": 1.0}, 0.3),
  )
  def test_what_a_policy_is_held_to(self, changes, lane, price):
    kl_coef = changes.pop("kl_coef", 0.1)
    held = settings.make_held(section(kl_coef=kl_coef, iterate=changes))
    self.assertEqual(set(held.lane), set(lane))
    for name, weight in lane.items():
      self.assertAlmostEqual(held.lane[name], weight)
    self.assertAlmostEqual(held.kl_coef, price)


if __name__ == "__main__":
  absltest.main()
