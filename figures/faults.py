"""`make faults`: docs/faults.md, of the faults and warnings that tests inject.

Each fault is done once more, and the page shows what is said of it.
"""

from collections.abc import Iterator
import contextlib
import io
import pathlib
import re
import tempfile

from nashmd_jax import files
from nashmd_jax.nash import warnings
from tests import faults, warnings_test

PAGE = pathlib.Path("docs") / "faults.md"
HEAD = """\
# Faults and what to do

Made by `make faults`; do not edit.

What goes wrong is answered with a sentence that names it, where it is, and what
to do, and with an exit status. A mistake of yours, in flags, config, files or
workdir, is status 2: nothing starts it again, mend what the sentence names; all
mistakes that a check can see are told at once, before anything runs.
What a disk or another machine failed to do is status 1: the same command goes
on once its cause is gone. A traceback is a mistake of the program: please
report it.

The [exit statuses](../launch/README.md#being-stopped) say what starts a run
again. `--stage=check` looks for all that can be known before training,
`--stage=status` says where a workdir stands, and `--replay` looks into a step
whose numbers were not finite:
[reproducibility](reproducibility.md#what-is-kept).

Below is every fault that the tests inject, and what is said of it. `DIR` is
the folder; numbers, names and paths are of that test.
"""
TO_DO = {
  "The disk": "Make room, or mount it again, and start the same command: "
  "files appear whole or not at all, so that nothing is to be cleaned.",
  "Numbers": "An update whose loss or gradient is not finite is left out "
  "before, and kept for `--replay`. A state that is not finite is never saved: "
  "start again from the last checkpoint, with a smaller learning rate, or in "
  "float32.",
  "Records and comparisons": "Mend the line that is named, or pass over bad "
  "rows with `data.bad_rows=skip`; the data card counts them.",
  "Checkpoints": "Nothing: the damaged one is set aside in `damaged/`, and the "
  "run goes on from the one before. Below there is none before.",
  "The workdir": "A workdir belongs to one run. Take another, or give back "
  "what was changed, or let it through by `--allow_config_change`.",
  "Models and tokenizers": "The folder is read as `transformers` reads it, or "
  "not at all; [models](models.md) says what is supported.",
  "Settings": "`--explain` says what a setting may be; all of them are in "
  "[settings](settings.md).",
  "People's votes": "A damaged file is never written to: put a copy of it in "
  "its place, or move it away. [Annotating](annotating.md) says what it holds.",
  "A served judge": "Start the server, or mend its address, and start the same "
  "command: answers are on disk and paid for once. "
  "[Judges](judges.md#what-happens-on-failures) has its failures.",
}
OF_WARNINGS = """
## What a run warns of

A warning stops nothing. It is said once, in the log, in `warnings.jsonl`, in a
row of metrics as `warned/NAME`, and on the page of the run. Each asks for more
than noise explains; the sentences below are of rows made for the test.

| warning | what it says |
|---|---|
"""


def said(fault: faults.Fault) -> str:
  """What is said of a fault, without where the test was."""
  with tempfile.TemporaryDirectory() as folder:
    with contextlib.redirect_stderr(io.StringIO()):
      text, _ = faults.outcome(fault, pathlib.Path(folder))
  text = text.replace(folder, "DIR").replace("\n", " ")
  return re.sub(r"process \d+ on [\w.-]+", "process 7 on HOST", text)


def _cell(text: str) -> str:
  """Text as a cell of a table shows it, character by character."""
  for one in "\\|<>*_`[]":
    text = text.replace(one, f"\\{one}")
  return text


def rows_of(area: str) -> Iterator[str]:
  """The lines of the table of an area."""
  yield "| fault | what is said | status |"
  yield "|---|---|---|"
  for fault in faults.AREAS[area]:
    yield f"| {fault.name} | {_cell(said(fault))} | {fault.status} |"


def warned() -> Iterator[str]:
  """The lines of the table of warnings."""
  for name, (columns, _) in warnings_test.FIRES.items():
    history = warnings_test.history(warnings_test.rows_of(**columns))
    yield f"| `{name}` | {_cell(warnings.RULES[name](history))} |"


def page() -> str:
  """docs/faults.md, of what is said now."""
  lines = [HEAD]
  for area in faults.AREAS:
    lines += [f"## {area}", "", TO_DO[area], "", *rows_of(area), ""]
  return "\n".join(lines) + OF_WARNINGS + "\n".join(warned()) + "\n"


if __name__ == "__main__":
  files.save_text(PAGE, page())
