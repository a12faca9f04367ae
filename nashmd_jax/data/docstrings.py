"""Real text found on any machine: summaries of documented Python code.

prompt = name, arguments and the first 30 words of the docstring body;
response = the summary line its author wrote. Sources are parsed, never
imported. What is found depends on the installed packages, so the data set
carries its own content hash.
"""

import ast
import collections
from collections.abc import Iterator
import functools
import hashlib
import json
import pathlib
import re
import sys
import sysconfig
import warnings

import numpy as np
import tensorflow_datasets as tfds

from nashmd_jax import mistakes
from nashmd_jax.data import records

MIN_BODY_WORDS = 20
# Of statements and what belongs to them, in the order of their fields.
BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
MAX_BODY_WORDS = 30
SUMMARY_WORDS = (4, 25)
SKIPPED_FOLDERS = frozenset({
  "__pycache__", "idlelib", "lib2to3", "site-packages", "test", "testing",
  "tests", "_vendor",
})  # fmt: skip
STOPWORDS = frozenset(
  "the and for are with from that this its not can will all any has have one "
  "which when into used use using than then they was were been being but you "
  "your our their each other such may must also given return returns whether "
  "these those there where what how who does let out over only".split()
)
FUNCTION_WORDS = frozenset(
  "the a an of to in is and for with or be that this by on from as if it are "
  "not when which should will can".split()
)


def content_words(text: str) -> list[str]:
  """Lower-case words of three letters or more that are not stop words."""
  words = re.findall(r"[a-z]{3,}", text.lower())
  return [word for word in words if word not in STOPWORDS]


def overlap(words: list[str], prompt: str) -> float:
  """Share of the distinct words that the prompt contains; 0 for none."""
  distinct, there = set(words), set(content_words(prompt))
  return len(distinct & there) / len(distinct) if distinct else 0.0


def looks_english(text: str) -> bool:
  """Whether the text is ASCII prose with its share of function words."""
  words = re.findall(r"[A-Za-z']+", text.lower())
  letters = sum(len(word) for word in words)
  common = sum(word in FUNCTION_WORDS for word in words)
  return (
    text.isascii()
    and letters >= 0.6 * len(text.replace(" ", ""))
    and common >= 0.12 * len(words)
  )


def fault(prompt: str, body: str, summary: str) -> str | None:
  """Why a record is dropped, or None when it is kept."""
  low, high = SUMMARY_WORDS
  if len(body.split()) < MIN_BODY_WORDS:
    return "short body"
  if not low <= len(summary.split()) <= high:
    return "summary length"
  if not looks_english(summary + " " + body):
    return "not English"
  if overlap(content_words(summary), prompt) < 0.5:
    return "little overlap"
  return None


def documented(source: str) -> Iterator[tuple[str, str, str]]:
  """Yields (signature, summary, body) of each documented definition.

  Raises: SyntaxError or ValueError if the source does not parse.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other people's escape sequences
    tree = ast.parse(source)
  for node in _definitions(tree):
    summary, _, body = (ast.get_docstring(node) or "").partition("\n\n")
    if body:
      words = body.split()[:MAX_BODY_WORDS]
      yield _signature(node), " ".join(summary.split()), " ".join(words)


def _definitions(tree: ast.Module) -> Iterator[ast.AST]:
  """Those of a module, in the order of `ast.walk`; no expression is visited."""
  waiting = collections.deque([tree])
  while waiting:
    node = waiting.popleft()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      yield node
    for block in BLOCKS:
      waiting.extend(getattr(node, block, ()))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
  if isinstance(node, ast.ClassDef):
    return f"class {node.name}"
  args = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
  args += [arg.arg for arg in node.args.kwonlyargs]
  args = [arg for arg in args if arg not in ("self", "cls")]
  return f"{node.name}({', '.join(args)})"


def source_roots() -> tuple[pathlib.Path, ...]:
  """Folders of the standard library and of the installed packages."""
  paths = sysconfig.get_paths()
  return pathlib.Path(paths["stdlib"]), pathlib.Path(paths["purelib"])


def find_records(
  roots: tuple[pathlib.Path, ...],
  packages: tuple[str, ...],
  left_out: collections.Counter[str] | None = None,
) -> list[tuple[str, records.Record]]:
  """All kept records under the roots as (module, summary record), in order.

  Only the named top-level packages are read, or all if none is named. A
  summary or a body that was seen before is dropped wherever it stands, so
  that no text is in two modules.

  Args:
    roots, packages: see above.
    left_out: receives how many files and definitions are, by reason.
  """
  found, seen = [], set()
  left_out = collections.Counter() if left_out is None else left_out
  for root in roots:
    for path in _sources(root, packages):
      relative = path.relative_to(root)
      if SKIPPED_FOLDERS & set(relative.parts[:-1]):
        continue
      module = ".".join(relative.with_suffix("").parts)
      try:
        definitions = list(documented(path.read_text(encoding="utf-8")))
      except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        left_out["file that is no Python"] += 1
        continue
      for signature, summary, body in definitions:
        prompt = f"{signature}: {body}"
        texts = {summary.lower(), body.lower()}
        wrong = "seen before" if texts & seen else fault(prompt, body, summary)
        if wrong:
          left_out[wrong] += 1
          continue
        seen |= texts
        key = hashlib.sha256(f"{module}\n{prompt}".encode()).hexdigest()[:16]
        record = {"id": key, "prompt": prompt, "response": summary}
        record["slot"] = (0, len(prompt))
        found.append((module, record))
  return found


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


def split_of(module: str) -> str:
  """The split that a module, and all that is in it, belongs to."""
  share = int(hashlib.sha256(module.encode()).hexdigest(), 16) % 100
  return "train" if share < 80 else "validation" if share < 90 else "test"


class Docstrings(tfds.core.GeneratorBasedBuilder):
  """Summary records from this machine's Python, split by module."""

  VERSION = tfds.core.Version("1.1.0")
  RELEASE_NOTES = {
    "1.0.0": "Summary lines of documented definitions.",
    "1.1.0": "The whole prompt is a slot.",
  }

  def __init__(
    self,
    *,
    roots: tuple[pathlib.Path, ...],
    packages: tuple[str, ...] = (),
    **kwargs,
  ):
    self._roots, self._packages = roots, packages
    super().__init__(**kwargs)

  @functools.cached_property
  def _found(self) -> list[tuple[str, records.Record]]:
    self._left_out: collections.Counter[str] = collections.Counter()
    return find_records(self._roots, self._packages, self._left_out)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "prompt": tfds.features.Text(),
          "response": tfds.features.Text(),
          "slot": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        }
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    content = json.dumps(self._found).encode()
    self.info.metadata["content_hash"] = hashlib.sha256(content).hexdigest()
    self.info.metadata["left_out_of_all"] = dict(self._left_out)
    self.info.metadata["python"] = sys.version.split()[0]
    splits = ("train", "validation", "test")
    for split in splits:
      if split not in {split_of(module) for module, _ in self._found}:
        raise mistakes.Mistake(
          f"data.packages: no documented code for the {split} split in "
          f"{self._packages or 'any package'}; name more packages"
        )
    return {split: self._generate_examples(split) for split in splits}

  def _generate_examples(self, split: str):
    for module, record in self._found:
      if split_of(module) == split:
        yield record["id"], record
