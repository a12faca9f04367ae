"""Pieces of work that are kept over a cut: none lost, none done twice."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.training import distributed, ending, journal

GIVEN = {"a": [0.1, float("nan")], "b": "tëxt\u2028\n", "c": {"d": [None]}}


class JournalTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / "pieces.jsonl"
    self.done = []

  def work(self, name):
    self.done.append(name)
    return GIVEN[name]

  def run_all(self, of="1", names="abc"):
    """What the pieces gave, and those that were done for it."""
    self.done.clear()
    once = journal.keep(self.path, of=of)
    gave = {
      name: once(name, lambda name=name: self.work(name)) for name in names
    }
    return gave, "".join(self.done)

  def test_what_was_done_is_not_done_again(self):
    self.assertEqual(self.run_all(names="ab")[1], "ab")
    gave, done = self.run_all()
    self.assertEqual(done, "c")
    self.assertEqual(repr(gave), repr(GIVEN))
    self.assertEqual(self.run_all()[1], "")

  def test_what_another_thing_was_made_of_is_dropped(self):
    self.run_all()
    self.assertEqual(self.run_all(of="2")[1], "abc")
    self.assertEqual(self.run_all(of="2")[1], "")

  def test_cut_anywhere_it_is_repaired_and_ends_alike(self):
    self.run_all()
    whole = self.path.read_bytes()
    ends = [n for n in range(len(whole)) if whole[n : n + 1] == b"\n"]
    for size in range(len(whole)):
      self.path.write_bytes(whole[:size])
      kept = max(sum(end < size for end in ends) - 1, 0)
      self.assertEqual(self.run_all()[1], "abc"[kept:])
      self.assertEqual(self.path.read_bytes(), whole)

  @parameterized.parameters(b"x", b"[]", b'{"piece": "b"}', b"\0" * 9)
  def test_a_damaged_line_is_named(self, line):
    self.run_all()
    lines = self.path.read_bytes().splitlines()
    lines[2] = line
    self.path.write_bytes(b"\n".join(lines) + b"\n")
    with self.assertRaisesRegex(
      mistakes.Mistake, "jsonl, line 3: is damaged .*; delete the file"
    ):
      self.run_all()

  def test_a_signal_stops_it_between_pieces(self):
    asked = iter([False, True])
    with mock.patch.object(distributed, "must_stop", lambda: next(asked)):
      with self.assertRaises(ending.Preempted):
        self.run_all()
    self.assertEqual(self.done, ["a"])
    self.assertLen(self.path.read_text().splitlines(), 2)
    self.assertEqual(self.run_all()[1], "bc")

  def test_the_others_write_nothing(self):
    self.run_all(names="a")
    before = self.path.read_bytes()
    with mock.patch.object(distributed, "is_first", lambda: False):
      self.assertEqual(self.run_all()[1], "bc")
    self.assertEqual(self.path.read_bytes(), before)

  def test_named(self):
    once = journal.named(journal.keep(self.path, of="1"), "first")
    once("second", lambda: 3)
    last = json.loads(self.path.read_text().splitlines()[-1])
    self.assertEqual(last, {"piece": "first, second", "gave": 3})


if __name__ == "__main__":
  absltest.main()
