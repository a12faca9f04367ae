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
  """The tree with every leaf whole on every device of the mesh."""
  return jax.device_put(tree, replicated(mesh))


def shard_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """The batch split by rows along `data`.

  Raises: ValueError if the rows cannot be split evenly.
  """
  rows, parts = len(next(iter(batch.values()))), mesh.shape["data"]
  if rows % parts:
    raise ValueError(
      f"batch_size: {rows} rows cannot be split evenly over {parts} devices"
    )
  return jax.device_put(batch, NamedSharding(mesh, P("data")))
