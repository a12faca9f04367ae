"""Where a workdir stands, by what lies in it."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest

from nashmd_jax import mistakes, owner, status, workdir
from tests import processes

JOBS = ["sft", "preference", "nash/nash_md", "tournament"]


class StatusTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    workdir.claim(self.folder, {})

  def lines(self) -> list[str]:
    before = sorted(self.folder.rglob("*"))
    found = list(status.lines(self.folder, JOBS))
    self.assertEqual(sorted(self.folder.rglob("*")), before)
    return found

  def rows(self, job: str, *rows, file: str = "metrics.jsonl") -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (self.folder / job).mkdir(parents=True, exist_ok=True)
    (self.folder / job / file).write_text(text)

  def test_what_is_done_under_way_and_not_begun(self):
    self.rows("sft", {"step": 9, "loss": 1.0})
    self.rows("sft", {"step": 4, "sentence": "odd"}, file="warnings.jsonl")
    workdir.finish(self.folder, "sft", {"loss": 1.0}, 12.4)
    workdir.begin(self.folder, "preference", {"hash": "a"})
    self.rows("nash/nash_md", {"step": 1}, {"step": 3, "loss": 0.25, "kl": 2.0})
    got = self.lines()
    self.assertEqual(
      got[:3], ["no process is at work", "sft: done in 12 s; 1 warnings",
                "preference: begun"],
    )  # fmt: skip
    self.assertRegex(
      got[3], r"^nash/nash_md: step 3, loss 0.25, kl 2, [01] s ago$"
    )
    self.assertEqual(got[4:], ["tournament: not begun"])

  def test_what_failed_and_what_is_another_workdirs(self):
    other = self.folder.parent / "other"
    workdir.claim(other, {})
    workdir.finish(other, "sft", {}, 3.0)
    (self.folder / "sft").symlink_to(other / "sft")
    workdir.fail(self.folder, "preference", ValueError("no\nroom " * 200))
    got = self.lines()
    self.assertEqual(
      got[1], f"sft: done in 3 s, in {(other / 'sft').resolve()}"
    )
    self.assertStartsWith(got[2], "preference: failed: ValueError: no room")
    self.assertBetween(len(got[2]), 200, 300)

  def test_who_is_at_work(self):
    mine = owner.take(self.folder, lost=mock.Mock(), waits=mock.Mock())
    self.addCleanup(mine.leave)
    self.assertRegex(self.lines()[0], r"^process \d+ on \S+ is at work, since")
    path = self.folder / owner.NAME
    said = json.loads(path.read_text())
    for changes, expected in (
      ({"start": "1"}, "no process is at work"),
      ({"stopped": 15}, "no process is at work"),
      ({"folder": [1, 2]}, "no process is at work"),
      (
        {"machine": "x", "host": "there", "pid": 7},
        "process 7 on there was at",
      ),
    ):
      path.write_text(json.dumps(said | changes))
      self.assertStartsWith(self.lines()[0], expected)

  def test_a_folder_that_is_no_workdir(self):
    with self.assertRaisesRegex(mistakes.Mistake, "is no workdir"):
      list(status.lines(self.folder / "absent", JOBS))


class CommandTest(absltest.TestCase):
  def run_main(self, *flags: str):
    command = ["nashmd_jax.main", "--stage=status", *flags]
    (code,), (out,), (error,) = processes.run(command)
    return code, out.splitlines(), error

  def test_of_a_run_and_of_a_sweep(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    run, config = folder / "run", "--config=configs/worlds.py:tiny"
    code, _, error = self.run_main(config, f"--workdir={run}")
    self.assertEqual(code, 2)
    self.assertIn("is no workdir", error)
    self.assertFalse(run.exists())
    workdir.claim(run, {})
    code, lines, error = self.run_main(config, f"--workdir={run}")
    self.assertEqual((code, lines[0]), (0, "no process is at work"), error)
    self.assertTrue(all(line.endswith(": not begun") for line in lines[1:]))
    code, lines, error = self.run_main(
      "--config=configs/sweeps.py:mixture_tiny", f"--workdir={folder / 'sweep'}"
    )
    self.assertEqual((code, lines[0]), (0, "000 not started"), error)
    self.assertRegex(lines[-1], r"^0 of \d+ trials finished, \d+ not started$")


if __name__ == "__main__":
  absltest.main()
