"""What make paper says of worlds with a known truth, and of what is missing."""

import functools
import json
import pathlib
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
from scipy import special

from figures import (
  paper,
  paper_found,
  paper_page,
  paper_runs,
  paper_tables,
  paper_words,
)
from nashmd_jax import files, mistakes
from tests import planted_paper

OPPOSITE = {
  name: 8.0 - fewer for name, fewer in planted_paper.PAPER.items()
} | dict.fromkeys(("md_125", "md_250", "md_375"), 1.0)
PROMPTS = 60
PUBLISHED = pathlib.Path("absent")


class PaperTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.page = self.folder / "paper.md"
    for where, name, value in (
      (paper, "PROMPTS", PROMPTS),
      (paper, "RESAMPLES", 20),
      (paper_tables, "RESAMPLES", 20),
    ):
      self.enter_context(mock.patch.object(where, name, value))

  def write(self, quality, **more):
    return planted_paper.write(
      self.folder / "found", quality, prompts=PROMPTS, **more
    )

  def make(self, found, published=PUBLISHED):
    """The page, and the rows by claim."""
    rows = paper.make(found, published, self.page, 100)
    return self.page.read_text(), {row["claim"]: row for row in rows}

  def points(self, found) -> list[str]:
    work = paper_page.make(
      paper_found.load(found), PUBLISHED, paper_page.Coverage([1.0], 1.0)
    )
    comparisons = work.comparisons[paper_found.HELD_OUT]
    return [
      paper_words.point(one, comparisons)[0] for one in paper_tables.POINTS
    ]

  def test_the_shape_of_the_paper_is_seen(self):
    found = self.write(planted_paper.PAPER)
    self.assertEqual(self.points(found), ["agrees"] * 3)
    page, rows = self.make(found)
    self.assertIn("β = .125 and to self-play: agrees.**", page)
    self.assertIn("5 of 5 seeds are there.", page)
    self.assertIn("and of P_τ, is 0.1, that of RLHF 0.05.", page)
    self.assertIn("All seeds start from one SFT policy", page)
    # An hour of sft, which all share, and one of five judges.
    self.assertIn("share once: 6.00 hours, 12.00 of CPU.", page)
    self.assertIn("The paper's tables were not at hand", page)
    self.assertNotIn("nan", page)
    claims = [claim for claim in rows if claim.startswith("MD .125 is")]
    self.assertLen(claims, 8)  # four pairs, two populations
    claims += ["seeds with all 14 policies", "prompts a cell and seed"]
    for claim in claims:
      self.assertTrue(rows[claim]["holds"], claim)
    # No mixture was deployed: its comparisons lack their data.
    absent = [claim for claim in rows if "mixture against" in claim]
    self.assertLen(absent, 12)
    self.assertFalse(any(rows[claim]["holds"] for claim in absent))

  def test_so_is_its_opposite_and_the_rows_hold_all_the_same(self):
    found = self.write(OPPOSITE)
    opposite = "does not agree, the opposite holds"
    self.assertEqual(self.points(found), [opposite] * 3)
    page, rows = self.make(found)
    self.assertIn("the opposite of the paper, BR wins", page)
    for claim, row in rows.items():
      if claim.startswith("MD .125 is preferred to BR"):
        self.assertTrue(row["holds"], claim)

  def test_and_that_nothing_can_be_told(self):
    found = self.write(dict.fromkeys(planted_paper.PAPER, 5.0))
    self.assertEqual(self.points(found), ["cannot be told apart"] * 3)
    page, _ = self.make(found)
    self.assertIn("it cannot be told who wins", page)
    self.assertIn("the two cannot be told apart; at worst", page)

  def test_a_policy_that_a_seed_lacks_fails_and_is_named(self):
    found = self.write(planted_paper.PAPER)
    path = found / "seed_3" / paper_found.TEXTS
    rows = paper_found.load_lines(path)
    kept = [row for row in rows if row["policy"] != "best_response"]
    paper_found.save_lines(path, kept)
    page, claims = self.make(found)
    self.assertIn("Seed 3 lacks BR,", page)
    self.assertIn("Not every seed has BR.", page)
    self.assertIn("β = .125 and to self-play: cannot be said yet.**", page)
    for claim, figure in (
      ("seeds with all 14 policies", 4),
      ("policies of 14 that every seed has", 13),
      ("MD .125 against BR was not played by all seeds, by the held-out "
       "raters: seeds", None),
    ):  # fmt: skip
      self.assertEqual(claims[claim]["figure"], figure)
      self.assertFalse(claims[claim]["holds"], claim)

  @parameterized.parameters(0, 1, 2)
  def test_some_seeds_are_not_enough_and_are_named(self, count):
    found = self.write(planted_paper.PAPER, seeds=range(count))
    page, rows = self.make(found)
    missing = ", ".join(map(str, range(count, 5)))
    self.assertIn(f"{count} of 5 seeds are there; missing are {missing}.", page)
    self.assertFalse(rows["seeds with all 14 policies"]["holds"])
    self.assertEqual("are of prompts alone" in page, count == 1)

  def test_too_few_prompts_fail(self):
    with mock.patch.object(paper, "PROMPTS", PROMPTS + 1):
      _, rows = self.make(self.write(planted_paper.PAPER, seeds=range(5)))
    self.assertFalse(rows["prompts a cell and seed"]["holds"])
    claims = [claim for claim in rows if claim.startswith("MD .125 is")]
    self.assertFalse(any(rows[claim]["holds"] for claim in claims))

  def test_beside_tables_like_ours_and_unlike_them(self):
    found = self.write(planted_paper.PAPER)
    quality = np.array([*planted_paper.PAPER.values()])
    rates = special.expit(0.4 * (quality - quality[:, None]))
    for sign, rank in ((1, "(0.9|1.00)"), (-1, "-(0.9|1.00)")):
      for name in (paper_tables.WIN_RATES, paper_tables.REGULARISED):
        np.savetxt(
          self.folder / name, rates if sign > 0 else 1 - rates, delimiter=","
        )
      page, _ = self.make(found, self.folder)
      said = page.split("win rates by the held-out raters: ")[1].split("\n")[0]
      self.assertRegex(said, rf"14 policies have a rank correlation of {rank}")
      decided, same = (
        int(said.split(word)[0].split()[-1])
        for word in (" pairs that", " have the same winner")
      )
      self.assertGreater(decided, 50)
      self.assertEqual(same, decided if sign > 0 else 0)

  def test_a_mixture_that_is_better_and_one_that_is_worse(self):
    quality = planted_paper.PAPER | {"md_125_mixture": 9, "md_250_mixture": 3}
    found = self.write(quality)
    jobs = found / "seed_4" / paper_found.JOBS
    others = [row | {"results": {}} for row in paper_found.load_lines(jobs)]
    paper_found.save_lines(jobs, others)
    page, rows = self.make(found)
    self.assertIn("The seeds start from 2 SFT policies.", page)
    self.assertRegex(page, r"MD \.125 mixture is .*: the mixture is better\.")
    self.assertRegex(page, r"MD \.25 mixture is .*: the last policy is better")
    self.assertEqual(rows["deployed mixtures that every seed has"]["figure"], 2)
    # Gaps of .2, .21, … .24, and of β τ at τ/(1 − β).
    self.assertRegex(page, r"MD \.25 mixture \| 0\.220 \(0\.200 to 0\.240\) \|")
    self.assertIn("| 0.133 | 0.025 (0.025 to 0.025) | 0.19 (0.19 to", page)
    self.assertEqual(rows["policies whose gap every seed has"]["figure"], 15)


class TablesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.found = paper_found.load(
      planted_paper.write(
        folder, planted_paper.PAPER, prompts=20, kl={"md_125": 3.0}
      )
    )
    self.judged = paper_tables.judge(self.found, paper_found.HELD_OUT)

  def test_win_rates_are_of_the_texts(self):
    seed = self.found.seeds[2]
    words = {
      name: np.array([len(text.split()) for text in seed.texts[name]])
      for name in ("rlhf", "best_response")
    }
    more = words["best_response"] - words["rlhf"]
    i, j = map(self.judged.names.index, ("rlhf", "best_response"))
    expected = special.expit(planted_paper.SHARPNESS * more)
    np.testing.assert_allclose(self.judged.win_prob[2, :, i, j], expected)
    np.testing.assert_allclose(self.judged.win_prob[2, :, j, i], 1 - expected)

  def test_the_price_of_kl_is_taken_off(self):
    part = paper_tables.regularised(self.judged, self.found)
    i, j = map(part.names.index, ("md_125", "rlhf"))
    ratio = [
      self.found.seeds[1].log_ratios[name] for name in ("md_125", "rlhf")
    ]
    np.testing.assert_allclose(
      part.win_prob[1, :, i, j],
      self.judged.win_prob[1, :, i, j] - 0.1 * (ratio[0] - ratio[1]),
    )
    cells = [paper_tables.cells(one) for one in (self.judged, part)]
    less = cells[0].value[i, j] - cells[1].value[i, j]
    self.assertBetween(less, 0.15, 0.25)  # of 2 nats
    told = paper_runs.of_policies(self.found)
    self.assertBetween(told["md_125"]["kl"].low, 2, 3)
    self.assertBetween(told["rlhf"]["kl"].high, 1, 2)

  def test_records_of_one_prompt_count_as_one(self):
    found = self.found._replace(
      prompts=[
        row | {"prompt": row["prompt"][-1]} for row in self.found.prompts
      ]
    )
    self.assertEqual(found.distinct(), 10)  # of 20, by their last digit
    got = paper_tables.judge(found, paper_found.HELD_OUT).win_prob
    first, second = np.split(self.judged.win_prob, 2, axis=1)
    np.testing.assert_allclose(got, (first + second) / 2)
    ratio = paper_tables.log_ratios(found, ["rlhf"])[3, :, 0]
    of_record = found.seeds[3].log_ratios["rlhf"]
    np.testing.assert_allclose(ratio, (of_record[:10] + of_record[10:]) / 2)

  def test_a_policy_without_log_ratios_is_left_out(self):
    del self.found.seeds[4].log_ratios["rlhf"]
    part = paper_tables.regularised(self.judged, self.found)
    self.assertEqual(set(self.judged.names) - set(part.names), {"rlhf"})

  def test_exploitability_by_hand(self):
    # Of 0 ≻ 1 by .7, 2 ≻ 0 by .6 and 1 ≻ 2 by .9.
    found = paper_tables.exploitability(np.array([0.7, 0.4, 0.9]), 3)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.4])
    first = paper_tables.exploitability(np.array([0.7, 0.6, 0.9]), 3)
    np.testing.assert_allclose(first, [0, 0.2, 0.4])

  def test_the_better_ones_share_the_equilibrium(self):
    with mock.patch.object(paper_tables, "RESAMPLES", 20):
      found = paper_tables.standing(self.judged)
    shares = {name: one.value for name, one in found["nash_average"].items()}
    self.assertAlmostEqual(sum(shares.values()), 1)
    self.assertEqual(shares["sft"], 0)
    worst = max(found["exploitability"].items(), key=lambda x: x[1].value)
    self.assertEqual(worst[0], "sft")

  def test_p_values_are_of_all_that_is_stated(self):
    cells = paper_tables.cells(self.judged)
    found = paper_tables.compare(cells)
    pairs = paper_tables.stated(cells.names)
    self.assertLen({frozenset(pair) for pair in pairs}, len(pairs))
    place = [cells.names.index(name) for name in ("md_250", "self_play")]
    one = found["md_250", "self_play"]
    self.assertEqual(one.value, cells.value[*place])
    self.assertGreaterEqual(one.p_value, cells.p_value[*place])
    least = min(pairs, key=lambda pair: found[pair].p_value)
    place = [cells.names.index(name) for name in least]
    np.testing.assert_allclose(
      found[least].p_value, cells.p_value[*place] * len(pairs)
    )


class CurvesTest(parameterized.TestCase):
  @parameterized.parameters(
    (0.8, 0.5, "overrates it at the end", "falls", True),
    (0.8, 0.7, "overrates it at the end", "still rises", False),
    (0.7, 0.7, "cannot be told from what", "still rises", False),
    (0.5, 0.5, "cannot be told from what", "falls", False),
    (0.6, 0.7, "underrates it at the end", "still rises", False),
  )
  def test_what_is_said_of_a_run(self, learned, exact, judged, went, over):
    folder = pathlib.Path(self.create_tempdir().full_path)
    found = planted_paper.write(
      folder, planted_paper.PAPER, prompts=4,
      learned={"md_125": learned}, exact={"md_125": exact},
    )  # fmt: skip
    (curve,) = paper_runs.curves(paper_found.load(found)).values()
    said = paper_words.overrated("md_125", curve)
    self.assertIn(judged, said)
    self.assertIn(f"the exact win rate {went} in", said)
    self.assertEqual("That is over-optimisation" in said, over)
    np.testing.assert_allclose(curve.kl, [0.25, 0.5, 0.75, 1])
    self.assertEqual(curve.seeds, 5)

  def test_the_price_is_the_least_that_keeps_all_runs_near(self):
    found = paper_found.Found([], {"kl_coef": 0.1}, [], [], [])
    self.assertEqual(paper_runs.within(found), {"rlhf": None, "nash": None})
    rows = [
      {"policy": name, "kl_coef": tau, "kl": kl}
      for name, tau, kl in (
        ("self_play", 0.05, 3.9), ("md_125", 0.05, 4.1), ("md_125", 0.1, 2.0),
        ("self_play", 0.1, 3.0), ("md_125", 0.2, 1.0), ("rlhf", 0.3, 3.0),
      )
    ]  # fmt: skip
    self.assertEqual(
      paper_runs.within(found._replace(tau=rows)), {"rlhf": 0.3, "nash": 0.1}
    )


class SpendTest(parameterized.TestCase):
  SAVES = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
    "while time.process_time() < 0.1: pass\n"
    "time.sleep({})"
  )

  @parameterized.parameters((60, 3 / 60, 130), (0, 1.0, 0))
  def test_a_sweep_is_told_to_stop_when_its_time_is_over(
    self, seconds, minutes, status
  ):
    command = [sys.executable, "-c", self.SAVES.format(seconds)]
    spent = paper.spend(command, minutes)
    self.assertEqual(spent["status"], status)
    self.assertLess(spent["seconds"], 20)
    self.assertBetween(spent["cpu_seconds"], 0.1, 2)


class FoundTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_the_same_lines_are_the_same_bytes(self):
    rows = [{"text": "φ", "number": 0.1}] * 3
    for name in ("a.jsonl.xz", "b.jsonl.xz", "c.jsonl"):
      paper_found.save_lines(self.folder / name, rows)
      self.assertEqual(paper_found.load_lines(self.folder / name), rows)
    one, other = (
      (self.folder / name).read_bytes() for name in ("a.jsonl.xz", "b.jsonl.xz")
    )
    self.assertEqual(one, other)

  def test_responses_of_other_prompts_are_refused(self):
    found = planted_paper.write(self.folder, {"sft": 0}, prompts=5)
    path = found / "seed_1" / paper_found.TEXTS
    paper_found.save_lines(path, paper_found.load_lines(path)[1:])
    with self.assertRaisesRegex(mistakes.Mistake, "sft has not one response"):
      paper_found.load(found)

  def test_seeds_of_another_game_are_refused(self):
    found = planted_paper.write(self.folder, {"sft": 0}, seeds=[])
    trial, raters = self.folder / "sweep" / "000", planted_paper.population()
    for stage in ("tournament", "exploit"):
      self.assertEmpty([*paper_found.finished(trial.parent)])
      files.save_json(trial / stage / "done.json", {})
    nash = {"kl_coef": 0.1, "judge": "preference"}
    kept = mock.patch.object(paper_found, "collect_trial", return_value=7)
    for changed, said in (
      ({}, None),
      ({"nash": nash | {"kl_coef": 0.2}}, "has kl_coef 0.2 where .* has 0.1"),
      ({"raters": raters | {"short": 99}}, "has held_out"),
    ):
      config = {"nash": nash, "raters": raters} | changed
      files.save_json(trial / "config.json", config)
      collect = functools.partial(
        paper_found.collect, trial.parent, found, {"other": 1}
      )
      with kept:
        if said is None:
          self.assertEqual(collect(), [7])
        else:
          with self.assertRaisesRegex(mistakes.Mistake, said):
            collect()
    game = paper_found.load(found).game
    self.assertEqual(
      game[paper_found.SECOND], raters | {"weights": {"other": 1}}
    )

  def test_every_number_of_the_sweep_over_tau_is_kept(self):
    config = {
      "seed": 0,
      "nash": {
        "kl_coef": 0.2, "judge": "preference",
        "runs": {"self_play": {}, "rlhf": {"kl_coef": 0.5, "judge": "reward"}},
      },
    }  # fmt: skip
    for number, run in enumerate(("self_play", "rlhf")):
      place = self.folder / "sweep" / f"{number:03d}"
      files.save_json(place / "config.json", config)
      done = {"seconds": 2.0, "cpu_seconds": 3.0, "results": {"eval/x": 0.7}}
      files.save_json(place / "nash" / run / "done.json", done)
      rows = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.3}]
      (place / "nash" / run / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
      )
    found = self.folder / "found"
    self.assertEqual(paper_found.collect_tau(self.folder / "sweep", found), 2)
    kept = paper_found.load_lines(found / paper_found.TAU)
    self.assertEqual(
      [(row["policy"], row["kl_coef"], row["judge"]) for row in kept],
      [("self_play", 0.2, "preference"), ("rlhf", 0.5, "reward")],
    )
    for row in kept:
      self.assertEqual((row["step"], row["kl"]), (2, 0.3))
      self.assertEqual(row["results"], {"eval/x": 0.7})


if __name__ == "__main__":
  absltest.main()
