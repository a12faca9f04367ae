"""The whole path on the tiny config, its resumption, and users' mistakes."""

from collections.abc import Mapping
import json
import os
import pathlib
import shutil
import subprocess
import sys

from absl.testing import absltest
import numpy as np

from figures import report_page
from nashmd_jax import main
from nashmd_jax.training import metrics
from tests import forked, golden_metrics, small_records

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


def made_folder(test: type[absltest.TestCase]) -> pathlib.Path:
  """An empty folder for the tests of a class."""
  folder = pathlib.Path(absltest.TEST_TMPDIR.value) / test.__name__
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  return folder


class WholePathTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = made_folder(cls)
    cls.workdir = folder / "run"
    records = small_records.write(folder / "records")
    cls.flags = golden_metrics.flags("docstrings", records)
    cls.first = cls.run_on(cls.workdir)

  @classmethod
  def run_on(cls, workdir, *flags):
    return run_main(f"--workdir={workdir}", *cls.flags, *flags)

  def test_every_stage_leaves_what_it_should(self):
    self.assertEqual(self.first.returncode, 0, msg=self.first.stderr[-3000:])
    trained = ["sft", "preference", "reward", "nash/rlhf", "nash/nash_md"]
    for job in (*trained, "comparisons", "judges", "tournament", "report"):
      self.assertTrue((self.workdir / job / "done.json").exists(), job)
      self.assertTrue((self.workdir / job / "key.json").exists(), job)
    for job in trained:
      rows = metrics.load_metrics(self.workdir / job / "metrics.jsonl")
      self.assertEqual([row["step"] for row in rows], [1, 2, 3, 4])
    results = json.loads(
      (self.workdir / "tournament" / "results.json").read_text()
    )
    self.assertEqual(list(results["judges"]), ["raters", "preference"])
    self.assertEqual(list(results["words"]), results["policies"])
    for table in results["judges"].values():
      for part in (table, table["at_equal_length"]):
        rate = np.array(part["win_rate"])
        np.testing.assert_allclose(rate + rate.T, 1.0)
      self.assertLess(table["order_gap"], 1e-5)

  def test_metrics_are_those_of_before_the_seams_were_opened(self):
    if golden_metrics.machine() != golden_metrics.recorded()["machine"]:
      self.skipTest(f"recorded on {golden_metrics.recorded()['machine']}")
    self.assertEmpty(golden_metrics.differences("docstrings", self.workdir))

  def test_no_set_is_kept_that_nothing_names(self):
    for job in ("sft", "preference", "nash/nash_md"):
      step = self.workdir / job / "checkpoints" / "4"
      kept = {path.name for path in step.iterdir() if path.is_dir()}
      self.assertEqual(kept & {"ema", "past"}, set(), job)
      self.assertLessEqual({"params", "optimizer", "data"}, kept)

  def test_watching_judge_stands_beside_the_training_one(self):
    rows = metrics.load_metrics(
      self.workdir / "nash" / "nash_md" / "metrics.jsonl"
    )
    for name in ("eval/win_prob_against_reference",
                 "eval/raters_win_prob_against_reference"):  # fmt: skip
      self.assertEqual([row["step"] for row in rows if name in row], [2, 4])

  def test_judges_are_scored_on_all_held_out_comparisons(self):
    results = json.loads((self.workdir / "judges/results.json").read_text())
    self.assertEqual(list(results["judges"]), ["preference", "reward"])
    self.assertEqual(results["cycles"]["judges"]["reward"]["cyclic"], 0)
    for name, scores in results["judges"].items():
      self.assertEqual("position" in scores, name == "preference")
      table = (self.workdir / "judges" / f"{name}.csv").read_text()
      self.assertLen(table.splitlines(), 1 + results["comparisons"])
      self.assertIn(f"judges: {name} accuracy 0.", self.first.stdout)
    # Those of the training are on the first 16 of them.
    (last,) = metrics.load_metrics(
      self.workdir / "preference" / "metrics.jsonl"
    )[-1:]
    table = (self.workdir / "judges/preference.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:17]]
    right = [
      0.5 + 0.5 * np.sign(float(row[3]) - 0.5) * np.sign(float(row[1]) - 0.5)
      for row in rows
    ]
    self.assertAlmostEqual(last["eval/accuracy"], np.mean(right), places=6)

  def test_page_is_self_contained_and_names_every_policy(self):
    page = (self.workdir / "report" / "index.html").read_text()
    for name in ("written", "sft", "rlhf", "nash_md"):
      self.assertIn(name, page)
    self.assertEqual(page.count('class="sample"'), 8)
    self.assertEqual(page.count("<summary>At equal length"), 2)
    for outside in ("http://", "https://", "src="):
      self.assertNotIn(outside, page.replace("https&#", ""))
    self.assertEqual(report_page.untraced(page), [])
    for name in ("won.svg", "won.csv", "frontier.svg", "win_rates.csv"):
      self.assertTrue((self.workdir / "report" / name).exists(), name)
    for told in ("docstrings.py:tiny", "<td>data.records</td>", "<td>JAX</td>"):
      self.assertIn(told, page)

  def test_judge_prints_the_best_that_noise_allows(self):
    for kind in ("preference", "reward"):
      self.assertRegex(
        self.first.stdout,
        rf"{kind}: accuracy on \d+ held-out comparisons 0\.\d+; the raters' "
        r"noise allows 0\.\d+",
      )
    self.assertRegex(self.first.stdout, r"raters: .* cyclic .*%")

  def test_second_run_says_that_all_is_done(self):
    again = self.run_on(self.workdir)
    self.assertEqual(again.returncode, 0)
    self.assertIn("all is done already", again.stdout)

  def test_cut_off_run_ends_as_the_whole_one(self):
    copy = self.workdir.parent / "cut"
    shutil.copytree(self.workdir, copy)
    stage = copy / "nash" / "nash_md"
    (stage / "done.json").unlink()
    shutil.rmtree(stage / "checkpoints" / "4")
    again = self.run_on(copy, "--stage=nash")
    self.assertEqual(again.returncode, 0, msg=again.stderr[-3000:])
    self.assertIn("nash/nash_md: goes on from step 2", again.stdout)
    for name in ("metrics.jsonl", "done.json"):
      whole, resumed = (
        (folder / "nash" / "nash_md" / name).read_text()
        for folder in (self.workdir, copy)
      )
      if name == "done.json":
        whole, resumed = (
          json.loads(text)["results"] for text in (whole, resumed)
        )
      self.assertEqual(whole, resumed)

  def test_stages_that_changed_are_refused_and_named(self):
    out = self.run_on(self.workdir, "--config.nash.mixture=0.5")
    self.assertEqual(out.returncode, 2)
    self.assertIn("nash.mixture was 0.125 and is now 0.5", out.stderr)
    self.assertIn("nash/nash_md", out.stderr)
    self.assertNotIn("sft, ", out.stderr)
    # Nothing was touched: the run that was there is still whole.
    self.assertIn("all is done already", self.run_on(self.workdir).stdout)

  def test_finished_stages_of_another_workdir_are_taken(self):
    other = self.workdir.parent / "other"
    out = self.run_on(
      other,
      "--stage=nash",
      f"--reuse={self.workdir}",
      "--config.nash.runs.rlhf.kl_coef=0.3",
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    for job in ("sft", "preference", "reward", "nash/nash_md"):
      self.assertIn(f"{job}: reused from", out.stdout)
      self.assertEqual((other / job).resolve(), (self.workdir / job).resolve())
    self.assertIn("nash/rlhf: starts", out.stdout)
    self.assertFalse((other / "nash" / "rlhf").is_symlink())

  def test_broken_line_in_the_comparisons(self):
    copy = self.workdir.parent / "broken"
    shutil.copytree(self.workdir, copy)
    (copy / "preference" / "done.json").unlink()
    path = copy / "comparisons" / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:20]
    path.write_text("\n".join(lines))
    out = self.run_on(copy, "--stage=preference")
    self.assertEqual(out.returncode, 2)
    self.assertIn("train.jsonl, line 3: cannot be read (not JSON", out.stderr)
    self.assertNotIn("Traceback", out.stderr)


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
  "--config.nash.runs.rlhf.loss=kto": "nash.loss: got 'kto'",
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
      "--stage: got 'sft', expected all or one of ('games', 'check', 'status')",
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

  def test_one_sentence_and_status_two(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    commands = []
    for name, flags, kwargs, _ in self.MISTAKES:
      config = kwargs.get("config", "configs/docstrings.py:tiny")
      workdir = f"--workdir={folder / name}"
      commands.append([f"--config={config}", workdir, *flags])
    outcomes = forked.run_all(commands)
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
    faults = (FAULTS, NEXT_FAULTS)
    for found, out in zip(
      faults,
      forked.run_all([[*given, *found] for found in faults]),
      strict=True,
    ):
      self.assertEqual(out.returncode, 2, msg=out.stderr)
      self.assertNotIn("Traceback", out.stderr)
      for sentence in found.values():
        self.assertIn(sentence, out.stderr)
    self.assertFalse((folder / "run").exists())

  def test_own_records_with_a_broken_line(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    good = json.dumps({"id": "1", "prompt": "p", "response": "r"})
    for split in ("train", "validation", "test"):
      (folder / f"{split}.jsonl").write_text(f"{good}\n{good}\n")
    (folder / "validation.jsonl").write_text(f'{good}\n{{"id": "2", \n')
    out = run_main(
      f"--workdir={folder / 'run'}", f"--config.data.records={folder}"
    )
    self.assertEqual(out.returncode, 2)
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
    out = run_main(f"--workdir={path}")
    self.assertEqual(out.returncode, 2)
    self.assertIn("cannot be a workdir", out.stderr)
    self.assertEqual(path.read_text(), "precious")

  def test_folder_that_is_no_workdir(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "thesis.tex").write_text("precious")
    out = run_main(f"--workdir={folder}")
    self.assertEqual(out.returncode, 2)
    self.assertIn("holds no config.json", out.stderr)
    self.assertEqual([p.name for p in folder.iterdir()], ["thesis.tex"])


if __name__ == "__main__":
  absltest.main()
