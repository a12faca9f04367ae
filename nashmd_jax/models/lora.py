"""Low-rank adapters: W + (α / r) A B, never formed while training.

Only {A, B} are trained and saved. `attach` puts them beside the matrices of
the parameters they adapt; these stay the same arrays, so that the reference
is the parameters without adapters and costs no memory.
Source: Hu et al., ICLR 2022.
"""

from collections.abc import Sequence
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

Params = Any


# Number of input axes of a matrix behind its axis of depth; the output axes
# follow them.
INPUT_AXES = {
  "query": 1,
  "key": 1,
  "value": 1,
  "out": 2,
  "gate": 1,
  "up": 1,
  "down": 1,
}


class Adapted(struct.PyTreeNode):
  """A matrix with its adapter; stands in its place in the parameters.

  Attributes:
    matrix: [N, in…, out…]; no gradient flows to it through `project`.
    a: [N, in…, r].
    b: [N, r, out…].
    scale: α / r.
  """

  matrix: jax.Array
  a: jax.Array
  b: jax.Array
  scale: float = struct.field(pytree_node=False)


def project(x: jax.Array, weight: jax.Array | Adapted, inputs: int = 1):
  """x [rows…, in…] times a matrix [in…, out…], in the dtype of x.

  Args:
    x: activations.
    weight: the matrix, or the matrix with its adapter.
    inputs: how many axes are summed over.
  Returns: [rows…, out…].
  """
  if not isinstance(weight, Adapted):
    return _product(x, weight, inputs)
  added = _product(_product(x, weight.a, inputs), weight.b, 1)
  matrix = jax.lax.stop_gradient(weight.matrix)
  return _product(x, matrix, inputs) + weight.scale * added


def _product(x, weight, inputs):
  """Of two matrices: with more axes its gradient copies them in between."""
  size = math.prod(weight.shape[:inputs])
  flat = x.reshape(-1, size) @ weight.astype(x.dtype).reshape(size, -1)
  return flat.reshape(*x.shape[: x.ndim - inputs], *weight.shape[inputs:])


def init_lora(
  rng: jax.Array, params: Params, *, rank: int, targets: Sequence[str]
) -> Params:
  """Adapters of the named matrices: A normal with variance 1 / in, B zero.

  Args:
    rng: a key.
    params: arrays or shapes of the model.
    rank: r ≥ 1.
    targets: keys of `INPUT_AXES`.
  Returns: the tree of the params with just the targets, each a dict of "a"
    f32[N, in…, r] and "b" f32[N, r, out…].
  Raises: ValueError for a rank or a target that makes no sense.
  """
  if rank < 1:
    raise ValueError(f"lora.rank: got {rank}, expected 1 or more")
  unknown = sorted(set(targets) - set(INPUT_AXES))
  if unknown or not targets:
    raise ValueError(
      f"lora.targets: got {tuple(targets)}, expected some of "
      f"{tuple(INPUT_AXES)}"
    )

  def adapters(path, leaf):
    inputs = INPUT_AXES[path[-1]]
    depth, ins, outs = _split(leaf.shape, inputs)
    key = jax.random.fold_in(rng, _number(path))
    a = jax.random.normal(key, (*depth, *ins, rank)) / math.sqrt(math.prod(ins))
    return {"a": a, "b": jnp.zeros((*depth, rank, *outs))}

  return _at_targets(adapters, params, set(targets))


def sizes(params: Params) -> dict[str, tuple[int, int]]:
  """The matrices that may be adapted: by name, numbers in and numbers out.

  Args:
    params: arrays or shapes of the model; of a name that several of its
      matrices have, the last is told.
  """
  found = {}

  def look(path, leaf):
    _, ins, outs = _split(leaf.shape, INPUT_AXES[path[-1]])
    found[path[-1]] = math.prod(ins), math.prod(outs)

  _at_targets(look, params, set(INPUT_AXES))
  return {name: found[name] for name in INPUT_AXES if name in found}


def attach(params: Params, lora: Params, *, alpha: float) -> Params:
  """The parameters with `Adapted` in place of the adapted matrices.

  Args:
    params: of the base; the same arrays are in the result.
    lora: see `init_lora`; gradient flows to it through the model.
    alpha: α; the rank of the adapters divides it.
  Returns: parameters that every function of the LanguageModel takes.
  """

  def adapt(leaf, adapter):
    scale = alpha / adapter["a"].shape[-1]
    return Adapted(leaf, adapter["a"], adapter["b"], scale)

  return _with(adapt, params, lora)


def merge(params: Params, lora: Params, *, alpha: float) -> Params:
  """W + (α / r) A B for the adapted matrices, summed in float32.

  Args: see `attach`.
  Returns: plain parameters of the base's shapes and dtypes.
  """

  def add(leaf, adapter):
    a, b = adapter["a"], adapter["b"]
    inputs = a.ndim - 2
    depth, ins, outs = _split(leaf.shape, inputs)
    flat_a = a.reshape(*depth, math.prod(ins), -1)
    flat_b = b.reshape(*depth, -1, math.prod(outs))
    added = jnp.matmul(flat_a, flat_b).reshape(leaf.shape)
    total = leaf.astype(jnp.float32) + alpha / a.shape[-1] * added
    return total.astype(leaf.dtype)

  return _with(add, params, lora)


def _split(shape, inputs):
  return shape[:1], shape[1 : 1 + inputs], shape[1 + inputs :]


def _number(path) -> int:
  """A number of the path that does not depend on the other parameters."""
  return sum(ord(c) * 131**i for i, c in enumerate("/".join(path))) % 2**31


def _at_targets(make, tree, targets, path=()):
  found = {}
  for name, child in tree.items():
    here = (*path, name)
    if isinstance(child, dict):
      below = _at_targets(make, child, targets, here)
      if below:
        found[name] = below
    elif name in targets:
      found[name] = make(here, child)
  return found


def _with(change, params, lora):
  changed = dict(params)
  for name, adapter in lora.items():
    if isinstance(params[name], dict):
      changed[name] = _with(change, params[name], adapter)
    else:
      changed[name] = change(params[name], adapter)
  return changed
