"""Cases of others, beside the repository: what each is to print.

A case is a folder with `run.py`, which prints what came of small inputs that
have gone wrong in programs like this one. They are not part of the project.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

from figures import rows

SECONDS = 1800  # at most, of one


class Right(NamedTuple):
  """What a case prints that ends right.

  Attributes:
    times: how often each pattern is found, at least.
    never: a pattern that is not found.
  """

  times: Mapping[str, int]
  never: str = r"TRACEBACK"


RIGHT = {
  "01-gemma2-real-depth": Right(
    {"2b ACCEPTED": 1, "9b ACCEPTED": 1, "command: exit 0": 1}
  ),
  "02-gemma3-token-beyond-vocab": Right({"command: exit 0": 1}),
  "03-save-over-sharded-folder": Right({"loaded the second: True": 3}),
  "04-tokenizer-with-truncation": Right(
    {"pads inside 0": 3, "command: exit 0": 2}
  ),
  "05-tied-flag-but-own-head": Right({"set tie_word_embeddings to false": 1}),
  "06-judge-with-another-tokenizer": Right(
    {"has another vocabulary than": 1}, never="command: exit 0"
  ),
  "07-config-json-variants": Right({"(?m)^[a-n] .*(ACCEPTED|ValueError)": 14}),
  "09-jsonl-quirks": Right({"--- .*: exit [02], ": 16}),
  "10-cut-prompts-and-missing-eos": Right({"of the prompts are cut": 1}),
  "11-small-validation-found-late": Right(
    {"(?m)^[AB]: exit (0|2 .*before: \\[\\])": 2}
  ),
  "14-damaged-latest-checkpoint": Right({"--- .*: exit 75": 4, "damaged": 4}),
  "17-another-family-by-flags": Right(
    {"as configs/tldr_decoder.py:folder does": 1, "scale None: exit 0": 1}
  ),
  "21-judge-reads-other-tokens-than-it-learnt": Right(
    {"other tokens for 0 of 200": 6}
  ),
  "25-held-out-tail": Right({"same to the last digit: False": 1}),
  "27-temperature-zero-when-drawing": Right(
    {"temperature (0|-1), .* sft: exit 2": 2, "temperature 0.7: exit 0": 2}
  ),
  "29-index-and-shards-disagree": Right(
    {"ACCEPTED, logits right: True": 2, "ValueError": 8},
    never="TRACEBACK|right: False",
  ),
  "34-t5-embedding-under-other-names": Right(
    {"alone: True": 2, "ValueError": 2}
  ),
  "35-tokenizer-with-pieces-missing": Right(
    {"hold '</s>': 0 of": 2, "b no unk_id.*: exit 2,": 1, "has no decoder": 1}
  ),
  "36-t5-config-that-says-it-twice": Right(
    {"ValueError": 7, "ACCEPTED, .*: True": 3}, never="TRACEBACK|folder: False"
  ),
}
# Of those that call what there is no more.
ELSEWHERE = {
  "31-save-fails-behind": "tests/disk_test.py, SaveTest",
  "32-hosts-with-disks-of-their-own": "tests/distributed_test.py, AllSeeTest",
  "37-prompts-that-repeat": "the coverage of intervals above",
}


def run(folder: pathlib.Path) -> str:
  """All that a case prints."""
  with tempfile.TemporaryDirectory() as place:
    (pathlib.Path(place) / "nashmd_cases").mkdir()  # some make no parents
    try:
      out = subprocess.run(
        [sys.executable, "-m", "figures.inputs_case", folder],
        env=os.environ | {"TMPDIR": place, "PROJECT": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
      )
    except subprocess.TimeoutExpired:
      return f"TRACEBACK: still there after {SECONDS} s"
  return out.stdout


def ends_right(printed: str, right: Right) -> bool:
  """Whether a case printed what it is to."""
  return not re.search(right.never, printed) and all(
    len(re.findall(pattern, printed)) >= times
    for pattern, times in right.times.items()
  )


def case_rows(folder: pathlib.Path) -> Sequence[rows.Row]:
  """A row of how many cases end right; none where there are no cases."""
  found = sorted(path.parent for path in folder.glob("[0-9]*/run.py"))
  if not found:
    print(f"skipped: there are no cases in {folder}")
    return []
  held = []
  for case in found:
    if case.name in ELSEWHERE:
      print(f"  {case.name}: see {ELSEWHERE[case.name]}")
      continue
    right, printed = RIGHT.get(case.name), run(case)
    held.append(right is not None and ends_right(printed, right))
    print(f"  {case.name}: {'right' if held[-1] else 'WRONG'}", flush=True)
    if not held[-1]:
      print(printed[-1500:])
  return [rows.row("cases of others that end right", sum(held), "=", len(held))]
