"""The program as a user calls it: games, and users' mistakes."""

from collections.abc import Mapping
import json
import os
import pathlib
import shutil
import subprocess
import sys

from absl.testing import absltest

from nashmd_jax import main
from tests import forked

ROOT = pathlib.Path(__file__).parent.parent


def run_main(
  *flags: str,
  config: str = "configs/docstrings.py:tiny",
  environ: Mapping[str, str] = os.environ,
):
  """Runs the program as a user does, in a process of its own."""
  return subprocess.run(
    [sys.executable, "-m", "nashmd_jax.main", f"--config={config}", *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env=environ,
  )


def start_main(
  *flags: str, config: str = "configs/docstrings.py:tiny"
) -> subprocess.Popen:
  """The same, started and not waited for."""
  return subprocess.Popen(
    [sys.executable, "-m", "nashmd_jax.main", f"--config={config}", *flags],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def made_folder(test: type[absltest.TestCase]) -> pathlib.Path:
  """An empty folder for the tests of a class."""
  folder = pathlib.Path(absltest.TEST_TMPDIR.value) / test.__name__
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  return folder


class GamesTest(absltest.TestCase):
  def test_study_leaves_a_table_and_figures(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    config = "configs/worlds.py:games_tiny"
    own = dict(os.environ)
    del own["JAX_COMPILATION_CACHE_DIR"]
    out = run_main(f"--workdir={workdir}", config=config, environ=own)
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    folder = workdir / "games"
    for plot in ("simplex.png", "convergence.png", "bounds.png"):
      self.assertGreater((folder / plot).stat().st_size, 5000)
    table = (folder / "table.md").read_text()
    for name in ("nash_md", "omd", "egpo", "nash_ema(0.9)", "rlhf"):
      self.assertIn(f"| rock_paper_scissors | {name} | 0.1 |", table)
    self.assertIn(f"results: {folder / 'table.md'}", out.stdout)
    self.assertTrue(list((workdir.parent / "xla_cache").iterdir()))
    self.assertFalse((workdir / "xla_cache").exists())
    again = run_main(f"--workdir={workdir}", config=config)
    self.assertIn("all is done already", again.stdout)


# A flag each, and what is said of it: of settings by themselves, and then of
# what goes together and of files.
FAULTS = {
  "--config.sft.train.log_every=0": "sft.train.log_every: got 0",
  "--config.preference.data.batch_size=0": "preference.data.batch_size",
  "--config.reward.optimizer.learning_rate=-1.0": "reward.optimizer",
  "--config.nash.kl_coef=-1.0": "nash.kl_coef: got -1.0",
  "--config.nash.runs.rlhf.kl_coef=nan": "nash.runs.rlhf.kl_coef: got nan",
  "--config.nash.optimizer.b2=1.0": "nash.optimizer.b2: got 1.0",
  "--config.comparisons.drawing.temperature=0.0": "drawing.temperature: got 0.",
  "--config.tournament.confidence=2.0": "tournament.confidence: got 2.0",
  "--config.tournament.judges=(3,)": "tournament.judges: got (3,)",
  "--config.lora.rank=-1": "lora.rank: got -1",
  "--config.raters.weights.coverage=-1.0": "coverage",
  "--config.layout.max_response=0": "layout.max_response: got 0",
}
NEXT_FAULTS = {
  "--config.nash.runs.rlhf.loss=ppo": "nash.loss: got 'ppo'",
  "--config.nash.train.micro_batches=3": "train.micro_batches (3)",
  "--config.tournament.judges=('me',)": "tournament.judges: got 'me'",
  "--config.raters.weights.coverage=0.5": "raters.weights: got",
  "--config.layout.prompt_buckets=(32,16)": "layout.prompt_buckets: got (32, 1",
  "--config.sft.train.steps=40": "sft.optimizer.decay_steps: got 4 for 40 upd",
  "--config.nash.updates_per_rollout=2": "nash.optimizer.decay_steps: got 4 f",
  "--config.data.records=absent": "absent/train.jsonl",
}


class MistakesTest(absltest.TestCase):
  # Name, flags, config, what the one sentence says.
  MISTAKES = (
    (
      "typo",
      ["--config.nash.mixtur=0.2"],
      {},
      "there is no setting 'mixtur'; did you mean 'mixture'?",
    ),
    ("tau", ["--config.nash.kl_coef=-0.1"], {}, "nash.kl_coef: got -0.1"),
    ("beta", ["--config.nash.mixture=1.5"], {}, "nash.mixture: got 1.5"),
    ("type", ["--config.nash.mixture=much"], {}, "mixture"),
    ("opponent", ["--config.nash.opponent=me"], {}, "nash.opponent: got 'me'"),
    ("judge", ["--config.nash.judge=me"], {}, "nash.judge: got 'me'"),
    ("flag", ["--mixture=0.5"], {}, "mixture"),
    ("stage", ["--stage=dance"], {}, "--stage: got 'dance', expected all or"),
    (
      "stage_of_another_pipeline",
      ["--stage=sft"],
      {"config": "configs/worlds.py:games"},
      "--stage: got 'sft', expected all or one of ('games', 'check', 'status', "
      "'inspect')",
    ),
    (
      "game",
      ["--config.games.kl_coef=-1."],
      {"config": "configs/worlds.py:games"},
      "games.kl_coef: got -1.0, expected a number above 0",
    ),
    (
      "pipeline",
      ["--config.pipeline=pipes"],
      {},
      "config.pipeline: got 'pipes', expected one of ['games', 'text',",
    ),
    ("file", [], {"config": "absent.py"}, "there is no file 'absent.py'"),
    (
      "variant",
      [],
      {"config": "configs/docstrings.py:huge"},
      "no variant 'huge'",
    ),
    ("data", ["--config.data.records=absent"], {}, "absent/train.jsonl: no"),
    ("bucket", ["--workdir=gs://runs/one"], {}, "got the address gs://runs"),
    (
      "config",
      [],
      {"config": "tests/odd_config.py"},
      "sft.train: missing ['log_every'], unknown ['log_evry']",
    ),
    ("section", ["--config.zzz.a=1"], {}, "there is no setting 'zzz'"),
    ("unfinished", ["--stage=nash"], {}, "needs sft, which is not finished"),
    ("size", ["--config.sft.data.batch_size=0"], {}, "batch_size: got 0"),
    (
      "confidence",
      ["--config.tournament.confidence=95"],
      {},
      "tournament.confidence: got 95.0",
    ),
    (
      "answers",
      ["--config.reward.template.answers=('no', 'no')"],
      {},
      "template.answers",
    ),
    ("model", ["--config.model.family=gru"], {}, "model.family: got 'gru'"),
  )

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.program = cls.enterClassContext(forked.Program())

  def test_one_sentence_and_status_two(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    commands = []
    for name, flags, kwargs, _ in self.MISTAKES:
      config = kwargs.get("config", "configs/docstrings.py:tiny")
      workdir = f"--workdir={folder / name}"
      commands.append([f"--config={config}", workdir, *flags])
    outcomes = map(self.program.run, commands)
    for (name, _, _, message), out in zip(self.MISTAKES, outcomes, strict=True):
      with self.subTest(name):
        self.assertEqual(out.returncode, 2, msg=out.stderr)
        self.assertIn(message, out.stderr)
        self.assertNotIn("Traceback", out.stderr)
        self.assertLen(out.stderr.strip().splitlines(), 1)
        self.assertFalse((folder / name).exists())

  def test_every_fault_is_named_in_one_go(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    given = ["--config=configs/docstrings.py:tiny", f"--workdir={folder}/run"]
    for found in (FAULTS, NEXT_FAULTS):
      out = self.program.run([*given, *found])
      self.assertEqual(out.returncode, 2, msg=out.stderr)
      self.assertNotIn("Traceback", out.stderr)
      for sentence in found.values():
        self.assertIn(sentence, out.stderr)
    self.assertFalse((folder / "run").exists())

  def refused(self, workdir: pathlib.Path, *flags: str):
    given = ["--config=configs/docstrings.py:tiny", f"--workdir={workdir}"]
    out = self.program.run([*given, *flags])
    self.assertEqual(out.returncode, 2)
    return out

  def test_own_records_with_a_broken_line(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    good = json.dumps({"id": "1", "prompt": "p", "response": "r"})
    for split in ("train", "validation", "test"):
      (folder / f"{split}.jsonl").write_text(f"{good}\n{good}\n")
    (folder / "validation.jsonl").write_text(f'{good}\n{{"id": "2", \n')
    out = self.refused(folder / "run", f"--config.data.records={folder}")
    self.assertIn(
      "validation.jsonl, line 2: cannot be read (not JSON", out.stderr
    )

  def test_workdir_that_is_not_given(self):
    for given, folder in {
      "configs/worlds.py:games": "out/worlds-games",
      "configs/docstrings.py": "out/docstrings",
    }.items():
      self.assertEqual(main.default_workdir(given), pathlib.Path(folder))

  def test_file_for_a_workdir(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "notes.txt"
    path.write_text("precious")
    out = self.refused(path)
    self.assertIn("cannot be a workdir", out.stderr)
    self.assertEqual(path.read_text(), "precious")

  def test_folder_that_is_no_workdir(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "thesis.tex").write_text("precious")
    out = self.refused(folder)
    self.assertIn("holds no config.json", out.stderr)
    self.assertEqual([p.name for p in folder.iterdir()], ["thesis.tex"])


if __name__ == "__main__":
  absltest.main()
