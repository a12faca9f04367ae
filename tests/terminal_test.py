"""What a person at the terminal sees, by hand."""

import contextlib
import importlib.metadata
import io
import pathlib
import runpy
from unittest import mock

from absl.testing import absltest, parameterized
import setuptools

from nashmd_jax import main
from nashmd_jax.stages import trained
from nashmd_jax.training import metrics

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
    with metrics.Progress("sft", start=0, total=41, unit="step") as progress:
      self.clock.now = 25.0
      progress.begin(1, "compiled its step in 25 s")
      self.clock.now = 45.0
      progress.update(21, "loss 1")
    first, line = self.told()
    self.assertEqual(first, "sft: compiled its step in 25 s")
    self.assertIn("21/41 [00:20<00:20,  1.00step/s, loss 1]", line)

  def test_what_is_soon_done_leaves_no_line(self):
    for _ in metrics.shown(range(9), "quick", total=9, unit="batch"):
      self.clock.now += 1.0
    self.assertEmpty(self.told())

  def test_a_line_every_ten_seconds_and_one_at_the_end(self):
    seen = []
    for piece in metrics.shown(iter("abcde"), "slow", total=5, unit="batch"):
      seen.append(piece)
      self.clock.now += 6.0
    self.assertEqual(seen, list("abcde"))
    lines = self.told()
    self.assertLen(lines, 3)
    self.assertIn("2/5 [00:12<00:18,", lines[0])
    self.assertIn("4/5 [00:24<00:06,", lines[1])
    self.assertIn("5/5 [00:30<00:00,", lines[2])

  def test_a_bar_on_a_terminal(self):
    self.out.isatty = lambda: True
    with metrics.Progress("sft", start=0, total=3, unit="step") as progress:
      progress.begin(1)
      progress.update(2, "loss 1")
      progress.update(3, "loss 0")
    self.assertIn("3/3", self.out.getvalue().split("\r")[-1])

  def test_nats_a_token_stand_for_the_loss_where_there_are_any(self):
    row = {"loss": 62.9, "nats_per_token": 3.0204, "judge_seconds": 1.234}
    self.assertEqual(metrics.note(row), "3.020 nats a token, judge 1.23 s")


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
