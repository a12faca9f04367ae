"""What a user brings is found, checked before anything runs, and fingerprinted.

See extending_test for what trains with it.
"""

import contextlib
import io
import pathlib
import shutil
import subprocess
import sys

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes, outside, pipeline, texts
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.judges import table
from nashmd_jax.nash import algorithms
from nashmd_jax.stages import nash, text, tournament
from nashmd_jax.training import events, metrics, telling
from tests import extending_page as page
from tests import small_records

ODD = '''
from nashmd_jax.judges import table

NUMBER = 3


def two(first, second):
  """Takes what nobody gives."""


def swapped(prompts, keys, responses, opponents):
  """A judge whose arguments are in another order."""


def loss(log_prob, win_prob, mask, scale):
  """A loss that asks for what there is not."""


def pairs_and_labels(log_prob, label, win_prob):
  """A loss that asks for what two ways of playing give."""


def sampled_and_whole(log_prob, log_probs, win_prob):
  """A loss that asks for both readings of the policy."""


def no_lane(mixture):
  return 0.5, {"policy": 1.0}


def unknown_set(mixture):
  return {"teacher": 1.0}


def fails_at_once(mixture):
  return {"policy": 1 / 0}


def not_a_judge():
  return "judge"


def judge_of_nothing():
  return table.Judge(title="t", about="a", gives="win_prob")


def judge_of_no_stage():
  return table.Judge(
    title="t", about="a", gives="win_prob", stage="sft", text=lambda config: two
  )


def row(record):
  return record | {"response": record["answer"]}
'''


class OutsideCase(parameterized.TestCase):
  """A folder on Python's path with functions of the user's."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    page.write_module(self.folder, "odd", ODD)
    page.write_module(self.folder, "broken", "import absent_module_of_mine\n")
    page.write_module(self.folder, "typo", "def loss(:\n")
    sys.path.insert(0, str(self.folder))
    self.addCleanup(sys.path.remove, str(self.folder))
    self.records = small_records.write(self.folder / "records")
    page.write_comparisons(self.folder / "comparisons")

  def config(self, **given):
    return page.tiny_config(self.records, given)


class OutsideTest(OutsideCase):
  def check(self, config) -> tuple[tuple[str, ...], str]:
    """The sentences of a check that fails, and what is printed before."""
    told = io.StringIO()
    with self.assertRaises(mistakes.Mistake) as caught:
      with contextlib.redirect_stderr(told):
        pipeline.check(text.PIPELINE, config)
    return caught.exception.sentences, told.getvalue()

  @parameterized.parameters(
    ("nash.loss", "absent_file:loss", "got 'absent_file:loss', but No module"),
    ("nash.loss", "odd:los", "odd has no function 'los'"),
    ("nash.loss", "odd:NUMBER", "odd has no function 'NUMBER'"),
    ("nash.loss", "odd:loss", "'odd:loss' asks for ['scale'], expected some"),
    (
      "nash.loss",
      "odd:pairs_and_labels",
      "'odd:pairs_and_labels' asks for ['win_prob'], expected some",
    ),
    ("nash.loss", "odd:sampled_and_whole", "asks for both log-probs of sam"),
    ("nash.opponent", "odd:two", "odd:two: TypeError: two() missing 1"),
    ("nash.opponent", "odd:no_lane", "odd:no_lane gave (0.5, {'policy': 1.0})"),
    ("nash.opponent", "odd:unknown_set", "writes in the sets ['teacher']"),
    ("nash.opponent", "odd:fails_at_once", "ZeroDivisionError: division by"),
    ("nash.judge", "odd:absent", "odd has no function 'absent'"),
    ("nash.judge", "odd:two", "odd:two takes (first, second), expected one of"),
    ("nash.judge", "odd:swapped", "takes (prompts, keys, responses, opponents"),
    ("nash.judge", "odd:not_a_judge", "returned 'judge', expected a judges"),
    (
      "nash.judge",
      "odd:judge_of_nothing",
      "expected one of tokens, of text or",
    ),
    ("nash.judge", "odd:judge_of_no_stage", "whose stage is None or one of"),
    ("nash.watch", ("raters", "odd:two"), "odd:two takes (first, second)"),
    ("tournament.judges", ("odd:absent",), "odd has no function 'absent'"),
    ("nash.judge", "broken:judge", "got 'broken:judge', but No module named"),
    ("nash.judge", "typo:judge", "typo cannot be imported (SyntaxError: inv"),
    ("data.schema", "odd:rows", "odd has no function 'rows'"),
  )
  def test_one_sentence_before_anything_runs(self, setting, name, message):
    (sentence,), told = self.check(self.config(**{setting: name}))
    self.assertStartsWith(sentence, f"{setting}: ")
    self.assertIn(message, sentence)
    # A traceback is told of what failed, once, not of what is not there.
    fails = name in ("odd:fails_at_once", "broken:judge", "typo:judge")
    self.assertEqual(told.count("Error: "), fails, msg=told)
    self.assertEqual(told.count('.py", line '), fails, msg=told)

  def test_a_schema_that_fails_names_the_line(self):
    sentences, _ = self.check(self.config(**{"data.schema": "odd:row"}))
    self.assertLen(sentences, 3)
    self.assertRegex(
      sentences[0], r"train.jsonl, line 1: data.schema: odd:row: KeyError: 'an"
    )

  def test_all_that_is_wrong_is_told_at_once(self):
    sentences, _ = self.check(
      self.config(
        **{"nash.loss": "odd:los", "nash.opponent": "odd:no_lane",
           "tournament.judges": ("odd:two",)}
      )
    )  # fmt: skip
    self.assertLen(sentences, 3)
    for setting in ("nash.loss", "nash.opponent", "tournament.judges"):
      self.assertLen([s for s in sentences if s.startswith(setting)], 1)

  def test_the_program_ends_with_status_two(self):
    # The folder of the config is searched: neither it nor this is the current.
    copied = shutil.copy(page.ROOT / "configs" / "docstrings.py", self.folder)
    out = subprocess.run(
      [
        sys.executable, "-m", "nashmd_jax.main", f"--config={copied}:tiny",
        f"--workdir={self.folder / 'run'}",
        "--config.nash.opponent=odd:fails_at_once",
      ],
      cwd=page.ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    self.assertEqual(out.returncode, 2, msg=out.stderr)
    self.assertEqual(out.stderr.count("Traceback"), 1)
    self.assertIn("in fails_at_once\n", out.stderr)
    self.assertRegex(
      out.stderr.splitlines()[-1],
      "^nashmd_jax: nash.opponent: odd:fails_at_once: ZeroDivisionError",
    )
    self.assertFalse((self.folder / "run").exists())


class FingerprintTest(OutsideCase):
  def key(self, stage, job, config):
    return workdir_lib.make_key(stage.reads(config, job), {}, {})

  @parameterized.parameters(
    ("nash.loss", "page:reinforce", nash.STAGE, "nash/nash_md"),
    ("nash.opponent", "page:half_and_half", nash.STAGE, "nash/nash_md"),
    ("nash.judge", "page:shorter", nash.STAGE, "nash/nash_md"),
    ("nash.watch", ("raters", "page:shorter"), nash.STAGE, "nash/nash_md"),
    (
      "tournament.judges",
      ("page:shorter", "raters"),
      tournament.STAGE,
      "tournament",
    ),
  )
  def test_an_edited_function_is_another(self, setting, name, stage, job):
    page.write_module(self.folder, "page", page.MODULE)
    config = self.config(**{setting: name})
    before = self.key(stage, job, config)
    self.assertEqual(self.key(stage, job, config), before)
    page.write_module(self.folder, "page", page.MODULE + "\n# Edited.\n")
    changed = workdir_lib.changes(before, self.key(stage, job, config))
    name = name if isinstance(name, str) else "page:shorter"
    self.assertEqual([*changed], [f"{setting} {name} source"])

  def test_built_ins_have_no_source(self):
    self.assertIsNone(outside.source_hash("policy_gradient"))
    for stage, job in (
      (nash.STAGE, "nash/nash_md"),
      (tournament.STAGE, "tournament"),
    ):
      read = stage.reads(self.config(), job)
      self.assertEmpty([name for name in read if name.endswith("source")])

  def test_an_edited_schema_reads_the_records_anew(self):
    schema = "def row(record):\n  return record\n"
    page.write_module(self.folder, "rows", schema)
    config = self.config(**{"data.schema": "rows:row"})
    run = self.folder / "run"
    before = texts.load_summaries(config, run)
    edited = schema.replace("record\n", "record | {'response': 'another'}\n")
    page.write_module(self.folder, "rows", edited)
    after = texts.load_summaries(config, run)
    self.assertNotEqual(before["test"][0]["response"], "another")
    self.assertEqual({row["response"] for row in after["test"]}, {"another"})


class ScoresTest(parameterized.TestCase):
  @parameterized.parameters((0.5, 0.9), (0.0, 0.2))
  def test_a_reward_of_text_watches_as_bradley_terry(self, low, high):
    # σ(1.5 − x): by hand for x = 0.5 and 0.
    del high
    judge = table.scorers.bradley_terry_text(
      lambda rows, texts: np.array([{"y": 1.5, "z": low}[t] for t in texts])
    )
    with np.errstate(all="raise"):
      (found,) = judge([{}], ["y"], ["z"])
    self.assertAlmostEqual(found, 1 / (1 + np.exp(low - 1.5)))

  def test_unjudged_answers_change_nothing(self):
    algorithm = algorithms.make_algorithm(
      scores="win_prob",
      loss="policy_gradient",
      updates_per_rollout=1,
      judge_ahead=0,
      clip=0.2,
      ratio="product",
      design="all",
      orders="one",
      desired_share=0.4,
      pessimism=0.1,
      follower_kl_coef=0.4,
    )
    rng = np.random.default_rng(0)
    names = ("log_prob", "ref_log_prob")
    read = dict(zip(names, -rng.random((2, 4, 3), np.float32), strict=True))

    def loss(answers):
      rows = {
        "answers": np.float32(answers)[:, None],
        "judged": np.array([[True], [False], [True], [True]]),
        "weights": np.ones((4, 1), np.float32),
        "responses_mask": np.ones((4, 3), bool),
        "responses": np.zeros((4, 3), np.int32),
      }
      return algorithm.loss(read, rows, 0.1)

    value, told = loss([0.2, 0.5, 0.9, 0.4])
    other, _ = loss([0.2, 0.0, 0.9, 0.4])
    self.assertEqual(value.count, 3)
    self.assertEqual(value.total, other.total)
    self.assertAlmostEqual(float(told["win_prob"].value), 0.5, places=6)


class SecondsTest(absltest.TestCase):
  def test_times_go_to_the_event_file_and_the_line_alone(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    row = {"loss": 0.25, "judged": 0.5, "judge_seconds": 1.234}
    with (
      metrics.MetricWriter(folder, start_step=0) as writer,
      events.to_tensorboard(
        telling.Run("sft", folder, 0, "project", "group", {})
      ) as write,
    ):
      writer.write(1, row)
      write(1, row, ())
    self.assertEqual(
      metrics.load_metrics(folder / "metrics.jsonl"),
      [{"step": 1, "loss": 0.25, "judged": 0.5}],
    )
    said = b"".join(path.read_bytes() for path in (folder / "events").iterdir())
    self.assertIn(b"judge_seconds", said)
    self.assertEqual(metrics.note(row), "loss 0.250, judge 1.23 s")
    self.assertEqual(metrics.note({"loss": 1.0, "kl": 2.0}), "loss 1.000, KL 2")


if __name__ == "__main__":
  absltest.main()
