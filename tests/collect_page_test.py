"""The page of a sweep: means by hand, the frontier of all, what is missing."""

import csv
import shutil

from absl.testing import absltest
import numpy as np

from figures import report_page
from nashmd_jax.evaluation import frontier, intervals, plots
from nashmd_jax.sweeps import collect, collect_page
from tests import main_test, small_report

MIXTURES, SEEDS = (0.0, 0.5), (0, 1)


class CollectPageTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.sweep = main_test.made_folder(cls)
    rows, cls.workdirs = [], []
    for number in range(5):
      workdir = cls.sweep / f"{number:03d}"
      if number:
        shutil.copytree(cls.workdirs[0], workdir)
        small_report.train(workdir, np.random.default_rng(number))
      else:
        small_report.write(workdir)
      cls.workdirs.append(workdir)
      finished = number < 4
      rows.append({
        "trial": number,
        "settings": {"nash.mixture": MIXTURES[number // 2 % 2]},
        "seed": number % 2,
        "state": "finished" if finished else "failed",
        "reached": "–" if finished else "nash/rlhf, step 3",
        "reason": "–" if finished else f"ValueError: {small_report.HOSTILE}",
        "scores": {"sft/eval/loss": 1.25 + number} if finished else {},
      })  # fmt: skip
    cls.folder = cls.sweep / "collect"
    groups = collect.aggregate(rows)
    collect_page.save(rows, groups, cls.workdirs, cls.folder)
    cls.page = (cls.folder / "index.html").read_text(encoding="utf-8")

  def rows(self, name):
    with (self.folder / f"{name}.csv").open() as file:
      return list(csv.DictReader(file))

  def test_every_number_stands_in_a_table(self):
    self.assertEqual(report_page.untraced(self.page), [])

  def test_bands_are_of_the_mean_over_seeds(self):
    rows = self.rows("nash_md_KL")
    mine = [row for row in rows if row["line"] == "nash.mixture=0.5"]
    last = [
      plots.series(workdir / "nash" / "nash_md", frontier.KL)[-1].y
      for workdir in self.workdirs[2:4]
    ]
    expected = intervals.mean_interval(last, 0.95)
    found = [mine[-1][x] for x in ("KL, nats a response", "low", "high")]
    np.testing.assert_allclose(list(map(float, found)), expected)

  def test_a_path_of_every_run_of_every_finished_trial(self):
    lines = {row["line"] for row in self.rows("frontier")} - {"rule"}
    paths = {line for line in lines if "tournament" not in line}
    self.assertLen(paths, 4 * 2)
    self.assertIn("003, nash_md, nash.mixture=0.5", paths)
    self.assertLen(lines, 2 * len(paths))

  def test_what_is_missing_is_told_as_text(self):
    page = self.page
    for told in (
      "4 of 5 trials finished, 1 failed",
      "ValueError: &lt;/p&gt;&lt;script",
      "<td>2 of 3</td><td>1.75</td>",  # of 1.25 and 2.25
      "the KL grows",
    ):
      self.assertTrue(told in page, told)


if __name__ == "__main__":
  absltest.main()
