"""One run at a time in a workdir: who is alive, who is not, who takes over."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes, owner, workdir

WAIT = 30.0  # seconds, at which a test fails that waits for something


def sleeper() -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"]
  )


class OwnerTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / owner.NAME
    self.waited, self.lost, self.numbers = [], [], []
    self.enter_context(mock.patch.object(owner, "BEAT", 0.05))

  def take(self) -> owner.Ownership:
    mine = owner.take(self.folder, lost=self.hear, waits=self.waited.append)
    self.addCleanup(mine.leave)
    return mine

  def hear(self, sentence: str, number: int) -> None:
    self.lost.append(sentence)
    self.numbers.append(number)

  def write(self, **changes) -> None:
    """Leaves the file of another run, which is this process if not changed."""
    other = {"token": "other", **owner._myself(self.folder)} | changes
    self.path.write_text(json.dumps(other))

  def of(self, process: subprocess.Popen) -> dict:
    return {"pid": process.pid, "start": owner._start(process.pid)}

  def test_a_second_process_is_refused_with_who_and_since_when(self):
    other = sleeper()
    self.addCleanup(other.wait)
    self.addCleanup(other.kill)
    self.write(**self.of(other), host="here", began=time.time() - 7300)
    with self.assertRaisesRegex(
      mistakes.Mistake,
      f"process {other.pid} on here is at work here, since 2 h",
    ):
      self.take()
    self.assertEqual(json.loads(self.path.read_text())["token"], "other")

  def test_it_is_free_again_when_left(self):
    mine = self.take()
    with self.assertRaisesRegex(mistakes.Mistake, f"process {os.getpid()} on "):
      self.take()
    mine.leave()
    self.assertEmpty(list(self.folder.iterdir()))
    self.take().leave()

  @parameterized.parameters(True, False)
  def test_a_killed_process_is_followed_at_once(self, reaped):
    other = sleeper()
    self.addCleanup(other.wait)
    self.write(**self.of(other))
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
      other.wait()
    self.take()
    self.assertEmpty(self.waited)

  def test_another_process_of_the_same_number_is_another(self):
    self.write(start="1")
    self.take()

  def test_a_copy_of_a_workdir_has_no_owner(self):
    self.take()
    copy = pathlib.Path(self.create_tempdir().full_path) / "copy"
    shutil.copytree(self.folder, copy)
    owner.take(copy, lost=self.hear, waits=self.waited.append).leave()

  def beating(self) -> None:
    """Touches the file as another machine would."""
    over = threading.Event()

    def beat():
      while not over.wait(0.02):
        self.path.touch()

    thread = threading.Thread(target=beat)
    thread.start()
    self.addCleanup(thread.join)
    self.addCleanup(over.set)

  def test_another_machine_that_is_alive(self):
    self.write(machine="other", host="there", pid=7)
    self.beating()
    with self.assertRaisesRegex(mistakes.Mistake, "process 7 on there is at"):
      self.take()
    self.assertLen(self.waited, 1)
    self.assertIn(
      "waits up to 60 s to see if process 7 on there", self.waited[0]
    )

  @parameterized.parameters(dict(machine="other"), dict(text='{"token": "oth'))
  def test_another_machine_that_is_not(self, text=None, **changes):
    self.write(**changes)
    if text is not None:
      self.path.write_text(text)
    with mock.patch.object(owner, "LIMIT", 0.3):
      self.take()
    self.assertLen(self.waited, 1)

  def test_another_machine_that_has_not_been_for_long(self):
    self.write(machine="other")
    os.utime(self.path, (time.time() - 100,) * 2)
    self.take()
    self.assertEmpty(self.waited)

  def test_one_of_many_takes_over(self):
    self.write(start="1")
    together, taken, refused = threading.Barrier(12), [], []

    def take():
      together.wait()
      try:
        taken.append(self.take())
      except mistakes.Mistake as error:
        refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    self.assertLen(taken, 1)
    self.assertLen(refused, 11)
    self.assertEqual(json.loads(self.path.read_text())["token"], taken[0].token)
    self.assertLen(list(self.folder.iterdir()), 1)

  def test_the_file_is_kept_fresh(self):
    self.take()
    os.utime(self.path, (1, 1))
    self.until(lambda: self.path.stat().st_mtime > 1)

  def until(self, holds) -> None:
    end = time.monotonic() + WAIT
    while not holds():
      self.assertLess(time.monotonic(), end)
      time.sleep(0.01)

  def test_all_processes_of_a_run_hear_of_its_end(self):
    mine = self.take()
    other = owner.join(self.folder, mine.token, lost=self.hear)
    third = owner.join(self.folder, mine.token, lost=self.fail)
    third.leave()
    self.until(lambda: len(self.lost) == 2)
    for sentence in self.lost:
      self.assertIn("another process of this run has failed", sentence)
    self.assertEqual(self.numbers, [0, 0])
    for one in (mine, other):
      one.leave()

  def test_all_processes_of_a_run_hear_of_a_signal_to_one(self):
    mine = self.take()
    others = [
      owner.join(self.folder, mine.token, lost=self.hear) for _ in range(2)
    ]
    others[0].leave(signal.SIGTERM)
    self.until(lambda: len(self.lost) == 2)
    self.assertEqual(self.lost, [owner.STOPPED] * 2)
    self.assertEqual(self.numbers, [signal.SIGTERM] * 2)
    self.assertFalse(mine.is_over())
    self.assertEqual(mine.stopped(), signal.SIGTERM)
    for one in (mine, others[1]):
      one.leave(signal.SIGTERM)
    self.assertEqual([one.name for one in self.folder.iterdir()], [owner.NAME])
    self.assertEqual(self.take().stopped(), 0)

  def test_what_a_signal_left_is_not_waited_for(self):
    self.write(machine="other", stopped=15)
    self.take()
    self.assertEmpty(self.waited)

  def test_a_run_that_was_taken_for_dead_hears_of_it(self):
    mine = self.take()
    self.write(host="there", pid=7)
    self.until(lambda: self.lost)
    self.assertIn("process 7 on there has taken over", self.lost[0])
    mine.leave()
    self.assertTrue(self.path.exists())

  def test_a_workdir_with_an_owner_alone_is_new(self):
    self.take()
    workdir.claim(self.folder, {"a": 1})
    self.assertTrue((self.folder / "config.json").exists())

  @parameterized.parameters(
    (0, "0 s"), (-5, "0 s"), (100, "100 s"), (150, "2 min"), (9000, "2 h"),
    (900_000, "10 days"),
  )  # fmt: skip
  def test_times(self, seconds, expected):
    self.assertEqual(owner.span(seconds), expected)


if __name__ == "__main__":
  absltest.main()
