"""Keys of jobs: what makes one stale, another's, or shared."""

import json
import pathlib
import signal
import subprocess
import sys
import time

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes, workdir

SETTINGS = {"sft.train.steps": 4, "seed": 0}
FACTS = {"records": "abc"}


def key(needs=None, facts=None, **settings):
  return workdir.make_key(
    SETTINGS | settings, FACTS if facts is None else facts, needs or {}
  )


class KeyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def finished(self, name: str, job: str, made, results=None) -> pathlib.Path:
    place = self.folder / name
    workdir.claim(place, {})
    workdir.begin(place, job, made)
    workdir.finish(place, job, results or {"loss": 1.0}, seconds=2.0)
    return place

  def test_order_of_settings_does_not_matter_and_everything_else_does(self):
    one = workdir.make_key({"a": 1, "b": (2, 3)}, {}, {})
    same = workdir.make_key({"b": [2, 3], "a": 1}, {}, {})
    self.assertEqual(one["hash"], same["hash"])
    sft = key()
    hashes = {
      made["hash"]
      for made in (
        sft, key(seed=1), key(facts={"records": "abd"}),
        key(needs={"sft": sft}), key(needs={"sft": key(seed=1)}),
      )
    }  # fmt: skip
    self.assertLen(hashes, 5)

  def test_when_a_job_stops_is_no_part_of_what_it_gives(self):
    names = ("nonfinite_steps", "save_minutes", "keep.best", "keep.metric")
    stops = {f"sft.train.{name}": 3 for name in names}
    self.assertEqual(key()["hash"], key(**stops)["hash"])
    place = self.finished("run", "sft", key())
    settings = {"sft": SETTINGS | stops}
    workdir.check_settings(place, settings)
    with self.assertRaisesRegex(mistakes.Mistake, "seed was 0 and is now 1"):
      workdir.check_settings(place, {"sft": settings["sft"] | {"seed": 1}})

  def test_differences_are_named(self):
    sft, other = key(), key(seed=1)
    old = workdir.make_key({"beta": 0.1, "gone": 1}, FACTS, {"sft": sft})
    new = workdir.make_key({"beta": 0.5}, {"records": "x"}, {"sft": other})
    changed = workdir.changes(old, new)
    self.assertEqual(
      changed,
      {"beta": [0.1, 0.5], "gone": [1, "absent"], "records": ["abc", "x"]},
    )
    self.assertEqual(
      workdir.told(changed),
      "beta was 0.1 and is now 0.5; gone was 1 and is now 'absent'; records "
      "was 'abc' and is now 'x'",
    )
    self.assertEmpty(workdir.changes(old, json.loads(json.dumps(old))))

  def test_many_changes_are_told_in_a_bounded_list(self):
    changed = {f"section.{name}": ["x" * 900, [1] * 900] for name in "abcdefgh"}
    found = workdir.told(changed)
    self.assertLess(len(found), 450)
    self.assertEndsWith(
      found, "and so section.d, section.e, section.f, section.g, section.h"
    )

  def test_stale_jobs_are_refused_all_at_once_and_left_alone(self):
    place = self.finished("run", "sft", key())
    workdir.begin(place, "nash/a", key(needs={"sft": key()}))
    workdir.begin(place, "nash/b", key(needs={"sft": key()}))
    workdir.begin(place, "report", workdir.make_key({}, {}, {"sft": key()}))
    before = (place / "sft" / "key.json").read_text()
    now = key(seed=1)
    with self.assertRaises(mistakes.Mistake) as raised:
      workdir.check_keys(
        place,
        {
          "sft": now,
          "nash/a": key(needs={"sft": now}, seed=1),
          "nash/b": key(needs={"sft": now}, beta=0.5),
          "report": workdir.make_key({}, {}, {"sft": now}),
          "new": now,
        },
      )
    first, second = raised.exception.sentences
    self.assertIn("sft, nash/a was made of other settings or data, seed", first)
    self.assertIn(f"--reuse={place}", first)
    self.assertIn("nash/b was made of other settings or data, beta", second)
    self.assertEndsWith(second, "so with what was made from it, report")
    self.assertEqual((place / "sft" / "key.json").read_text(), before)
    workdir.check_keys(place, {"sft": key()})

  def test_job_of_an_earlier_version_is_refused(self):
    place = self.finished("run", "sft", key())
    (place / "sft" / "key.json").unlink()
    with self.assertRaisesRegex(mistakes.Mistake, "has no key.json"):
      workdir.check_keys(place, {"sft": key()})

  def test_reuse_links_what_is_the_same_and_nothing_else(self):
    done = self.finished("done", "sft", key())
    other = self.finished("other", "sft", key(seed=1))
    unfinished = self.folder / "unfinished"
    workdir.begin(unfinished, "sft", key())
    mine = self.folder / "mine"
    workdir.claim(mine, {})
    self.assertIsNone(workdir.reuse(mine, "sft", key(), [other, unfinished]))
    self.assertFalse((mine / "sft").exists())
    found = workdir.reuse(mine, "sft", key(), [other, unfinished, done])
    self.assertEqual(found, done / "sft")
    self.assertTrue(workdir.is_done(mine, "sft"))
    (told,) = workdir.finished(mine).values()
    self.assertEqual(told["reused"], str(done / "sft"))
    self.assertNotIn("reused", workdir.finished(done)["sft"])

  def test_own_work_is_never_replaced_by_a_link(self):
    done = self.finished("done", "sft", key())
    mine = self.folder / "mine"
    workdir.begin(mine, "sft", key())
    workdir.reuse(mine, "sft", key(), [done])
    self.assertFalse((mine / "sft").is_symlink())
    workdir.share(mine, "sft", key(), self.folder / "store")
    self.assertFalse((mine / "sft").is_symlink())

  def test_folders_that_are_no_workdirs(self):
    with self.assertRaisesRegex(mistakes.Mistake, "--reuse: .* no workdir"):
      workdir.names([str(self.folder)])


HOLD = """
import pathlib, sys, time
from nashmd_jax import workdir
with workdir.alone(pathlib.Path(sys.argv[1]), lambda: print("waits")):
  print("has it", flush=True)
  time.sleep(60)
"""


class StoreTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.store = pathlib.Path(self.create_tempdir().full_path)

  def test_trials_that_agree_have_one_folder(self):
    trials = [self.store / name for name in ("000", "001", "002")]
    keys = [key(), key(), key(seed=1)]
    folders = [
      workdir.share(trial, "sft", made, self.store / "shared")
      for trial, made in zip(trials, keys, strict=True)
    ]
    self.assertEqual(folders[0], folders[1])
    self.assertNotEqual(folders[0], folders[2])
    workdir.finish(trials[0], "sft", {}, seconds=1.0)
    self.assertTrue(workdir.is_done(trials[1], "sft"))
    self.assertFalse(workdir.is_done(trials[2], "sft"))
    # A second start of the same trial finds the same folder.
    again = workdir.share(trials[0], "sft", key(), self.store / "shared")
    self.assertEqual(again, folders[0])

  def test_lock_goes_with_its_process_however_that_ends(self):
    holder = subprocess.Popen(
      [sys.executable, "-c", HOLD, self.store],
      stdout=subprocess.PIPE,
      text=True,
    )
    self.assertEqual(holder.stdout.readline(), "has it\n")
    waited = []

    def waiting():
      waited.append(time.monotonic())
      holder.send_signal(signal.SIGKILL)

    with workdir.alone(self.store, waiting):
      self.assertLen(waited, 1)
    self.assertEqual(holder.wait(), -signal.SIGKILL)
    holder.stdout.close()


if __name__ == "__main__":
  absltest.main()
