"""Warnings: what fires a rule, what must not, and that each is said once."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes, repetition
from nashmd_jax.evaluation import page
from nashmd_jax.nash import warnings
from nashmd_jax.training import warned
from tests import training_test

WATCH = f"eval/raters_{warnings.WON}"
EVERY = 5  # rows from one evaluation to the next


def history(rows):
  made = warned.History()
  for row in rows:
    made = made.then(row)
  return made


def rows_of(count=80, every=EVERY, **columns):
  """Rows with a little noise; evaluations in every few of them.

  Args:
    **columns: (from, to) of each metric; eval/… has one that is evaluated.
  """
  rng = np.random.default_rng(0)
  made = []
  for number in range(count):
    share = number / (count - 1)
    row = {"step": number + 1, "loss": 0.0}
    for name, (first, last) in columns.items():
      scale = 0.003 if name.startswith(warned.EVALUATION) else 0.01
      noise = scale * rng.normal()
      row[name] = first + (last - first) * share + noise
    evaluated = number % every == every - 1
    made.append({
      name: value
      for name, value in row.items()
      if evaluated or not name.startswith(warned.EVALUATION)
    })  # fmt: skip
  return made


def own(first, last):
  return {warnings.JUDGE: (first, last)}


FIRES = {
  "kl_below_zero": (dict(kl=(-0.2, -0.2)), "is -0.198 nats over the last 20"),
  "kl_without_gain": (
    dict(kl=(1.0, 9.0), **own(0.6, 0.58)),
    "evaluations, while the win rate went from",
  ),
  "unended": (dict(ended=(0.3, 0.3)), "70% of the responses had no end"),
  "repetition": (dict(repetition=(0.4, 0.4)), "40% of the four-token"),
  "length_drift": (
    dict(response_tokens=(40.0, 10.0)),
    "responses have 13.6 tokens now and had 36.4 at the start",
  ),
  "entropy_collapse": (
    dict(entropy=(2.0, 0.1)),
    "fell from 1.77 to 0.331 nats",
  ),
  "judges_part": (
    dict(**own(0.5, 0.8), **{WATCH: (0.5, 0.35)}),
    "and raters, which watches, 0.3",
  ),
}
QUIET = {
  "kl_below_zero": [
    dict(kl=(0.0, 0.0)),
    dict(kl=(-0.2, -0.2), count=19),
    dict(kl=(-0.2, 0.5)),
    {},
  ],
  "kl_without_gain": [
    dict(kl=(1.0, 9.0), **own(0.6, 0.8)),
    dict(kl=(5.0, 5.0), **own(0.6, 0.58)),
    dict(kl=(0.01, 0.3), **own(0.6, 0.58)),
    dict(kl=(1.0, 9.0), **own(0.6, 0.58), count=75),
    dict(kl=(1.0, 9.0)),
  ],
  "unended": [dict(ended=(0.6, 0.6)), dict(ended=(0.3, 0.3), count=19), {}],
  "repetition": [dict(repetition=(0.1, 0.1)), {}],
  "length_drift": [
    dict(response_tokens=(40.0, 25.0)),
    dict(response_tokens=(40.0, 10.0), count=39),
    {},
  ],
  "entropy_collapse": [dict(entropy=(2.0, 1.0)), dict(entropy=(0.1, 2.0)), {}],
  "judges_part": [
    dict(**own(0.5, 0.8), **{WATCH: (0.5, 0.6)}),
    dict(**own(0.5, 0.35), **{WATCH: (0.5, 0.35)}),
    dict(**own(0.5, 0.8), **{WATCH: (0.5, 0.35)}, count=75),
    own(0.5, 0.8),
  ],
}


def healthy(seed: int, count: int, noise: float) -> list[dict[str, float]]:
  """A run that learns, with noise: the win rate grows before the KL does."""
  rng = np.random.default_rng(seed)
  kl, won = rng.uniform(1, 15), rng.uniform(0.6, 0.95)
  entropy, kept = rng.uniform(0.5, 3), rng.uniform(0.5, 1)
  length, ratio = rng.uniform(8, 100), rng.uniform(0.7, 1.5)
  pace, spread = rng.uniform(0.2, 1) * count, rng.uniform(0.2, 1.5)
  made = []
  for number in range(count):
    done = 1 - np.exp(-number / pace)
    row = {
      "step": number + 1,
      "loss": rng.normal(),
      "kl": kl * done**2 + spread * rng.normal(),
      "ended": np.clip(rng.normal(0.85, 0.05), 0, 1),
      "repetition": abs(rng.normal(0.05, 0.03)),
      "response_tokens": length * (1 + (ratio - 1) * done + 0.1 * rng.normal()),
      "entropy": entropy * (1 - (1 - kept) * done + 0.1 * rng.normal()),
    }
    if number % EVERY == EVERY - 1:
      gain = (won - 0.5) * np.sqrt(done)
      row[warnings.JUDGE] = 0.5 + gain + noise * rng.normal()
      row[WATCH] = 0.5 + 0.7 * gain + noise * rng.normal()
    made.append(row)
  return made


class RulesTest(parameterized.TestCase):
  def test_each_rule_has_its_cases(self):
    self.assertEqual(set(FIRES), set(warnings.RULES))
    self.assertEqual(set(QUIET), set(warnings.RULES))

  @parameterized.parameters(*FIRES)
  def test_it_fires(self, name):
    columns, said = FIRES[name]
    found = {
      one: rule(history(rows_of(**columns)))
      for one, rule in warnings.RULES.items()
    }
    self.assertIn(said, found[name])
    self.assertLess(len(found[name]), 500)
    self.assertEqual([one for one in found if found[one]], [name])

  @parameterized.parameters(
    *((name, case) for name, cases in QUIET.items() for case in cases)
  )
  def test_it_does_not(self, name, case):
    self.assertIsNone(warnings.RULES[name](history(rows_of(**case))))

  def test_a_row_of_nothing_adds_nothing(self):
    rows = rows_of(kl=(-0.2, -0.2))
    nothing = {"step": 0, "loss": float("nan"), "kl": float("nan")}
    self.assertEqual(history([nothing, *rows, nothing]), history(rows))

  def test_history_is_bounded(self):
    made = history(rows_of(count=300, kl=(0, 1), **own(0.5, 0.6)))
    self.assertEqual([len(part) for part in made], [20, 40, 16])

  def test_healthy_runs_are_warned_of_less_than_once_in_a_hundred(self):
    runs, told = 150, 0
    for seed in range(runs):
      made, said = warned.History(), set()
      for row in healthy(seed, 120, noise=0.02):
        made = made.then(row)
        said |= {n for n, rule in warnings.RULES.items() if rule(made)}
      told += bool(said)
    self.assertLessEqual(told, 1)


class RepeatedTest(absltest.TestCase):
  def test_by_hand(self):
    tokens = np.array([
      [1, 2, 3, 4, 1, 2, 3, 4],  # 5 sequences, the last as the first
      [7, 7, 7, 7, 7, 7, 7, 7],  # 5, of which 4 again
      [7, 7, 7, 7, 7, 7, 0, 0],  # 3, of which 2 again
      [1, 2, 3, 4, 5, 6, 7, 8],
      [0, 0, 0, 0, 0, 0, 0, 0],
    ])  # fmt: skip
    lengths = np.array([8, 8, 6, 8, 3])
    mask = np.arange(8) < lengths[:, None]
    found = repetition.repeated(tokens, mask)
    np.testing.assert_allclose(found, [1 / 5, 4 / 5, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(
      repetition.repeated(tokens[:, :4], mask[:, :4]), np.zeros(5)
    )

  def test_it_counts_as_a_set_does(self):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 3, (50, 30))
    mask = np.arange(30) < rng.integers(0, 31, 50)[:, None]
    expected = []
    for row, keep in zip(tokens, mask, strict=True):
      row = row[keep].tolist()
      grams = [tuple(row[i : i + 4]) for i in range(len(row) - 3)]
      again = len(grams) - len(set(grams))
      expected.append(again / max(len(grams), 1))
    np.testing.assert_allclose(
      repetition.repeated(tokens, mask), expected, rtol=1e-6
    )


def late(history):
  """Fires at step 6 and ever after."""
  step = history.last[-1]["step"]
  return f"<b>seen</b> at {step}" if step >= 6 else None


class OnceTest(absltest.TestCase):
  def run_to(self, folder, steps, experiment=None):
    made = experiment or training_test.least_squares()
    told = io.StringIO()
    with (
      contextlib.redirect_stdout(told),
      contextlib.suppress(KeyboardInterrupt),
    ):
      training_test.train(folder, steps, made._replace(rules={"late": late}))
    return told.getvalue().count("test: warning: <b>seen</b> at")

  def files(self, folder):
    return [
      (folder / name).read_bytes() for name in ("metrics.jsonl", warned.FILE)
    ]

  def test_it_is_said_once_in_log_metrics_and_file_cut_or_not(self):
    whole = pathlib.Path(self.create_tempdir("whole").full_path)
    parts = pathlib.Path(self.create_tempdir("parts").full_path)
    self.assertEqual(self.run_to(whole, 12), 1)
    metrics, said = (
      [json.loads(line) for line in lines.splitlines()]
      for lines in self.files(whole)
    )
    self.assertEqual([r["step"] for r in metrics if "warned/late" in r], [6])
    sentence = "<b>seen</b> at 6"
    expected = {"step": 6, "warning": "late", "sentence": sentence}
    self.assertEqual(said, [expected])
    # Cut in the evaluation of step 8: behind the checkpoint of step 4.
    cut = training_test.cut_at_evaluation(2)
    self.assertEqual(self.run_to(parts, 12, cut), 1)
    self.run_to(parts, 12)
    self.assertEqual(self.files(parts), self.files(whole))
    self.assertEqual(self.run_to(parts, 16), 0)
    self.assertEqual(self.files(parts)[1], self.files(whole)[1])

  def test_the_page_shows_it_escaped(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.run_to(folder / "sft", 8)
    (folder / "sft" / "done.json").write_text('{"seconds": 1, "results": {}}')
    shown = page.warnings(folder).body
    self.assertIn("<td>6</td><td>&lt;b&gt;seen&lt;/b&gt; at 6</td>", shown)

  def test_a_damaged_file_ends_in_a_sentence(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / warned.FILE).write_text("{}\n{}\n")
    with self.assertRaisesRegex(mistakes.Mistake, "warnings.jsonl, line 1: is"):
      self.run_to(folder, 4)


if __name__ == "__main__":
  absltest.main()
