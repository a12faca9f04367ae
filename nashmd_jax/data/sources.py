"""Documented Python code on this machine: parsed, never imported."""

import ast
import collections
from collections.abc import Iterator
import hashlib
import pathlib
import sysconfig
import warnings

from nashmd_jax.data import records

# Of statements and what belongs to them, in the order of their fields.
BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
SKIPPED_FOLDERS = frozenset({
  "__pycache__", "idlelib", "lib2to3", "site-packages", "test", "testing",
  "tests", "_vendor",
})  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def source_roots() -> tuple[pathlib.Path, ...]:
  """Folders of the standard library and of the installed packages."""
  paths = sysconfig.get_paths()
  return pathlib.Path(paths["stdlib"]), pathlib.Path(paths["purelib"])


def documented(
  roots: tuple[pathlib.Path, ...],
  packages: tuple[str, ...],
  left_out: collections.Counter[str],
) -> Iterator[tuple[str, Definition, str]]:
  """Yields (module, definition, docstring) of all under the roots, in order.

  Args:
    roots: folders; those of tests in them are passed over.
    packages: top-level ones that are read, all if none is named.
    left_out: receives how many files could not be read.
  """
  for root in roots:
    for path in _sources(root, packages):
      relative = path.relative_to(root)
      if SKIPPED_FOLDERS & set(relative.parts[:-1]):
        continue
      module = ".".join(relative.with_suffix("").parts)
      try:
        found = list(definitions(path.read_text(encoding="utf-8")))
      except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        left_out["file that is no Python"] += 1
        continue
      for node, text in found:
        yield module, node, text


def _sources(
  root: pathlib.Path, packages: tuple[str, ...]
) -> list[pathlib.Path]:
  """The Python files under a root, of the named packages, in order."""
  if not packages:
    return sorted(root.rglob("*.py"))
  found = [root / f"{name}.py" for name in packages]
  found = [path for path in found if path.is_file()]
  for name in packages:
    found += (root / name).rglob("*.py")
  return sorted(found)


def definitions(source: str) -> Iterator[tuple[Definition, str]]:
  """Yields each documented definition and its docstring.

  They come in the order of `ast.walk`; no expression is visited.

  Raises: SyntaxError or ValueError if the source does not parse.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other people's escape sequences
    tree = ast.parse(source)
  waiting = collections.deque([tree])
  while waiting:
    node = waiting.popleft()
    if isinstance(node, Definition):
      text = ast.get_docstring(node)
      if text:
        yield node, text
    for block in BLOCKS:
      waiting.extend(getattr(node, block, ()))


def split_of(module: str) -> str:
  """The split that a module, and all that is in it, belongs to."""
  share = int(hashlib.sha256(module.encode()).hexdigest(), 16) % 100
  return "train" if share < 80 else "validation" if share < 90 else "test"


def make_record(module: str, prompt: str, response: str) -> records.Record:
  """A summary record, whose prompt may be cut anywhere."""
  key = hashlib.sha256(f"{module}\n{prompt}".encode()).hexdigest()[:16]
  record = {"id": key, "prompt": prompt, "response": response}
  return {**record, "slot": (0, len(prompt))}
