"""Processes: finding each other, stopping on SIGTERM, one writing for all."""

import json
import pathlib
import shutil
import signal
import tempfile
import time
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from nashmd_jax import mistakes, owner
from nashmd_jax.training import (
  checkpoints,
  distributed,
  ending,
  metrics,
  sharding,
)
from tests import least_squares, process_run, processes

# At 0.05 s a step no run is over before its signal comes.
STEPS = 160


def command(folder: pathlib.Path, pause: float) -> list[str]:
  return ["tests.process_run", str(folder), str(STEPS), str(pause)]


def ended(folder: pathlib.Path) -> list[np.ndarray]:
  """All that the last checkpoint holds, and the batch that comes next."""
  everywhere = sharding.replicated(least_squares.devices().mesh)
  state = least_squares.start()
  state = jax.device_put(state, everywhere)
  batches = process_run.slow_batches(0.0)
  with checkpoints.make_checkpointer(folder) as checkpointer:
    state = checkpoints.restore(checkpointer, state, batches)
  leaves = jax.tree.leaves((state._replace(frozen={}), next(batches)))
  return [np.asarray(leaf) for leaf in leaves]


def until_up(process) -> None:
  """Waits until a process owns its workdir; others have said more before."""
  while process.stdout.readline() not in ("up\n", ""):
    pass


def cut(folder, rng, *, count: int, devices: int):
  """Starts a run, sends one process SIGTERM at a random moment, waits."""
  started = processes.spawn(
    command(folder, pause=0.05), processes=count, devices=devices
  )
  for process in started:
    until_up(process)
  time.sleep(rng.uniform(0.5, 3.0))
  started[rng.integers(count)].send_signal(signal.SIGTERM)
  return processes.wait(started)


class SigtermTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
    cls.whole = cls.root / "whole"
    statuses, _, errors = processes.run(command(cls.whole, 0.0))
    assert statuses == [0], errors

  def test_cut_at_random_moments_ends_as_the_uncut_run_bit_for_bit(self):
    whole, parts = self.whole, self.root / "parts"
    rng = np.random.default_rng(time.time_ns())
    for _ in range(2):
      statuses, (out,), errors = cut(parts, rng, count=1, devices=1)
      self.assertEqual(statuses, [distributed.EXIT_PREEMPTED], msg=errors)
      # Before the first step, and while files are written, nothing is to save.
      self.assertRegex(out, r"(test: saved at step \d+|stopped on SIGTERM)\n$")
    self.assertEqual(processes.run(command(parts, 0.0))[0], [0])
    for a, b in zip(ended(whole), ended(parts), strict=True):
      np.testing.assert_array_equal(a, b)
    first, second = (
      (folder / "metrics.jsonl").read_bytes() for folder in (whole, parts)
    )
    self.assertEqual(first, second)

  def test_two_processes_agree_and_one_goes_on(self):
    whole, parts = self.whole, self.root / "two"
    rng = np.random.default_rng(time.time_ns())
    statuses, outs, errors = cut(parts, rng, count=2, devices=2)
    self.assertEqual(statuses, [distributed.EXIT_PREEMPTED] * 2, msg=errors)
    self.assertEqual(*(out.splitlines()[-1] for out in outs))
    self.assertEqual(processes.run(command(parts, 0.0), devices=4)[0], [0])
    for a, b in zip(ended(whole), ended(parts), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(0, 1)
  def test_a_signal_to_one_before_there_is_anything_to_save(self, which):
    folder = self.root / f"early{which}"
    both = processes.spawn(command(folder, 0.05), processes=2, devices=1)
    until_up(both[which])
    both[which].send_signal(signal.SIGTERM)
    statuses, _, errors = processes.wait(both)
    self.assertEqual(
      statuses, [distributed.EXIT_PREEMPTED] * 2, msg="\n".join(errors)
    )
    self.assertNotIn("Traceback", "".join(errors))

  def test_a_second_process_is_refused_and_the_first_saves_on_sigint(self):
    folder = self.root / "owned"
    (first,) = processes.spawn(command(folder, 0.1), processes=1, devices=1)
    self.assertEqual(first.stdout.readline(), "up\n")
    statuses, _, (error,) = processes.run(command(folder, 0.0))
    self.assertEqual(statuses, [2])
    self.assertRegex(
      error, rf"process {first.pid} on \S+ is at work here, since \d+ s; wait"
    )
    self.assertTrue((folder / owner.NAME).exists())
    rows = folder / "metrics.jsonl"
    while not rows.exists() or not rows.read_text():
      time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    statuses, (out,), (error,) = processes.wait([first])
    self.assertEqual(statuses, [130])
    self.assertRegex(out, r"test: saved at step \d+\n$")
    self.assertNotIn("Traceback", error)
    self.assertFalse((folder / owner.NAME).exists())

  def test_a_killed_run_is_started_again_as_it_is(self):
    folder = self.root / "killed"
    (first,) = processes.spawn(command(folder, 0.1), processes=1, devices=1)
    while not (folder / "checkpoints" / "20").exists():
      time.sleep(0.1)
    first.kill()
    processes.wait([first])
    self.assertTrue((folder / owner.NAME).exists())
    self.assertEqual(processes.run(command(folder, 0.0))[0], [0])
    for a, b in zip(ended(self.whole), ended(folder), strict=True):
      np.testing.assert_array_equal(a, b)

  @parameterized.parameters(
    ("0 disk", [1], "could not be saved .No space left on device"),
    ("0 batches", [2], "train.jsonl, line 7: cannot be read"),
    ("0 events", [0], "no more events are written .No space left on device"),
  )
  def test_what_befalls_a_run_behind_its_loop(self, fault, statuses, said):
    folder = pathlib.Path(self.create_tempdir().full_path)
    began = time.monotonic()
    found, (out,), (error,) = processes.run([*command(folder, 0.01), fault])
    self.assertEqual(found, statuses, msg=error)
    self.assertRegex(out + error, said)
    self.assertNotIn("Traceback", error)
    last = metrics.load_metrics(folder / "metrics.jsonl")[-1]["step"]
    if statuses == [0]:
      self.assertEqual(last, STEPS)
    else:  # known within a row; a save is due at step 40
      self.assertLess(last, 50)
    self.assertLess(time.monotonic() - began, 300)

  @parameterized.parameters(
    ("1 batches", [1, 2], "train.jsonl, line 7: cannot be read"),
    ("1 disk", [1, 1], "could not be saved .No space left on device"),
    ("0 error", [1, 1], "RuntimeError: a fault of the program"),
    ("1 mistake", [1, 2], "a mistake of the user"),
  )
  def test_what_befalls_one_process_ends_all(self, fault, statuses, said):
    folder = self.create_tempdir().full_path
    started = processes.spawn(
      [*command(folder, 0.05), fault], processes=2, devices=1
    )
    # They would wait for each other for minutes, in collectives or in orbax.
    found, _, errors = processes.wait(started, seconds=90)
    self.assertEqual(found, statuses, msg=errors)
    one = int(fault[0])
    self.assertRegex(errors[one], said)
    self.assertIn("another process of this run has failed", errors[1 - one])
    self.assertNotIn("Traceback", errors[1 - one])

  def test_before_the_run_is_up_the_status_is_that_of_the_signal(self):
    folder = self.create_tempdir().full_path
    started = processes.spawn(command(folder, 0.0), processes=1, devices=1)
    time.sleep(0.3)
    started[0].send_signal(signal.SIGTERM)
    self.assertEqual(processes.wait(started)[0], [-signal.SIGTERM])

  def test_host_work_is_interrupted_and_left_alone_otherwise(self):
    before = signal.signal(signal.SIGTERM, ending._on_signal)
    try:
      self.assertEqual(distributed.on_first(lambda: [1]), [1])
      with self.assertRaises(distributed.Preempted):
        distributed.on_first(lambda: signal.raise_signal(signal.SIGTERM))
      self.assertTrue(distributed.must_stop())
      with self.assertRaises(distributed.Preempted):
        distributed.on_first(lambda: self.fail("started after SIGTERM"))
    finally:
      signal.signal(signal.SIGTERM, before)
      ending._Asked.number = 0
    distributed.stop_if_asked()

  def test_nobody_else_handles_signals(self):
    # The runner of sweeps trains nothing: its trials are other processes.
    package = pathlib.Path(ending.__file__).parents[1]
    own = (pathlib.Path(ending.__file__), package / "sweeps" / "run.py")
    for path in package.rglob("*.py"):
      if path not in own:
        self.assertNotRegex(path.read_text(), r"import signal|signal\.signal")


class OnFirstTest(parameterized.TestCase):
  @parameterized.parameters(
    (mistakes.Mistake("one", "two"), mistakes.Mistake),
    (ValueError("one"), ValueError),
    (distributed.Preempted("one"), distributed.Preempted),
    (KeyError("one"), RuntimeError),
  )
  def test_other_processes_raise_what_process_0_did(self, error, kind):
    """What process 0 sends is what the others receive, as JSON."""
    sent = []

    def work():
      raise error

    def broadcast(value):
      sent.append(json.dumps(value))
      return json.loads(sent[0])

    with (
      mock.patch.object(jax, "process_count", return_value=2),
      mock.patch.object(distributed, "_broadcast", broadcast),
    ):
      with self.assertRaises(type(error)):
        distributed.on_first(work)
      with mock.patch.object(distributed, "is_first", return_value=False):
        with self.assertRaises(kind) as raised:
          distributed.on_first(work)
    self.assertIs(type(raised.exception), kind)
    self.assertEqual(str(raised.exception), str(error))
    if kind is mistakes.Mistake:
      self.assertEqual(raised.exception.sentences, error.sentences)


class TogetherTest(absltest.TestCase):
  def test_what_fails_in_one_process_fails_in_all(self):
    def work():
      raise mistakes.Mistake("a mistake")

    with mock.patch.object(distributed, "anywhere", lambda flag: True):
      with self.assertRaisesRegex(mistakes.Mistake, "a mistake"):
        distributed.together(work)
      with self.assertRaisesRegex(mistakes.Fault, "another process"):
        distributed.together(lambda: 1)
    self.assertEqual(distributed.together(lambda: 1), 1)
    with self.assertRaises(mistakes.Mistake):
      distributed.together(work)


class AllSeeTest(absltest.TestCase):
  def test_a_disk_of_its_own_holds_no_mark_of_another_host(self):
    ours, theirs = (
      pathlib.Path(self.create_tempdir(name).full_path) for name in "ab"
    )
    for folder in (ours, theirs):
      (folder / "config.json").write_text("{}")
    sent, seen = [], []

    def as_process(first, folder):
      def broadcast(value):
        if first:
          sent.append(value)
        told = dict(sent[len(seen)])
        seen.append(folder)
        if isinstance(told["value"], str):
          # The path is the same on both hosts, what lies there is not.
          told["value"] = str(folder / pathlib.Path(told["value"]).name)
        return told

      seen.clear()
      with (
        mock.patch.object(jax, "process_count", return_value=2),
        mock.patch.object(distributed, "is_first", return_value=first),
        mock.patch.object(distributed, "_broadcast", broadcast),
        mock.patch.object(distributed, "anywhere", lambda flag: flag),
      ):
        return distributed.all_see(folder)

    self.assertTrue(as_process(True, ours))
    self.assertFalse(as_process(False, theirs))
    self.assertLen(list(ours.iterdir()), 1)


class SaveTest(absltest.TestCase):
  def test_two_processes_save_what_they_share_as_one_does(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    saved = []
    for count in (1, 2):
      folder = root / str(count)
      statuses, _, errors = processes.run(
        ["tests.save_run", str(folder)], processes=count, devices=4 // count
      )
      self.assertEqual(statuses, [0] * count, msg=errors)
      saved.append({path.name: path.read_bytes() for path in folder.iterdir()})
    self.assertGreater(len(saved[0]), 3)
    self.assertEqual(*saved)


class StartTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, None),
    ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
    ({"SLURM_NTASKS": "2"}, "SLURM_NTASKS"),
    ({"PMI_SIZE": "4"}, "PMI_SIZE"),
    ({"OMPI_COMM_WORLD_SIZE": "8"}, "OMPI_COMM_WORLD_SIZE"),
    ({"TPU_WORKER_HOSTNAMES": "a"}, None),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES"),
    ({"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_INDEX"),
    ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_COORDINATOR_ADDRESS"),
  )
  def test_membership(self, environ, expected):
    self.assertEqual(distributed.membership(environ), expected)

  def test_one_of_several_never_trains_alone(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    with self.subTest("no cluster found"):
      started = processes.spawn(
        command(folder, 0.0), processes=1, devices=1, SLURM_NTASKS="2"
      )
      statuses, _, (error,) = processes.wait(started)
      self.assertEqual(statuses, [2])
      self.assertIn("SLURM_NTASKS says that this is one of several", error)
      self.assertFalse(folder.exists())


if __name__ == "__main__":
  absltest.main()
