"""Many commands of the program, each in a process of its own, imported once.

The parent imports everything and forks a child for each command, so that one
costs what it does and not what importing JAX costs. Each line that it reads is
a list of arguments as JSON, and answered by one of [status, stdout, stderr].
"""

from collections.abc import Mapping
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent


class Program:
  """`python -m nashmd_jax.main`, imported once, as a context."""

  def __init__(self, environ: Mapping[str, str] = os.environ):
    self._environ = environ

  def __enter__(self):
    self._parent = subprocess.Popen(
      [sys.executable, "-m", "tests.forked"],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=self._environ,
      text=True,
    )
    return self

  def __exit__(self, *error):
    self._parent.communicate()

  def run(self, arguments: list[str]) -> subprocess.CompletedProcess:
    """The outcome of one command, from its arguments."""
    print(json.dumps(arguments), file=self._parent.stdin, flush=True)
    answer = json.loads(self._parent.stdout.readline())
    return subprocess.CompletedProcess(arguments, *answer)


def run_all(commands: list[list[str]]) -> list[subprocess.CompletedProcess]:
  """The outcome of each list of arguments."""
  with Program() as program:
    return [program.run(command) for command in commands]


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
  for line in sys.stdin:
    print(json.dumps(_run(json.loads(line))), flush=True)


if __name__ == "__main__":
  main()
