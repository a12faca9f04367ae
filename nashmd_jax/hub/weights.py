"""Which tensor of a folder is which parameter's: files, index, other names.

Nothing is dropped unseen: a tensor that is left aside equals one that is read,
or belongs to no part of the model.
"""

from collections.abc import Mapping
import math
import re
from typing import Any, NoReturn

from etils import epath
import jax.numpy as jnp

from nashmd_jax import files, mistakes
from nashmd_jax.hub import config_keys, safetensors, tensor_names
from nashmd_jax.models import decoder_config, t5

Tensors = dict[str, safetensors.Tensor]
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
HEAD = "lm_head.weight"
# Buffers, and a table that T5 never reads, which some checkpoints hold.
UNREAD = re.compile(
  r".*rotary_emb\.inv_freq|"
  r"decoder\.block\.0\.layer\.1\.EncDecAttention\."
  r"relative_attention_bias\.weight"
)
# The names of a model of text and images, older and newer, and those of its
# text alone; what has none of these prefixes is its eyes.
TEXT_PARTS = (
  (re.compile(r"language_model\.(model\.|lm_head\.)"), r"\1"),
  (re.compile(r"model\.language_model\."), "model."),
)
EYES = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")
# Names of one matrix of T5; the first that is there is read.
T5_EMBEDDING = (
  "shared.weight",
  "encoder.embed_tokens.weight",
  "decoder.embed_tokens.weight",
)
# What some other kinds of folders hold, and what to say of it.
STRANGERS = {
  r"(score|v_head|classifier|classification_head)\.": (
    "a model with a head of scores, not of tokens"
  ),
  r"base_model\.": "adapters beside their base; merge them first",
  r".*\.(lora_[AB]|absmax|qweight|weight_scale)": (
    "adapted or quantised weights; merge them, or take plain ones"
  ),
}


def load_headers(folder: epath.Path) -> Tensors:
  """Every tensor of a folder; that of the file which the index names for it.

  Raises: ValueError for files that are missing, or an index that is none.
  """
  index, single = (folder / INDEX).exists(), (folder / WEIGHTS).exists()
  if index:
    with files.readable(folder / INDEX):
      return _indexed(folder, single)
  if single:
    return safetensors.load_header(folder / WEIGHTS)
  parts = _there(folder)
  if parts:
    _refuse(
      folder, f"has {mistakes.some(parts)} but no {INDEX}; get that file too"
    )
  _refuse(
    folder,
    f"holds neither {WEIGHTS} nor {INDEX}; only safetensors are read, so "
    "convert other weights first",
  )


def _indexed(folder: epath.Path, single: bool) -> Tensors:
  where = files.load_json(folder / INDEX)
  where = where.get("weight_map") if isinstance(where, dict) else None
  if not isinstance(where, dict) or not where:
    _refuse(folder, f"{INDEX} maps no tensor to a file; get it again")
  where = {name: str(file) for name, file in where.items()}
  names = list(dict.fromkeys(where.values()))
  odd = [
    name
    for name in names
    if not (re.fullmatch(r"[^/]+\.safetensors", name) and name.isprintable())
  ]
  if odd:
    _refuse(
      folder,
      f"{INDEX} names {mistakes.some(odd)}; only safetensors are read that "
      "stand beside it",
    )
  if single and WEIGHTS not in names:
    _refuse(
      folder, f"holds both {WEIGHTS} and {INDEX} of others; delete the old one"
    )
  missing = [name for name in names if not (folder / name).exists()]
  if missing:
    there = mistakes.some(_there(folder)) or "none"
    _refuse(
      folder,
      f"{INDEX} names {mistakes.some(missing)}, not there; there is {there}, "
      "so get the others",
    )
  held = {name: safetensors.load_header(folder / name) for name in names}
  astray = [name for name, file in where.items() if name not in held[file]]
  if astray:
    _refuse(
      folder, f"{mistakes.some(astray)} not in the file that {INDEX} names"
    )
  tensors = {name: held[file][name] for name, file in where.items()}
  for header in held.values():
    tensors = header | tensors
  return tensors


def chosen(
  folder: epath.Path, config: config_keys.Config, tensors: Tensors
) -> Tensors:
  """The tensors of a model's parameters under the names that we look for.

  Args:
    folder: for errors.
    config: the architecture.
    tensors: of the folder.
  Raises: ValueError for tensors of another kind of model, or one that says
    something else than the one that is read.
  """
  for pattern, kind in STRANGERS.items():
    found = [name for name in tensors if re.match(pattern, name)]
    if found:
      _refuse(folder, f"holds {found[0]}: {kind}")
  tensors = {
    name: one for name, one in tensors.items() if not UNREAD.fullmatch(name)
  }
  if isinstance(config, t5.T5Config):
    return _one_of(folder, T5_EMBEDDING, tensors)
  tensors = _apart(_text_part(tensors), config)
  if config.tied and HEAD in tensors:
    embedding = tensor_names.tensor_names(config)["embedding",].template
    return _one_of(
      folder,
      (embedding, HEAD),
      tensors,
      "; if the head is meant, set tie_word_embeddings to false in config.json",
    )
  return tensors


def _text_part(tensors: Tensors) -> Tensors:
  """Of a model of text and images the text, as if it were alone."""
  for pattern, ours in TEXT_PARTS:
    if any(pattern.match(name) for name in tensors):
      return {
        pattern.sub(ours, name, count=1): one
        for name, one in tensors.items()
        if not EYES.match(name)
      }
  return tensors


def _apart(tensors: Tensors, config: decoder_config.DecoderConfig) -> Tensors:
  """Matrices that stand in one tensor of a file, as if each were alone."""
  keys = config.num_kv_heads * config.head_dim
  parts = {
    "self_attn.qkv_proj.": {
      "self_attn.q_proj.": config.num_heads * config.head_dim,
      "self_attn.k_proj.": keys,
      "self_attn.v_proj.": keys,
    },
    "mlp.gate_up_proj.": {
      "mlp.gate_proj.": config.mlp_dim,
      "mlp.up_proj.": config.mlp_dim,
    },
  }
  found = {}
  for name, tensor in tensors.items():
    fused = next((one for one in parts if one in name), None)
    if fused is None or tensor.shape[0] != sum(parts[fused].values()):
      found[name] = tensor
      continue
    start = tensor.start
    for alone, rows in parts[fused].items():
      shape = (rows, *tensor.shape[1:])
      found[name.replace(fused, alone)] = tensor._replace(
        start=start, shape=shape
      )
      start += math.prod(shape) * tensor.dtype.itemsize
  return found


def _one_of(folder, names, tensors: Tensors, advice: str = "") -> Tensors:
  """Puts one matrix of several names under the first of them."""
  there = [name for name in names if name in tensors]
  for name in there[1:]:
    if not safetensors.same(tensors[there[0]], tensors[name]):
      _refuse(folder, f"{name} is another matrix than {there[0]}{advice}")
  rest = {name: one for name, one in tensors.items() if name not in names}
  return rest | ({names[0]: tensors[there[0]]} if there else {})


def check_tensors(
  where: Any,
  names: Mapping[tensor_names.Path, tensor_names.Name],
  shapes: Any,
  tensors: Mapping[str, safetensors.Tensor],
) -> None:
  """Raises ValueError that tells all that does not fit the parameters."""
  expected = {}
  for path, name in names.items():
    shape = tensor_names.at(shapes, path).shape
    for one, _ in name.tensors(shape):
      layer = shape[1:] if name.stacked else shape
      expected[one] = name.shape_there(layer)
  common = [name for name in expected if name in tensors]
  if not common:
    _refuse(
      where,
      f"no tensor has a name of this family, such as {next(iter(expected))}; "
      f"there is {min(tensors, default='none')}",
    )
  faults = {
    "missing": sorted(set(expected) - set(tensors)),
    "unknown": sorted(set(tensors) - set(expected)),
    "of another shape": [
      f"{name} is {list(tensors[name].shape)}, not {list(expected[name])}"
      for name in common
      if tensors[name].shape != expected[name]
    ],
    "not of floating point": [
      f"{name} is {tensors[name].dtype}"
      for name in common
      if not jnp.issubdtype(tensors[name].dtype, jnp.floating)
    ],
  }
  wrong = {kind: found for kind, found in faults.items() if found}
  most = mistakes.MOST_NAMES if len(wrong) == 1 else 1
  told = [f"{kind}: {mistakes.some(wrong[kind], most)}" for kind in wrong]
  if told:
    _refuse(where, f"weights do not fit the architecture; {'; '.join(told)}")


def _there(folder: epath.Path) -> list[str]:
  return sorted(path.name for path in folder.glob("*-of-*.safetensors"))


def _refuse(folder: Any, sentence: str) -> NoReturn:
  raise mistakes.Mistake(f"{folder}: {sentence}")
