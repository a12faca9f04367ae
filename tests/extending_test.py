"""What a user brings from outside, by one setting each, trains a tiny run.

The functions and the commands are those of docs/extending.md.
"""

import contextlib
import functools
import io
import json
import pathlib
import shutil
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from nashmd_jax import mistakes, pipeline, texts
from nashmd_jax import task as task_lib
from nashmd_jax.stages import (
  judging,
  learnt_from,
  nash,
  preference,
  sft,
  showing,
  text,
  tournament,
  trained,
)
from nashmd_jax.training import metrics, sharding
from tests import extending_page as page
from tests import small_records

JOB = "nash/nash_md"
OWN = '''
import jax

import mine

ASKED = []


def sometimes(records, responses, opponents):
  """Judges no pair whose record has an odd number."""
  said = mine.closer_to_the_prompt(records, responses, opponents)
  ASKED.extend(zip(records, responses, opponents))
  return [
    float("nan") if int(record["id"]) % 2 else 0.5 if one is None else one
    for record, one in zip(records, said)
  ]


def traced_judge(keys, prompts, responses, opponents):
  return jax.nn.sigmoid(responses[0][:, 0])


def broken_judge(keys, prompts, responses, opponents):
  return jax.nn.sigmoid(1.0 * responses[0][:, 0]).at[1].set(float("nan"))


def traced_loss(log_prob, win_prob, mask):
  return log_prob.reshape(3), {}


def shapeless_loss(log_prob, mask):
  return log_prob, {"grad_norm": 1.0}


def said_too_much(records, responses, opponents):
  return [1.5 for _ in records]


def said_too_little(records, responses, opponents):
  return [0.5]
'''


class TinyRun(parameterized.TestCase):
  """SFT and a preference model, made once; each test goes on from there.

  All on one device: what others add to a step is tested elsewhere.
  """

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    one = functools.partial(sharding.make_devices, jax.devices()[:1])
    cls.enterClassContext(mock.patch.object(sharding, "make_devices", one))
    cls.folder = pathlib.Path(absltest.TEST_TMPDIR.value) / cls.__name__
    shutil.rmtree(cls.folder, ignore_errors=True)
    cls.folder.mkdir(parents=True)
    page.write_module(cls.folder, "mine", page.MODULE)
    page.write_module(cls.folder, "own", OWN)
    sys.path.insert(0, str(cls.folder))
    cls.addClassCleanup(sys.path.remove, str(cls.folder))
    cls.records = small_records.write(cls.folder / "records")
    cls.base = cls.folder / "base"
    page.write_comparisons(cls.folder / "comparisons")
    config = page.tiny_config(cls.records, {})
    text.prepare(config, cls.base)
    sft.run(config, cls.base, "sft")
    preference.run(config, cls.base, "preference")

  def workdir(self, *jobs: str) -> pathlib.Path:
    """A workdir in which some jobs are done."""
    made = pathlib.Path(self.create_tempdir().full_path) / "run"
    made.mkdir()
    for job in ("data", "sft", *jobs):
      (made / job).symlink_to(self.base / job)
    return made

  def config(self, function=None, **further):
    given = page.flags_of(function) if function else {}
    made = page.tiny_config(self.records, given | further)
    pipeline.check(text.PIPELINE, made)
    return made

  def train(self, config, *jobs: str):
    """The rows of metrics of a run, and its workdir."""
    workdir = self.workdir(*jobs)
    needed = nash.needs(config, JOB)
    self.assertCountEqual(needed, ["sft", *jobs])
    nash.run(config, workdir, JOB)
    rows = metrics.load_metrics(workdir / JOB / "metrics.jsonl")
    self.assertEqual([row["step"] for row in rows], [1, 2])
    for row in rows:
      self.assertTrue(np.isfinite([*row.values()]).all(), row)
    return rows, workdir

  def rollout_shapes(self, config) -> dict[str, tuple[int, ...]]:
    """The shapes of a rollout's rows, which is not run."""
    experiment = nash.make_training(config, self.base, JOB).experiment
    params, frozen = jax.eval_shape(experiment.init, jax.random.key(0))
    rows = jax.eval_shape(
      experiment.rollout,
      {**frozen, "policy": params},
      next(experiment.batches()),
      jax.random.key(0),
      0,
    )
    return {name: x.shape for name, x in rows.items()}


class ExtendingTest(TinyRun):
  def test_every_stage_tells_what_is_cut(self):
    for job, names in (
      ("sft", ("prompts_cut", "responses_cut", "eval/responses_cut")),
      ("preference", ("prompts_cut", "eval/prompts_cut")),
    ):
      rows = metrics.load_metrics(self.base / job / "metrics.jsonl")
      self.assertLessEqual({*names}, rows[-1].keys())
    batch = {
      "prompts_cut": np.array([True, False, True, True]),
      "real": np.array([True, True, True, False]),
    }
    found = trained.shares(batch, "prompts_cut", "responses_cut")
    self.assertEqual([*found], ["prompts_cut"])
    self.assertEqual(found["prompts_cut"], (2.0, 3.0))
    for name in ("card", "comparisons_card"):
      card = json.loads((self.base / "data" / f"{name}.json").read_text())
      self.assertIn("responses_cut", card["train"])

  def test_loss(self):
    rows, _ = self.train(self.config("reinforce"), "preference")
    for row in rows:
      self.assertBetween(row["score"], 0.0, 1.0)
      self.assertNotIn("kl", row)  # of the built-in losses
      self.assertGreater(row["grad_norm"], 0.0)
    # The policy starts as μ, so that the first score is the win probability;
    # with scores s_i less the mean of the others, Σ (s_i − mean) is 0 and the
    # loss a covariance: far below the sum of a response's nats.
    self.assertLess(abs(rows[0]["loss"]), 5.0)

  def test_opponent_of_two_lanes(self):
    config = self.config("half_and_half")
    rows, _ = self.train(config, "preference")
    self.assertBetween(rows[0]["win_prob"], 0.0, 1.0)
    shapes = self.rollout_shapes(config)
    self.assertEqual(shapes["answers"], (8, 2))
    self.assertEqual(shapes["weights"], (8, 2))
    self.assertEqual(shapes["responses"][0], 8)

  def test_judge_of_tokens(self):
    config = self.config("shorter")
    rows, workdir = self.train(config)
    self.assertBetween(rows[0]["win_prob"], 0.01, 0.99)
    self.assertNotIn("judged", rows[0])
    task = task_lib.load_task(config, workdir)
    judge = judging.text_judge(
      config,
      task,
      workdir,
      "mine:shorter",
      setting="nash.judge",
      batch_size=4,
    )
    written = ["a", "lamp and river", "sea"]
    said = judge(task.splits["test"][:2], written[:2], written[1:])
    # The end of each counts as a token.
    length = np.array([len(task.encode({"prompt": "", "response": text})
                           ["responses"]) for text in written])  # fmt: skip
    self.assertNotEqual(length[0], length[1])
    more = length[1:] - length[:2]
    np.testing.assert_allclose(said, 1 / (1 + np.exp(-0.5 * more)), rtol=1e-6)

  def test_judge_of_text(self):
    rows, workdir = self.train(self.config("closer_to_the_prompt"))
    self.assertBetween(rows[0]["judged"], 0.0, 1.0)
    events = b"".join(
      path.read_bytes() for path in (workdir / JOB / "events").iterdir()
    )
    self.assertIn(b"judge_seconds", events)
    self.assertNotIn("judge_seconds", rows[0])

  def test_pairs_that_could_not_be_judged_are_counted_and_left_out(self):
    config = self.config(**{"nash.judge": "own:sometimes"})
    asked = sys.modules["own"].ASKED
    asked.clear()
    rows, _ = self.train(config)
    # Eight pairs a step, then eight held-out ones at the last.
    self.assertLen(asked, 24)
    for row, pairs in zip(rows, (asked[:8], asked[8:16]), strict=True):
      even = [pair for pair in pairs if int(pair[0]["id"]) % 2 == 0]
      self.assertEqual(row["judged"], np.float32(len(even) / 8))
      said = sys.modules["own"].sometimes(*map(list, zip(*even, strict=True)))
      self.assertAlmostEqual(row["win_prob"], np.mean(said), places=6)
    self.assertNotIn(0, [row["judged"] % 1 for row in rows])

  def test_loss_on_records_of_an_own_schema(self):
    data = page.write_rated(self.folder / "rated", self.records)
    config = self.config("rated", **{"data.records": str(data)})
    text.prepare(config, self.base)
    rows, _ = self.train(config, "preference")
    # At the start the log-ratio is 0: ln 2 nats, whatever the label.
    self.assertAlmostEqual(rows[0]["loss"], np.log(2), places=6)
    self.assertNotEqual(rows[1]["loss"], rows[0]["loss"])
    self.assertAlmostEqual(rows[0]["log_ratio"], 0.0, places=5)
    self.assertLessEqual({"prompts_cut", "responses_cut"}, rows[0].keys())
    shapes = self.rollout_shapes(config)
    self.assertEqual(shapes["answers"], (8, 0))
    self.assertNotIn("behaviour_log_prob", shapes)
    with self.assertRaisesRegex(ValueError, "'mine:labelled' asks for the la"):
      text.prepare(
        self.config(**{"nash.loss": "mine:labelled"}), self.workdir()
      )

  def test_loss_on_comparisons(self):
    changes = {"nash.loss": "dpo", "nash.design": "records"}
    config = self.config(**changes)
    shapes = self.rollout_shapes(config)
    self.assertEqual(shapes["answers"], (8, 1))
    self.assertEqual(shapes["responses"][0], 16)
    self.assertNotIn("written", shapes)
    facts = [nash.STAGE.job_facts(one, JOB) for one in (config, self.config())]
    self.assertEqual(facts, [("comparisons",), ()])
    with config.unlocked():
      config.nash.judge, config.data.comparisons = "raters", None
    self.assertEqual(nash.needs(config, JOB), ["sft", "comparisons"])

  def test_share_of_the_desired_is_that_of_the_labels(self):
    splits = {"train": [{"label": one} for one in (1.0, 0.5, 0.0, 0.1)]}
    for share, told in ((0.4, []), (0.5, ["set it to 0.400"])):
      changes = {"nash.loss": "rdro", "nash.desired_share": share}
      found = mistakes.Findings()
      learnt_from.check_records(self.config(**changes), splits, found)
      self.assertLen(found.sentences, len(told))
      for sentence, part in zip(found.sentences, told, strict=True):
        self.assertIn(part, sentence)

  def test_judges_that_watch_and_judge_the_tournament(self):
    # The programs of a step are then those of the test above.
    judge = {"nash.judge": "mine:closer_to_the_prompt"}
    config = self.config("grounded", **judge, **{"log.samples": 8})
    rows, workdir = self.train(config)
    names = [
      f"{name}win_prob_against_reference"
      for name in ("mine:shorter_", "", "raters_")
    ]
    self.assertLen({rows[-1][f"eval/{name}"] for name in names}, 3)
    # All of the evaluation is shown here, and says what its means are of.
    shown = metrics.load_metrics(workdir / JOB / metrics.SAMPLES)
    self.assertEqual([row["step"] for row in shown], [2] * 8)
    source = texts.load_summaries(config, workdir)["validation"]
    for row, record in zip(shown, source[:8], strict=True):
      self.assertEqual([*row["texts"]], ["prompt", "policy", "reference"])
      self.assertEqual(row["texts"]["prompt"], record["prompt"])
      pair = [[record], *([row["texts"][name]] for name in showing.WRITERS)]
      (near,) = sys.modules["mine"].closer_to_the_prompt(*pair)
      self.assertAlmostEqual(row["scores"][names[1]], near, places=6)
    for name in names:
      mean = np.mean([row["scores"][name] for row in shown])
      self.assertAlmostEqual(rows[-1][f"eval/{name}"], mean, places=6)
    tournament.run(config, workdir, "tournament")
    results = json.loads((workdir / "tournament/results.json").read_text())
    self.assertEqual(list(results["judges"]), ["mine:grounded", "raters"])
    found = results["judges"]["mine:grounded"]
    self.assertEqual(found["title"], "share of words from the prompt")
    self.assertStartsWith(found["about"], "It counts words")
    self.assertBetween(found["judged"], 0.0, 1.0)

  def test_a_judge_that_breaks_is_found_in_the_step_that_is_kept(self):
    config = self.config(
      **{"nash.judge": "own:broken_judge", "nash.train.nonfinite_steps": 2}
    )
    workdir = self.workdir()
    with self.assertRaisesRegex(
      FloatingPointError, "kept for --replay=nash/nash_md:2, "
    ):
      nash.run(config, workdir, JOB)
    lines = nash.STAGE.replay(config, workdir, JOB, 2)
    self.assertStartsWith(lines[0], f"{JOB}: step 2 on ")
    self.assertIn("  loss  nan", lines)
    (answers,) = (line for line in lines if "answers not finite" in line)
    _, _, example = answers.partition("1 of ")[2].partition("example ")
    number = example.split(" at ")[0]
    self.assertIn(f"  examples not finite  {number}", lines)
    self.assertTrue(any("metrics not finite  " in one for one in lines))

  @parameterized.parameters(
    ("judge", "traced_judge", "TypeError: logistic does not accept dtype int"),
    ("loss", "traced_loss", "TypeError: cannot reshape array of shape (8, 8)"),
    (
      "loss",
      "shapeless_loss",
      "must return its loss and a dict of metrics, each a scalar or an "
      "arrays.Mean, and none named ['ended', 'entropy', 'grad_norm', "
      "'left_out', 'loss', 'repetition']; "
      "not so: "
      "the loss, grad_norm, grad_norm",
    ),
    ("judge", "said_too_much", "gave 1.5, expected probabilities between"),
    ("judge", "said_too_little", "gave a list of 1, expected a number for ea"),
  )
  def test_what_fails_in_a_step_is_told_in_one_sentence(
    self, setting, function, message
  ):
    config = self.config(**{f"nash.{setting}": f"own:{function}"})
    jobs = [] if setting == "judge" else ["preference"]
    told = io.StringIO()
    with self.assertRaises(mistakes.Mistake) as caught:
      with contextlib.redirect_stderr(told):
        nash.run(config, self.workdir(*jobs), JOB)
    (sentence,) = caught.exception.sentences
    self.assertStartsWith(sentence, f"nash.{setting}: ")
    self.assertIn(f"own:{function}", sentence)
    self.assertIn(message, sentence)
    shown = f"in {function}\n" in told.getvalue()
    self.assertEqual(shown, function.startswith("traced"))
    self.assertNotIn("/jax/", told.getvalue())


if __name__ == "__main__":
  absltest.main()
