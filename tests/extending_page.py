"""What docs/extending.md says: its functions as a module, and its commands."""

import ast
import json
import pathlib
import re
import shlex
import sys

import ml_collections

from configs import docstrings
from tests import small_records

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODULE = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"```\n(python -m .*?)```", TEXT, re.DOTALL)


def write_module(folder: pathlib.Path, name: str, text: str) -> None:
  """Writes NAME.py, to be imported anew."""
  (folder / f"{name}.py").write_text(text, encoding="utf-8")
  sys.modules.pop(name, None)


def flags_of(function: str) -> dict[str, object]:
  """The settings that the page's command gives whose first is FUNCTION."""
  (command,) = [
    command
    for command in COMMANDS
    if re.search(r"mine:(\w+)", command)[1] == function
  ]
  found = {}
  for word in shlex.split(command.replace("\\\n", " "))[3:]:
    name, _, value = word.partition("=")
    if name != "--config":
      literal = value.startswith(("(", "["))
      path = name.removeprefix("--config.")
      found[path] = ast.literal_eval(value) if literal else value
  return found


def write_comparisons(folder: pathlib.Path) -> None:
  """Comparisons of small records, of a good and a bad response each."""
  folder.mkdir()
  for split, start in (("train", 200), ("validation", 300)):
    rows = []
    for number in range(start, start + 16):
      row, other = map(small_records.record, (number, number + 1))
      rows.append({
        "id": row["id"], "prompt": row["prompt"], "prob_a": 0.9,
        "response_a": row["response"], "response_b": other["response"],
      })  # fmt: skip
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def write_rated(folder: pathlib.Path, records: pathlib.Path) -> pathlib.Path:
  """The small records as the page's schema reads them, with stars."""
  folder.mkdir()
  for split in small_records.COUNTS:
    lines = (records / f"{split}.jsonl").read_text().splitlines()
    rated = [
      {
        "key": row["id"],
        "question": row["prompt"],
        "answer": row["response"],
        "stars": 1 + int(row["id"]) % 5,
      }
      for row in map(json.loads, lines)
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rated)))
  return folder


def tiny_config(
  records: pathlib.Path, settings: dict[str, object]
) -> ml_collections.ConfigDict:
  """The tiny run of one policy, two steps after SFT, with some settings."""
  config = docstrings.get_config("tiny")
  with config.unlocked():
    for section in (config.sft, config.preference, config.nash):
      section.data.eval_examples = 8
      section.optimizer.warmup_steps = 0
      section.train.update(
        {"steps": 2, "eval_every": 2, "save_every": 2, "log_every": 1}
      )
    # Enough for a policy that writes words and ends its responses.
    config.sft.optimizer.update({"learning_rate": 1e-2, "decay_steps": 100})
    config.sft.train.update(
      {"steps": 100, "eval_every": 100, "save_every": 100, "log_every": 100}
    )
    config.data.records = str(records)
    config.data.comparisons = str(records.parent / "comparisons")
    config.tournament.policies = ("sft", "nash_md")
    config.nash.watch = ()
    config.update_from_flattened_dict(settings)
  return config
