"""What `make bench` measures: the sizes of models and of work.

Read by every side, so it needs the standard library alone.
"""

import pathlib
import random
from typing import NamedTuple

MODELS = pathlib.Path("out") / "bench" / "models"
NEW_TOKENS = 64
TEMPERATURE = 1.0
# Tunix computes with no other, whatever its config says.
ROPE_BASE = 1_000_000.0
# Of the step.
MIXTURE, KL_COEF = 0.125, 0.05
LEARNING_RATE, WEIGHT_DECAY, BETAS, MAX_NORM = 1e-6, 0.1, (0.9, 0.98), 1.0
# P(y ≻ y′) = σ((mean id of y − mean id of y′) / SPREAD), the same to all.
SPREAD = 500.0


def decoder(vocab_size: int, width: int, layers: int) -> dict:
  """Sizes of a Llama whose head is its embedding."""
  return {
    "family": "llama",
    "vocab_size": vocab_size,
    "width": width,
    "num_layers": layers,
    "num_heads": width // 64,
    "num_kv_heads": width // 64,
    "head_dim": 64,
    "mlp_dim": 3 * width,
    "rope_base": ROPE_BASE,
    "tied": True,
  }


def encoder_decoder(
  vocab_size: int, width: int, layers: int, mlp_dim: int
) -> dict:
  """Sizes of a T5 v1.1, as many layers on either side."""
  return {
    "family": "t5",
    "vocab_size": vocab_size,
    "width": width,
    "encoder_layers": layers,
    "decoder_layers": layers,
    "num_heads": width // 64,
    "head_dim": 64,
    "mlp_dim": mlp_dim,
    "num_buckets": 32,
    "max_distance": 128,
  }


SIZES = {
  "5M": decoder(8192, 256, 4),
  "30M": decoder(16_384, 512, 6),
  "T5 5M": encoder_decoder(8192, 192, 2, 384),
  "T5 30M": encoder_decoder(16_384, 384, 4, 1024),
}
DECODERS = ("5M", "30M")
SETS = ("policy", "reference")


class Work(NamedTuple):
  """One shape of work: B prompts of P tokens, answered in `NEW_TOKENS`."""

  size: str
  prompt: int
  batch: int

  def __str__(self) -> str:
    return f"{self.size}, P {self.prompt}, B {self.batch}"


def folder(size: str, name: str) -> pathlib.Path:
  """Where the weights of a set of parameters are."""
  return MODELS / size / name


def prompts(work: Work, vocab_size: int) -> list[list[int]]:
  """Token ids, none of them special."""
  draw = random.Random(f"{work.prompt} {work.batch} {vocab_size}")
  return [
    [draw.randrange(8, vocab_size) for _ in range(work.prompt)]
    for _ in range(work.batch)
  ]


def matrices(sizes: dict) -> list[tuple[int, int]]:
  """(inputs, outputs) of what a token of a decoder goes through."""
  width, heads = sizes["width"], sizes["num_heads"] * sizes["head_dim"]
  groups = sizes["num_kv_heads"] * sizes["head_dim"]
  layer = [
    (width, heads),
    (width, groups),
    (width, groups),
    (heads, width),
    (width, sizes["mlp_dim"]),
    (width, sizes["mlp_dim"]),
    (sizes["mlp_dim"], width),
  ]
  return layer * sizes["num_layers"] + [(width, sizes["vocab_size"])]
