"""The whole path on the tiny config, its resumption, what is built on it."""

import json
import os
import shutil
import signal

from absl.testing import absltest
import numpy as np

from figures import paper_found, report_page
from nashmd_jax import files, mistakes
from nashmd_jax.annotators import votes
from nashmd_jax.evaluation import win_rates
from nashmd_jax.stages import annotate
from nashmd_jax.training import metrics
from tests import forked, golden_metrics, small_records, small_votes
from tests.main_test import ROOT, made_folder, run_main, start_main

OWN_CONFIG = """
import importlib.util

def get_config():
  path = "{}/configs/docstrings.py"
  spec = importlib.util.spec_from_file_location("docstrings", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny").unlock()
  config.tournament.update({})
  return config.lock()
"""


def answered(path) -> list[dict]:
  """The rows of a policy, those of a guest with no log-ratio."""
  rows = paper_found.load_lines(path)
  return [{"log_ratio": None} | row for row in rows]


class WholePathTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = made_folder(cls)
    cls.workdir = folder / "run"
    records = small_records.write(folder / "records")
    cls.flags = [
      *golden_metrics.flags("docstrings", records),
      "--config.tournament.log_ratio=True",
    ]
    environ = golden_metrics.environ()
    cls.first = run_main(
      f"--workdir={cls.workdir}", *cls.flags, environ=environ
    )
    cls.program = cls.enterClassContext(forked.Program(environ))

  def run_on(self, workdir, *flags, config="configs/docstrings.py:tiny"):
    given = [f"--config={config}", f"--workdir={workdir}"]
    return self.program.run([*given, *self.flags, *flags])

  def test_every_stage_leaves_what_it_should(self):
    self.assertEqual(self.first.returncode, 0, msg=self.first.stderr[-3000:])
    trained = ["sft", "preference", "reward", "nash/rlhf", "nash/nash_md"]
    for job in (*trained, "comparisons", "judges", "tournament", "report"):
      self.assertTrue((self.workdir / job / "done.json").exists(), job)
      self.assertTrue((self.workdir / job / "key.json").exists(), job)
      done = json.loads((self.workdir / job / "done.json").read_text())
      self.assertGreater(done["cpu_seconds"], 0)
      self.assertLess(done["cpu_seconds"], done["seconds"] * os.cpu_count())
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

  def test_what_the_paper_keeps_of_it(self):
    found = self.workdir.parent / "found"
    config = files.load_json(self.workdir / "config.json")
    self.assertEqual(paper_found.collect_trial(self.workdir, config, found), 0)
    kept = {path: path.read_bytes() for path in found.rglob("*.*")}
    paper_found.collect_trial(self.workdir, config, found)
    self.assertEqual(kept, {path: path.read_bytes() for path in kept})
    (seed,) = paper_found.load(found).seeds
    names = ["sft", "rlhf", "nash_md"]
    self.assertEqual(list(seed.texts), names)
    self.assertEqual(list(seed.rows), names)
    self.assertEqual(list(seed.log_ratios), names)
    np.testing.assert_allclose(seed.log_ratios["sft"], 0, atol=1e-3)
    row = seed.rows["nash_md"]
    told = paper_found.load_lines(found / "seed_0" / paper_found.TEXTS)
    ratios = [one["log_ratio"] for one in told if one["policy"] == "nash_md"]
    self.assertAlmostEqual(row["kl"], np.mean(ratios), places=4)
    self.assertEqual(
      (row["steps"], row["config"]), (4, "configs/docstrings.py:tiny")
    )
    self.assertIn("tournament.log_ratio", row["changed"])
    self.assertGreater(row["cpu_seconds"], 0)
    results = files.load_json(self.workdir / "tournament" / "results.json")
    won = win_rates.against(results, "nash_md", "sft", "preference")
    self.assertEqual(row["learned"], list(won))
    curve = [one for one in seed.curves if one["policy"] == "nash_md"]
    self.assertEqual([one["step"] for one in curve], [2, 4])
    self.assertEqual({*curve[0]["won"]}, {"preference", "raters"})
    self.assertEqual({*seed.curves[-1]["won"]}, {"reward", "raters"})
    self.assertIn("tournament", [one["job"] for one in seed.jobs])
    with self.assertRaisesRegex(mistakes.Mistake, "on other records"):
      paper_found.save_lines(found / paper_found.PROMPTS, [])
      paper_found.collect_trial(self.workdir, config, found)

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

  def test_exploiters_of_a_finished_run(self):
    other = self.workdir.parent / "exploited"
    out = self.run_on(
      other,
      "--stage=exploit",
      f"--reuse={self.workdir}",
      "--config.exploit.policies=('sft', 'nash_md')",
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    results = json.loads((other / "exploit" / "results.json").read_text())
    self.assertEqual(list(results["policies"]), ["sft", "nash_md"])
    sft, trained = results["policies"].values()
    # μ is SFT: nothing to pay for.
    np.testing.assert_allclose(list(sft["kl"].values()), 0, atol=1e-5)
    self.assertGreater(abs(trained["kl"]["value"]), 1e-4)
    for found in (sft, trained):
      one = found["sampled"]
      self.assertBetween(one["value"], one["low"], one["high"])
      self.assertEqual(found["judged"], results["prompts"])
    self.assertIn("exploit: another policy gains on nash_md at", out.stdout)

  def test_guests_answer_as_they_did_at_home(self):
    """A policy of a workdir, its exported folder, and what it once wrote."""
    home = self.workdir.parent / "guests"
    exported = "--config.export.policies=nash_md"
    out = self.run_on(
      home, "--stage=export", f"--reuse={self.workdir}", exported
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
    (folder,) = (home / "export").glob("*/config.json")
    said = self.workdir / "tournament" / "responses" / "nash_md.jsonl"
    at_home = [row | {"log_ratio": None} for row in answered(said)]
    guests = {
      "filed": {"path": str(said), "policy": None},
      "visitor": {"path": str(self.workdir), "policy": "nash_md"},
      "folder": {"path": str(folder.parent), "policy": None},
    }
    for number, name in enumerate(("visitor", "folder")):
      config = home / f"config_{number}.py"
      changes = {"guests": guests, "policies": ("sft", "filed", name)}
      config.write_text(OWN_CONFIG.format(ROOT, changes))
      other = self.workdir.parent / f"host_{number}"
      flags = ("--stage=tournament", f"--reuse={self.workdir}")
      out = self.run_on(other, *flags, config=config)
      self.assertEqual(out.returncode, 0, msg=out.stderr[-3000:])
      folder = other / "tournament" / "responses"
      for guest in ("filed", name):  # at the place of nash_md, by its keys
        self.assertEqual(answered(folder / f"{guest}.jsonl"), at_home, guest)

  def test_people_are_asked_about_a_finished_run(self):
    other = self.workdir.parent / "annotated"
    flags = (
      f"--workdir={other}",
      *self.flags,
      "--stage=annotate",
      f"--reuse={self.workdir}",
      "--config.annotate.policies=('sft', 'nash_md')",
      "--config.annotate.golden=0",
      "--config.annotate.port=0",
    )
    run = start_main(*flags)
    self.addCleanup(run.kill)
    link = next(line for line in run.stdout if "http://" in line)
    client = small_votes.Client(small_votes.link(link), "ann")
    client.vote("left")
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    client.close()
    self.assertEqual(run.returncode, 75, msg=err)
    self.assertIn("stopped on SIGTERM; start it again to go on", err)
    self.assertIn("annotate: ann: 1 votes", out)
    folder = other / "annotate"
    self.assertLen((folder / "comparisons.jsonl").read_text().splitlines(), 1)
    self.assertFalse((folder / "done.json").exists())
    log = votes.open_log(folder / annotate.VOTES)
    self.assertEqual([vote.key for vote in log.load()], ["ann 0"])
    log.close()

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


if __name__ == "__main__":
  absltest.main()
