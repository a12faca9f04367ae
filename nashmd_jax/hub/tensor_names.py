"""The tensors of a Hugging Face checkpoint for each of our parameters."""

from collections.abc import Callable, Iterator, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax.hub import config_keys
from nashmd_jax.models import t5
from nashmd_jax.training import distributed

Path = tuple[str, ...]


class Name(NamedTuple):
  """A tensor's name there, and how it lies.

  Attributes:
    template: the name, with {} for the number of the layer if there is one
      tensor for each.
    inputs: number of input axes of our matrix, which there is the flattened
      transpose; 0 for a bias, which there is flat; None for what lies as ours
      does.
  """

  template: str
  inputs: int | None = None

  @property
  def stacked(self) -> bool:
    return "{}" in self.template

  def tensors(self, ours: tuple[int, ...]) -> Iterator[tuple[str, int | None]]:
    """The tensors of a parameter, each with the number of its layer."""
    if not self.stacked:
      yield self.template, None
      return
    for number in range(ours[0]):
      yield self.template.format(number), number

  def shape_there(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Of one tensor, from the shape of one layer of ours."""
    if self.inputs is None:
      return ours
    ins, outs = ours[: self.inputs], ours[self.inputs :]
    return (math.prod(outs), math.prod(ins)) if ins else (math.prod(outs),)

  def from_there(self, tensor: np.ndarray, ours: tuple[int, ...]):
    """One layer of ours, without a copy."""
    return tensor.T.reshape(ours) if self.inputs else tensor.reshape(ours)

  def to_there(self, ours: np.ndarray) -> np.ndarray:
    """One tensor, from one layer of ours."""
    if self.inputs:
      return ours.reshape(math.prod(ours.shape[: self.inputs]), -1).T
    return ours.reshape(self.shape_there(ours.shape))


_DECODER_LAYER = {
  ("attention", "query"): Name("self_attn.q_proj.weight", 1),
  ("attention", "key"): Name("self_attn.k_proj.weight", 1),
  ("attention", "value"): Name("self_attn.v_proj.weight", 1),
  ("attention", "out"): Name("self_attn.o_proj.weight", 2),
  ("mlp", "gate"): Name("mlp.gate_proj.weight", 1),
  ("mlp", "up"): Name("mlp.up_proj.weight", 1),
  ("mlp", "down"): Name("mlp.down_proj.weight", 1),
}
_BIASES = {
  ("attention", "query_bias"): Name("self_attn.q_proj.bias", 0),
  ("attention", "key_bias"): Name("self_attn.k_proj.bias", 0),
  ("attention", "value_bias"): Name("self_attn.v_proj.bias", 0),
}
_HEAD_NORMS = {
  ("query_norm", "scale"): Name("self_attn.q_norm.weight"),
  ("key_norm", "scale"): Name("self_attn.k_norm.weight"),
}
_PRE_NORMS = {
  ("attention_norm", "scale"): Name("input_layernorm.weight"),
  ("mlp_norm", "scale"): Name("post_attention_layernorm.weight"),
}
_POST_NORMS = {
  ("post_attention_norm", "scale"): Name("post_attention_layernorm.weight"),
  ("post_mlp_norm", "scale"): Name("post_feedforward_layernorm.weight"),
}
_BETWEEN = {("mlp_norm", "scale"): Name("pre_feedforward_layernorm.weight")}
_T5_MLP = {
  ("mlp_norm", "scale"): Name("layer_norm.weight"),
  ("mlp", "gate"): Name("DenseReluDense.wi_0.weight", 1),
  ("mlp", "up"): Name("DenseReluDense.wi_1.weight", 1),
  ("mlp", "down"): Name("DenseReluDense.wo.weight", 1),
}


def _t5_attention(ours: str, theirs: str) -> dict[Path, Name]:
  letters = {"query": ("q", 1), "key": ("k", 1), "value": ("v", 1)}
  letters["out"] = ("o", 2)
  return {(f"{ours}_norm", "scale"): Name("layer_norm.weight")} | {
    (ours, leaf): Name(f"{theirs}.{letter}.weight", inputs)
    for leaf, (letter, inputs) in letters.items()
  }


def _below(path: Path, prefix: str, names: dict[Path, Name]):
  return {
    (*path, *leaf): name._replace(template=prefix + name.template)
    for leaf, name in names.items()
  }


def _t5_names() -> dict[Path, Name]:
  found = {
    ("embedding",): Name("shared.weight"),
    ("head",): Name("lm_head.weight", 1),
  }
  own, cross = (
    _t5_attention("attention", "SelfAttention"),
    _t5_attention("cross", "EncDecAttention"),
  )
  parts = {"encoder": [own, _T5_MLP], "decoder": [own, cross, _T5_MLP]}
  for stack, sublayers in parts.items():
    for i, names in enumerate(sublayers):
      found |= _below((stack,), f"{stack}.block.{{}}.layer.{i}.", names)
    found[f"{stack}_norm", "scale"] = Name(f"{stack}.final_layer_norm.weight")
    found[f"{stack}_bias", "table"] = Name(
      f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    )
  return found


def tensor_names(config: config_keys.Config) -> dict[Path, Name]:
  """The name of every parameter of an architecture, by its path."""
  if isinstance(config, t5.T5Config):
    return _t5_names()
  layer = dict(_DECODER_LAYER)
  layer |= _PRE_NORMS if config.pre_norms else {}
  layer |= _POST_NORMS if config.post_norms else {}
  layer |= _BETWEEN if config.pre_norms and config.post_norms else {}
  layer |= _BIASES if config.qkv_bias else {}
  layer |= _HEAD_NORMS if config.query_key_norm else {}
  found = {
    ("embedding",): Name("model.embed_tokens.weight"),
    ("final_norm", "scale"): Name("model.norm.weight"),
  }
  if not config.tied:
    found["head",] = Name("lm_head.weight", 1)
  return found | _below(("layers",), "model.layers.{}.", layer)


def spread(
  names: Mapping[Path, Name], leaves: Mapping[Path, Any]
) -> tuple[dict[str, tuple], Callable[[str], np.ndarray]]:
  """What a checkpoint of these parameters holds.

  Returns: (shape, dtype) of each tensor by name, and name -> its array.
  """
  where, shapes = {}, {}
  for path, name in names.items():
    leaf = leaves[path]
    layer = leaf.shape[1:] if name.stacked else leaf.shape
    for one, number in name.tensors(leaf.shape):
      where[one] = path, number
      shapes[one] = name.shape_there(layer), leaf.dtype

  def tensor(one):
    path, number = where[one]
    leaf = leaves[path] if number is None else leaves[path][number]
    return names[path].to_there(distributed.to_host(leaf))

  return shapes, tensor


def at(tree: Any, path: Path) -> Any:
  """What stands at a path of nested dicts."""
  for key in path:
    tree = tree[key]
  return tree
