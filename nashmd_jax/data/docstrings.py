"""Real text found on any machine: summaries of documented Python code.

prompt = name, arguments and the first 30 words of the docstring body;
response = the summary line its author wrote. What is found depends on the
installed packages, so the data set carries its own content hash.
"""

import ast
import collections
from collections.abc import Callable
import functools
import hashlib
import json
import pathlib
import re
import sys

import numpy as np
import tensorflow_datasets as tfds

from nashmd_jax import mistakes
from nashmd_jax.data import records, sources

MIN_BODY_WORDS = 20
MAX_BODY_WORDS = 30
SUMMARY_WORDS = (4, 25)
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


def _signature(node: sources.Definition) -> str:
  if isinstance(node, ast.ClassDef):
    return f"class {node.name}"
  args = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
  args += [arg.arg for arg in node.args.kwonlyargs]
  args = [arg for arg in args if arg not in ("self", "cls")]
  return f"{node.name}({', '.join(args)})"


def find_records(
  roots: tuple[pathlib.Path, ...],
  packages: tuple[str, ...],
  left_out: collections.Counter[str],
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
  for module, node, text in sources.documented(roots, packages, left_out):
    summary, body = _parts(text)
    if not body:
      continue
    prompt = f"{_signature(node)}: {body}"
    texts = {summary.lower(), body.lower()}
    wrong = "seen before" if texts & seen else fault(prompt, body, summary)
    if wrong:
      left_out[wrong] += 1
      continue
    seen |= texts
    found.append((module, sources.make_record(module, prompt, summary)))
  return found


def _parts(text: str) -> tuple[str, str]:
  """The summary, and the first words of what stands below it, maybe none."""
  summary, _, body = text.partition("\n\n")
  words = body.split()[:MAX_BODY_WORDS]
  return " ".join(summary.split()), " ".join(words)


class Docstrings(tfds.core.GeneratorBasedBuilder):
  """Summary records from this machine's Python, split by module.

  They are what `find` finds: `find_records`, or another of its form.
  """

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
    find: Callable[..., list[tuple[str, records.Record]]] = find_records,
    **kwargs,
  ):
    self._find = functools.partial(find, roots, packages)
    self._packages = packages
    super().__init__(**kwargs)

  @functools.cached_property
  def _found(self) -> list[tuple[str, records.Record]]:
    self._left_out: collections.Counter[str] = collections.Counter()
    return self._find(self._left_out)

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
      if split not in {sources.split_of(module) for module, _ in self._found}:
        raise mistakes.Mistake(
          f"data.packages: no documented code for the {split} split in "
          f"{self._packages or 'any package'}; name more packages"
        )
    return {split: self._generate_examples(split) for split in splits}

  def _generate_examples(self, split: str):
    for module, record in self._found:
      if sources.split_of(module) == split:
        yield record["id"], record
