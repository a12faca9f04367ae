"""Folders of the Hugging Face hub in and out: config, weights, tokenizer.

Weights are read one tensor at a time, straight to where they belong, and
written one at a time, so that a host never holds a whole model of them.
safetensors only; folders may be local or remote.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import hashlib
import json
import math
from typing import Any, NamedTuple

from etils import epath
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding
import numpy as np

from nashmd_jax import files
from nashmd_jax.hub import (
  architectures,
  config_json,
  safetensors,
  tensor_names,
  weights,
)
from nashmd_jax.models import families, language_model
from nashmd_jax.training import distributed

Params = Any
INDEX, WEIGHTS = weights.INDEX, weights.WEIGHTS
CONFIG = "config.json"
# What a folder of adapters has in place of a model; it is read first.
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
MAX_FILE_BYTES = 5 * 10**9
PROBES = 64  # pieces of a file by which it is known again
# What else a folder holds that goes with the weights.
GENERATION = "generation_config.json"
BESIDE = (
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "spiece.model",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
)


class Pretrained(NamedTuple):
  """What a folder holds.

  Attributes:
    config: the architecture.
    model: its functions.
    params: its parameters, where the caller wants them.
  """

  config: architectures.Config
  model: language_model.LanguageModel
  params: Params


def load_config(folder: epath.PathLike, **numerics: str) -> Any:
  """The architecture of a folder.

  Args:
    folder: local or remote.
    **numerics: fields of `layers.Numerics` that are not to be the default.
  Raises: ValueError for a file that is missing or an unknown architecture.
  """
  settings = files.load_json(epath.Path(folder) / CONFIG)
  with files.told_of(folder):
    config = config_json.config_from_json(settings)
    families.make_model(config)
  return config._replace(**numerics)


def load_pretrained(
  folder: epath.PathLike,
  shard: Callable[[Params], Any],
  **numerics: str,
) -> Pretrained:
  """Reads the weights of a folder into their shardings.

  Args:
    folder: with config.json and one or several safetensors files.
    shard: shapes of the parameters -> the sharding of each.
    **numerics: fields of `layers.Numerics`; `param_dtype` is what the
      weights are cast to, on the device.
  Raises: ValueError that lists every tensor that is missing, unknown or of
    another shape, before any is read.
  """
  folder = epath.Path(folder)
  config = load_config(folder, **numerics)
  model = families.make_model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  names = tensor_names.tensor_names(config)
  tensors = weights.chosen(folder, config, weights.load_headers(folder))
  weights.check_tensors(folder, names, shapes, tensors)
  return Pretrained(
    config, model, load_tensors(names, shapes, tensors, shard(shapes))
  )


def fingerprint(folder: epath.PathLike) -> str:
  """A hash by which the weights of a folder are known again.

  Of config.json, of the name, place and shape of every tensor, and of
  `PROBES` pieces of every file: weights that were trained further differ in
  all of them, and a large folder is not read through.
  """
  folder = epath.Path(folder)
  found = hashlib.sha256(files.read_bytes(folder / CONFIG))
  tensors = weights.load_headers(folder)
  for name, one in sorted(tensors.items()):
    told = [name, one.path.name, one.start, list(one.shape), str(one.dtype)]
    found.update(json.dumps(told).encode())
  for path in sorted({one.path for one in tensors.values()}):
    for piece in safetensors.probe(path, PROBES):
      found.update(piece)
  return found.hexdigest()


def load_tensors(
  names: Mapping[tensor_names.Path, tensor_names.Name],
  shapes: Params,
  tensors: Mapping[str, safetensors.Tensor],
  shardings: Any,
) -> Params:
  """Parameters of these shapes from tensors that were checked to fit."""
  params = {}
  for path, name in names.items():
    leaf = _load_leaf(
      name,
      tensor_names.at(shapes, path),
      tensor_names.at(shardings, path),
      tensors,
    )
    _put(params, path, leaf)
  return params


def save_pretrained(
  folder: epath.PathLike,
  params: Params,
  config: architectures.Config,
  *,
  settings: Mapping[str, Any],
  beside: epath.PathLike | None,
  max_file_bytes: int,
  others: Mapping[str, bytes | None] | None = None,
) -> None:
  """Writes a folder that transformers and vLLM load.

  Args:
    folder: made if absent; of another model that it holds, weights, adapters
      and tokenizer go first, and config.json appears last.
    params: plain parameters, without adapters (see `lora.merge`).
    config: their architecture.
    settings: what config.json is to hold besides the architecture, such as
      "eos_token_id" and "max_position_embeddings".
    beside: a folder whose tokenizer is copied, and whose generation config is,
      but for the ids of tokens that `settings` says otherwise.
    max_file_bytes: weights are split into files of at most this size, but
      for tensors that are larger.
    others: contents of further files by name, in place of what is copied; None
      for one that is not to be there.
  Raises: ValueError for an architecture that no family has.
  """
  folder = epath.Path(folder)
  settings = {**architectures.config_to_json(config), **settings}
  folder.mkdir(parents=True, exist_ok=True)
  clear(folder)
  names = tensor_names.tensor_names(config)
  leaves = {path: tensor_names.at(params, path) for path in names}
  _save_weights(folder, names, leaves, max_file_bytes=max_file_bytes)
  generation = {}
  if beside is not None and (epath.Path(beside) / GENERATION).exists():
    generation = files.load_object(epath.Path(beside) / GENERATION)
  told = {key: value for key, value in settings.items() if key.endswith("_id")}
  save_json(folder / GENERATION, {**generation, **told})
  if beside is not None and epath.Path(beside) != folder:
    _copy_beside(epath.Path(beside), folder)
  save_others(folder, others or {})
  settings["torch_dtype"] = str(leaves["embedding",].dtype)
  save_json(folder / CONFIG, settings)


def clear(folder: epath.Path) -> None:
  """Takes out of a folder what would be read in place of what comes next.

  Of several processes the first does it.
  """
  if not distributed.is_first() or not folder.exists():
    return
  # Without it nothing else counts, should this be cut off.
  (folder / CONFIG).unlink(missing_ok=True)
  shards = sorted(folder.glob("model-*-of-*.safetensors"))
  named = [folder / name for name in (*ADAPTERS, INDEX, WEIGHTS)]
  for path in (*named, *shards):
    path.unlink(missing_ok=True)


def _copy_beside(source: epath.Path, folder: epath.Path) -> None:
  """Copies what goes with the weights; nothing of another model stays."""
  there = {name: source / name for name in BESIDE}
  save_others(
    folder,
    {
      name: files.read_bytes(path) if path.exists() else None
      for name, path in there.items()
    },
  )


def save_others(folder: epath.Path, others: Mapping[str, bytes | None]) -> None:
  """Writes files by name, or takes those away that are not to be there."""
  for name, content in others.items():
    if content is not None:
      safetensors.save_bytes(folder / name, [content])
    elif distributed.is_first():
      (folder / name).unlink(missing_ok=True)


def _load_leaf(name, shape, sharding, tensors) -> jax.Array:
  """One parameter; of a stacked one, one layer at a time."""
  layer_shape = shape.shape[1:] if name.stacked else shape.shape
  layer_sharding = _of_layer(sharding) if name.stacked else sharding

  def place(tensor):
    array = name.from_there(safetensors.load_tensor(tensor), layer_shape)
    return jax.make_array_from_callback(
      layer_shape, layer_sharding, lambda index: array[index]
    )

  dtype = jnp.dtype(shape.dtype)
  if not name.stacked:
    return _cast(dtype, sharding)(place(tensors[name.template]))
  leaf = _zeros(shape.shape, dtype, sharding)()
  for one, number in name.tensors(shape.shape):
    leaf = _write(sharding)(leaf, place(tensors[one]), number)
    leaf.block_until_ready()
  return leaf


# The output shardings are pinned: a stack that moved would be copied.
@functools.lru_cache
def _cast(dtype, sharding):
  return jax.jit(lambda x: x.astype(dtype), out_shardings=sharding)


@functools.lru_cache
def _zeros(shape, dtype, sharding):
  return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@functools.lru_cache
def _write(sharding):
  def write(stack, layer, number):
    layer = layer.astype(stack.dtype)
    return lax.dynamic_update_index_in_dim(stack, layer, number, axis=0)

  return jax.jit(write, donate_argnums=0, out_shardings=sharding)


def _of_layer(sharding: Sharding) -> Sharding:
  """The sharding of one layer of a stack."""
  if isinstance(sharding, NamedSharding):
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
  return sharding


def _put(tree: dict, path: tensor_names.Path, leaf: jax.Array) -> None:
  *above, last = path
  for key in above:
    tree = tree.setdefault(key, {})
  tree[last] = leaf


def _save_weights(
  folder: epath.Path,
  names: Mapping[tensor_names.Path, tensor_names.Name],
  leaves: Mapping[tensor_names.Path, jax.Array],
  *,
  max_file_bytes: int,
) -> None:
  """Writes leaves under their names there, with an index if in many files."""
  shapes, tensor = tensor_names.spread(names, leaves)
  parts = list(_split(shapes, max_file_bytes))
  index = {}
  for number, part in enumerate(parts, start=1):
    name = WEIGHTS
    if len(parts) > 1:
      name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
    safetensors.save_file(folder / name, part, tensor)
    index |= dict.fromkeys(part, name)
  if len(parts) > 1:
    total = sum(_size(*shape) for shape in shapes.values())
    save_json(
      folder / INDEX,
      {"metadata": {"total_size": total}, "weight_map": index},
    )


def _split(shapes, max_file_bytes) -> Iterator[dict]:
  part, size = {}, 0
  for name, shape in shapes.items():
    if part and size + _size(*shape) > max_file_bytes:
      yield part
      part, size = {}, 0
    part[name] = shape
    size += _size(*shape)
  yield part


def _size(shape, dtype) -> int:
  return math.prod(shape) * np.dtype(dtype).itemsize


def save_json(path: epath.Path, value: Any) -> None:
  safetensors.save_bytes(path, [(json.dumps(value, indent=1) + "\n").encode()])
