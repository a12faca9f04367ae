"""`make docs`: the site in out/site, and what holds of it in out/docs.json.

Exit status 1 when a row does not hold.
"""

from collections.abc import Iterator, Mapping
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

from figures import docs_links, rows
from nashmd_jax import declare
from nashmd_jax import main as program
from tests import odd_values, pages

OUT = pathlib.Path("out") / "docs.json"
SITE = pathlib.Path("out") / "site"
SENTENCE = re.compile(r"[^a-z].*\.", re.DOTALL)


def build() -> tuple[int, int]:
  """Builds the site; its warnings, and 1 if it could not be built."""
  shutil.rmtree(SITE, ignore_errors=True)
  out = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict"],
    capture_output=True,
    text=True,
    env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
  )
  lines = (out.stdout + out.stderr).splitlines()
  warned = [one for one in lines if re.match(r"(WARNING|ERROR)\b", one)]
  failed = int(bool(out.returncode))
  for line in warned or (lines if failed else []):
    print(line)
  return len(warned), failed


def settings(
  declared: declare.Settings, where: str = ""
) -> Iterator[tuple[str, declare.Setting]]:
  """Every setting that is declared, by its dotted name."""
  for key, one in declared.items():
    name = declare.join(where, key)
    if isinstance(one, declare.Setting):
      yield name, one
    elif not isinstance(one, declare.Changes):
      yield from settings(one, name)


def names(config: Mapping[str, Any], where: str = "") -> Iterator[str]:
  """Every setting and section that a config has."""
  for key, value in config.items():
    name = declare.join(where, key)
    yield name
    if isinstance(value, Mapping):
      yield from names(value, name)


def unexplained() -> list[str]:
  """Settings without a sentence, and those of configs that nothing declares."""
  found = [
    f"{pipeline}: {name}"
    for pipeline, one in program.PIPELINES.items()
    for name, setting in settings(one.declared())
    if not SENTENCE.fullmatch(setting.says)
  ]
  for file in odd_values.ALL:
    config = odd_values.load(file).to_dict()
    declared = odd_values.declared(config)
    found += [
      f"{file}: {name}"
      for name in names(config)
      if declare.find(declared, name) is None
    ]
  return found


def _count(claim: str, found: list[str]) -> rows.Row:
  """A row of how many there are, which should be none; tells each."""
  for one in found:
    print(one)
  return rows.row(claim, len(found), "=", 0)


def main() -> int:
  """Builds, looks at what was built, and reports."""
  warned, failed = build()
  links = [
    one
    for where, text in pages.texts()
    if where.endswith(".md")
    for one in docs_links.wrong(where, text)
  ]
  built = sum(1 for _ in SITE.rglob("*.html"))
  return rows.report(
    OUT,
    [
      rows.row("the site is built, pages", built, "≥", 30),
      rows.row("builds that failed", failed, "=", 0),
      rows.row("warnings of the build", warned, "=", 0),
      _count(
        "links of the site that lead nowhere, and what it would load from the "
        "network",
        docs_links.broken(SITE),
      ),
      _count("links of README and docs that lead nowhere", links),
      _count("settings without an explanation", unexplained()),
      _count(
        "commands and snippets of README and docs that no test runs",
        pages.not_run(),
      ),
    ],
  )


if __name__ == "__main__":
  sys.exit(main())
