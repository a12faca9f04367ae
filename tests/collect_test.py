"""What `collect` makes of workdirs whose numbers are known."""

import contextlib
import io
import pathlib

from absl.testing import absltest, parameterized
import ml_collections
import numpy as np

from nashmd_jax import files, workdir
from nashmd_jax.evaluation import intervals
from nashmd_jax.sweeps import collect, hyper, trials

JOBS = ("sft", "tournament", "report")
# Student's t for 95 %: of one degree of freedom 12.706, of two 4.303.
T1, T2 = 12.7062047, 4.3026527


def finish(folder: pathlib.Path, rate: float, loss: float) -> None:
  """Leaves what a finished trial leaves."""
  files.save_json(folder / "config.json", {})
  results = {"sft": {"eval/loss": loss}, "tournament": {"prompts": 9}}
  for job in JOBS:
    found = results.get(job, {"page": "report/index.html"})
    files.save_json(folder / job / "done.json", {"results": found})
  files.save_json(
    folder / "tournament" / "results.json",
    {
      "policies": ["trained", "sft"],
      "judges": {"raters": {"win_rate": [[0.5, rate], [1 - rate, 0.5]]}},
    },
  )


class CollectTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)
    config = ml_collections.ConfigDict(
      {"seed": 0, "nash": {"mixture": 0.5}}
    ).lock()
    sweep = hyper.product(
      # The base has 0.5: a trial that sets nothing belongs to that group.
      hyper.one_of(hyper.values("nash.mixture", 0.0), [{}]),
      hyper.values("seed", 0, 1, 2),
    )
    self.trials = trials.all_trials(
      config, sweep, given=(), workdir=self.workdir
    )

  def entries(self, mistakes=()):
    return [
      collect.Entry(trial, JOBS, dict(mistakes).get(trial.number))
      for trial in self.trials
    ]

  def collect(self, **kwargs) -> tuple[dict, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      collect.run(self.entries(**kwargs), self.workdir)
    folder = self.workdir / "collect"
    return (
      files.load_json(folder / "results.json"),
      (folder / "table.md").read_text(),
      printed.getvalue(),
    )

  def test_mean_and_interval_over_seeds_by_hand(self):
    for trial in self.trials:
      mixture, seed = trial.config.nash.mixture, trial.config.seed
      finish(trial.folder, 0.4 + 0.2 * mixture, loss=1.0 + seed)
    results, table, printed = self.collect()
    # Of 1, 2, 3: mean 2, s = 1, half of the interval t s/√3.
    half = T2 / 3**0.5
    for group, mixture in zip(results["groups"], (0.0, 0.5), strict=True):
      self.assertEqual(group["settings"], {"nash.mixture": mixture})
      self.assertEqual(
        list(group["scores"]),
        ["tournament/raters/trained against sft", "sft/eval/loss"],
      )
      loss = group["scores"]["sft/eval/loss"]
      self.assertEqual(loss["values"], [1.0, 2.0, 3.0])
      np.testing.assert_allclose(
        [loss["mean"], loss["low"], loss["high"]],
        [2, 2 - half, 2 + half],
        rtol=1e-6,
      )
    self.assertNotIn("In no mean", table)
    self.assertIn("| 0.5 | 3 | 2 | -0.4841 to 4.484 |", table)
    self.assertIn("| 0.5 | 3 | 0.5 | 0.5 to 0.5 |", table)
    self.assertIn("6 of 6 trials finished", printed)
    plot = (self.workdir / "collect" / "plot.png").stat().st_size
    self.assertGreater(plot, 5000)

  def test_scores_that_are_not_finite_are_counted_and_in_no_mean(self):
    for trial in self.trials:
      seed, first = trial.config.seed, not trial.config.nash.mixture
      loss = float("nan") if first or seed == 1 else 1.0 + seed
      finish(trial.folder, 0.5, loss=loss)
    results, table, _ = self.collect()
    none, two = (one["scores"]["sft/eval/loss"] for one in results["groups"])
    self.assertEqual((none["values"], none["not_finite"]), ([], 3))
    self.assertIsNone(none["mean"])
    self.assertEqual((two["values"], two["not_finite"]), ([1.0, 3.0], 1))
    self.assertEqual(two["mean"], 2.0)
    self.assertIn("| 0.0 | 0 of 3, 3 not finite |", table)
    self.assertIn("| 0.5 | 2 of 3, 1 not finite | 2 |", table)

  def test_what_is_not_finished_is_listed_and_enters_no_mean(self):
    finish(self.trials[0].folder, 0.4, 1.0)
    finish(self.trials[1].folder, 0.6, 3.0)
    finish(self.trials[3].folder, 0.7, 2.0)
    for number in (2, 4):  # all but the last job, with scores of their own
      finish(self.trials[number].folder, 0.0, 99.0)
      (self.trials[number].folder / "report" / "done.json").unlink()
    error = FloatingPointError("loss | is nan\nin step 7")
    workdir.fail(self.trials[4].folder, "report", error)
    finish(self.workdir / "006", 0.0, 99.0)
    results, table, printed = self.collect()
    states = {
      row["trial"]: (row["state"], row["reached"], row["reason"])
      for row in results["trials"]
    }
    done = ("finished", collect.NONE, collect.NONE)
    failed = "FloatingPointError: loss | is nan in step 7"
    self.assertEqual(
      states,
      {
        0: done,
        1: done,
        2: ("unfinished", "report", "cut off, or still running"),
        3: done,
        4: ("failed", "report", failed),
        5: ("not started", collect.NONE, collect.NONE),
      },
    )
    for line in (
      "| 002 | nash.mixture=0.0, seed=2 | unfinished | report | cut off, or",
      r"| 004 | nash.mixture=0.5, seed=1 | failed | report | FloatingPointE",
      r"loss \| is nan in step 7 |",
      "| 005 | nash.mixture=0.5, seed=2 | not started | – | – |",
      "Not of this sweep and not read: 006.",
      # Of 1 and 3: mean 2, s = √2, half of the interval t s/√2 = t.
      f"| 0.0 | 2 of 3 | 2 | {2 - T1:.4g} to {2 + T1:.4g} |",
      "| 0.5 | 1 of 3 | 2 | – |",
    ):
      self.assertIn(line, table)
    self.assertNotIn("99", table)
    self.assertIn("3 of 6 trials finished, 1 unfinished, 1 failed", printed)

  def test_step_reached_and_mistake_in_a_config(self):
    folder = self.trials[0].folder
    files.save_json(folder / "config.json", {})
    (folder / "sft").mkdir()
    rows = '{"step": 20}\n{"step": 40}\n{"ste'
    (folder / "sft" / "metrics.jsonl").write_text(rows)
    results, table, _ = self.collect(mistakes={1: "seed: too odd"}.items())
    first, second = results["trials"][:2]
    self.assertEqual(first["reached"], "sft, step 40")
    self.assertEqual(
      (second["state"], second["reached"], second["reason"]),
      ("failed", "config", "seed: too odd"),
    )
    self.assertIn("No trial is finished.", table)
    self.assertFalse((self.workdir / "collect" / "plot.png").exists())

  def test_a_trial_that_fails_again_and_then_ends(self):
    trial = self.trials[0]
    workdir.fail(trial.folder, "sft", ValueError("x"))
    finish(trial.folder, 0.4, 1.0)
    row = collect.state(self.entries()[0], [])
    self.assertEqual((row["state"], row["reason"]), ("finished", collect.NONE))

  def test_seeds_alone_are_one_table(self):
    self.trials = self.trials[3:]
    for trial in self.trials:
      trial.overrides.pop("nash.mixture", None)
      finish(trial.folder, 0.5, 2.0 + trial.config.seed)
    _, table, _ = self.collect()
    self.assertIn("| sft/eval/loss | 3 | 3 | 0.5159 to 5.484 |", table)


class IntervalTest(parameterized.TestCase):
  @parameterized.parameters(
    ([4.0], (4.0, None, None)),
    ([1.0, 3.0], (2.0, 2 - T1, 2 + T1)),
    ([1.0, 2.0, 3.0], (2.0, 2 - T2 / 3**0.5, 2 + T2 / 3**0.5)),
    ([5.0] * 4, (5.0, 5.0, 5.0)),
  )
  def test_by_hand(self, values, expected):
    mean, low, high = intervals.mean_interval(values, 0.95)
    if expected[1] is None:
      self.assertEqual((mean, low, high), expected)
    else:
      np.testing.assert_allclose((mean, low, high), expected, rtol=1e-6)

  def test_covers_the_mean_as_often_as_it_says(self):
    rng = np.random.default_rng(0)
    hits = 0
    for values in rng.normal(1.0, 2.0, size=(2000, 3)):
      _, low, high = intervals.mean_interval(values, 0.95)
      hits += low <= 1.0 <= high
    # Binomial: three standard deviations of 2,000 draws are 0.015.
    self.assertAlmostEqual(hits / 2000, 0.95, delta=0.015)


if __name__ == "__main__":
  absltest.main()
