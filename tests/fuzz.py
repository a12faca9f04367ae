"""Files of users that are damaged at random, and what readers make of them.

A reader may refuse what it meets, by one bounded sentence, within a second; or
it takes it, and then what it took is what an independent reading gives.
"""

from collections.abc import Callable, Iterator
import json
import os
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

from nashmd_jax import mistakes

MOST_TOLD, MOST_SECONDS, AGAIN = 500, 1.0, 2
# What takes the place of a value, as it stands in a file.
RAW = (
  "null", "true", "false", "0", "1", "-1", "-0.0", "0.5", "1e999", "NaN",
  "-Infinity", "2147483648", "1" + "0" * 18, "9" * 400, "9" * 5000, '""',
  '"\\u0000"', '"\\ud800"', '"../../../etc/passwd"', '"/etc/passwd"',
  '"a\\nb"', '"\x1b"', '"' + "x" * 5000 + '"', "[]", "{}", "[[]]", "[null]",
  '{"": null}', '{"a": 1, "a": 2}', "[" * 99 + "]" * 99,
  "[" * 5000 + "]" * 5000, '{"a":' * 2000 + "1" + "}" * 2000, "tru", "'a'",
  "[1, 2, 3]", '["a", "b"]', '{"content": "<s>"}', "1" + ", 1" * 3000,
)  # fmt: skip
PIECES = (b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b'"', b"{", b"]",
          b"\\u", b"\xef\xbb\xbf", b"e999", b"," * 99)  # fmt: skip
PLACES = ("folder", "loop", "pipe", "absent", "empty")
MARK = "@@{}@@"


class Target(NamedTuple):
  """One kind of file.

  Attributes:
    name: of the kind.
    file: that is damaged, below the folder of an example.
    valid: what it holds when it is right.
    read: (folder) -> whatever its reader makes of it.
    means: (damaged bytes, what was read) -> whether that is what they mean.
    lines: whether it holds a JSON value a line; None for what is no JSON.
    beside: (folder) -> None, writes what else the folder holds.
    texts: what stands in its place, where that is no damage of what is valid.
  """

  name: str
  file: str
  valid: bytes
  read: Callable[[pathlib.Path], Any]
  means: Callable[[bytes, Any], bool]
  lines: bool | None = False
  beside: Callable[[pathlib.Path], None] = lambda folder: None
  texts: st.SearchStrategy[bytes] | None = None


def strict(data: bytes | str) -> Any:
  """JSON as the standard library reads it, but for keys that stand twice."""

  def unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
      raise ValueError("a key stands twice")
    return found

  text = data.decode() if isinstance(data, bytes) else data
  return json.loads(text, object_pairs_hook=unique)


def same(one: Any, other: Any) -> bool:
  """Whether two values are equal, types and NaN included."""
  return repr(one) == repr(other)


def _paths(tree: Any, path: tuple = ()) -> Iterator[tuple]:
  yield path
  inside = tree.items() if isinstance(tree, dict) else ()
  inside = enumerate(tree[:20]) if isinstance(tree, list) else inside
  for key, value in inside:
    yield from _paths(value, (*path, key))


def _put(tree: Any, path: tuple, value: Any) -> Any:
  if not path:
    return value
  copy = dict(tree) if isinstance(tree, dict) else list(tree)
  copy[path[0]] = _put(tree[path[0]], path[1:], value)
  return copy


def _at(tree: Any, path: tuple) -> Any:
  for key in path:
    tree = tree[key]
  return tree


@st.composite
def _tree(draw, data: bytes) -> bytes:
  """JSON with one to three of its values replaced, added or left out."""
  tree, raw = json.loads(data), {}
  for number in range(draw(st.integers(1, 3))):
    path = draw(st.sampled_from(list(_paths(tree))))
    there, mark = _at(tree, path), MARK.format(number)
    action = draw(st.sampled_from(("replace", "swap", "drop", "key", "twice")))
    if action == "swap":
      other = draw(st.sampled_from(list(_paths(tree))))
      tree = _put(tree, path, _at(tree, other))
    elif action == "drop" and isinstance(there, dict | list) and there:
      kept = list(there.items() if isinstance(there, dict) else there)
      kept.pop(draw(st.integers(0, len(kept) - 1)))
      tree = _put(tree, path, type(there)(kept))
    elif action in ("key", "twice") and isinstance(there, dict) and there:
      key = draw(st.sampled_from(sorted(there)))
      tree = _put(tree, path, {**there, mark: 0})
      raw[f'"{mark}"'] = json.dumps(key if action == "twice" else key + "x")
    else:
      tree = _put(tree, path, mark)
      raw[f'"{mark}"'] = draw(st.sampled_from(RAW))
  text = json.dumps(tree)
  for mark, value in raw.items():
    text = text.replace(mark, value)
  return text.encode("utf-8", "surrogatepass")


@st.composite
def _bytes(draw, data: bytes) -> bytes:
  """Bytes flipped, cut, put in, taken out or doubled."""
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.integers(0, max(0, len(data) - 1)))
    end = min(len(data), at + draw(st.integers(0, 40)))
    action = draw(st.integers(0, 4))
    if action == 0 and data:
      flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
      data = data[:at] + bytes([flipped]) + data[at + 1 :]
    elif action == 1:
      data = data[:at]
    elif action == 2:
      data = data[:at] + draw(st.sampled_from(PIECES)) + data[at:]
    elif action == 3:
      data = data[:at] + data[end:]
    else:
      data = data[:end] + data[at:]
  return data


@st.composite
def damaged(draw, target: Target) -> bytes | str:
  """What is in the place of a file: other bytes, or a key of `PLACES`."""
  if target.texts is not None:
    return draw(target.texts)
  kind = draw(st.integers(0, 9))
  if kind == 0:
    return draw(st.sampled_from(PLACES))
  if kind < 4 or target.lines is None:
    return draw(_bytes(target.valid))
  if not target.lines:
    return draw(_tree(target.valid))
  rows = target.valid.splitlines()
  at = draw(st.integers(0, len(rows) - 1))
  rows[at] = draw(_tree(rows[at]))
  return b"\n".join(rows) + b"\n"


def write(path: pathlib.Path, found: bytes | str) -> None:
  """Puts it there."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  path.unlink(missing_ok=True)
  if isinstance(found, bytes) or found == "empty":
    path.write_bytes(b"" if found == "empty" else found)
  elif found == "folder":
    path.mkdir()
  elif found == "loop":
    path.symlink_to(path.name)
  elif found == "pipe":
    os.mkfifo(path)


def fault(target: Target, folder: pathlib.Path, found: bytes | str) -> str:
  """What a reader did that it may not, in words; empty for nothing.

  Args:
    folder: that is written to.
    found: what stands in the place of the file.
  """
  write(folder / target.file, found)
  told, seconds = _tried(target, folder, found)
  for _ in range(AGAIN):  # the collector, or the machine, may have paused it
    if told or seconds <= MOST_SECONDS:
      break
    told, seconds = _tried(target, folder, found)
  return told or (f"took {seconds:.1f} s" if seconds > MOST_SECONDS else "")


def _tried(target, folder, found) -> tuple[str, float]:
  """What is wrong with what was said, and the seconds that it took."""
  began, told = time.process_time(), ""
  try:
    value = target.read(folder)
    if isinstance(found, bytes) and not target.means(found, value):
      told = f"took it for {mistakes.quote(value)}"
  except mistakes.Mistake as mistake:
    for sentence in mistake.sentences:
      plain = mistakes.plain(sentence.replace(str(folder), ""))
      if len(plain) > MOST_TOLD:
        told = f"said {len(plain)} characters: {plain[:MOST_TOLD]!r}"
  except BaseException as error:
    told = f"raised {type(error).__name__}: {mistakes.brief(error)}"
  return told, time.process_time() - began


def run(target: Target, folder: pathlib.Path, examples: int) -> dict[str, Any]:
  """Damages a file many times.

  Args:
    folder: empty.
    examples: how many times.
  Returns: by fault the first thing that stood in the place of the file.
  """
  target.beside(folder)
  faults: dict[str, Any] = {}

  @hypothesis.settings(
    max_examples=examples,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(damaged(target))
  def one(found):
    told = fault(target, folder, found)
    if told:
      faults.setdefault(told[:60], found)

  write(folder / target.file, target.valid)
  assert target.means(target.valid, target.read(folder)), target.name
  one()
  return faults
