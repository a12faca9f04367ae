"""The architectures of decoders: families as data, layers as they differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nashmd_jax.models import layers, positions

NO_WINDOW = np.iinfo(np.int32).max


class DecoderConfig(NamedTuple):
  """An architecture. The defaults are those of Llama without scaling.

  Attributes:
    vocab_size: V.
    width: D.
    num_layers: N.
    num_heads: H, of queries.
    num_kv_heads: G, of keys and values; divides H.
    head_dim: K.
    mlp_dim: F.
    rope_base: of the rotary wavelengths.
    rope_factor: slows the rotation down; see `positions`.
    rope_bands: None, or (low, high, original length) of Llama 3.1.
    rope_yarn: None, or the rest of YaRN's settings; see `positions.Yarn`.
    rotary_layers: which layers rotate at all; repeated over the depth.
    local_rope_base: of local layers, which are not slowed; None: as global.
    window: tokens that a local layer sees, itself included.
    local_layers: which layers are local; repeated over the depth.
    activation: of the mlp's gate: "silu" or "gelu".
    norm_epsilon: under the root of every norm.
    norm_offset: 1 where checkpoints hold the difference of a scale from 1.
    pre_norms, post_norms: whether attention and mlp are normed before, and
      whether behind.
    query_key_norm: None, or what of queries and keys is normed: each "head",
      or all heads together, the "width".
    qkv_bias: whether queries, keys and values have biases.
    query_scale: of the scores; None: 1 / √K.
    attention_soft_cap: c of c tanh(score / c), or None.
    logit_soft_cap: the same for logits.
    scaled_embedding: whether embeddings are multiplied by √D.
    tied: whether the head is the embedding.
    dtype, param_dtype, remat, attention, loop: see `layers.Numerics`.
  """

  vocab_size: int
  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_base: float
  rope_factor: float = 1.0
  rope_bands: tuple[float, float, int] | None = None
  rope_yarn: positions.Yarn | None = None
  rotary_layers: tuple[bool, ...] = (True,)
  local_rope_base: float | None = None
  window: int | None = None
  local_layers: tuple[bool, ...] = (False,)
  activation: str = "silu"
  norm_epsilon: float = 1e-6
  norm_offset: float = 0.0
  pre_norms: bool = True
  post_norms: bool = False
  query_key_norm: str | None = None
  qkv_bias: bool = False
  query_scale: float | None = None
  attention_soft_cap: float | None = None
  logit_soft_cap: float | None = None
  scaled_embedding: bool = False
  tied: bool = False
  dtype: str = "float32"
  param_dtype: str = "float32"
  remat: str = "none"
  attention: str = "auto"
  loop: str = "auto"

  @property
  def numerics(self) -> layers.Numerics:
    return layers.Numerics(
      *(getattr(self, name) for name in layers.Numerics._fields)
    )


_GEMMA = {
  "activation": "gelu",
  "norm_offset": 1.0,
  "post_norms": True,
  "scaled_embedding": True,
  "tied": True,
}
_OLMO = {
  "pre_norms": False,
  "post_norms": True,
  "query_key_norm": "width",
}
FAMILIES = {
  "llama": {"norm_epsilon": 1e-5},
  "mistral": {"norm_epsilon": 1e-5},
  "smollm3": {"rotary_layers": (True, True, True, False), "tied": True},
  "olmo2": _OLMO,
  "olmo3": _OLMO | {"local_layers": (True, True, True, False)},
  "qwen2": {"qkv_bias": True},
  "qwen3": {"query_key_norm": "head"},
  "gemma2": _GEMMA
  | {
    "attention_soft_cap": 50.0,
    "logit_soft_cap": 30.0,
    "local_layers": (True, False),
  },
  "gemma3_text": _GEMMA
  | {
    "query_key_norm": "head",
    "local_rope_base": 10_000.0,
    "local_layers": (True,) * 5 + (False,),
  },
}


class LayerData(NamedTuple):
  """What differs from layer to layer, [N, …], and is not trained.

  Attributes:
    index: int32[N].
    window: int32[N], tokens seen; None if no layer is local.
    frequencies: f32[N, K/2], radians a token; 0 where nothing is rotated.
    stretch: f32[N], what rotated queries and keys are multiplied by; None if
      no layer's are.
  """

  index: np.ndarray
  window: np.ndarray | None
  frequencies: np.ndarray
  stretch: np.ndarray | None


def by_layer(pattern: Sequence[bool], config: DecoderConfig) -> np.ndarray:
  """A pattern repeated over the depth, bool[N]."""
  return np.resize(np.array(pattern, bool), config.num_layers)


def layer_data(config: DecoderConfig) -> LayerData:
  """Windows and rotary frequencies of every layer."""
  local = by_layer(config.local_layers, config)
  yarn = config.rope_yarn and positions.Yarn(*config.rope_yarn)
  far = positions.rotary_frequencies(
    config.head_dim,
    base=config.rope_base,
    factor=config.rope_factor,
    bands=config.rope_bands,
    yarn=yarn,
  )
  near = far
  if config.local_rope_base is not None:
    near = positions.rotary_frequencies(
      config.head_dim, base=config.local_rope_base, factor=1.0
    )
  window = None
  if local.any():
    window = np.where(local, config.window, NO_WINDOW).astype(np.int32)
  rotary = by_layer(config.rotary_layers, config)
  stretch = None
  if yarn is not None:
    apart = local & (config.local_rope_base is not None)
    stretched = rotary & ~apart
    stretch = np.where(stretched, yarn.stretch, 1.0).astype(np.float32)
  return LayerData(
    index=np.arange(config.num_layers, dtype=np.int32),
    window=window,
    frequencies=np.where(local[:, None], near, far) * rotary[:, None],
    stretch=stretch,
  )


def check_config(config: DecoderConfig) -> None:
  """Raises ValueError for an architecture that cannot be."""
  layers.check_numerics(config.numerics)
  if config.num_kv_heads < 1 or config.num_heads % config.num_kv_heads:
    raise ValueError(
      f"model.num_kv_heads: got {config.num_kv_heads}, expected a divisor of "
      f"num_heads ({config.num_heads})"
    )
  if config.head_dim % 2:
    raise ValueError(
      f"model.head_dim: got {config.head_dim}, expected an even number"
    )
  if config.query_key_norm not in (None, "head", "width"):
    raise ValueError(
      f"model.query_key_norm: got {config.query_key_norm!r}, expected None, "
      "'head' or 'width'"
    )
  if any(config.local_layers) and not config.window:
    raise ValueError(
      "model.window: got none, expected the tokens that local layers see"
    )
