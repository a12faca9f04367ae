"""What a mistake leaves behind: nothing, unless a job has begun."""

import contextlib
import io
import pathlib
from unittest import mock

from absl.testing import absltest
import ml_collections

from nashmd_jax import files, jobs, main, mistakes
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax.sweeps import trials
from tests import forked


class UndoneTest(absltest.TestCase):
  """A pipeline of two stages whose data, or second stage, may be refused."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.place = self.folder / "out" / "sweep" / "000"
    self.faults = {}

  def prepare(self, config, workdir):
    files.save_json(workdir / "data" / "rows.json", [1])
    if "data" in self.faults:
      raise self.faults["data"]
    return {}

  def run_job(self, config, workdir, job):
    if job in self.faults:
      raise self.faults[job]
    return {}

  def start(self, stage="all", overrides=None, reuse=()):
    made = [
      pipeline_lib.Stage(
        name=name,
        settings={},
        check=lambda config, findings: None,
        jobs=lambda config, name=name: [name],
        needs=lambda config, job, needs=needs: needs,
        reads=lambda config, job: {},
        run=self.run_job,
      )
      for name, needs in (("a", []), ("b", ["a"]))
    ]
    pipeline = pipeline_lib.Pipeline(
      stages=made,
      settings={"pipeline": pipeline_lib.NAME},
      check=lambda config, findings: None,
      prepare=self.prepare,
      page="a",
    )
    config = ml_collections.ConfigDict({"pipeline": "p"})
    trial = trials.Trial(0, overrides or {}, config, self.place)
    with (
      mock.patch.dict(main.PIPELINES, {"p": pipeline}),
      mock.patch.object(main.jax.config, "update"),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      main.run(config, jobs.Place(self.place, reuse), stage, trial)

  def refused(self, **further):
    with self.assertRaises(mistakes.Mistake):
      self.start(**further)

  def test_a_mistake_in_data_leaves_nothing(self):
    self.faults["data"] = mistakes.Mistake("no such token")
    self.refused(overrides={"seed": 1})
    self.assertEmpty(list(self.folder.iterdir()))
    self.faults.clear()
    self.start(overrides={"seed": 2})  # which is another trial
    self.assertTrue((self.place / "b" / "done.json").exists())

  def test_a_stage_that_cannot_run_yet_leaves_nothing(self):
    self.refused(stage="b")
    self.assertFalse(self.place.exists())

  def test_an_empty_folder_stays_empty(self):
    self.place.mkdir(parents=True)
    self.faults["data"] = mistakes.Mistake("no such token")
    self.refused()
    self.assertEmpty(list(self.place.iterdir()))

  def test_what_was_there_stays(self):
    self.start(stage="a")
    before = sorted(self.place.rglob("*"))
    self.faults["data"] = mistakes.Mistake("no such token")
    self.refused()
    self.assertEqual(sorted(self.place.rglob("*")), before)
    other = self.folder / "out" / "sweep" / "notes.txt"
    other.write_text("precious")
    self.assertEqual(other.read_text(), "precious")

  def test_a_folder_beside_it_stays(self):
    beside = self.folder / "out" / "sweep" / "001" / "config.json"
    files.save_json(beside, {})
    self.faults["data"] = mistakes.Mistake("no such token")
    self.refused()
    self.assertFalse(self.place.exists())
    self.assertTrue(beside.exists())

  def test_what_a_job_has_begun_stays(self):
    self.faults["b"] = mistakes.Mistake("no such judge")
    self.refused()
    self.assertTrue((self.place / "a" / "done.json").exists())
    self.assertTrue((self.place / "failed.json").exists())

  def test_what_is_reused_is_not_touched(self):
    self.start()
    first, self.place = self.place, self.folder / "other" / "run"
    self.faults["data"] = mistakes.Mistake("no such token")
    self.refused(reuse=[first])
    self.assertFalse(self.place.parent.exists())
    self.faults.clear()
    (first / "b" / "done.json").unlink()
    self.faults["b"] = mistakes.Mistake("no such judge")
    self.refused(reuse=[first])
    self.assertTrue((self.place / "a").is_symlink())
    self.assertTrue((first / "a" / "done.json").exists())

  def test_another_error_leaves_what_the_same_command_goes_on_with(self):
    self.faults["data"] = OSError("disk full")
    with self.assertRaises(OSError):
      self.start()
    self.assertTrue((self.place / "config.json").exists())
    self.faults.clear()
    self.start()

  def test_by_hand(self):
    commands = [
      ["--config=configs/worlds.py:tiny", "--config.devices.model=3"],
      ["--config=configs/docstrings.py:tiny", "--stage=sft",
       "--config.data.packages=('absent',)"],
      ["--config=configs/docstrings.py:tiny", "--stage=sft",
       "--config.tokenizer.bos_token=<absent>"],
      ["--config=configs/docstrings.py:tiny", "--stage=sft",
       "--config.tokenizer.file=absent.json"],
      ["--config=configs/docstrings.py:tiny", "--stage=sft",
       "--config.devices.model=16"],
    ]  # fmt: skip
    workdir = f"--workdir={self.folder / 'runs' / 'one'}"
    for out in forked.run_all([[*given, workdir] for given in commands]):
      self.assertEqual(out.returncode, 2, msg=out.stderr)
      self.assertLen(out.stderr.splitlines(), 1)
    self.assertEmpty(list(self.folder.iterdir()))


if __name__ == "__main__":
  absltest.main()
