"""What `--explain` says, and that docs/settings.md is what is declared."""

import pathlib

from absl.testing import absltest, parameterized

from configs import docstrings, finetune, worlds
from nashmd_jax import declare, explain, main, mistakes
from tests import forked

PAGE = forked.ROOT / "docs" / "settings.md"
CONFIGS = {
  "docstrings": docstrings.get_config("tiny"),
  "finetune": finetune.get_config(),
  "worlds": worlds.get_config("tiny"),
  "games": worlds.get_config("games"),
}


def said(name: str, config: str = "docstrings") -> str:
  made = CONFIGS[config]
  settings = main.pipeline_of(made, "all").declared()
  return explain.explain(settings, made.to_dict(), name)


class ExplainTest(parameterized.TestCase):
  def test_a_setting(self):
    self.assertEqual(
      said("nash.mixture_steps").splitlines(),
      [
        "nash.mixture_steps: Steps in which β goes from mixture to "
        "mixture_end; 0 keeps it at mixture.",
        "  expected: a whole number of 0 or more, in steps",
        "  here: 0",
        "  may be another in nash.runs.NAME.mixture_steps",
      ],
    )

  def test_one_that_no_run_may_change(self):
    self.assertNotIn("may be another", said("sft.train.steps"))
    self.assertIn("may be another in judge_model.width", said("model.width"))
    self.assertIn("nash.runs.NAME.optimizer.b1", said("nash.optimizer.b1"))

  def test_of_a_run(self):
    self.assertIn("here: 0.2", said("nash.runs.rlhf.kl_coef"))
    self.assertIn("here: as nash.clip, 0.2", said("nash.runs.rlhf.clip"))
    self.assertIn("here: as model.width, 16", said("judge_model.width"))
    steps = said("nash.runs.rlhf.train.steps")
    self.assertIn("here: as nash.train.steps, 4", steps)

  def test_one_that_the_config_does_not_say(self):
    told = said("model.window", "finetune")
    self.assertIn("expected: a whole number of 1 or more or None", told)
    self.assertIn("here: absent", told)

  def test_a_section(self):
    lines = said("sft.optimizer").splitlines()
    self.assertEqual(lines[0], "sft.optimizer: a section")
    self.assertIn("  sft.optimizer.name = 'adamw': The optimizer.", lines)
    self.assertLen(lines, 9)
    self.assertIn("nash.train.steps = 4", said("nash"))
    self.assertIn("of_8.samples = 8", said("tournament.chosen"))

  @parameterized.parameters(
    "nash.mixtur", "mixture", "nash.runs.absent.kl_coef", "nash.mixture.x", "",
    "nash.runs.rlhf.runs", "judge_model.watch", ".", "*", "nash.*",
  )  # fmt: skip
  def test_one_that_there_is_not(self, name):
    with self.assertRaises(mistakes.Mistake) as caught:
      said(name)
    self.assertStartsWith(
      str(caught.exception), f"--explain: there is no setting {name!r}; the n"
    )

  def test_the_nearest_are_told(self):
    with self.assertRaisesRegex(mistakes.Mistake, "are nash.mixture, nash.mi"):
      said("nash.mixtur")

  @parameterized.parameters(*CONFIGS)
  def test_every_setting_of_a_config(self, config):
    made = CONFIGS[config]
    settings = main.pipeline_of(made, "all").declared()
    names = dict(explain.walk(settings, made.to_dict()))
    self.assertGreater(len(names), 10)
    for name, one in names.items():
      told = said(name, config)
      self.assertStartsWith(told, f"{name}: ")
      if isinstance(one, declare.Setting):
        self.assertRegex(one.says, r"^[^a-z].*\.$", msg=name)
        self.assertIn("  here: ", told)

  def test_as_a_flag(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    given = ["--config=configs/docstrings.py:tiny", f"--workdir={folder}/run"]
    good, flag, bad = forked.run_all([
      [*given, "--explain=nash.mixture", "--config.nash.mixture=0.5"],
      [*given, "--explain=chat.system", "--config.chat.system=None"],
      [*given, "--explain=nash.mixtur"],
    ])  # fmt: skip
    self.assertEqual(good.returncode, 0, msg=good.stderr)
    self.assertIn("  here: 0.5\n", good.stdout)
    self.assertIn("  here: None\n", flag.stdout)
    self.assertEqual(bad.returncode, 2)
    self.assertLen(bad.stderr.splitlines(), 1)
    self.assertIn("the nearest are nash.mixture,", bad.stderr)
    self.assertFalse((folder / "run").exists())


class PageTest(absltest.TestCase):
  def test_is_what_is_declared(self):
    # `make settings` writes it anew.
    self.assertEqual(
      PAGE.read_text(encoding="utf-8"), main.explained("all") + "\n"
    )

  def test_holds_every_setting_once(self):
    text = main.explained("all")
    for name in ("b1", "timeout_seconds", "horizon", "samples_per_prompt"):
      self.assertEqual(text.count(f"\n| {name} |"), 1, msg=name)
    self.assertIn("### nash.optimizer\n\nAs `sft.optimizer`.", text)
    self.assertIn("Each may be another in `nash.runs.NAME`.", text)


if __name__ == "__main__":
  absltest.main()
