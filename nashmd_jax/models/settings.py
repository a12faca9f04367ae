"""What a config may say of a model: its family and sizes, how it is computed.

A model in a folder needs none of them: what is said of it has to be so.
"""

from nashmd_jax import declare
from nashmd_jax.models import attention, families, layers

_HEADS = {"least": 1, "unit": "heads"}
_LAYERS = {"least": 1, "unit": "layers"}
# Of both kinds of architecture.
COMMON = {
  "width": declare.whole(
    "D, the width of what a layer hands to the next.", least=1
  ),
  "num_heads": declare.whole("H, the heads of queries.", **_HEADS),
  "head_dim": declare.whole(
    "K, the width of a head; even in a decoder.", least=1
  ),
  "mlp_dim": declare.whole("F, the width inside an mlp.", least=1),
  "norm_epsilon": declare.number(
    "What is added under the root of every norm.", above=0, most=1
  ),
  "dtype": declare.text("The dtype of activations.", one_of=layers.DTYPES),
  "param_dtype": declare.text(
    "The dtype of the parameters that a random start makes.",
    one_of=layers.DTYPES,
  ),
  "remat": declare.text(
    "What the backward pass computes again for less memory: nothing, every "
    "layer, or all but the products with parameters.",
    one_of=tuple(layers.REMAT),
  ),
  "attention": declare.text(
    "The kernel to prefer, or auto for what every platform can.",
    one_of=(*attention.ORDER, *attention.KERNELS),
  ),
  "loop": declare.text(
    "The loop over layers as it is compiled: each layer once, all written out, "
    "or what suits the devices.",
    one_of=layers.LOOPS,
  ),
}
T5 = {
  "encoder_layers": declare.whole("Layers of the encoder of a T5.", **_LAYERS),
  "decoder_layers": declare.whole("Layers of the decoder of a T5.", **_LAYERS),
  "num_buckets": declare.whole(
    "Buckets of relative positions of a T5.", least=4
  ),
  "max_distance": declare.whole(
    "Distance beyond which all positions of a T5 share a bucket.",
    least=1,
    most=2**20,
    unit="tokens",
  ),
}
DECODER = {
  "num_layers": declare.whole("N, the layers of a decoder.", **_LAYERS),
  "num_kv_heads": declare.whole(
    "Heads of keys and values of a decoder; a divisor of num_heads.", **_HEADS
  ),
  "rope_base": declare.number(
    "Base of the rotary wavelengths.", above=0, most=1e12
  ),
  "rope_factor": declare.number(
    "What the rotation is slowed down by.", least=1, most=1e6
  ),
  "rope_bands": declare.several(
    declare.number(
      "How Llama 3.1 slows it: low and high factor, tokens of the original "
      "length.",
      above=0,
    ),
    least=3,
    most=3,
    repeats=True,
    optional=True,
  ),
  "rope_yarn": declare.several(
    declare.number(
      "How YaRN slows it: fast and slow turns, tokens of the original length, "
      "stretch.",
      above=0,
    ),
    least=4,
    most=4,
    repeats=True,
    optional=True,
  ),
  "rotary_layers": declare.several(
    declare.flag("Which layers rotate, repeated over the depth."),
    least=1,
    repeats=True,
  ),
  "local_rope_base": declare.number(
    "Base of the wavelengths of local layers; None for rope_base.",
    most=1e12,
    above=0,
    optional=True,
  ),
  "window": declare.whole(
    "Tokens that a local layer sees, itself included.",
    least=1,
    optional=True,
    unit="tokens",
  ),
  "local_layers": declare.several(
    declare.flag("Which layers are local, repeated over the depth."),
    least=1,
    repeats=True,
  ),
  "activation": declare.text(
    "The activation of the gate of an mlp.", one_of=tuple(layers.ACTIVATIONS)
  ),
  "norm_offset": declare.number(
    "What is added to the scale of every norm.", least=0, most=1
  ),
  "pre_norms": declare.flag("Whether attention and mlp are normed before."),
  "post_norms": declare.flag("Whether they are normed behind."),
  "query_key_norm": declare.text(
    "What of queries and keys is normed: each head, or all of them together.",
    one_of=("head", "width"),
    optional=True,
  ),
  "qkv_bias": declare.flag("Whether queries, keys and values have biases."),
  "query_scale": declare.number(
    "Factor of attention scores; None for 1 / √K.",
    above=0,
    most=1e6,
    optional=True,
  ),
  "attention_soft_cap": declare.number(
    "A cap c on attention scores, c tanh(score / c); None for none.",
    above=0,
    optional=True,
  ),
  "logit_soft_cap": declare.number(
    "The same for logits.", above=0, optional=True
  ),
  "scaled_embedding": declare.flag("Whether embeddings are multiplied by √D."),
  "tied": declare.flag("Whether the head is the embedding."),
}
SIZES = {
  name: one._replace(absent=True)
  for name, one in (COMMON | T5 | DECODER).items()
}
FAMILY = declare.text("The architecture.", one_of=families.FAMILIES)
SETTINGS = {"family": FAMILY._replace(absent=True), **SIZES}
