"""Judges made of other judges, trained several times, or recorded."""

import json

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nashmd_jax import mistakes
from nashmd_jax import task as task_lib
from nashmd_jax.evaluation import win_rates
from nashmd_jax.judges import compound, recorded, scorers, table
from nashmd_jax.stages import (
  judge_templates,
  judging,
  nash,
  preference,
  tournament,
)
from nashmd_jax.training import metrics
from tests import extending_test, judge_server, small_records

JOB = extending_test.JOB


class CompoundTest(parameterized.TestCase):
  said = np.array([[0.9, 0.2, 0.5], [0.6, 0.4, 0.5]])

  @parameterized.parameters(
    ("mean", 0.0, [0.75, 0.3, 0.5]),
    ("minimum", 0.0, [0.6, 0.2, 0.5]),
    ("lower", 2.0, [0.45, 0.1, 0.5]),
    ("lower", 9.0, [0.0, 0.0, 0.5]),
  )
  def test_ensemble_by_hand(self, rule, deviations, expected):
    made = compound.ensemble(
      members=("a", "b"), rule=rule, deviations=deviations
    )
    for space in (np, jnp):
      found = made.combine(space.asarray(self.said), None, None)
      np.testing.assert_allclose(found, expected, atol=1e-6)

  def test_a_member_that_could_not_judge_is_no_half(self):
    said = np.where(self.said == 0.2, np.nan, self.said)
    for rule in compound.RULES:
      made = compound.ensemble(members=("a", "b"), rule=rule, deviations=1.0)
      found = np.isnan(made.combine(said, None, None))
      np.testing.assert_array_equal(found, [False, True, False])

  def test_penalty_by_hand(self):
    made = compound.penalised(judge="a", log_odds=0.5)
    said = np.array([[0.5, 0.8, 1.0, 0.0, np.nan]])
    y, other = np.array([[7, 5, 900, 2, 1], [3, 5, 2, 900, 1]])
    for space in (np, jnp):
      found = made.combine(*map(space.asarray, (said, y, other)))
      # logit ½ is 0, less 0.5 · 4.
      expected = [1 / (1 + np.exp(2.0)), 0.8, 1.0, 0.0, np.nan]
      np.testing.assert_allclose(found, expected, rtol=1e-6)
      back = made.combine(*map(space.asarray, (1 - said, other, y)))
      np.testing.assert_allclose(found + back, [1, 1, 1, 1, np.nan], rtol=1e-6)
    for sizes in ((9000, 1), (1, 9000)):
      far = made.combine(said[:, :2], *map(np.array, sizes))
      self.assertTrue(np.isfinite(far).all())

  @parameterized.parameters(
    ("ensemble", dict(members=("a",), rule="mean", deviations=1.0), "members"),
    ("ensemble", dict(members=("a", "a"), rule="mean", deviations=1.0), "each"),
    ("ensemble", dict(members=("a", "b"), rule="max", deviations=1.0), "'max'"),
    (
      "ensemble",
      dict(members=("a", "b"), rule="lower", deviations=-1.0),
      "from 0 to",
    ),
    ("penalised", dict(judge="a", log_odds=-0.1), "log_odds: got -0.1"),
    ("penalised", dict(judge="a", log_odds=float("nan")), "log_odds: got nan"),
  )
  def test_settings_that_cannot_be(self, name, settings, said):
    with self.assertRaisesRegex(mistakes.Mistake, said):
      getattr(compound, name)(**settings)

  def test_members_draw_votes_of_their_own(self):
    def even(keys, prompts, y, y_opp):
      del prompts, y, y_opp
      return jnp.full(keys.shape, 0.5)

    vote = scorers.votes(even)
    both = scorers.combined([vote, vote], lambda said, *sizes: said.mean(0))
    segment = jnp.zeros((400, 2), jnp.int32), jnp.ones((400, 2), bool)
    keys = jax.random.split(jax.random.key(0), 400)
    found, counts = np.unique(both(keys, *[segment] * 3), return_counts=True)
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(counts / 400, [0.25, 0.5, 0.25], atol=0.08)


class RecordedTest(absltest.TestCase):
  def test_choices_in_either_order_by_their_votes(self):
    pair = {"prompt": "x", "response_a": "one", "response_b": "two"}
    back = {"prompt": "x", "response_a": "two", "response_b": "one"}
    judge = recorded.make_judge(
      [pair | {"prob_a": 1.0, "votes": 3}, back | {"prob_a": 1.0}]
    )
    rows = [{"prompt": text} for text in ("x", "x", "x", "y", "y")]
    found = judge(
      rows,
      ["one", "two", "one", "one", "one"],
      ["two", "one", "three", "two", "one"],
    )
    np.testing.assert_array_equal(found, [0.75, 0.25, np.nan, np.nan, 0.5])


class StagesTest(extending_test.TinyRun):
  @pytest.mark.slow
  def test_members_are_trained_apart_and_judge_as_one(self):
    config = self.config(
      **{"nash.judge": "ensemble", "tournament.judges": ("penalised",)}
    )
    self.assertEqual(judging.wanted(config), ["preference", "preference-1"])
    jobs = [job for stage in preference.STAGES for job in stage.jobs(config)]
    self.assertEqual(jobs, ["preference", "preference-1"])
    keys = [preference.STAGES[0].reads(config, job)["member"] for job in jobs]
    self.assertEqual(keys, [0, 1])
    preference.run(config, self.base, "preference-1")
    rows, workdir = self.train(config, "preference", "preference-1")
    self.assertBetween(rows[0]["win_prob"], 0.0, 1.0)
    task = task_lib.load_task(config, workdir)
    source, written = task.splits["test"][:3], ["a", "lamp and river", "sea"]

    def judged(name):
      judge = judging.text_judge(
        config, task, workdir, name, setting="nash.judge", batch_size=4
      )
      return judge(source, written, written[::-1])

    first, second = judged("preference"), judged("preference-1")
    self.assertGreater(np.abs(first - second).max(), 1e-4)
    np.testing.assert_allclose(
      judged("ensemble"), (first + second) / 2, atol=1e-6
    )
    self.assertEqual(judged("ensemble")[1], 0.5)
    tournament.run(config, workdir, "tournament")
    results = json.loads((workdir / "tournament/results.json").read_text())
    found = results["judges"]["penalised"]
    self.assertStartsWith(
      found["title"], "learned preference model, less 0.02 log-odds for each"
    )
    self.assertIn("length is penalised", found["about"])

  def test_a_reward_model_may_judge_pairs(self):
    config = self.config(
      **{"nash.judge": "bradley_terry", "tournament.judges": ("raters",)}
    )
    self.assertEqual(judging.wanted(config), ["reward"])
    task = task_lib.load_task(config, self.base)
    made = judging.win_judge(
      config, task, table.find("bradley_terry", setting="nash.judge")
    )
    params = task.judge_model.init(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (4, 8), 5, 300)
    mask = jnp.ones(tokens.shape, bool)
    y, other = (tokens, mask), (tokens[::-1], mask)
    judge = made({"reward": params})
    found = judge(jax.random.split(jax.random.key(0), 4), y, y, other)
    score = table.TABLE["reward"].token(
      task.judge_model,
      params,
      judge_templates.make_template(config, task.tokenizer, "reward"),
    )
    expected = jax.nn.sigmoid(score(y, y) - score(y, other))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    self.assertGreater(float(jnp.ptp(found)), 1e-4)

  def test_a_compound_with_a_judge_of_text_stands_on_the_host(self):
    config = self.config(
      **{
        "nash.judge": "ensemble",
        "judges.ensemble.members": ("preference", "mine:closer_to_the_prompt"),
      }
    )
    rows, workdir = self.train(config, "preference")
    self.assertBetween(rows[0]["judged"], 0.0, 1.0)
    self.assertIn(
      "mine:closer_to_the_prompt source",
      "\n".join(f"{key} source" for key in nash.reads(config, JOB)),
    )

  def test_recorded_choices_judge_the_tournament(self):
    task = task_lib.load_task(self.config(), self.base)
    rows = [
      {
        "id": row["id"], "prompt": row["prompt"], "prob_a": 0.8,
        "response_a": "good", "response_b": "bad",
      }
      for row in task.splits["test"][:2]
    ]  # fmt: skip
    file = self.create_tempfile(
      "choices.jsonl", "\n".join(map(json.dumps, rows))
    )
    named = {"tournament.judges": ("recorded",), "nash.judge": "raters"}
    with self.assertRaisesRegex(mistakes.Mistake, "judges.recorded.file: got"):
      self.config(**named)
    empty = self.create_tempfile("empty.jsonl").full_path
    with self.assertRaisesRegex(mistakes.Mistake, "empty.jsonl: no records in"):
      self.config(**named, **{"judges.recorded.file": empty})
    config = self.config(**named, **{"judges.recorded.file": file.full_path})
    self.assertEqual(judging.wanted(config), [])
    judge = judging.text_judge(
      config, task, self.base, "recorded", setting="nash.judge", batch_size=1
    )
    found = judge(task.splits["test"][:3], ["good"] * 3, ["bad"] * 3)
    np.testing.assert_array_equal(found, [0.8, 0.8, np.nan])
    before = tournament.reads(config, "tournament")["judges.recorded"]
    rows[0]["prob_a"] = 0.7
    file.write_text("\n".join(map(json.dumps, rows)))
    after = tournament.reads(config, "tournament")["judges.recorded"]
    self.assertNotEqual(before, after)

  @parameterized.parameters(
    ({"judges.ensemble.members": ("preference", "ensemble")}, "never ends"),
    (
      {
        "judges.ensemble.members": ("preference", "penalised"),
        "judges.penalised.judge": "ensemble",
      },
      "never ends",
    ),
    ({"judges.ensemble.members": ("preference", "other")}, "judges.ensemble: "),
    ({"judges.ensemble.rule": "best"}, "judges.ensemble.rule: got 'best'"),
    ({"nash.judge": "raters-1"}, "nash.judge: got 'raters-1'"),
    ({"nash.judge": "preference-0"}, "nash.judge: got 'preference-0'"),
    ({"preference.labels.smoothing": 1.5}, "preference.labels.smoothing: got"),
    ({"nash.judge_ahead": 1}, "nash.judge_ahead: got 1 with train.log_every"),
  )
  def test_settings_that_cannot_be_are_told(self, settings, said):
    with self.assertRaisesRegex(mistakes.Mistake, said):
      self.config(**({"nash.judge": "ensemble"} | settings))

  def test_a_served_judge_is_paid_once_and_its_costs_are_told(self):
    cache = str(self.base / "served.sqlite3")
    with judge_server.serve() as server:
      config = self.config(
        **{
          "nash.judge": "served", "judges.served.cache": cache,
          "judges.served.url": server.url, "judges.served.model": "any",
          "judges.served.prompt": judge_server.PROMPT,
        }
      )  # fmt: skip
      rows, _ = self.train(config)
      paid = dict(server.counts.billed)
      again, _ = self.train(config)
    self.assertEqual(rows, again)
    self.assertEqual(dict(server.counts.billed), paid)
    self.assertEqual(set(paid.values()), {1})
    # A pair of equal texts asks nothing; any other is two questions.
    self.assertBetween(rows[0]["judge_calls"], 0.1, 2.0)
    self.assertAlmostEqual(
      rows[0]["judge_tokens"], 21 * rows[0]["judge_calls"], places=4
    )
    self.assertEqual(rows[0]["judged"], 1.0)
    given = nash.reads(config, JOB)
    self.assertIn("judges.served.model", given)
    self.assertNotIn("judges.served.budget_calls", given)

  def test_a_tournament_tells_what_its_judge_has_cost(self):
    rows = [small_records.record(i) for i in range(5)]
    responses = {
      name: [f"{name} {i}" for i in range(5)] for name in ("a", "b", "c")
    }
    with judge_server.serve() as server:
      config = self.config(
        **{
          "nash.judge": "served", "judges.served.url": server.url,
          "judges.served.model": "any",
          "judges.served.prompt": judge_server.PROMPT,
        }
      )  # fmt: skip
      judge = judging.text_judge(
        config, None, self.workdir(), "served", setting="here", batch_size=5
      )
      sizes = {"confidence": 0.95, "seed": 0, "batch_size": 5}
      win_rates.play(responses, rows, judge, **sizes)
      names = ("judge_calls", "judge_tokens")
      costs = tournament._costs(judge, names, rows, responses)
    calls = sum(server.counts.billed.values())
    self.assertEqual(costs, {"judge_calls": calls, "judge_tokens": 21 * calls})
    self.assertEqual(calls, 3 * 2 * 5)  # both orders of 3 pairs, each once

  def test_a_run_that_judges_ahead_resumes_bit_for_bit(self):
    given = {
      "nash.judge": "mine:closer_to_the_prompt", "nash.judge_ahead": 1,
      "nash.train.log_every": 2, "nash.train.eval_every": 2,
      "nash.train.save_every": 2,
    }  # fmt: skip
    ends = []
    for stops in ([4], [2, 4]):
      workdir = self.workdir()
      for steps in stops:
        config = self.config(**given, **{"nash.train.steps": steps})
        nash.run(config, workdir, JOB)
      task = task_lib.load_task(config, workdir)
      params = task_lib.load_trained(task, "model", workdir / JOB)
      ends.append((
        metrics.load_metrics(workdir / JOB / "metrics.jsonl"),
        jax.device_get(params),
      ))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, *ends)
    self.assertIn("clipped", ends[0][0][0])


if __name__ == "__main__":
  absltest.main()
