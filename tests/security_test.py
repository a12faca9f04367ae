"""What others wrote runs nowhere, leaves no folder, and sees no key."""

import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import pytest

from nashmd_jax import files, mistakes
from nashmd_jax.data import records
from nashmd_jax.evaluation import samples_page
from nashmd_jax.stages import export
from nashmd_jax.training import checksums
from tests import (
  forked,
  golden_metrics,
  judge_client,
  judge_server,
  main_test,
  small_records,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror='a()'>\"${title} $curves"
SECRET = "sk-planted-0123456789abcdef"


class PageTest(absltest.TestCase):
  def test_what_models_and_data_say_is_text(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    row = {"id": "1", "prompt": HOSTILE, "response": HOSTILE}
    for name in ("written", "sft"):
      path = workdir / "tournament" / "responses" / f"{name}.jsonl"
      records.save_records(path, [row])
    results = {"policies": ["sft"], "judges": {HOSTILE: {}}}
    found = samples_page.section(workdir, results).body
    self.assertEqual(found.count("alert(1)"), 4)
    for hole in ("<script", "<img", "onerror='"):
      self.assertNotIn(hole, found)


class PathsTest(parameterized.TestCase):
  @parameterized.parameters(
    {"../other": 0.5, "policy": 0.5},
    {"/etc": 0.5, "policy": 0.5},
    {"policy": 1.5, "reference": -0.5},
    {"policy": "1", "reference": 0.5},
    {"policy": 1.0},
  )
  def test_an_exported_mixture_names_folders_beside_it(self, **lane):
    folder = pathlib.Path(self.create_tempdir().full_path)
    files.save_json(folder / export.MIXTURE, lane)
    with self.assertRaisesRegex(mistakes.Mistake, "expected weights by name"):
      export.load_deployed(folder, lambda shapes: shapes)

  def test_a_list_of_checksums_names_files_in_its_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "outside").write_bytes(b"")
    name = f"{checksums.FOLDER}/process_0-of-1.json"
    files.save_json(folder / "8" / name, {"../outside": [0, 0]})
    damage = checksums.find_damage(folder / "8")
    self.assertIn("list of checksums is damaged", damage.what)


@pytest.mark.slow
class KeyTest(absltest.TestCase):
  def test_a_key_is_in_no_file_and_on_no_screen(self):
    folder = main_test.made_folder(type(self))
    given = golden_metrics.flags(
      "docstrings", small_records.write(folder / "records")
    )
    with judge_server.serve() as server:
      served = {**judge_client.SETTINGS, "url": server.url}
      names = ("url", "model", "prompt", "answers", "key_variable")
      settings = [f"--config.judges.served.{x}={served[x]}" for x in names]
      out = subprocess.run(
        [sys.executable, "-m", "nashmd_jax.main",
         "--config=configs/docstrings.py:tiny", f"--workdir={folder / 'run'}",
         *given, *settings, "--config.tournament.judges=('served',)",
         "--config.nash.watch=('served',)"],
        cwd=forked.ROOT, capture_output=True, text=True,
        env=os.environ | {"JUDGE_KEY": SECRET},
      )  # fmt: skip
      self.assertEqual(out.returncode, 0, msg=out.stderr[-2000:])
      sent = {asked.headers["authorization"] for asked in server.requests}
    self.assertEqual(sent, {f"Bearer {SECRET}"})
    self.assertNotIn(SECRET, out.stdout + out.stderr)
    everything = [x for x in (folder / "run").rglob("*") if x.is_file()]
    self.assertGreater(len(everything), 50)
    for path in everything:
      self.assertNotIn(SECRET.encode(), path.read_bytes(), msg=str(path))


if __name__ == "__main__":
  absltest.main()
