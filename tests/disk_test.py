"""Disks that are full, read-only or gone: a sentence, nothing half-written."""

import errno
import pathlib
import re
import shutil
import sqlite3
import time
from unittest import mock

from absl.testing import absltest, parameterized
import ml_collections

from nashmd_jax import files, jobs, mistakes, pipeline, workdir
from nashmd_jax.hub import safetensors
from nashmd_jax.training import checksums, metrics
from tests import least_squares

# Logs, and what figures give to programs that they start.
IN_PLACE = (
  "figures/bench_worker.py",
  "figures/demo.py",
  "figures/model_files.py",
  "figures/real.py",
)
FULL = "No space left on device"
# What tensorstore says of a full disk, as orbax hands it on.
TENSORSTORE = (
  'RESOURCE_EXHAUSTED: Failed writing: "/run/checkpoints/8/d/0": Failed to '
  "write 134780 bytes to file 11: No space left on device [os_error_code='28']"
)


def full(*args, **kwargs):
  del args, kwargs
  raise OSError(errno.ENOSPC, FULL)


def wrapped(error: Exception, cause: Exception) -> Exception:
  error.__cause__ = cause
  return error


def sqlite_full() -> sqlite3.Error:
  error = sqlite3.OperationalError("database or disk is full")
  error.sqlite_errorname = "SQLITE_FULL"
  return error


class SentenceTest(parameterized.TestCase):
  @parameterized.parameters(
    (OSError(errno.ENOSPC, FULL, "/run/a"), f"/run/a: .*{FULL}"),
    (OSError(errno.EROFS, "", "/run/a"), "/run/a: .*Read-only"),
    (PermissionError(errno.EACCES, "", "/run/a"), "/run/a: .*Permission"),
    (OSError(errno.EDQUOT, "", "/run/a"), "/run/a: .*quota"),
    (ValueError(TENSORSTORE), FULL),
    (wrapped(RuntimeError("x" * 9999), OSError(errno.EIO, "")), "Input/output"),
    (sqlite_full(), "database or disk is full"),
  )
  def test_a_disk_is_blamed(self, error, expected):
    place = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(mistakes.Fault, expected) as raised:
      with jobs.on_disk(place):
        raise error
    self.assertLess(len(str(raised.exception)), 500)
    self.assertNotIn("\n", str(raised.exception))

  @parameterized.parameters(
    ValueError("a bug"), FileNotFoundError(errno.ENOENT, "", "data.json"),
    mistakes.Mistake("a mistake"),
  )  # fmt: skip
  def test_a_disk_is_not_blamed_for_all(self, error):
    place = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaises(type(error)):
      with jobs.on_disk(place):
        raise error

  def test_a_workdir_that_is_gone(self):
    with self.assertRaisesRegex(mistakes.Fault, "/gone: .*it has vanished"):
      with jobs.on_disk(pathlib.Path("/gone")):
        raise FileNotFoundError(errno.ENOENT, "", "data.json")


class WholeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_text(self):
    path = self.folder / "a.json"
    files.save_json(path, {"a": 1})
    with mock.patch("os.fsync", full), self.assertRaises(OSError):
      files.save_json(path, {"a": 2})
    self.assertEqual(files.load_json(path), {"a": 1})
    self.assertEqual([x.name for x in self.folder.iterdir()], ["a.json"])

  def test_a_file_that_another_writes(self):
    path = self.folder / "sub" / "a.png"
    for number in (1, 2):
      with files.whole(path) as partial:
        self.assertEqual(partial.suffix, ".png")
        partial.write_text(str(number))
      self.assertEqual(path.read_text(), str(number))
    with self.assertRaises(OSError):
      with files.whole(path) as partial:
        partial.write_text("half")
        full()
    self.assertEqual(path.read_text(), "2")
    self.assertEqual([x.name for x in path.parent.iterdir()], ["a.png"])

  def test_nobody_writes_a_file_in_its_place(self):
    writes = re.compile(
      r"(\w+)\.(?:write_text|write_bytes|savefig)\(|savefig\((?!partial)|"
      r"(\w+)\.open\(\"w|(lzma|gzip)\.open\([^)]*\"w"
    )
    root = pathlib.Path(files.__file__).parents[1]
    for path in (*root.glob("nashmd_jax/**/*.py"), *root.glob("figures/*.py")):
      for number, line in enumerate(path.read_text().splitlines(), start=1):
        found = writes.search(line)
        where = f"{path.relative_to(root)}:{number}"
        if found and where.partition(":")[0] not in IN_PLACE:
          self.assertIn("partial", line, msg=where)

  def test_tensors(self):
    def pieces():
      yield b"half"
      full()

    with self.assertRaises(OSError):
      safetensors.save_bytes(self.folder / "model.safetensors", pieces())
    self.assertEmpty(list(self.folder.iterdir()))

  def test_a_row_of_metrics(self):
    path = self.folder / "metrics.jsonl"
    with self.assertRaisesRegex(OSError, f"{FULL}.*metrics.jsonl"):
      with metrics.MetricWriter(self.folder, start_step=0) as writer:
        writer.write(1, {"loss": 1.0})
        whole, file = path.read_bytes(), writer._file

        def half(line):
          if len(line) < 12:
            full()
          return type(file).write(file, line[:10])

        writer._file = mock.Mock(wraps=file, write=half)
        writer.write(2, {"loss": 2.0})
    self.assertEqual(path.read_bytes(), whole)

  def test_rows_of_a_folder_that_is_gone(self):
    folder = self.folder / "sft"
    with self.assertRaises(OSError):
      with metrics.MetricWriter(folder, start_step=0) as writer:
        shutil.rmtree(folder)
        writer.write(1, {"loss": 1.0})


class SaveTest(absltest.TestCase):
  def slow(self):
    """A run whose rows take long enough for a save to fail behind them."""

    def evaluate(sets):
      del sets
      time.sleep(0.1)
      return {}

    return least_squares.experiment()._replace(evaluate=evaluate)

  def test_a_save_that_fails_behind_is_known_at_the_next_row(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    every = dict(log_every=1, eval_every=1, save_every=10)
    whole = checksums.write

    def write(place, *args):
      return full() if place.name == "20" else whole(place, *args)

    with mock.patch.object(checksums, "write", write):
      with self.assertRaisesRegex(
        mistakes.Fault, f"could not be saved .{FULL}.; .* is step 10 in"
      ):
        least_squares.train(folder, 40, self.slow(), **every)
    rows = metrics.load_metrics(folder / "metrics.jsonl")
    self.assertBetween(rows[-1]["step"], 20, 29)
    least_squares.train(folder, 40, **every)
    rows = metrics.load_metrics(folder / "metrics.jsonl")
    self.assertEqual([row["step"] for row in rows], list(range(1, 41)))

  def test_the_last_save_fails(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with mock.patch.object(checksums, "write", full):
      with self.assertRaisesRegex(mistakes.Fault, "checkpoint is none in"):
        least_squares.train(folder, 4)

  def test_a_folder_that_is_gone_is_not_made_anew(self):
    folder = pathlib.Path(self.create_tempdir().full_path)

    def evaluate(sets):
      del sets
      shutil.rmtree(folder / "checkpoints", ignore_errors=True)
      return {}

    made = least_squares.experiment()._replace(evaluate=evaluate)
    with self.assertRaisesRegex(mistakes.Fault, "No such file or directory"):
      least_squares.train(folder, 8, made)
    self.assertFalse((folder / "checkpoints").exists())


class RecordTest(absltest.TestCase):
  def test_what_cannot_be_recorded_does_not_replace_the_cause(self):
    place = pathlib.Path(self.create_tempdir().full_path)

    def run(config, folder, job):
      raise RuntimeError("the cause")

    stage = pipeline.Stage(
      name="a", settings={}, check=None, jobs=lambda config: ["a"],
      needs=lambda config, job: [], reads=lambda config, job: {}, run=run,
    )  # fmt: skip
    line = pipeline.Pipeline([stage], {}, None, lambda *_: {}, "report")
    config = ml_collections.ConfigDict()
    workdir.claim(place, {})
    with mock.patch.object(workdir, "fail", full):
      with self.assertRaisesRegex(RuntimeError, "the cause"):
        jobs.run(line, config, jobs.Place(place), None)


if __name__ == "__main__":
  absltest.main()
