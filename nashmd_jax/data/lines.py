"""JSON lines that others wrote: the files of a folder, the objects of a file.

Whatever a file holds that is no JSON object ends in one sentence with file
and line. What the objects must have is in `records`.
"""

from collections.abc import Iterator
import gzip
import io
import lzma
import re
from typing import Any

from etils import epath
import zstandard

from nashmd_jax import files, mistakes

# Packings that are not read, and what packed files begin with.
OTHERS = (".bz2", ".zip", ".7z")
MAGIC = {
  b"\x1f\x8b": ".gz",
  b"\xfd7zXZ": ".xz",
  b"\x28\xb5\x2f\xfd": ".zst",
  b"BZh": ".bz2",
  b"PK\x03\x04": ".zip",
}
# The name of a part behind that of its split.
PART = re.compile(r"(-\d+(-of-(?P<parts>\d+))?)?\.jsonl(\.gz|\.xz|\.zst)?")
LIKE_PART = re.compile(
  rf".*\.jsonl({'|'.join(map(re.escape, MAGIC.values()))})?"
)
CHUNK = 2**16  # bytes
MOST_LINE = 2**27  # bytes
BLANKS = b" \t\r\n"  # of JSON
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Zstandard(io.RawIOBase):
  """Frames of .zst unpacked; unlike the library's own reader it minds the end.

  Raises: EOFError where the last of them is cut.
  """

  def __init__(self, packed):
    self._packed, self._frame = packed, None
    self._taken = self._ready = b""

  def readable(self):
    return True

  def readinto(self, buffer):
    while not self._ready and self._unpack():
      pass
    part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
    buffer[: len(part)] = part
    return len(part)

  def _unpack(self) -> bool:
    """Unpacks a piece; False at the end."""
    taken, self._taken = self._taken or self._packed.read(CHUNK), b""
    if not taken:
      if self._frame is not None:
        raise EOFError("it ended before the end of a frame")
      return False
    self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
    self._ready = self._frame.decompress(taken)
    if self._frame.eof:
      self._taken, self._frame = self._frame.unused_data, None
    return True


OPENERS = {
  ".xz": lzma.open,
  ".gz": gzip.open,
  ".zst": lambda packed: io.BufferedReader(_Zstandard(packed)),
}


def find_files(folder: epath.PathLike, split: str) -> list[epath.Path]:
  """The files of a split, sorted by name; none if there are none.

  SPLIT.jsonl, or parts with a number as SPLIT-0.jsonl or
  SPLIT-00000-of-00002.jsonl, each plain or in .gz, .xz or .zst.

  Args:
    folder: local or remote.
    split: such as "train".
  Raises: Mistake for a folder that is none, for a file of JSON lines whose
    name begins with the split and goes on otherwise, for one that is there
    twice, plain and packed, and for an absent one of a known number of parts.
  """
  folder = epath.Path(folder)
  try:
    paths = sorted(folder.iterdir()) if folder.exists() else []
  except OSError as error:
    raise mistakes.Mistake(
      f"{folder}: cannot be read ({error.strerror or mistakes.brief(error)}); "
      "expected a folder of JSON lines"
    ) from None
  found, said = {}, {}
  for path in paths:
    rest = path.name.removeprefix(split)
    if rest == path.name or not LIKE_PART.fullmatch(rest):
      continue
    part = PART.fullmatch(rest)
    if not part:
      raise mistakes.Mistake(
        f"{path}: begins like {split}.jsonl and is no part of it, as "
        f"{split}-0.jsonl or {split}-0.jsonl.gz would be; rename it, or move "
        "it to another folder"
      )
    name = path.name.partition(".jsonl")[0]
    if name in found:
      raise mistakes.Mistake(
        f"{path}: {found[name].name} beside it is of the same name; delete or "
        "rename one of the two"
      )
    found[name] = path
    said.setdefault(part["parts"], []).append(path)
  said.pop(None, None)
  for parts, there in said.items():
    if len(there) != int(parts):
      raise mistakes.Mistake(
        f"{there[0]}: is one of {int(parts)} parts by its name, got "
        f"{len(there)}; bring the others, or rename those there are"
      )
  return list(found.values())


def read_objects(
  path: epath.PathLike, expected: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  """The JSON objects of a file, each with the number of its line.

  Args:
    path: local or remote; a name in .gz, .xz or .zst is unpacked. Empty
      lines and the byte order mark of UTF-8 are passed over.
    expected: what the file should be, for the error of one that is missing.
  Raises: Mistake with file and line of what cannot be read.
  """
  for number, line in read_lines(path, expected):
    yield number, parse_object(line, f"{path}, line {number}")


def read_lines(
  path: epath.PathLike, expected: str
) -> Iterator[tuple[int, bytes]]:
  """The lines of a file that are not empty; see `read_objects`."""
  path = epath.Path(path)
  if path.suffix in OTHERS:
    raise mistakes.Mistake(
      f"{path}: {path.suffix} is not read; pack it as .gz, .xz or .zst, or "
      "not at all"
    )
  yield from _lines(path, expected)


def parse_object(line: bytes, where: str) -> dict[str, Any]:
  """The JSON object in a line of UTF-8.

  A key that stands twice is refused: two values are meant by it. NaN and
  Infinity, which JSON lacks and Python writes, are numbers.

  Args:
    where: file and line, for the error.
  Raises: Mistake if there is none.
  """
  try:
    line.decode()
  except UnicodeDecodeError as error:
    raise mistakes.Mistake(f"{where}: {_not_utf8(line, error)}") from None
  with files.readable(where, "mend or delete the line"):
    found = files.parse_json(line)
  if not isinstance(found, dict):
    raise mistakes.Mistake(
      f"{where}: expected a JSON object, got {mistakes.quote(found)}"
    )
  return found


def _lines(path: epath.Path, expected: str) -> Iterator[tuple[int, bytes]]:
  number, told = 0, f"expected {expected}"
  try:
    with files.opened(path) as packed:
      unpack = OPENERS.get(path.suffix)
      with unpack(packed) if unpack else packed as file:
        while line := file.readline(MOST_LINE):
          number += 1
          if len(line) == MOST_LINE:
            raise ValueError(f"a line of more than {MOST_LINE:,} bytes")
          line = line.removeprefix(UTF8_MARK).rstrip(BLANKS)
          if line:
            yield number, line
  except FileNotFoundError:
    where = mistakes.bounded(str(path), mistakes.LONGEST_PATH)
    raise mistakes.Mistake(f"{where}: no such file; {told}") from None
  except (*files.UNREADABLE, ValueError) as error:
    with files.readable(f"{path}, line {number + 1}", told):
      raise error


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
  for magic, suffix in MAGIC.items():
    if line.startswith(magic):
      return f"it is packed; end the name of the file in {suffix}"
  if line.startswith(UTF16_MARKS):
    return "it is UTF-16; save the file as UTF-8"
  return (
    f"not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1} of "
    "the line); save the file as UTF-8"
  )
