"""Every command line of the README, the docs and the configs can be given."""

from collections.abc import Mapping
import json
import os
import pathlib
import re
import shlex
import subprocess
from typing import Any
from unittest import mock

from absl.testing import absltest

from configs import tldr_decoder, tldr_t5
from nashmd_jax import files, main, models
from nashmd_jax.hub import architectures
from tests import extending_page, forked, pages, small_records, small_talks

ROOT = forked.ROOT
DEFAULT = "--config=configs/docstrings.py"
STAGES = {
  *main.SWEEP_STAGES, main.CHECK, main.POD_CHECK, main.STATUS, main.INSPECT,
  "all",
  *(stage.name for one in main.PIPELINES.values() for stage in one.stages),
}  # fmt: skip
# Have tests of their own.
APART = (main.POD_CHECK, main.STATUS, main.INSPECT, "collect")


def commands() -> list[tuple[str, list[str]]]:
  """Where each command of the program stands, and its arguments.

  They are lines that start with the program, and flags that stand alone.
  """
  found = []
  for where, text in pages.texts():
    joined = pages.joined(text)
    lines = re.findall(r"^\s*python -m nashmd_jax\.main (.*)$", joined, re.M)
    lines += re.findall(r"`(--(?:config|stage)[^`]*)`", joined)
    for line in lines:
      line = re.sub(r"\[(--[^]]*)\]", r"\1", line)
      arguments = shlex.split(line)
      if not any(arg.startswith("--config=") for arg in arguments):
        arguments.insert(0, DEFAULT)
      if not arguments[-1].endswith("="):  # "`--config=` takes a file"
        found.append((where, arguments))
  return found


def write_model(folder: pathlib.Path, sizes: Mapping[str, Any]) -> str:
  """A folder that says what its model is, and how it is spoken to."""
  sizes = {name: sizes[name] for name in sizes if name != "pretrained"}
  config = models.make_config(vocab_size=32_128, **sizes)
  files.save_json(folder / "config.json", architectures.config_to_json(config))
  (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
  return str(folder)


def write_models(folder: pathlib.Path) -> dict[str, str]:
  """The models that pages and configs speak of, by name."""
  t5, gemma = tldr_t5.get_config(), tldr_decoder.get_config("9b")
  tiny = tldr_decoder.get_config("tiny").model
  sizes = {
    "T5_LARGE": t5.model,
    "GEMMA": gemma.model,
    "MODEL": tiny,
    "SMOLLM2": tiny,
  }
  sizes = {name: section.to_dict() for name, section in sizes.items()}
  sizes["T5_XL"] = sizes["T5_LARGE"] | t5.judge_model.to_dict()
  return {
    name: write_model(folder / name, found) for name, found in sizes.items()
  }


def made(folder: pathlib.Path) -> dict[str, str]:
  """What stands for the names in capitals."""
  records = small_records.write(folder / "records")
  pairs = folder / "comparisons"
  pairs.mkdir()
  for split in ("train", "validation"):
    rows = (
      {"info": {"id": str(i), "article": "a b"}, "choice": 0, "worker": "w",
       "summaries": [{"text": "a"}, {"text": "b"}]}
      for i in range(4)
    )  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (pairs / f"{split}.jsonl").write_text(lines)
  voted = folder / "voted"
  voted.mkdir()
  row = {"id": "1", "prompt": "p", "response_a": "a", "response_b": "b"}
  for split in ("train", "validation"):
    (voted / f"{split}.jsonl").write_text(json.dumps(row | {"prob_a": 0.6}))
  posts = folder / "posts"
  posts.mkdir()
  for split in small_records.COUNTS:
    row = {"id": "1", "subreddit": "s", "title": "t", "post": "p"}
    (posts / f"{split}.jsonl").write_text(json.dumps(row | {"summary": "s"}))
  return {
    "FOLDER": str(records),
    "POSTS": str(posts),
    "RATED": str(extending_page.write_rated(folder / "rated", records)),
    "COMPARISONS": str(pairs),
    "TALKS": str(small_talks.write(folder / "talks")),
    "PAIRS": str(voted),
    "DIR": str(folder / "run"),
    **write_models(folder),
  }


class CommandsTest(absltest.TestCase):
  def test_every_one_is_accepted(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    names, checked = made(folder), {}
    for where, arguments in commands():
      stage = [a for a in arguments if a.startswith("--stage=")]
      for one in stage:
        self.assertIn(one.removeprefix("--stage="), STAGES, where)
      if {f"--stage={name}" for name in APART} & {*stage}:
        continue
      if any(a.startswith("--trial") for a in arguments) or any(
        "sweeps.py" in a for a in arguments
      ):
        arguments = [a for a in arguments if not a.startswith("--trial")]
        stage_now = "--stage=trials"
      else:
        stage_now = "--stage=check"
      arguments = [a for a in arguments if a not in stage]
      filled = [
        re.sub(
          r"\b[A-Z][A-Z0-9_]{2,}\b", lambda m: names.get(m[0], m[0]), argument
        )
        for argument in arguments
        if not argument.startswith(("--workdir", "--reuse"))
      ]
      workdir = f"--workdir={folder / 'run'}"
      # Each once, however many pages have it.
      checked[*filled, workdir, stage_now] = where
    self.assertGreater(len(checked), 20)
    extending_page.write_module(folder, "mine", extending_page.MODULE)
    with mock.patch.dict(os.environ, PYTHONPATH=str(folder)):
      outcomes = forked.run_all([list(arguments) for arguments in checked])
    for (arguments, where), out in zip(checked.items(), outcomes, strict=True):
      with self.subTest(f"{where}: {' '.join(arguments)}"):
        self.assertEqual(out.returncode, 0, msg=out.stderr[-2000:])
    self.assertFalse((folder / "run").exists())  # checks leave nothing

  def test_make_knows_every_target(self):
    fenced = "".join(f"`{command}" for _, command in pages.commands())
    for where, text in [*pages.texts(), ("fences", fenced)]:
      for target in set(re.findall(r"`make ([a-z-]+)", text)):
        out = subprocess.run(
          ["make", "-n", target], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(out.returncode, 0, msg=f"{where}: make {target}")


if __name__ == "__main__":
  absltest.main()
