"""The arrays of a checkpoint as they are saved, read one at a time."""

from collections.abc import Callable, Mapping
import functools
import pathlib
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding
import numpy as np
from orbax.checkpoint import v1 as ocp

from nashmd_jax import files, mistakes
from nashmd_jax.training import checksums

FIRST, LAST = "params", "optimizer"  # of the pieces of a checkpoint


class Stored(NamedTuple):
  """An array that is on disk.

  Attributes:
    path: its name, part by part.
    shape: of the array.
    dtype: of the array.
    split: for each of its axes the axes of a mesh that it was split along.
    load: () -> the array, whole.
  """

  path: tuple[str, ...]
  shape: tuple[int, ...]
  dtype: np.dtype
  split: tuple[tuple[str, ...], ...]
  load: Callable[[], np.ndarray]


def arrays(place: pathlib.Path) -> list[Stored]:
  """The arrays of a checkpoint: parameters first, the optimizer's last.

  Args:
    place: of the checkpoint.
  Raises: Mistake for one that is damaged or cannot be read.
  """
  damage = checksums.find_damage(place)
  if damage is not None and not checksums.is_of_before(place):
    raise mistakes.Mistake(f"{place}: {damage.what}")
  with _read(place):
    pieces = ocp.checkpointables_metadata(place).metadata
  names = [name for name in pieces if (place / name / "_METADATA").exists()]
  names.sort(key=lambda name: (name == LAST, name != FIRST, name))
  return [one for name in names for one in _of(place, name, pieces[name])]


def _read(place: pathlib.Path):
  return files.readable(place, "a run may have taken it away meanwhile")


def _of(place: pathlib.Path, name: str, tree: Any) -> list[Stored]:
  leaves, structure = jax.tree.flatten_with_path(tree)
  found = []
  for number, (path, leaf) in enumerate(leaves):
    rest = [ocp.PLACEHOLDER] * len(leaves)
    rest[number] = jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(jax.devices()[0])
    )
    like = {name: structure.unflatten(rest)}
    found.append(
      Stored(
        path=(name, *(jax.tree_util.keystr((k,), simple=True) for k in path)),
        shape=tuple(leaf.shape),
        dtype=np.dtype(leaf.dtype),
        split=_split(leaf),
        load=functools.partial(_load, place, like),
      )
    )
  return found


def _split(leaf: Any) -> tuple[tuple[str, ...], ...]:
  """The axes of the mesh for each axis of an array, of its metadata."""
  saved = getattr(leaf, "sharding_metadata", None)
  spec = list(getattr(saved, "partition_spec", ()))
  spec += [None] * (len(leaf.shape) - len(spec))
  return tuple(
    () if one is None else (one,) if isinstance(one, str) else tuple(one)
    for one in spec
  )


def _load(place: pathlib.Path, like: Mapping[str, Any]) -> np.ndarray:
  with _read(place):
    (leaf,) = [
      x
      for x in jax.tree.leaves(ocp.load_checkpointables(place, like))
      if x is not ocp.PLACEHOLDER
    ]
    return np.asarray(leaf)
