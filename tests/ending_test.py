"""A process ends on a signal, and after a failure, whatever it waits for."""

import signal
import subprocess
import sys
import time

from absl.testing import absltest, parameterized

from tests import processes

# What a compilation is to Python: one long call that no handler interrupts.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
START = """
import hashlib, sys, threading, time
from nashmd_jax.training import ending
ending.AGAIN = 0.2
ending.AT_START = 0.5
"""
LONG = 60  # seconds, at which a test fails that waits for an end


class EndingTest(parameterized.TestCase):
  def spawn(self, program: str) -> subprocess.Popen:
    process = subprocess.Popen(
      [sys.executable, "-c", START + program],
      cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True,
    )  # fmt: skip
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), "up\n")
    return process

  def end(self, process: subprocess.Popen) -> tuple[int, str]:
    _, error = process.communicate(timeout=LONG)
    return process.returncode, error

  @parameterized.parameters(
    (signal.SIGTERM, 75, "stopped on SIGTERM; start it again"),
    (signal.SIGINT, 130, "stopped on SIGINT; start it again"),
  )
  def test_a_signal_during_a_compilation(self, number, status, said):
    process = self.spawn(f"""
ending.listen()
ending.at_last(lambda: print("last", file=sys.stderr))
print("up", flush=True)
{BUSY}
""")
    process.send_signal(number)
    code, error = self.end(process)
    self.assertEqual(code, status)
    self.assertEqual(error.count("\n"), 2)
    self.assertIn(said, error)
    self.assertIn("last", error)

  @parameterized.parameters((signal.SIGTERM, 143), (signal.SIGINT, 130))
  def test_only_a_second_one_ends_what_has_something_to_lose(
    self, number, code
  ):
    process = self.spawn(f"""
ending.listen()
with ending.holding() as hold:
  hold()
  print("up", flush=True)
  while not ending.asked():
    time.sleep(0.01)
  print("asked", flush=True)
  {BUSY}
""")
    for _ in range(3):  # some engines send it to a group and to its leader
      process.send_signal(number)
    self.assertEqual(process.stdout.readline(), "asked\n")
    time.sleep(1.0)
    self.assertIsNone(process.poll())
    process.send_signal(number)
    found, error = self.end(process)
    self.assertEqual(found, code)
    self.assertIn(f"a second {number.name} ended it", error)

  def test_what_may_be_interrupted_is(self):
    process = self.spawn("""
ending.AT_START = 600
ending.listen()
def work():
  print("up", flush=True)
  time.sleep(600)
try:
  ending.interruptible(work)
except ending.Preempted as stopped:
  print(stopped, file=sys.stderr)
  raise SystemExit(ending.status())
""")
    process.send_signal(signal.SIGINT)
    self.assertEqual(self.end(process), (130, "stopped on SIGINT\n"))

  def test_a_signal_that_was_ignored_stays_so(self):
    process = self.spawn("""
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
ending.listen()
print("up", flush=True)
while not ending.asked():
  time.sleep(0.01)
raise SystemExit(ending.status())
""")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    self.assertEqual(self.end(process)[0], 75)

  def test_a_thread_that_hangs_is_not_waited_for(self):
    process = self.spawn("""
threading.Thread(target=time.sleep, args=(600,)).start()
ending.end_within(0.5, 3)
print("up", flush=True)
""")
    self.assertEqual(self.end(process), (3, ""))

  def test_nor_a_disk_or_a_pipe_that_does_not_answer(self):
    process = self.spawn("""
print("up", flush=True)
ending.at_last(lambda: time.sleep(600))
ending.leave(4, "over")
""")
    self.assertEqual(self.end(process), (4, "nashmd_jax: over\n"))


if __name__ == "__main__":
  absltest.main()
