"""Devices: one mesh, batches split along `data`, parameters on every device.

The step is written for the global batch; jit with these shardings computes
the same numbers on one device or on many.
"""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np


def make_mesh() -> jax.sharding.Mesh:
  """All devices along one axis, `data`."""
  devices = np.array(jax.devices())
  return jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """The sharding of an array that is whole on every device."""
  return NamedSharding(mesh, P())


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """The tree with every leaf whole on every device of the mesh.

  Leaves that only this process has must be the same in all processes.
  """
  return jax.tree.map(lambda x: _place(x, replicated(mesh)), tree)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
  own = not isinstance(x, jax.Array) or x.is_fully_addressable
  if sharding.is_fully_addressable or not own:
    return jax.device_put(x, sharding)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])


def shard_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """The batch split by rows along `data`.

  Every process holds the whole batch and gives its devices their rows: the
  width to which prompts are padded depends on all of them, and the rows that
  a process needs depend on the mesh.

  Raises: ValueError if the rows cannot be split evenly.
  """
  rows, parts = len(next(iter(batch.values()))), mesh.shape["data"]
  if rows % parts:
    raise ValueError(
      f"batch_size: {rows} rows cannot be split evenly over {parts} devices"
    )
  place = NamedSharding(mesh, P("data"))
  return jax.tree.map(lambda x: _place(x, place), batch)
