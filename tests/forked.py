"""Many commands of the program, each in a process of its own, imported once.

The parent imports everything and forks a child for each command, so that one
costs what it does and not what importing JAX costs. It reads a list of argument
lists as JSON and answers with [status, stdout, stderr] of each.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent


def run_all(commands: list[list[str]]) -> list[subprocess.CompletedProcess]:
  """The outcome of `python -m nashmd_jax.main` with each list of arguments."""
  out = subprocess.run(
    [sys.executable, "-m", "tests.forked"],
    cwd=ROOT,
    input=json.dumps(commands),
    capture_output=True,
    text=True,
    timeout=600,
    check=True,
  )
  return [
    subprocess.CompletedProcess(command, *answer)
    for command, answer in zip(commands, json.loads(out.stdout), strict=True)
  ]


def _run(arguments: list[str]) -> tuple[int, str, str]:
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / name for name in ("out", "err")]
    child = os.fork()
    if not child:
      _child(arguments, paths)
    _, status = os.waitpid(child, 0)
    texts = [path.read_text(encoding="utf-8") for path in paths]
  return os.waitstatus_to_exitcode(status), *texts


def _child(arguments, paths) -> None:
  from absl import app

  from nashmd_jax import main

  for number, path in enumerate(paths, start=1):
    os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
  sys.argv = ["nashmd_jax", *arguments]
  code = 1
  try:
    app.run(main.main, flags_parser=main._parse)
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else bool(end.code)
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
  """Answers the commands on standard input."""
  importlib.import_module("nashmd_jax.main")
  commands = json.load(sys.stdin)
  json.dump([_run(command) for command in commands], sys.stdout)


if __name__ == "__main__":
  main()
