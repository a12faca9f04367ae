"""Softmax attention, and the one place where its kernel is chosen.

`attend` is for whole sequences, `attend_cached` for a few queries against a
decode cache. H query heads share G key heads, H a multiple of G.
"""

import functools
import sys

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

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


def on_devices(requested: str, *, platform: str) -> str:
  """What a model asks for on given devices: "auto" becomes their order.

  The host does not matter: a program may be compiled for devices that it does
  not have.

  Args:
    requested: see `choose_kernel`.
    platform: of the devices, such as "tpu".
  Returns: for `choose_kernel`.
  """
  return platform if requested == "auto" and platform in ORDER else requested


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
  TPU's splash kernel knows the soft cap, and as masks only the causal one and
  windows; what is short it would fill up to a block. The einsum knows all.

  What was asked for by name, or by the platform, and cannot be is told once.

  Args:
    requested: a key of `ORDER`, or one of `KERNELS` to be preferred where it
      can.
    shape: of the queries, (B, T, H, K).
    dtype: of the queries.
    causal, masked, biased, soft_cap: what is asked; see `attend`.
  Returns: one of `KERNELS`.
  """
  length, head_dim = shape[1], shape[3]
  obstacles = {
    "splash": {
      "a bias": biased,
      "a mask": masked,
      "positions behind the query": not causal,
      f"fewer than {LANES} positions": length < LANES,
    },
    "cudnn": {
      "a bias": biased,
      "a soft cap": soft_cap is not None,
      "no half precision": dtype.itemsize != 2,
      "heads that 8 does not divide": head_dim % 8 != 0,
    },
    "xla": {"a soft cap": soft_cap is not None},
    "einsum": {},
  }
  found = {
    kernel: [told for told, there in kinds.items() if there]
    for kernel, kinds in obstacles.items()
  }
  order = ORDER.get(requested, (requested, "xla", "einsum"))
  chosen = next(kernel for kernel in order if not found[kernel])
  if requested != "auto" and chosen != order[0]:
    _tell(order[0], chosen, ", ".join(found[order[0]]))
  return chosen


@functools.cache
def _tell(wanted: str, chosen: str, reason: str) -> None:
  """Says once why a kernel is not used."""
  print(
    f"attention: {chosen} in place of {wanted}, which does not take {reason}",
    file=sys.stderr,
    flush=True,
  )


def attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  *,
  scale: float,
  causal: bool = False,
  window: int | None = None,
  local: jax.Array | bool = True,
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
    window: keys that a query sees at most, up to itself; None for all.
    local: bool scalar, whether the window is there at all.
    mask: bool, broadcasts to [B, H, T, S]; true where a key is seen.
    bias: float, broadcasts to [B, H, T, S].
    soft_cap: c; scores become c tanh(score / c).
    kernel: see `choose_kernel`.
  Returns: [B, T, H, K] in the dtype of the values.
  """
  if window is not None and window >= queries.shape[1]:
    window = None
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
      window=window,
      local=local,
      mask=mask,
      bias=bias,
      soft_cap=soft_cap,
    )


def _attend(chosen, queries, keys, values, *, scale, causal, window, local,
            mask, bias, soft_cap):  # fmt: skip
  if chosen == "splash":
    return _splash(
      queries * scale,
      keys,
      values,
      window=window,
      local=local,
      soft_cap=soft_cap,
    )
  if window is not None:
    where = jnp.arange(queries.shape[1])[None]
    near = where.T - where < window
    near = (near | ~jnp.asarray(local))[None, None]
    mask = near if mask is None else mask & near
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
  weights = _weights(scores, mask, bias, soft_cap).astype(values.dtype)
  weights = weights.reshape(rows, groups, heads // groups, length, -1)
  # The permuted output straight out of the einsum is not implemented for
  # bfloat16 on CPU.
  mixed = jnp.einsum("bghts,bgsk->bghtk", weights, values)
  mixed = mixed.reshape(rows, heads, length, head_dim)
  return jnp.swapaxes(mixed, 1, 2)


def _weights(scores, mask, bias, soft_cap):
  """Scaled scores [..., S] -> what each of the seen keys counts, in sum 1."""
  if soft_cap is not None:
    scores = soft_cap * jnp.tanh(scores / soft_cap)
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min / 2)
  return jax.nn.softmax(scores, axis=-1)


def attend_after(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  *,
  prompt: tuple[jax.Array, jax.Array],
  scale: float,
  mask: jax.Array,
  soft_cap: float | None = None,
) -> jax.Array:
  """As `attend`, for K rows behind each of B prompts, which they share.

  Args:
    queries: [B·K, T, H, K].
    keys, values: of the same positions, [B·K, T, G, K].
    prompt: keys and values of the prompts, [B, G, P, K].
    mask: bool[B·K, T, P + T], true where a key is seen, those of the prompt
      first.
    scale, soft_cap: see `attend`.
  Returns: [B·K, T, H, K].
  """
  rows, length, heads, head_dim = queries.shape
  prompts, groups, before, _ = prompt[0].shape
  shared = heads // groups
  wide = jnp.promote_types(queries.dtype, jnp.float32)
  dot = functools.partial(jnp.einsum, preferred_element_type=wide)
  asked = jnp.swapaxes(
    queries.reshape(rows, length, groups, shared, head_dim), 1, 2
  ).reshape(rows, groups, -1, head_dim)
  own_keys, own_values = (jnp.swapaxes(x, 1, 2) for x in (keys, values))

  def to_prompt(x):
    """The rows of a prompt as so many queries, [B, G, K·T·H / G, …]."""
    x = x.reshape(prompts, -1, groups, *x.shape[2:])
    return jnp.swapaxes(x, 1, 2).reshape(prompts, groups, -1, x.shape[-1])

  def from_prompt(x):
    each = rows // prompts
    x = x.reshape(prompts, groups, each, -1, x.shape[-1])
    return jnp.swapaxes(x, 1, 2).reshape(rows, groups, -1, x.shape[-1])

  scores = jnp.concatenate(
    [
      from_prompt(dot("bgqk,bgsk->bgqs", to_prompt(asked), prompt[0])),
      dot("bgqk,bgsk->bgqs", asked, own_keys),
    ],
    axis=-1,
  )
  seen = jnp.repeat(mask, shared, axis=1)[:, None]
  weights = _weights(scores * scale, seen, None, soft_cap).astype(values.dtype)
  of_prompt, of_own = weights[..., :before], weights[..., before:]
  mixed = from_prompt(
    jnp.einsum("bgqs,bgsk->bgqk", to_prompt(of_prompt), prompt[1])
  ) + jnp.einsum("bgqs,bgsk->bgqk", of_own, own_values)
  mixed = mixed.reshape(rows, groups, length, shared, head_dim)
  return jnp.swapaxes(mixed, 1, 2).reshape(rows, length, heads, head_dim)


def _splash(queries, keys, values, *, window, local, soft_cap, interpret=False):
  """The TPU kernel; it takes scaled queries and heads before positions.

  Heads and positions are filled up to whole blocks: with zeros, which add
  nothing to a score, and behind the last position, where no query looks.
  """
  length, head_dim = queries.shape[1], queries.shape[3]
  fill = (0, -length % LANES), (0, 0), (0, -head_dim % LANES)
  by_head = [
    jnp.swapaxes(jnp.pad(x, ((0, 0), *fill)), 1, 2)
    for x in (queries, keys, values)
  ]

  def run(window):
    def mix(queries, keys, values):
      heads, size = queries.shape[1:3]
      kernel = _splash_kernel(size, heads, window, soft_cap, interpret)
      return jax.vmap(kernel)(queries, keys, values)

    return mix

  def choose(local, *by_head):
    return lax.cond(local, run(window), run(None), *by_head)

  if window is None or local is True:
    mixed = _split(run(window), *by_head)
  else:
    mixed = _split(choose, local, *by_head)
  return jnp.swapaxes(mixed, 1, 2)[:, :length, :, :head_dim]


def _split(function, *args):
  """function(*args), by each device of the context's mesh for its own part.

  The compiler cannot split a kernel of ours: the mesh has an axis that rows,
  and one that heads are split along, where it divides them. Of no mesh, and
  where a program is one device's already, it is the function.

  Args:
    function: of scalars and arrays [B, H or G, ...], giving one such array.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
    return function(*args)
  arrays = [x for x in args if jnp.ndim(x)]
  place = P(*(
    name if all(x.shape[i] % mesh.shape[name] == 0 for x in arrays) else None
    for i, name in enumerate(mesh.axis_names)
  ))  # fmt: skip
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=tuple(place if jnp.ndim(x) else P() for x in args),
    out_specs=place,
    check_vma=False,
  )(*args)


def _splash_kernel(length, heads, window, soft_cap, interpret):
  """Made anew for each trace, whose constants its masks become."""
  # Imported here because it takes a second that other machines need not pay.
  from jax.experimental.pallas.ops.tpu import splash_attention

  shape = (length, length)
  seen = splash_attention.CausalMask(shape)
  if window is not None:
    seen = splash_attention.LocalMask(shape, (window - 1, 0), 0)
  return splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([seen] * heads),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=soft_cap,
    interpret=interpret,
  )
