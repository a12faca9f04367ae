"""Devices: one mesh, and one rule for where the leaves of any tree lie.

Parameters, moments, followers and frozen sets are *stored* split along both
axes of the mesh; a model *runs* on a copy that is whole along `data`, made
once a step. jit over these layouts computes the same numbers on one device
or on many; losses and models know nothing of it.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from nashmd_jax import declare, mistakes

MODES = ("jit", "pmap")
DTYPES = ("float32", "bfloat16")
COMPILE = ("full", "quick")
# The last axes of a leaf by its name, inputs > outputs. V, H and F may be
# split along `model`, B along `data`; leading axes (depth, slots) never are.
AXES = {
  "embedding": "V>D",
  "head": "D>V",
  "query": "D>HK",
  "key": "D>HK",
  "value": "D>HK",
  "query_bias": ">HK",
  "key_bias": ">HK",
  "value_bias": ">HK",
  "out": "HK>D",
  "gate": "D>F",
  "up": "D>F",
  "down": "F>D",
  # Of decode caches; cross holds the keys and values of an encoder.
  "keys": ">BHSK",
  "values": ">BHSK",
  "cross": ">BHSK",
  "prompt_mask": ">BP",
  "prompt": ">BP",
}
OVER_MODEL = "VHF"
# Statistics of a factored second moment have the names of their matrices but
# not their axes.
FACTORED = {"v_row", "v_col"}
SETTINGS = {
  "mode": declare.text(
    "How a program runs on several devices: pmap keeps all of every parameter "
    "on each.",
    one_of=MODES,
  ),
  "model": declare.whole(
    "Devices that share each matrix when it is run; a divisor of all of them.",
    least=1,
    unit="devices",
  ),
  "fsdp": declare.flag(
    "Whether parameters and moments are split over the devices where they are "
    "stored."
  ),
  "compile": declare.text(
    "How much XLA does for a program: quick compiles in half the time what "
    "runs slower, for runs of a few minutes on CPU.",
    one_of=COMPILE,
  ),
  "smallest": declare.whole(
    "Elements below which an array is not split.", least=1, unit="elements"
  ),
  "run_dtype": declare.text(
    "The dtype of the matrices of the copy that a model runs on.", one_of=DTYPES
  ),
  "frozen_dtype": declare.text(
    "The dtype of the matrices of sets that are never trained.", one_of=DTYPES
  ),
}


class Devices(NamedTuple):
  """What a run knows of its devices.

  Attributes:
    mesh: with the axes `data` and `model`.
    mode: "jit" or "pmap".
    fsdp: whether stored trees are split along `data`.
    smallest: elements; smaller leaves are whole everywhere.
    run_dtype: of the matrices of the copy that a model runs on; where it is
      the dtype of the activations, no number changes.
    frozen_dtype: of the matrices of sets that are never trained.
  """

  mesh: jax.sharding.Mesh
  mode: str
  fsdp: bool
  smallest: int
  run_dtype: str
  frozen_dtype: str


def check_devices(
  *,
  mode: str,
  model: int,
  fsdp: bool,
  smallest: int,
  run_dtype: str,
  frozen_dtype: str,
  compile: str = "full",
) -> None:
  """Raises ValueError for a section `devices` that makes no sense."""
  given = {"mode": mode, "model": model, "fsdp": fsdp, "smallest": smallest}
  given |= {"compile": compile}
  dtypes = {"run_dtype": run_dtype, "frozen_dtype": frozen_dtype}
  declare.check(SETTINGS, given | dtypes, "devices")
  check_mode(given)


def check_mode(section: Mapping[str, Any]) -> None:
  """Raises Mistake for parameters that pmap is to split."""
  mode, model, fsdp = (section[name] for name in ("mode", "model", "fsdp"))
  if mode == "pmap" and (model > 1 or fsdp):
    raise mistakes.Mistake(
      f"devices.mode: pmap keeps every parameter on every device, got model "
      f"{model} and fsdp {fsdp}; set them to 1 and False, or the mode to jit"
    )


def compile_as(compile: str) -> None:
  """Says how all programs to come are compiled, one of `COMPILE`."""
  jax.config.update("jax_disable_most_optimizations", compile == "quick")


def make_devices(
  devices: Sequence[jax.Device] | None = None,
  *,
  model: int,
  compile: str = "full",
  **settings,
) -> Devices:
  """The devices of a config section.

  Args:
    devices: all of this run's if None.
    model: size of the axis `model`; what remains is `data`.
    compile: see `compile_as`.
    **settings: the fields of `Devices`.
  Raises: ValueError for settings that make no sense, or a number of devices
    that `model` does not divide.
  """
  check_devices(model=model, compile=compile, **settings)
  devices = jax.devices() if devices is None else devices
  if len(devices) % model:
    raise mistakes.Mistake(
      f"devices.model: got {model}, expected a divisor of the "
      f"{len(devices)} devices"
    )
  mesh = jax.make_mesh(
    (len(devices) // model, model),
    ("data", "model"),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices,
  )
  return Devices(mesh=mesh, **settings)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """The sharding of an array that is whole on every device."""
  return NamedSharding(mesh, P())


def spec(
  names: Sequence[str],
  shape: Sequence[int],
  *,
  data: int,
  model: int,
  smallest: int,
) -> P:
  """The rule: how one leaf is split.

  The V, H or F of a named matrix goes to `model`, then the longest of the
  other axes to `data`, each where the size of the mesh axis divides it; of a
  leaf without a name the longest axis goes to `data`.

  Args:
    names: of the path to the leaf, outermost first.
    shape: of the leaf.
    data: size of that axis of the mesh; 1 splits nothing along it but the
      rows of caches.
    model: size of that axis of the mesh.
    smallest: elements; smaller leaves are whole everywhere.
  """
  axes = _axes(names, len(shape))
  placed: list[str | None] = [None] * len(shape)
  if "B" in axes:
    placed[axes.index("B")] = "data"
  elif _size(shape) < smallest:
    return P()
  for i, axis in enumerate(axes):
    if axis in OVER_MODEL and model > 1 and shape[i] % model == 0:
      placed[i] = "model"
  free = [
    i
    for i, axis in enumerate(axes)
    if axis != " " and placed[i] is None and shape[i] % data == 0
  ]
  if data > 1 and free and "data" not in placed:
    placed[max(free, key=lambda i: shape[i])] = "data"
  while placed and placed[-1] is None:
    placed.pop()
  return P(*placed)


def _axes(names: Sequence[str], ndim: int) -> str:
  """A letter for each axis of a leaf: " " leading, "." of no name."""
  found = [i for i, name in enumerate(names) if name in AXES]
  if not found or FACTORED & set(names):
    return "." * ndim
  inputs, outputs = AXES[names[found[-1]]].split(">")
  adapter = {"a": inputs + "r", "b": "r" + outputs}
  axes = adapter.get(names[-1], inputs + outputs)
  # A placeholder in the place of a moment has fewer axes than its matrix.
  return axes.rjust(ndim) if len(axes) <= ndim else "." * ndim


def _size(shape: Sequence[int]) -> int:
  return functools.reduce(lambda a, b: a * b, shape, 1)


def _names(path) -> list[str]:
  return [jax.tree_util.keystr((key,), simple=True) for key in path]


def shardings(tree: Any, devices: Devices, *, run: bool = False) -> Any:
  """A sharding for every leaf of a tree of arrays or shapes.

  Args:
    tree: parameters, moments, a whole state, a decode cache.
    devices: of the run.
    run: of the copy that a model runs on, whole along `data`.
  """
  sizes = devices.mesh.shape
  data = sizes["data"] if devices.fsdp and not run else 1

  def leaf(path, x):
    parts = spec(
      _names(path),
      x.shape,
      data=data,
      model=sizes["model"],
      smallest=devices.smallest,
    )
    return NamedSharding(devices.mesh, parts)

  return jax.tree.map_with_path(leaf, tree)


def stored_shapes(shapes: Any, devices: Devices, *, run: bool = False) -> Any:
  """Shapes with the shardings of `shardings`."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    shardings(shapes, devices, run=run),
  )


def cast(tree: Any, dtype: str) -> Any:
  """The tree with its named matrices, and nothing else, in a dtype."""

  def leaf(path, x):
    return x.astype(dtype) if AXES.keys() & set(_names(path)) else x

  return jax.tree.map_with_path(leaf, tree)


def store(devices: Devices, make: Callable[..., Any], *args: Any) -> Any:
  """make(*args), computed to where its leaves are stored."""
  places = shardings(jax.eval_shape(make, *args), devices)
  return jax.jit(make, out_shardings=places)(*args)


def to_run(tree: Any, devices: Devices) -> Any:
  """The copy that a model runs on: whole along `data`, in `run_dtype`.

  Called inside jit, once for a rollout or an update. Gradients go back the
  same way: each device receives the sum of its own part.

  Args:
    tree: parameter sets, stored. Gradient flows to them.
    devices: of the run.
  """
  tree = cast(tree, devices.run_dtype)
  if devices.mode == "pmap":
    return tree
  there, back = (shardings(tree, devices, run=run) for run in (True, False))
  return jax.tree.map(_moved, tree, there, back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(x, there, back):
  # Without the first constraint the compiler may gather before the cast.
  x = lax.with_sharding_constraint(x, back)
  return lax.with_sharding_constraint(x, there)


def _moved_forward(x, there, back):
  return _moved(x, there, back), None


def _moved_backward(there, back, nothing, gradient):
  del there, nothing
  return (lax.with_sharding_constraint(gradient, back),)


_moved.defvjp(_moved_forward, _moved_backward)


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


def by_rows(
  function: Callable[[Any, Any], Any], devices: Devices
) -> Callable[[Any, Any], Any]:
  """(parameters, batch) -> the function's results, on the host, whole.

  Jitted; each device computes its rows of the batch, in either mode. All
  processes must call it together.

  Args:
    function: pure; (parameters, batch) -> a tree of arrays.
    devices: of the run.
  """
  compiled = jax.jit(function, out_shardings=replicated(devices.mesh))
  return lambda params, batch: jax.device_get(
    compiled(params, shard_batch(batch, devices.mesh))
  )


def on_mesh(
  function: Callable[..., Any], devices: Devices
) -> Callable[..., Any]:
  """The function, for programs that are split over the devices by jit.

  Kernels that the compiler cannot split find the mesh in the context of their
  trace, and are split by `models.attention`; what is computed is the same.
  """
  if devices.mode == "pmap" or devices.mesh.size == 1:
    return function

  @functools.wraps(function)
  def run(*args):
    with jax.sharding.use_abstract_mesh(devices.mesh.abstract_mesh):
      return function(*args)

  return run
