"""`make inputs`: nothing is silently wrong, in out/inputs.json.

Settings, facts, counts, failures behind the loop, folders that are cut off and
what a reading found are tests, which are run here; intervals are simulated. The
cases of others are programs beside the repository, skipped where there is none.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple
from xml.etree import ElementTree

from figures import inputs_cases, rows
from tests import coverage, facts_test

OUT = pathlib.Path("out") / "inputs.json"
MATRIX = pathlib.Path("tests") / "matrix_test.py"
# What a reading line by line found, by the input; the tests of each.
READING = {
  "β that is cut off": ["settings_test.*test_where_a_decay_of_the_mixture"],
  "a schedule shorter than the updates": [
    "settings_test.*test_the_rate_is_never_0",
    "settings_test.*test_what_does_not",
  ],
  "tokenizer.file and an export": ["facts_test.*_exported_tokenizer"],
  "tokenizer.file and the folder's": [
    "facts_test.*_ids_of_tokens",
    "facts_test.*_how_text_is_parted",
  ],
  "tokenizer.json replaced": ["facts_test.*_tokenizer_of_jobs_that_are_done"],
  "train.jsonl corrected": ["facts_test.*_records_before_a_job_has_begun"],
  "events/ that cannot be written": [
    "metrics_test.*test_events_that_cannot_be_written_stop_nothing",
    "distributed_test.*test_what_befalls_a_run_behind_its_loop2",
  ],
  "an update that is NaN": [
    "training_test.*test_an_update_that_ruins_the_state_is_never_saved"
  ],
  "comparisons without records": ["settings_test.*test_what_does_not"],
  "SciTLDR rows of other kinds": [
    "tldr_test.*test_fields_of_another_type",
    "texts_test.*test_rows_that_gave_no_record_are_counted",
  ],
  "pod check with several runs": [
    "pod_check_test.*test_every_run_and_judge_is_named",
    "pod_check_test.*test_sft_alone",
  ],
  "tpu_vm.sh with an edited config": [
    "launch_test.*test_tpu_vm_ships_the_files_as_they_are"
  ],
  "model.window = -1": ["matrix_test.*test_every_config_and_variant"],
  "train and data of a single run": [
    "matrix_test.*test_every_config_and_variant"
  ],
  "a mistake and the corrected command": [
    "undone_test.*test_a_mistake_in_data_leaves_nothing"
  ],
  "an exported policy's temperature": ["facts_test.*_exported_temperature"],
  "status 2 in a JobSet": [
    "launch_test.*test_jobset_restarts_what_the_contract_says"
  ],
  "a bad row of metrics": [
    "metrics_test.*test_a_damaged_row_in_the_middle_is_refused_by_line"
  ],
  "a model folder cut off": ["cut_folders_test.*"],
}
COUNTS = [
  "card_test.*",
  "collect_test.*not_finite",
  "collect_test.*no_mean",
  "data_test.*test_find_drops_duplicates_tests_and_broken_files",
  "settings_test.*test_samples_that_are_no_candidates_are_counted",
  "texts_test.*test_rows_that_gave_no_record_are_counted",
  "tournament_test.*test_what_could_not_be_judged_is_left_out",
]
FACTS = "facts_test.*test_row_"
WORKERS = ["distributed_test.*befalls", "disk_test.*SaveTest"]
WHOLE = ["cut_folders_test.*", "disk_test.*WholeTest"]


class Ran(NamedTuple):
  """What a run of pytest came to.

  Attributes:
    held: whether each test passed, by "module.class.name".
    printed: all that it printed.
    seconds: it took.
  """

  held: Mapping[str, bool]
  printed: str
  seconds: float


def run_tests(arguments: Sequence[str]) -> Ran:
  """Runs pytest in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    report, began = pathlib.Path(folder) / "report.xml", time.monotonic()
    out = subprocess.run(
      [sys.executable, "-m", "pytest", "-s", f"--junitxml={report}",
       "-o", "junit_family=xunit1", *arguments],
      env=os.environ | {"TEST_TMPDIR": folder},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )  # fmt: skip
    seconds = time.monotonic() - began
    print(out.stdout[-3000:] if out.returncode else "", end="", flush=True)
    tree = ElementTree.parse(report)
  held = {
    f"{one.get('classname')}.{one.get('name')}": not len(one.findall("*"))
    for one in tree.iter("testcase")
  }
  return Ran(held, out.stdout, seconds)


def matching(ran: Ran, patterns: Iterable[str]) -> list[bool]:
  """Whether each test held that a pattern finds; a pattern finds one at least.

  Raises: ValueError for one that finds none, which would hold for nothing.
  """
  found = []
  for pattern in patterns:
    some = [held for name, held in ran.held.items() if re.search(pattern, name)]
    if not some:
      raise ValueError(f"{pattern}: there is no such test")
    found += some
  return found


def files_of(patterns: Iterable[str]) -> list[str]:
  """The test files that patterns are of, but for the matrix."""
  stems = {one.partition(".")[0] for one in patterns} - {MATRIX.stem}
  return sorted(f"tests/{stem}.py" for stem in stems)


def expression(patterns: Iterable[str]) -> str:
  """What makes pytest choose the tests that patterns find."""
  parts = [filter(None, one.split(".*")) for one in patterns]
  return " or ".join(f"({' and '.join(some)})" for some in parts)


def test_rows() -> list[rows.Row]:
  """All that tests hold."""
  matrix = run_tests([str(MATRIX)])
  reading = [one for patterns in READING.values() for one in patterns]
  wanted = [*reading, *COUNTS, *WORKERS, *WHOLE, FACTS]
  others = run_tests([*files_of(wanted), "-k", expression(wanted)])
  every = Ran({**matrix.held, **others.held}, "", 0.0)
  counted = re.search(r"(\d+) odd values of settings", matrix.printed)
  right = [all(matching(every, patterns)) for patterns in READING.values()]
  planted = matching(others, [FACTS])

  def wrong(claim, patterns):
    found = matching(every, patterns)
    return rows.row(f"{claim} ({len(found)} tests)", found.count(False), "=", 0)

  return [
    rows.row(
      "odd values of settings, each refused by name or right",
      int(counted[1]) if counted else None,
      "≥",
      50_000,
    ),
    rows.row(
      "of these, wrong or silent", list(matrix.held.values()).count(False),
      "=", 0,
    ),
    rows.row("seconds of the matrix", matrix.seconds, "≤", 180),
    rows.row(
      "facts with a planted contradiction that ends as docs/facts.md says",
      planted.count(True),
      "=",
      len(facts_test.rows_of_page()),
    ),
    wrong("counts of readers and reductions that are not exact", COUNTS),
    wrong("failures behind the loop that are late or unsaid", WORKERS),
    wrong("writes cut off that a reader takes for whole", WHOLE),
    rows.row(
      "rows of the reading that end right", right.count(True), "=", len(right)
    ),
  ]  # fmt: skip


def interval_rows(draws: int = 2000) -> list[rows.Row]:
  """How often 95 % intervals hold the truth, in every world."""
  found = {
    name: coverage.measure(world, draws=draws, seed=0)
    for name, world in coverage.WORLDS.items()
  }
  for name, (held, width) in found.items():
    print(f"  {name}: {held:.1%}, {width:.2f} of Student's width")
  shares = [held for held, _ in found.values()]
  even = "200 prompts, rates spread evenly"
  return [
    rows.row(
      f"coverage of 95 % intervals, least of {len(shares)} worlds",
      min(shares),
      "≥",
      0.93,
    ),
    rows.row("and most", max(shares), "≤", 0.97),
    rows.row(
      f"width beside Student's, {even}", float(found[even][1]), "≤", 1.05
    ),
  ]


def main() -> int:
  """Measures all parts and writes their rows."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--cases", type=pathlib.Path, required=True)
  cases = parser.parse_args().cases
  return rows.report(
    OUT, [*interval_rows(), *test_rows(), *inputs_cases.case_rows(cases)]
  )


if __name__ == "__main__":
  sys.exit(main())
