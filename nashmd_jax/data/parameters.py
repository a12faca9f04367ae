"""Short real text found on any machine: what parameters of Python code are.

prompt = the words of a parameter's name, of its definition's, and of the
summary: "ord of norm: matrix or vector norm"; response = the first clause that
its author wrote about it: "order of the norm". All is in lower case, and a
response is of the commonest words alone, so that a model that is trained on a
laptop for two minutes answers in English.
"""

import collections
from collections.abc import Iterator
import pathlib
import re

import docstring_parser

from nashmd_jax.data import records, sources

SUMMARY_WORDS = 10
RESPONSE_WORDS = (2, 10)
VOCABULARY = 2500
# Records of one response, and of one response to one name.
SAME, ALIKE = 40, 5


def find_records(
  roots: tuple[pathlib.Path, ...],
  packages: tuple[str, ...],
  left_out: collections.Counter[str],
) -> list[tuple[str, records.Record]]:
  """All kept records under the roots as (module, summary record), in order.

  No prompt stands twice; a response may, for many parameters are the same
  thing.

  Args:
    roots: folders of sources.
    packages: top-level ones that are read, all if none is named.
    left_out: receives how many files and parameters are, by reason.
  """
  prompts, alike, same = set(), collections.Counter(), collections.Counter()
  kept = []
  for module, name, prompt, response in _described(roots, packages, left_out):
    wrong = _fault(response)
    if prompt in prompts:
      wrong = "seen before"
    elif same[response] >= SAME or alike[name, response] >= ALIKE:
      wrong = "one of many"
    if wrong:
      left_out[wrong] += 1
      continue
    prompts.add(prompt)
    same[response] += 1
    alike[name, response] += 1
    kept.append((module, sources.make_record(module, prompt, response)))
  common = _common_words(kept)
  found = [one for one in kept if common.issuperset(one[1]["response"].split())]
  left_out["rare words"] += len(kept) - len(found)
  return found


def _described(
  roots: tuple[pathlib.Path, ...],
  packages: tuple[str, ...],
  left_out: collections.Counter[str],
) -> Iterator[tuple[str, str, str, str]]:
  """Yields (module, name, prompt, response) of each parameter."""
  for module, node, text in sources.documented(roots, packages, left_out):
    try:
      parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
      left_out["docstring of no known form"] += 1
      continue
    summary = words(parsed.short_description or "")[:SUMMARY_WORDS]
    for param in parsed.params:
      if param.args[0] == "param":
        name = " ".join(words(param.arg_name))
        prompt = f"{name} of {' '.join(words(node.name))}: {' '.join(summary)}"
        yield module, name, prompt, first_clause(param.description or "")


def words(text: str) -> list[str]:
  """The words of a text or a name, in lower case."""
  apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
  return re.findall(r"[a-z]+", apart.lower())


def first_clause(text: str) -> str:
  """What stands before the first mark but a comma; "" if it is not all words.

  Marks of code and emphasis are left out, and commas.
  """
  text = re.sub(r":\w+:|[`'\"*]", "", text)
  clause = re.split(r"[(;:.\[]", text)[0]
  if re.fullmatch(r"[A-Za-z,\s-]+", clause):
    return " ".join(re.findall(r"[a-z]+", clause.lower()))
  return ""


def _fault(response: str) -> str | None:
  """Why a response is dropped, or None when it is kept."""
  low, high = RESPONSE_WORDS
  if not response:
    return "not all words"
  return None if low <= len(response.split()) <= high else "response length"


def _common_words(found: list[tuple[str, records.Record]]) -> set[str]:
  """Those that are the most frequent in responses of the training split."""
  counts = collections.Counter(
    word
    for module, record in found
    if sources.split_of(module) == "train"
    for word in record["response"].split()
  )
  return {word for word, _ in counts.most_common(VOCABULARY)}
