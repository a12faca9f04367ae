"""What a person at the terminal sees, by hand."""

import contextlib
import importlib.metadata
import io
import os
import pathlib
import runpy
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import setuptools

from nashmd_jax import main
from nashmd_jax.stages import trained
from nashmd_jax.training import finite, metrics, step

ROOT = pathlib.Path(__file__).parent.parent


class Clock:
  """A clock that is set by hand."""

  def __init__(self):
    self.now = 0.0

  def monotonic(self):
    return self.now


class ProgressTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.clock, self.out = Clock(), io.StringIO()
    self.enter_context(mock.patch.object(metrics, "time", self.clock))
    self.enter_context(contextlib.redirect_stderr(self.out))

  def told(self):
    return self.out.getvalue().splitlines()

  def test_the_first_step_is_no_part_of_the_rate(self):
    with metrics.Progress("sft", start=0, total=81, unit="step") as progress:
      self.clock.now = 25.0
      progress.begin(1, "compiled its step in 25 s")
      self.clock.now = 85.0
      self.assertEqual(progress.pace(61), 1.0)
      progress.update(61, "loss 1")
    self.assertEqual(
      self.told(),
      [
        "sft: compiled its step in 25 s",
        "sft: 61/81, 00:20 left, loss 1, 1.00step/s",
      ],
    )

  def test_what_is_soon_done_leaves_no_line(self):
    for _ in metrics.shown(range(9), "quick", total=9, unit="batch"):
      self.clock.now += 1.0
    self.assertEmpty(self.told())

  def test_a_line_a_minute_and_one_at_the_end(self):
    seen = []
    for piece in metrics.shown(iter("abcde"), "slow", total=5, unit="batch"):
      seen.append(piece)
      self.clock.now += 36.0
    self.assertEqual(seen, list("abcde"))
    lines = self.told()
    self.assertLen(lines, 3)
    self.assertIn("2/5, 01:48 left,", lines[0])
    self.assertIn("4/5, 00:36 left,", lines[1])
    self.assertIn("5/5, 00:00 left,", lines[2])

  def test_the_end_is_told_of_what_took_less_than_a_minute(self):
    for _ in metrics.shown(range(3), "some", total=3, unit="batch"):
      self.clock.now += 4.0
    self.assertLen(self.told(), 1)

  def terminal(self, columns):
    self.out.isatty = lambda: True
    size = os.terminal_size((columns, 24))
    self.enter_context(
      mock.patch.object(shutil, "get_terminal_size", return_value=size)
    )

  def test_a_line_that_is_drawn_anew_on_a_terminal(self):
    self.terminal(80)
    with metrics.Progress("sft", start=0, total=90, unit="step") as progress:
      for step in range(1, 91):
        self.clock.now += 0.05
        progress.update(step, "loss 1" if step < 90 else "loss")
    text = self.out.getvalue()
    self.assertEqual(text.count("\n"), 1)
    lines = text.rstrip("\n").split("\r")[1:]
    self.assertBetween(len(lines), 30, 60)
    self.assertIn("90/90, 00:00 left, loss, ", lines[-1])
    # Nothing of a longer line is left behind a shorter one.
    self.assertEqual(len(lines[-1]), len(lines[-2]))

  @parameterized.parameters(
    (120, "KL 2.31, 12.3k tok/s, 8.00step/s"),
    (80, "KL 2.31, 12.3k tok/s"),
    (72, "KL 2.31"),
    (40, "left"),
  )
  def test_what_there_is_no_room_for_is_left_out_whole(self, columns, end):
    self.terminal(columns)
    row = {
      "loss": 0.1234, "win_prob": 0.5512, "kl": 2.3145, "grad_norm": 1.0,
      "tokens_a_second": 12345.6,
    }  # fmt: skip
    with metrics.Progress(
      "nash/nash_md", start=0, total=1600, unit="step"
    ) as progress:
      self.clock.now = 100.0
      progress.update(800, metrics.note(row))
    (line,) = self.out.getvalue().split("\r")[1:]
    line = line.rstrip("\n")
    self.assertStartsWith(line, "nash/nash_md: 800/1600")
    self.assertEndsWith(line.strip(), end)
    self.assertLess(len(line), columns)

  def test_what_is_said_stands_above_the_line(self):
    self.terminal(80)
    with metrics.Progress("sft", start=0, total=9, unit="step") as progress:
      progress.update(1, "loss 1")
      with contextlib.redirect_stdout(self.out):
        progress.say(["a sample", "of two lines"])
      self.clock.now = 1.0
      progress.update(2, "loss 1")
    lines = [x.split("\r")[-1] for x in self.out.getvalue().split("\n")]
    self.assertEqual(lines[:2], ["a sample", "of two lines"])
    self.assertStartsWith(lines[2], "sft: 2/9")

  def test_what_a_row_tells(self):
    row = {"loss": 62.9, "nats_per_token": 3.0204, "judge_seconds": 1.234}
    self.assertEqual(metrics.note(row), "3.020 nats a token, judge 1.23 s")
    row = {"loss": 0.5, "accuracy": 0.75, "tokens_a_second": 850.0}
    self.assertEqual(metrics.note(row), "loss 0.500, accuracy 0.750, 850 tok/s")
    row = {"loss": 0.5, "reward": -1.5, "kl": 0.0123}
    self.assertEqual(metrics.note(row), "loss 0.500, reward -1.5, KL 0.0123")


class TokensTest(absltest.TestCase):
  def test_tokens_of_responses_that_were_given_or_written(self):
    batch = {
      "prompts_mask": np.ones((2, 9), bool),
      "responses_a_mask": np.ones((2, 3), bool),
      "responses_b_mask": np.tri(2, 3, dtype=bool),
    }
    one = finite.Taken.of(1, batch, {}, {})
    self.assertEqual(one.tokens(), 9)
    written = {"response_tokens": step.Mean(np.float32(12), np.float32(4))}
    self.assertEqual(one._replace(metrics=written).tokens(), 12)
    plain = one._replace(metrics=written).plain()
    self.assertEqual(finite.Taken.of_plain(plain).tokens(), 12)


class ClippingTest(parameterized.TestCase):
  @parameterized.parameters(
    ([150.0] * 40, 1.0, True),
    ([150.0] * 39 + [0.5], 1.0, True),
    ([150.0] * 30 + [0.5] * 10, 1.0, False),
    ([0.9, 0.8], 1.0, False),
    ([], 1.0, False),
  )
  def test_a_clip_that_is_always_active(self, norms, most, warned):
    found = trained.clipping([{"grad_norm": norm} for norm in norms], most)
    self.assertEqual(found is not None, warned)
    if warned:
      self.assertIn(
        "its norm is 150 (median), optimizer.max_grad_norm 1,", found
      )


class CommandTest(absltest.TestCase):
  def test_the_command_is_the_program(self):
    with mock.patch.object(setuptools, "setup") as setup:
      with contextlib.chdir(ROOT):
        runpy.run_path("setup.py")
    (script,) = setup.call_args.kwargs["entry_points"]["console_scripts"]
    name, _, place = script.partition(" = ")
    self.assertEqual(name, "nashmd")
    point = importlib.metadata.EntryPoint(name, place, "console_scripts")
    self.assertIs(point.load(), main.cli)


if __name__ == "__main__":
  absltest.main()
