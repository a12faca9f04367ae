"""What responses repeat of themselves, told of a run as it goes on."""

import jax
import jax.numpy as jnp

from nashmd_jax import arrays

NGRAM = 4


def repeated(tokens: jax.Array, mask: jax.Array) -> jax.Array:
  """The share of a response's n-grams of `NGRAM` tokens that it held already.

  Two that differ count as the same once in 2³¹ pairs.

  Args:
    tokens: int[N, R].
    mask: bool[N, R], true on the tokens of each row that count.
  Returns: f32[N], 0 for a response that has none.
  """
  arrays.check_shapes(tokens=(tokens, "N R"), mask=(mask, "N R"))
  count = tokens.shape[1] - NGRAM + 1
  if count < 2:
    return jnp.zeros(len(tokens), jnp.float32)
  code = jnp.zeros((len(tokens), count), jnp.uint32)
  real = mask[:, :count]
  for place in range(NGRAM):
    real = real & mask[:, place : place + count]
    token = tokens[:, place : place + count].astype(jnp.uint32) + 1
    code = (code ^ token) * jnp.uint32(0x9E3779B1)
    code ^= code >> 15
  none = jnp.uint32(2**32 - 1)
  code = jnp.sort(jnp.where(real, code >> 1, none), axis=1)
  again = (code[:, 1:] == code[:, :-1]) & (code[:, 1:] != none)
  shares = jnp.sum(again, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
  return shares.astype(jnp.float32)
