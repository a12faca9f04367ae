"""A tournament that is killed again and again, and asks nothing twice.

As a program it plays one in a folder, from where it was cut:

  python -m figures.report_resume FOLDER
"""

from collections.abc import Iterator
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np

from figures import rows
from nashmd_jax import files
from nashmd_jax.evaluation import win_rates
from nashmd_jax.training import journal

POLICIES, PROMPTS, BATCH = 12, 500, 50
KILLS, SLOW = 12, 0.002  # seconds a batch
ASKED, PLAYED = "asked.jsonl", "results.json"


def play(folder: pathlib.Path) -> None:
  """Plays the tournament by a judge that notes what it is asked."""
  names = [f"policy {number}" for number in range(POLICIES)]
  records = [{"id": str(n), "prompt": str(n)} for n in range(PROMPTS)]
  responses = {name: [f"{name} {n}" for n in range(PROMPTS)] for name in names}

  with (folder / ASKED).open("a") as noted:

    def judge(some, first, second):
      ids = [record["id"] for record in some]
      noted.write(json.dumps([first[0], second[0], ids]) + "\n")
      noted.flush()
      time.sleep(SLOW)
      texts = zip(first, second, strict=True)
      return [random.Random(f"{a}{b}").random() for a, b in texts]

    found, _ = win_rates.play(
      responses,
      records,
      judge,
      confidence=0.95,
      seed=0,
      batch_size=BATCH,
      once=journal.keep(folder / journal.NAME, of="this tournament"),
    )
  files.save_json(folder / PLAYED, found)


def cut_rows(seed: int = 0) -> Iterator[rows.Row]:
  """What is asked twice, and how the end differs from an uncut one's."""
  rng = np.random.default_rng(seed)
  with tempfile.TemporaryDirectory() as made:
    whole, cut = (pathlib.Path(made) / name for name in ("whole", "cut"))
    for folder in (whole, cut):
      folder.mkdir()
    began = time.monotonic()
    _start(whole).wait()
    took, twice, kills = time.monotonic() - began, 0, 0
    while not (cut / PLAYED).exists():
      known, so_far = _recorded(cut), _lines(cut / ASKED)
      run = _start(cut)
      if kills < KILLS:
        try:
          run.wait(rng.uniform(0.3, 1.0) * took / 3)
        except subprocess.TimeoutExpired:
          run.kill()
          kills += 1
      run.wait()
      anew = _lines(cut / ASKED)[len(so_far) :]
      twice += sum(_piece(json.loads(line)) in known for line in anew)
    texts = [(folder / PLAYED).read_text() for folder in (whole, cut)]
  played = f"{POLICIES} policies × {PROMPTS} prompts"
  yield rows.row(f"{played}: kills, SIGKILL", kills, "≥", 3)
  claim = f"{played}: batches of pairs judged again after they were kept"
  yield rows.row(claim, twice, "=", 0)
  claim = f"{played}: ends that differ from the uncut one's"
  yield rows.row(claim, int(texts[0] != texts[1]), "=", 0)


def _start(folder: pathlib.Path) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", "figures.report_resume", str(folder)]
  )


def _lines(path: pathlib.Path) -> list[str]:
  return path.read_text().splitlines() if path.exists() else []


def _recorded(folder: pathlib.Path) -> set[str]:
  """The names of the pieces that are kept."""
  return {
    json.loads(line)["piece"]
    for line in (folder / journal.NAME).read_text().splitlines()[1:]
    if line.endswith("}")
  } if (folder / journal.NAME).exists() else set()  # fmt: skip


def _piece(asked: list) -> str:
  """The name of the piece that a question belongs to."""
  first, second = (text.rpartition(" ")[0] for text in asked[:2])
  return f"{first} against {second}, records from {asked[2][0]}"


if __name__ == "__main__":
  play(pathlib.Path(sys.argv[1]))
