"""The safetensors format: a JSON header, then the bytes of every tensor.

Read and written one tensor at a time, through paths that may be remote; the
library of that name maps local files only. Source: the format's README,
huggingface/safetensors.
"""

from collections.abc import Callable, Iterable, Mapping
import json
import math
from typing import NamedTuple

from etils import epath
import jax.numpy as jnp
import numpy as np

from nashmd_jax import files, mistakes
from nashmd_jax.training import distributed

ENTRY = {"dtype", "shape", "data_offsets"}
MAX_HEADER = 100_000_000
POINTER = b"version "  # as the files begin that git-lfs leaves
BLOCK = 2**26  # bytes compared at a time
PIECE = 2**12  # bytes of a probe
NAMES = {
  "BF16": jnp.bfloat16,
  "F16": np.float16,
  "F32": np.float32,
  "F64": np.float64,
  "I32": np.int32,
  "I64": np.int64,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
DTYPES = {np.dtype(dtype): name for name, dtype in NAMES.items()}


class Tensor(NamedTuple):
  """Where a tensor is.

  Attributes:
    path: of its file.
    start: its first byte in the file.
    shape: of the tensor.
    dtype: of the tensor, little endian.
  """

  path: epath.Path
  start: int
  shape: tuple[int, ...]
  dtype: np.dtype


def load_header(path: epath.Path) -> dict[str, Tensor]:
  """Every tensor of a file by name; reads the header only.

  Raises: ValueError if the file is missing, cut off or of another format.
  """
  with files.readable(path, "get it again"):
    with files.opened(path) as file:
      first = file.read(8)
      if first == POINTER:
        raise mistakes.Mistake(
          f"{path}: is a pointer to weights and not the weights; git lfs pull"
        )
      size = int.from_bytes(first, "little")
      if size > MAX_HEADER:
        raise ValueError(f"a header of {size} bytes")
      header = files.parse_json(file.read(size))
      if len(first) < 8 or not isinstance(header, dict):
        raise ValueError("no header of safetensors")
      file.seek(0, 2)
      end = file.tell()
    header.pop("__metadata__", None)
    start, found = 8 + size, {}
    for name, entry in header.items():
      if set(entry) != ENTRY:
        raise ValueError(f"a tensor with the keys {mistakes.some([*entry])}")
      found[name] = _tensor(path, start, **entry)
    _check_whole(found.values(), start, end)
  return found


def _tensor(path, start, *, dtype, shape, data_offsets) -> Tensor:
  if not isinstance(dtype, str) or dtype not in NAMES:
    raise mistakes.Mistake(
      f"{path}: has tensors of type {mistakes.some([dtype])}, which no model "
      "here is computed with; take a folder that is not quantised"
    )
  if any(type(one) is not int or one < 0 for one in (*shape, *data_offsets)):
    raise ValueError("a shape or place that is no whole number")
  found = np.dtype(NAMES[dtype])
  first, last = data_offsets
  if last - first != math.prod(shape) * found.itemsize:
    raise ValueError(f"{last - first} bytes for a tensor of shape {shape}")
  return Tensor(path, start + first, tuple(shape), found)


def _check_whole(tensors: Iterable[Tensor], start: int, end: int) -> None:
  """Refuses tensors that share bytes or leave some out, as the format does."""
  for begin, size in sorted((one.start, size_of(one)) for one in tensors):
    if begin != start:
      raise ValueError(f"a tensor at byte {begin} and not {start}")
    start += size
  if start != end:
    raise ValueError(f"{end} bytes for what takes {start}")


def size_of(tensor: Tensor) -> int:
  """Bytes of a tensor."""
  return math.prod(tensor.shape) * tensor.dtype.itemsize


def load_tensor(tensor: Tensor) -> np.ndarray:
  """Reads one tensor into memory."""
  with files.readable(tensor.path, "get it again"):
    with tensor.path.open("rb") as file:
      file.seek(tensor.start)
      data = file.read(size_of(tensor))
    return np.frombuffer(data, tensor.dtype).reshape(tensor.shape)


def same(one: Tensor, other: Tensor) -> bool:
  """Whether two tensors are equal bit for bit, read a block at a time."""
  if (one.shape, one.dtype) != (other.shape, other.dtype):
    return False
  left = size_of(one)
  with one.path.open("rb") as first, other.path.open("rb") as second:
    first.seek(one.start)
    second.seek(other.start)
    while left > 0:
      size = min(left, BLOCK)
      if first.read(size) != second.read(size):
        return False
      left -= size
  return True


def probe(path: epath.Path, count: int) -> Iterable[bytes]:
  """Pieces of a file, evenly spread; the whole of a small one."""
  with path.open("rb") as file:
    end = file.seek(0, 2)
    for number in range(count):
      start, stop = (end * one // count for one in (number, number + 1))
      file.seek(start)
      yield file.read(min(PIECE, stop - start))


def load_file(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads every tensor of a file."""
  return {
    name: load_tensor(tensor) for name, tensor in load_header(path).items()
  }


def save_file(
  path: epath.Path,
  shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  tensor: Callable[[str], np.ndarray],
) -> None:
  """Writes a file, one tensor in memory at a time.

  Args:
    path: appears whole or not at all.
    shapes: (shape, dtype) of every tensor by name.
    tensor: name -> its array.
  """
  header, place = {"__metadata__": {"format": "pt"}}, 0
  for name, (shape, dtype) in shapes.items():
    size = math.prod(shape) * np.dtype(dtype).itemsize
    header[name] = {
      "dtype": DTYPES[np.dtype(dtype)],
      "shape": list(shape),
      "data_offsets": [place, place + size],
    }
    place += size
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  save_bytes(path, _pieces(text, shapes, tensor))


def _pieces(text, shapes, tensor) -> Iterable[bytes]:
  yield len(text).to_bytes(8, "little")
  yield text
  for name, (shape, dtype) in shapes.items():
    array = np.ascontiguousarray(tensor(name), dtype)
    assert array.shape == tuple(shape), f"{name}: {array.shape}, not {shape}"
    yield array.tobytes()


def save_bytes(path: epath.Path, pieces: Iterable[bytes]) -> None:
  """Writes under another name first, so that no half of it is seen.

  Of several processes, which make the pieces together, the first writes.
  """
  if not distributed.is_first():
    for _ in pieces:
      pass
    return
  partial = path.parent / (path.name + ".partial")
  with files.removed_if_not_whole(partial):
    with partial.open("wb") as file:
      for piece in pieces:
        file.write(piece)
    partial.replace(path)
