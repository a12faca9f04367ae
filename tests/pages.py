"""What the README and docs/ hold that is to be run: commands and snippets.

Whatever stands in a fence is one or the other, or is marked as text. A command
that no test runs has its reason here.
"""

import itertools
import re
from typing import NamedTuple

from tests import forked

ROOT = forked.ROOT
PAGES = ("README.md", "docs/*.md", "launch/README.md", "configs/*.py")
PROGRAM = "python -m nashmd_jax.main "
MAKE = re.compile(r"make ([a-z-]+)\b")
# By how they begin, and why no test runs them.
APART = {
  "vllm serve ": "a server of others; tests/served_test.py asks one like it",
  "python -m sglang.launch_server ": "the same",
  "llama-server ": "the same",
  "curl http://localhost:8000/v1/models": "asks the first of them",
  "sbatch ": "`make slurm` runs the file where there is a SLURM",
  "NAME=n ZONE=z launch/tpu_vm.sh ": "tests/launch_test.py, a dry run",
  "kubectl apply ": "tests/launch_test.py holds the file against its schema",
  "sky jobs launch ": "tests/launch_test.py reads the file",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = "text"  # the kind of a fence that is neither


class Fence(NamedTuple):
  """What stands in a fence.

  Attributes:
    where: its page.
    kind: what follows the backquotes: python, text, or nothing of commands.
    text: in it.
  """

  where: str
  kind: str
  text: str


def texts() -> list[tuple[str, str]]:
  """Every page that may hold commands, by its path, and its text."""
  paths = itertools.chain.from_iterable(ROOT.glob(page) for page in PAGES)
  return [
    (path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    for path in sorted(paths)
  ]


def joined(text: str) -> str:
  """A text with commands of several lines in one."""
  return re.sub(r"\\\n\s*", "", text)


def fences() -> list[Fence]:
  """What stands in the fences of all pages."""
  return [
    Fence(where, kind, inside)
    for where, text in texts()
    if where.endswith(".md")
    for kind, inside in FENCE.findall(text)
  ]


def commands() -> list[tuple[str, str]]:
  """Where each command in a fence stands, and the command."""
  found = []
  for fence in fences():
    if not fence.kind:
      lines = joined(fence.text).splitlines()
      lines = [line.partition("  #")[0].strip() for line in lines]
      found += [(fence.where, line) for line in lines if line]
  return found


def not_run() -> list[str]:
  """What stands in fences, is no text, and is run by no test."""
  known = (PROGRAM, *APART)
  found = [
    f"{where}: {command}"
    for where, command in commands()
    if not command.startswith(known) and not MAKE.match(command)
  ]
  return found + [
    f"{fence.where}: a fence of {fence.kind}"
    for fence in fences()
    if fence.kind not in ("", "python", TEXT)
  ]


def snippets() -> list[Fence]:
  """Snippets that stand alone; those of docs/extending.md are one module."""
  return [
    fence
    for fence in fences()
    if fence.kind == "python" and fence.where != "docs/extending.md"
  ]
