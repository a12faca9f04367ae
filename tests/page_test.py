"""The page of a run: what stands in it, and where its numbers are from."""

import csv
import pathlib
import re

from absl.testing import absltest, parameterized
import numpy as np

from figures import report_page
from nashmd_jax import files, mistakes
from nashmd_jax.annotators import outcome
from nashmd_jax.evaluation import (
  frontier,
  judged,
  samples_page,
  style,
  votes_page,
)
from nashmd_jax.stages import report
from tests import browser, main_test, small_report


class PageTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.workdir = small_report.write(main_test.made_folder(cls))
    cls.path = pathlib.Path(report.run(None, cls.workdir, "report")["page"])
    cls.page = cls.path.read_text(encoding="utf-8")

  def rows(self, name):
    with (self.path.parent / f"{name}.csv").open() as file:
      return list(csv.DictReader(file))

  def test_every_number_stands_in_a_table(self):
    self.assertEqual(report_page.untraced(self.page), [])
    for planted in ("<p>0.123456</p>", "<p>98,765</p>", '<td title="0.9871">'):
      page = self.page.replace("<main>", f"<main>{planted}")
      self.assertLen(report_page.untraced(page), 1, msg=planted)

  def test_tables_and_charts_are_saved_as_they_stand_in_it(self):
    reader = report_page.Reader()
    reader.feed(self.page)
    saved = {
      path.read_text(encoding="utf-8")
      for path in self.path.parent.glob("*.csv")
    }
    self.assertEqual(set(reader.tables), saved)
    drawn = {path.stem for path in self.path.parent.glob("*.svg")}
    self.assertEqual(self.page.count("<svg"), len(drawn))
    self.assertContainsSubset(
      {"sft", "accuracy", "won", "kl", "frontier", "calibration_reward"}, drawn
    )
    for name in drawn:
      self.assertNotEmpty(self.rows(name))

  def test_what_others_wrote_is_text(self):
    self.assertGreater(self.page.count("&lt;script&gt;alert(1)"), 5)
    self.assertEqual(self.page.count("<script>"), 1)
    for hole in ("<img", "<script>alert", "src=h", "onerror=a()>", "http://x"):
      self.assertNotIn(hole, self.page.replace("src=http://x.test/a oner", ""))
    self.assertIn(style.POLICY, self.page)

  def test_a_frontier_of_every_run_and_a_mark_of_its_end(self):
    rows = self.rows("frontier")
    steps = small_report.STEPS // 10
    for name in ("rlhf", "nash_md"):
      mine = [row for row in rows if row["line"].startswith(name)]
      self.assertLen(mine, steps + 1)
      self.assertEqual(mine[-1]["line"], f"{name}, tournament, by raters")
      rate = next(
        row for row in self.rows("win_rates")
        if (row["judge"], row["policy"], row["against"])
        == ("raters", name, "sft")
      )  # fmt: skip
      for end, column in (("win rate", "win_rate"), ("low", "low")):
        self.assertEqual(mine[-1][end], rate[column])
      *_, last, mark = [row[frontier.X_LABEL] for row in mine]
      self.assertEqual(mark, last)

  def test_bands_are_of_so_many_prompts(self):
    # Of 16 asked for, the card has 20: as wide as 16 votes allow.
    row = self.rows("won")[0]
    mean, low, high = (float(row[x]) for x in ("win rate", "low", "high"))
    self.assertBetween(mean - low, 0.15, 0.3)
    self.assertBetween(high - mean, 0.15, 0.3)

  def test_what_was_run_and_what_it_cost(self):
    self.assertIn("<td>nash.mixture</td><td>0.125</td><td>0.25</td>", self.page)
    self.assertIn("<td>JAX</td><td>0.10.2</td>", self.page)
    costs = {(row["stage"], row["cost"]): row["total"]
             for row in self.rows("costs")}  # fmt: skip
    # 40 steps of 8 prompts, 2 calls and 31.5 tokens each.
    self.assertEqual(costs["nash/rlhf", "calls"], str(40 * 8 * 2))
    self.assertEqual(costs["nash/rlhf", "tokens"], str(40 * 8 * 63 // 2))
    for told in (
      "bad rows skipped, no text: 2", "12.5% of the prompts are cut",
      "<td>nash/nash_md</td><td>8</td><td><span class=\"cell\">the KL grows",
    ):  # fmt: skip
      self.assertIn(told, self.page)

  def test_what_could_be_gained(self):
    rows = {
      (row["policy"], row["figure"]): row["value"]
      for row in self.rows("exploit")
    }
    self.assertEqual(rows["all", "kl_coef"], "0.2")
    gap = float(rows["nash_md", "gap_from_samples"])
    self.assertIn(f">{gap:.3f} (", self.page)
    solved = float(rows["nash_md", "gap_solved"])
    self.assertIn(f"{solved:.3f} (", self.page)
    self.assertEqual(rows["nash_md", "kl_coef_solved"], "0.25")
    played = float(rows["nash_md", f"{small_report.HOSTILE}_gap"])
    self.assertIn(f"at least {played:.3f} (", self.page)

  def test_what_people_said_and_who_they_are(self):
    share = next(
      row for row in self.rows("votes")
      if (row["policy"], row["by"]) == ("sft", "people")
    )  # fmt: skip
    value, low, high = (float(share[end]) for end in ("share", "low", "high"))
    shown = f"{value:.3f} ({low:.3f} to {high:.3f})"
    self.assertIn(f"<td>sft</td><td>nash_md</td><td>{shown}", self.page)
    judged = [row for row in self.rows("votes") if row["by"] == "raters"]
    self.assertEqual([row["policy"] for row in judged], ["sft"])
    found = {
      (row["annotator"], row["figure"]): row["value"]
      for row in self.rows("annotators")
    }
    # All pairs once, a golden one in three, and repeats of ann's alone.
    pairs = 2 * small_report.COUNT
    self.assertEqual(found["bob", "votes"], str(pairs))
    self.assertEqual(int(found["ann", "votes"]) - pairs,
                     int(found["ann", "repeats, asked"]))  # fmt: skip
    self.assertEqual(found["bob", "effort by repeats"], "")
    # 7 of 8 coins or more show one side in 9 of 256.
    self.assertEqual(found["ann", "golden, needed"], "7")
    self.assertEqual(found["ann", "exam"], "passed")
    self.assertEqual(found["bob", "exam"], "not passed")
    self.assertIn("<td>7: not passed</td>", self.page)
    lines = [row["line"] for row in self.rows("vote_times")]
    self.assertEqual(set(lines), {"everybody", "ann", "bob"})

  def test_a_run_that_nobody_voted_on_says_nothing_of_it(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertEqual(votes_page.found(folder, {}), [])
    results = outcome.describe([], [], confidence=0.95)
    files.save_json(folder / votes_page.FOLDER / "results.json", results)
    self.assertEqual(votes_page.found(folder, {}), [])

  def test_samples_say_who_wins(self):
    won = re.findall(r'data-won="(\S+) (\S+)"', self.page)
    self.assertLen(won, small_report.COUNT)
    # The shortest of 1 + (i (place + 2)) % 5 words; all alike in the first.
    self.assertEqual(won[0], ("-", "-"))
    self.assertEqual(won[3], ("0", "0"))
    self.assertIn("<i>empty</i>", self.page)

  def test_a_heading_for_each_section_and_a_way_to_it(self):
    anchors = re.findall(r'<li><a href="#(\w+)">', self.page)
    self.assertEqual(anchors, re.findall(r'<section id="(\w+)"', self.page))
    self.assertEqual(len(anchors), self.page.count("<h2"))
    for told in ('<html lang="en">', 'name="viewport"', "<main>", "<nav"):
      self.assertIn(told, self.page)


class JudgedTest(absltest.TestCase):
  def test_there_and_back(self):
    path = pathlib.Path(self.create_tempdir().full_path) / judged.NAME
    said = {"raters": [np.array([0.25, np.nan]), np.ones(2), np.zeros(2)]}
    judged.save(path, ["1", "2"], ["a", "b", "c"], said)
    results = {"policies": ["a", "b", "c"], "judges": said}
    table = judged.load(path, results, 2)["raters"]
    np.testing.assert_array_equal(
      table[0], [[0.5, 0.25, 1], [0.75, 0.5, 0], [0, 1, 0.5]]
    )
    first, second = samples_page.say(table)
    self.assertEqual((first.rates, first.winner), ([0.625, 0.375, 0.5], 0))
    self.assertEqual((second.rates, second.winner), ([None, None, 0.5], None))
    results["policies"] = ["a", "c", "b"]
    with self.assertRaisesRegex(mistakes.Mistake, "not of what results.json"):
      judged.load(path, results, 2)


class StyleTest(parameterized.TestCase):
  def test_contrast_by_hand(self):
    self.assertAlmostEqual(style.contrast("#000000", "#ffffff"), 21)
    self.assertAlmostEqual(style.contrast("#777777", "#ffffff"), 4.48, places=2)

  @parameterized.parameters("light", "dark")
  def test_every_ink_on_every_ground(self, scheme):
    colours = style.named(scheme)
    for ground in style.GROUNDS:
      for ink in style.INKS:
        ratio = style.contrast(colours[ink], colours[ground])
        self.assertGreaterEqual(ratio, report_page.READABLE, (ink, ground))
    for number in range(style.COLOURS):  # of what is no text
      ratio = style.contrast(colours[f"s{number}"], colours["card"])
      self.assertGreaterEqual(ratio, 3, number)

  @parameterized.parameters("light", "dark")
  def test_win_rates_on_their_colours(self, scheme):
    ink, ground = (style.named(scheme)[name] for name in ("ink", "card"))
    for rate in np.linspace(0, 1, 101):
      ratio = style.contrast(ink, style.heat_of(scheme, rate))
      self.assertGreaterEqual(ratio, report_page.READABLE, rate)
    self.assertEqual(style.heat_of(scheme, 0.5), ground)
    self.assertEqual(style.heat_of(scheme, 1), style.named(scheme)["won"])
    self.assertEqual(
      style.heat(0.25), "color-mix(in srgb, var(--lost) 71%, var(--card))"
    )

  def test_colours_stand_in_the_schemes_alone(self):
    self.assertNotRegex(style.PAGE + style.CHART, r"#[0-9a-f]{3,6}\b|rgb")


class BrowserTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.tab = browser.open_for(cls)
    workdir = small_report.write(main_test.made_folder(cls))
    cls.path = pathlib.Path(report.run(None, workdir, "report")["page"])

  def test_narrow_and_wide_light_and_dark(self):
    for row in report_page.rows_of(report_page.look(self.path, self.tab), "it"):
      self.assertTrue(row["holds"], msg=row)

  def test_faults_are_seen(self):
    page = self.path.read_text(encoding="utf-8").replace(
      "<main>",
      '<main><div style="width:500px;color:#eee;background:#fff">faint</div>'
      '<img src="http://127.0.0.1:9/a.png">',
    ).replace("const form", "fault(); const form")  # fmt: skip
    path = self.path.with_name("faulty.html")
    path.write_text(page, encoding="utf-8")
    found = report_page.look(path, self.tab)
    self.assertGreater(found["errors"], 0)
    self.assertGreater(found["overflow"], 0)
    self.assertLess(found["contrast"], 2)

  def test_filter_and_search(self):
    tab = self.tab
    tab.open(self.path, width=1280)
    shown = (
      "[...document.querySelectorAll('.sample')].filter((x) => !x.hidden)"
      ".map((x) => x.dataset.won)"
    )
    self.assertLen(tab.evaluate(shown), small_report.COUNT)
    choose = "document.querySelector('.choose')"
    told = "new Event('input', {bubbles: true})"
    tab.evaluate(
      f"{choose}.elements.winner.value = '1'; {choose}.dispatchEvent({told})"
    )
    found = tab.evaluate(shown)
    self.assertNotEmpty(found)
    self.assertEqual({one.split()[0] for one in found}, {"1"})
    said = tab.evaluate(f"{choose}.querySelector('output').value")
    self.assertEqual(said, f"{len(found)} of {small_report.COUNT} shown")

  def test_all_of_it_by_keyboard(self):
    tab = self.tab
    tab.open(self.path, width=360)
    active = (
      "(() => { const x = document.activeElement; return [x.tagName, "
      "x.name || x.download || x.hash || '', x.matches(':focus-visible') && "
      "getComputedStyle(x).outlineStyle]; })()"
    )
    reached = []
    for _ in range(200):
      tab.press("Tab")
      one = tab.evaluate(active)
      reached.append(one)
      if one[1] == "text":
        break
    tab.write("river")
    names = {(tag, name) for tag, name, _ in reached}
    for one in (
      ("A", "#samples"), ("A", "win_rates.csv"), ("SELECT", "judge"),
      ("SELECT", "winner"), ("INPUT", "text"), ("SUMMARY", ""),
    ):  # fmt: skip
      self.assertIn(one, names)
    self.assertEqual({look for tag, _, look in reached if tag != "BODY"},
                     {"solid"})  # fmt: skip
    shown = tab.evaluate(
      "[...document.querySelectorAll('.sample')].filter((x) => !x.hidden)"
      ".every((x) => x.textContent.includes('river'))"
    )
    self.assertTrue(shown)


if __name__ == "__main__":
  absltest.main()
