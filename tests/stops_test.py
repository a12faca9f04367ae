"""Runs that are stopped within a row, a question or an evaluation, or by time.

Each ends as one that was not, bit for bit.
"""

import functools
import math
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.training import (
  checkpoints,
  distributed,
  keeping,
  metrics,
  step,
)
from tests import least_squares

EVERY = dict(log_every=6, eval_every=12, save_every=12)


def ended(folder: pathlib.Path) -> list[np.ndarray]:
  """All that the last checkpoint holds, and the batch that comes next."""
  batches = least_squares.make_batches()
  with checkpoints.make_checkpointer(folder) as checkpointer:
    state = checkpoints.restore(checkpointer, least_squares.start(), batches)
  return jax.tree.leaves((state._replace(frozen={}), next(batches)))


def evaluated(scores) -> step.Experiment:
  """Least squares with an evaluation that gives, or does, what is told."""
  return least_squares.experiment()._replace(evaluate=scores)


class StopTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.whole, self.parts = (
      pathlib.Path(self.create_tempdir(name).full_path)
      for name in ("whole", "parts")
    )

  def assert_ends_alike(self):
    for a, b in zip(ended(self.whole), ended(self.parts), strict=True):
      np.testing.assert_array_equal(a, b)
    first, second = (
      (folder / "metrics.jsonl").read_bytes()
      for folder in (self.whole, self.parts)
    )
    self.assertEqual(first, second)

  def test_within_rows_and_while_the_host_is_asked(self):
    asked, waits, cuts = [], {3, 9, 14}, []

    def ask(read):
      asked.append(read)
      if len(asked) in waits:
        raise distributed.Preempted("stopped")
      return {"shown": read["y"].tolist()}

    host = step.Host(
      reads=("y",), ask=ask, tells=(), ahead=0,
      rows=lambda told: {"shown": np.array(told["shown"], np.float32)},
    )  # fmt: skip
    made = least_squares.experiment()._replace(host=host)
    signals = iter([False, True] * 3 + [False] * 20)
    with mock.patch.object(distributed, "asked_alone", lambda: next(signals)):
      while True:
        try:
          scores = least_squares.train(self.parts, 12, made, **EVERY)
          break
        except distributed.Preempted as stopped:
          cuts.append(int(str(stopped).split()[-1]))
    # The signal behind step 2; the third question, which is of step 3; ...
    self.assertEqual(cuts, [2, 2, 4, 7, 7, 11])
    waits.clear()
    expected = least_squares.train(self.whole, 12, made, **EVERY)
    self.assertEqual(scores, expected)
    self.assert_ends_alike()

  @parameterized.parameters(4, 12)
  def test_within_an_evaluation_it_saves_and_evaluates_later(self, at):
    train = functools.partial(least_squares.train, save_every=8)
    expected, seen = train(self.whole, 12), []

    def evaluate(sets):
      seen.append(sets)
      if len(seen) == at // 4:
        raise distributed.Preempted("stopped")
      return least_squares.experiment().evaluate(sets)

    with self.assertRaisesRegex(distributed.Preempted, f"saved at step {at}"):
      train(self.parts, 12, evaluated(evaluate))
    rows = metrics.load_metrics(self.parts / "metrics.jsonl")
    self.assertEqual(rows[-1]["step"], at - 2)
    if at < 12:  # once more, behind the row that was left
      with (
        mock.patch.object(checkpoints, "save", side_effect=KeyboardInterrupt),
        self.assertRaises(KeyboardInterrupt),
      ):
        train(self.parts, 12)
    self.assertEqual(train(self.parts, 12), expected)
    self.assert_ends_alike()

  def test_a_row_is_saved_when_its_time_has_come(self):
    saved, save = [], checkpoints.save

    def noted(checkpointer, step, *args, **how):
      saved.append(step)
      save(checkpointer, step, *args, **how)

    due = iter([False, True, False, False, True, False])
    with (
      mock.patch.object(checkpoints, "save", noted),
      mock.patch.object(keeping.Clock, "due", lambda _: next(due)),
    ):
      least_squares.train(self.parts, 12, save_every=8, eval_every=12)
    self.assertEqual(saved, [4, 8, 10, 12])
    least_squares.train(self.whole, 12, save_every=8, eval_every=12)
    self.assert_ends_alike()


class KeepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def steps(self) -> list[int]:
    place = self.folder / "checkpoints"
    return sorted(int(x.name) for x in place.iterdir())

  @parameterized.parameters((True, [4, 20, 24]), (False, [12, 20, 24]))
  def test_the_best_stay_over_a_cut(self, highest, expected):
    scores = iter([3.0, math.nan, 1.0, 2.0, 2.0, 2.0])
    made = evaluated(lambda sets: {"w": next(scores)})
    keep = {"last": 2, "best": 1, "metric": "w", "highest": highest}
    train = functools.partial(
      least_squares.train, self.folder, made=made, save_every=100, keep=keep
    )
    train(16)
    train(24)
    self.assertEqual(self.steps(), expected)

  def test_as_many_of_the_last_as_are_asked_for(self):
    keep = {**least_squares.KEEP, "last": 3}
    least_squares.train(self.folder, 20, keep=keep)
    self.assertEqual(self.steps(), [12, 16, 20])

  def test_what_is_best_must_be_said_and_be_there(self):
    keep = {**least_squares.KEEP, "best": 1}
    with self.assertRaisesRegex(mistakes.Mistake, "without train.keep.metric"):
      least_squares.train(self.folder, 4, keep=keep)
    keep["metric"] = "loss"
    with self.assertRaisesRegex(
      mistakes.Mistake, r"got 'loss', expected one of \['w0'\]"
    ):
      least_squares.train(self.folder, 4, keep=keep)


class ClockTest(absltest.TestCase):
  def test_process_0_decides(self):
    now = [0.0]
    with mock.patch.object(keeping.time, "monotonic", lambda: now[0]):
      clock, never = keeping.Clock(2), keeping.Clock(0)
      self.assertFalse(clock.due())
      now[0] = 120.0
      self.assertTrue(clock.due())
      self.assertFalse(never.due())
      with mock.patch.object(distributed, "is_first", lambda: False):
        self.assertFalse(clock.due())
      clock.saved()
      self.assertFalse(clock.due())


class SpaceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def free(self, count):
    usage = shutil.disk_usage(self.folder)._replace(free=count)
    return mock.patch.object(shutil, "disk_usage", lambda _: usage)

  def test_found_before_the_first_step(self):
    # w, its average, two moments and 3 past policies of 8 float32, and counts.
    with (
      self.free(600),
      self.assertRaisesRegex(
        mistakes.Fault, r"checkpoints: 3 more checkpoints of \d+ B .* has 600 B"
      ),
    ):
      least_squares.train(self.folder, 4)
    self.assertEqual((self.folder / "metrics.jsonl").exists(), False)
    with self.free(6000):
      least_squares.train(self.folder, 8)
    # Two stand there already.
    with self.free(600):
      least_squares.train(self.folder, 12)

  @parameterized.parameters(
    (0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (7e9, "7 GB"),
    (2e18, "2e+03 PB"),
  )  # fmt: skip
  def test_sizes(self, count, expected):
    self.assertEqual(keeping.shown(count), expected)


if __name__ == "__main__":
  absltest.main()
