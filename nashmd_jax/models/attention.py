"""Softmax attention, and the one place where its kernel is chosen.

`attend` is for whole sequences, `attend_cached` for a few queries against a
decode cache. H query heads share G key heads, H a multiple of G.
"""

import jax
import jax.numpy as jnp

from nashmd_jax import mistakes

KERNELS = ("einsum", "xla", "cudnn", "splash")
LANES = 128
# Before the kernel's name in the names of compiled operations.
SCOPE = "attention="
# In order of speed; "auto" is what every platform can.
ORDER = {
  "auto": ("xla", "einsum"),
  "tpu": ("splash", "xla", "einsum"),
  "gpu": ("cudnn", "xla", "einsum"),
}


def on_devices(requested: str, *, platform: str, split: bool) -> str:
  """What a model asks for on given devices: "auto" becomes their order.

  The host does not matter: a program may be compiled for devices that it does
  not have. The compiler cannot split the splash kernel.

  Args:
    requested: see `choose_kernel`.
    platform: of the devices, such as "tpu".
    split: whether one program is split over several of them.
  Returns: for `choose_kernel`.
  Raises: Mistake for a kernel that cannot be split.
  """
  if split and requested in ("splash", "tpu"):
    raise mistakes.Mistake(
      f"model.attention: got {requested!r}, which one program on several "
      "devices cannot use; set it to 'auto'"
    )
  if requested != "auto" or (platform == "tpu" and split):
    return requested
  return platform if platform in ORDER else requested


def choose_kernel(
  requested: str,
  *,
  shape: tuple[int, ...],
  dtype: jnp.dtype,
  causal: bool,
  masked: bool,
  biased: bool,
  soft_cap: float | None,
) -> str:
  """The first kernel in order of speed that computes what is asked.

  `jax.nn.dot_product_attention` (xla, and cudnn on GPU) knows no soft cap;
  cudnn takes half precision, and no bias with a gradient, which T5's is; the
  TPU's splash kernel knows the soft cap, and as masks only the causal one.
  The einsum knows all.

  Args:
    requested: a key of `ORDER`, or one of `KERNELS` to be preferred where it
      can.
    shape: of the queries, (B, T, H, K).
    dtype: of the queries.
    causal, masked, biased, soft_cap: what is asked; see `attend`.
  Returns: one of `KERNELS`.
  """
  length, head_dim = shape[1], shape[3]
  whole_blocks = length % LANES == 0 and head_dim % LANES == 0
  can = {
    "splash": causal and whole_blocks and not (masked or biased),
    "cudnn": dtype.itemsize == 2
    and head_dim % 8 == 0
    and not biased
    and soft_cap is None,
    "xla": soft_cap is None,
    "einsum": True,
  }
  order = ORDER.get(requested, (requested, "xla", "einsum"))
  return next(kernel for kernel in order if can[kernel])


def attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  *,
  scale: float,
  causal: bool = False,
  mask: jax.Array | None = None,
  bias: jax.Array | None = None,
  soft_cap: float | None = None,
  kernel: str = "auto",
) -> jax.Array:
  """softmax(cap(scale · q kᵀ) + bias) v over the unmasked keys.

  Args:
    queries: [B, T, H, K]. Gradient flows through all float arguments.
    keys: [B, S, G, K].
    values: [B, S, G, K].
    scale: of the scores.
    causal: whether query t sees the keys up to t only (T = S).
    mask: bool, broadcasts to [B, H, T, S]; true where a key is seen.
    bias: float, broadcasts to [B, H, T, S].
    soft_cap: c; scores become c tanh(score / c).
    kernel: see `choose_kernel`.
  Returns: [B, T, H, K] in the dtype of the values.
  """
  chosen = choose_kernel(
    kernel,
    shape=queries.shape,
    dtype=queries.dtype,
    causal=causal,
    masked=mask is not None,
    biased=bias is not None,
    soft_cap=soft_cap,
  )
  with jax.named_scope(SCOPE + chosen):
    return _attend(
      chosen,
      *(queries, keys, values),
      scale=scale,
      causal=causal,
      mask=mask,
      bias=bias,
      soft_cap=soft_cap,
    )


def _attend(chosen, queries, keys, values, *, scale, causal, mask, bias,
            soft_cap):  # fmt: skip
  if chosen == "splash":
    return _splash(queries * scale, keys, values, soft_cap)
  if chosen in ("xla", "cudnn"):
    return jax.nn.dot_product_attention(
      queries,
      keys,
      values,
      bias=bias,
      mask=mask,
      scale=scale,
      is_causal=causal,
      implementation=chosen,
    )
  if causal:
    seen = jnp.tril(jnp.ones((queries.shape[1],) * 2, bool))[None, None]
    mask = seen if mask is None else mask & seen
  by_head = (jnp.swapaxes(x, 1, 2) for x in (keys, values))
  return attend_cached(
    queries, *by_head, scale=scale, mask=mask, bias=bias, soft_cap=soft_cap
  )


def attend_cached(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  *,
  scale: float,
  mask: jax.Array | None = None,
  bias: jax.Array | None = None,
  soft_cap: float | None = None,
) -> jax.Array:
  """As `attend`, for keys and values in the layout of a cache, [B, G, S, K]."""
  rows, length, heads, head_dim = queries.shape
  groups = keys.shape[1]
  grouped = queries.reshape(rows, length, groups, heads // groups, head_dim)
  wide = jnp.promote_types(queries.dtype, jnp.float32)
  scores = jnp.einsum(
    "btghk,bgsk->bghts", grouped, keys, preferred_element_type=wide
  )
  scores = (scores * scale).reshape(rows, heads, length, -1)
  if soft_cap is not None:
    scores = soft_cap * jnp.tanh(scores / soft_cap)
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(wide).min / 2)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  weights = weights.reshape(rows, groups, heads // groups, length, -1)
  # The permuted output straight out of the einsum is not implemented for
  # bfloat16 on CPU.
  mixed = jnp.einsum("bghts,bgsk->bghtk", weights, values)
  mixed = mixed.reshape(rows, heads, length, head_dim)
  return jnp.swapaxes(mixed, 1, 2)


def _splash(queries, keys, values, soft_cap, interpret=False):
  """The TPU kernel; it takes scaled queries and heads before positions."""
  length, heads = queries.shape[1:3]
  kernel = _splash_kernel(length, heads, soft_cap, interpret)
  by_head = (jnp.swapaxes(x, 1, 2) for x in (queries, keys, values))
  return jnp.swapaxes(jax.vmap(kernel)(*by_head), 1, 2)


def _splash_kernel(length, heads, soft_cap, interpret):
  """Made anew for each trace, whose constants its masks become."""
  # Imported here because it takes a second that other machines need not pay.
  from jax.experimental.pallas.ops.tpu import splash_attention

  causal = splash_attention.CausalMask((length, length))
  return splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([causal] * heads),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=soft_cap,
    interpret=interpret,
  )
