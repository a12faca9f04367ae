"""The stage judges without its models: what it leaves, and its page."""

import csv
import json
import pathlib

from absl.testing import absltest
import jax
import numpy as np

from nashmd_jax.evaluation import judges_page
from nashmd_jax.judges import preference_model
from nashmd_jax.stages import judge_report
from tests import cycles_test, preference_model_test, t5_test


def made(count=40):
  """Comparisons of 8 prompts, and the readings of two judges."""
  rng = np.random.default_rng(0)
  rows = cycles_test.voted(rng, prompts=8, responses=6, votes=5)[:count]
  for number, row in enumerate(rows):
    row |= {"id": f"{number}, of all", "response_a": row["response_a"] + " <b"}
  a_first, b_first, reward_a, reward_b = rng.normal(size=(4, len(rows)))
  return rows, {
    "preference-1": {"a_first": a_first, "b_first": b_first},
    "reward": {"reward_a": reward_a, "reward_b": reward_b},
  }


class JudgeReportTest(absltest.TestCase):
  def save(self, count=40):
    rows, said = made(count)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    results = judge_report.describe(rows, said, seed=0)
    judge_report.save(workdir / "judges", rows, said, results)
    return workdir, results

  def test_readings_are_those_of_the_models(self):
    model = t5_test.tiny_model()
    params = model.init(jax.random.key(0))
    batch = t5_test.tiny_batch()
    segments = {"prompts": (batch["prompts"], batch["prompt_mask"])}
    for name, start in (("responses_a", 1), ("responses_b", 2)):
      tokens = batch["responses"] + start
      segments[name] = tokens, np.ones(tokens.shape, bool)
    columns = {name: tokens for name, (tokens, _) in segments.items()}
    columns |= {f"{name}_mask": mask for name, (_, mask) in segments.items()}
    prompts, a, b = segments.values()
    pair = preference_model_test.make_template(
      **preference_model_test.IN_RESPONSE
    )
    said = judge_report.read("preference", model, pair)(params, columns)
    np.testing.assert_array_equal(
      judge_report.logit_of(said),
      preference_model.win_logit(
        model, params, pair, prompts=prompts, responses=a, opponents=b
      ),
    )
    alone = preference_model_test.make_template(
      prompt="{prompt}", response="{first}4"
    )
    said = judge_report.read("reward", model, alone)(params, columns)
    for name, responses in (("reward_a", a), ("reward_b", b)):
      expected = preference_model.reward(
        model, params, alone, prompts=prompts, responses=responses
      )
      np.testing.assert_allclose(said[name], expected, atol=2e-6)

  def test_a_row_a_comparison(self):
    workdir, results = self.save()
    rows, said = made()
    with (workdir / "judges" / "preference-1.csv").open() as file:
      table = list(csv.DictReader(file))
    self.assertLen(table, 40)
    self.assertEqual(
      list(table[0]),
      ["id", "prob_a", "votes", "win_prob", "a_first", "b_first", "words"],
    )
    self.assertEqual(table[3]["id"], "3, of all")
    self.assertEqual((table[3]["votes"], table[3]["words"]), ("5", "1"))
    logit = said["preference-1"]["a_first"] - said["preference-1"]["b_first"]
    np.testing.assert_allclose(
      [float(row["win_prob"]) for row in table],
      1 / (1 + np.exp(-logit)),
      rtol=1e-5,
    )
    held = json.loads((workdir / "judges" / "results.json").read_text())
    self.assertEqual(held, json.loads(json.dumps(results)))
    self.assertEqual((held["comparisons"], held["prompts"]), (40, 3))
    self.assertIn("position", held["judges"]["preference-1"])
    self.assertNotIn("position", held["judges"]["reward"])
    right = np.mean(
      0.5
      + 0.5 * np.sign(logit) * np.sign([row["prob_a"] - 0.5 for row in rows])
    )
    self.assertAlmostEqual(
      held["judges"]["preference-1"]["accuracy"]["value"], right
    )

  def test_lines_and_page(self):
    for count in (40, 2):
      workdir, results = self.save(count)
      first, second = judge_report.lines(results)
      self.assertStartsWith(first, "judges: preference-1 accuracy 0.")
      self.assertStartsWith(second, "judges: reward accuracy ")
      page = judges_page.section(workdir).body
      self.assertEqual(page.count("<svg"), 2)
      self.assertIn("The preference-1 and the reward model favour", page)
      self.assertIn("Preference-1 model", page)
      for no in ("http", "nan", "None", "<script"):
        self.assertNotIn(no, page)
      for tag in ("div", "table", "tr", "td", "th", "p", "svg", "text"):
        self.assertEqual(
          page.count(f"<{tag}>") + page.count(f"<{tag} "),
          page.count(f"</{tag}>"),
          tag,
        )

  def test_page_tells_of_cycles(self):
    workdir, results = self.save()
    results["cycles"] |= {"triples": 90, "tied": 10, "cyclic": 4, "share": 0.05}
    results["cycles"]["null"] = {
      "share": {"mean": 0.04, "low": 0.02, "high": 0.06}, "p_value": 0.3,
    }  # fmt: skip
    for one in results["cycles"]["judges"].values():
      one |= {"cyclic": 0, "share": 0.0}
    path = workdir / "judges" / "results.json"
    path.write_text(json.dumps(results))
    page = judges_page.section(workdir).body
    self.assertIn("Of 80 triples", page)
    self.assertIn("4.00% (2.00% to 6.00%); p = 0.300", page)
    results["cycles"]["null"] = None
    path.write_text(json.dumps(results))
    self.assertIn("too few votes", judges_page.section(workdir).body)

  def test_run_without_judges(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    body = judges_page.section(workdir).body
    self.assertIn("No judge was trained", body)


if __name__ == "__main__":
  absltest.main()
