"""The decode loop over lanes: one loop writes every response of a prompt.

A lane is a weighted sum of log-probs over named parameter sets, normalised at
each prefix: {"policy": 1.0}, {"policy": 1 − β, "reference": β}. Every set is
run once a token over just the rows that use it.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import operator
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.models import language_model

# Prompts of the narrowest loop. Below, a step costs what its parameters cost.
FEWEST = 8
NGRAM = 4

Lane = Mapping[str, float | jax.Array]
Choose = Callable[[jax.Array, jax.Array], jax.Array]


class Rollout(NamedTuple):
  """Responses of B prompts in L lanes.

  Attributes:
    tokens: int32[B, L, R], zero behind EOS.
    mask: bool[B, L, R], true up to and including EOS.
    log_prob: f32[B, L, R], nats, under the row's own lane at the sampling
      temperature; zero where masked.
  """

  tokens: jax.Array
  mask: jax.Array
  log_prob: jax.Array


class Decoding(NamedTuple):
  """A rollout under way: the carry of the decode loop.

  Attributes:
    step: int32 scalar, tokens written so far.
    fed: int32[B, L], what every row is fed next.
    alive: bool[B, L], true until EOS is written.
    caches: one for each parameter set that a lane uses, by name.
    written: see `Rollout`.
  """

  step: jax.Array
  fed: jax.Array
  alive: jax.Array
  caches: Mapping[str, Any]
  written: Rollout


def sample(rng: jax.Array, log_probs: jax.Array) -> jax.Array:
  """One draw by inverting the CDF, first over blocks, then inside one.

  Args:
    rng: a key.
    log_probs: f32[V], normalised.
  Returns: int32 scalar, a token of positive probability.
  """
  size = log_probs.shape[0]
  block = 128
  probs = jnp.exp(jnp.pad(log_probs, (0, -size % block), constant_values=-1e30))
  probs = probs.reshape(-1, block)
  u = jax.random.uniform(rng, dtype=probs.dtype) * jnp.sum(probs)
  which, u = _invert(jnp.sum(probs, axis=1), u)
  within, _ = _invert(probs[which], u)
  return (which * block + within).astype(jnp.int32)


def _invert(mass: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
  """First index whose cumulative mass exceeds u, and what is left of u."""
  cdf = jnp.cumsum(mass)
  last = jnp.max(jnp.where(mass > 0, jnp.arange(mass.shape[0]), 0))
  index = jnp.minimum(jnp.sum(cdf <= u), last)
  return index, jnp.maximum(u - (cdf[index] - mass[index]), 0)


def greedy(rng: jax.Array, log_probs: jax.Array) -> jax.Array:
  """The most probable token; takes a key only to stand in for `sample`."""
  del rng
  return jnp.argmax(log_probs).astype(jnp.int32)


def row_keys(rng: jax.Array, example_ids: jax.Array, lanes: int) -> jax.Array:
  """Keys [B, L] that depend on the example and the lane, not on the batch.

  Args:
    rng: a key.
    example_ids: int[B], the global index of each example.
    lanes: L.
  """

  def key(example_id, lane):
    return jax.random.fold_in(jax.random.fold_in(rng, example_id), lane)

  by_lane = jax.vmap(key, in_axes=(None, 0))
  return jax.vmap(by_lane, in_axes=(0, None))(example_ids, jnp.arange(lanes))


def rollout(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lanes: Sequence[Lane],
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  keys: jax.Array,
  max_response: int,
  temperature: float,
  eos_ids: Sequence[int],
  choose: Choose = sample,
) -> Rollout:
  """Samples one response for every prompt and lane.

  At each prefix lane l draws from softmax((Σ_s w_s log π_s) / temperature),
  every π_s conditioned on that lane's own prefix with a cache of its own.
  Prompts whose responses have all ended are left behind once they are half of
  those in the loop; rows that are split over devices stay where they are.

  Args:
    params_by_name: at least the sets that the lanes name. No gradient flows.
    lanes: L lanes; a set whose weight is the Python number 0 is never run.
    prompts: int[B, P], padded on the right.
    prompt_mask: bool[B, P].
    keys: key[B, L], see `row_keys`.
    max_response: R, tokens; a response without EOS is cut there.
    temperature: > 0; log-probs are of the tempered distribution.
    eos_ids: tokens that end a response.
    choose: `sample` or `greedy`: (key, log_probs f32[V]) -> token.
  Source: Munos et al., ICML 2024, §7 (the token-wise mixture).
  """
  arrays.check_shapes(
    prompts=(prompts, "B P"),
    prompt_mask=(prompt_mask, "B P"),
    keys=(keys, "B L"),
  )
  state = begin(
    model,
    params_by_name,
    lanes,
    prompts=prompts,
    prompt_mask=prompt_mask,
    max_response=max_response,
  )

  params_by_name, state = _apart(model, params_by_name, state)
  step = functools.partial(
    advance,
    model,
    params_by_name,
    lanes,
    temperature=temperature,
    eos_ids=eos_ids,
    choose=choose,
  )
  narrower = _narrower(model, len(prompts))
  return _finish(model, lanes, step, state, keys, narrower)


def _finish(model, lanes, step, state: Decoding, keys, narrower) -> Rollout:
  """The loops until every response has ended, each of fewer prompts."""
  enough = narrower[0] if narrower else 0

  def unfinished(state):
    going = jnp.any(state.alive)
    if enough:
      going = jnp.sum(jnp.any(state.alive, axis=1)) > enough
    return (state.step < state.written.tokens.shape[2]) & going

  state = lax.while_loop(unfinished, functools.partial(step, keys=keys), state)
  if not narrower:
    return state.written
  left = jnp.argsort(~jnp.any(state.alive, axis=1))[:enough]
  part = _take(model, lanes, state, left)
  part = _finish(model, lanes, step, part, keys[left], narrower[1:])
  return jax.tree.map(
    lambda whole, part: whole.at[left].set(part), state.written, part
  )


def _narrower(model, prompts: int) -> list[int]:
  """Prompts of the narrower loops that follow the first, half by half."""
  if model.take is None or model.row_parts > 1:
    return []
  return [n for n in (prompts // 2, prompts // 4) if n >= FEWEST]


def _take(model, lanes, state: Decoding, left: jax.Array) -> Decoding:
  """The state of the prompts int[n] alone."""
  users = _users([_nonzero(lane) for lane in lanes])
  return Decoding(
    step=state.step,
    fed=state.fed[left],
    alive=state.alive[left],
    caches={
      name: model.take(cache, left, len(users[name]))
      for name, cache in state.caches.items()
    },
    written=jax.tree.map(lambda x: x[left], state.written),
  )


def _apart(model, params_by_name, state: Decoding):
  """Parameters of the sets that are used, and the state, for the loop."""
  params_by_name, caches = dict(params_by_name), dict(state.caches)
  for name, cache in state.caches.items():
    if model.apart is not None:
      params_by_name[name], caches[name] = model.apart(
        params_by_name[name], cache
      )
  return params_by_name, state._replace(caches=caches)


def is_end(tokens: jax.Array, eos_ids: Sequence[int]) -> jax.Array:
  """Which tokens end a response, bool of the shape of `tokens`."""
  return functools.reduce(operator.or_, (tokens == i for i in eos_ids))


def ended(
  tokens: jax.Array, mask: jax.Array, eos_ids: Sequence[int]
) -> jax.Array:
  """Which responses end by themselves; the others are cut.

  Args:
    tokens: int[..., R].
    mask: bool[..., R], true up to and including the end token.
    eos_ids: tokens that end a response.
  Returns: bool[...].
  """
  return jnp.any(is_end(tokens, eos_ids) & mask, axis=-1)


def repeated(tokens: jax.Array, mask: jax.Array) -> jax.Array:
  """The share of a response's n-grams of `NGRAM` tokens that it held already.

  Two that differ count as the same once in 2³¹ pairs.

  Args:
    tokens: int[N, R].
    mask: bool[N, R], true on the first tokens of each row.
  Returns: f32[N], 0 for a response that has none.
  """
  arrays.check_shapes(tokens=(tokens, "N R"), mask=(mask, "N R"))
  count = tokens.shape[1] - NGRAM + 1
  if count < 2:
    return jnp.zeros(len(tokens), jnp.float32)
  code = jnp.zeros((len(tokens), count), jnp.uint32)
  for place in range(NGRAM):
    token = tokens[:, place : place + count].astype(jnp.uint32) + 1
    code = (code ^ token) * jnp.uint32(0x9E3779B1)
    code ^= code >> 15
  real = mask[:, NGRAM - 1 :]
  none = jnp.uint32(2**32 - 1)
  code = jnp.sort(jnp.where(real, code >> 1, none), axis=1)
  again = (code[:, 1:] == code[:, :-1]) & (code[:, 1:] != none)
  shares = jnp.sum(again, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
  return shares.astype(jnp.float32)


def begin(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lanes: Sequence[Lane],
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  max_response: int,
) -> Decoding:
  """Runs every prompt once for each parameter set that a lane uses.

  Args: as `rollout`.
  """
  shape = (prompts.shape[0], len(lanes))
  lanes = [_nonzero(lane) for lane in lanes]
  caches, first = {}, None
  for name, users in _users(lanes).items():
    caches[name], first = model.prefill(
      params_by_name[name], prompts, prompt_mask, len(users), max_response
    )
  tokens = jnp.zeros((*shape, max_response), jnp.int32)
  return Decoding(
    step=jnp.int32(0),
    fed=jnp.broadcast_to(first.reshape(shape[0], -1)[:, :1], shape),
    alive=jnp.ones(shape, bool),
    caches=caches,
    written=Rollout(tokens, tokens != 0, jnp.zeros(tokens.shape, jnp.float32)),
  )


def advance(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lanes: Sequence[Lane],
  state: Decoding,
  *,
  keys: jax.Array,
  temperature: float,
  eos_ids: Sequence[int],
  choose: Choose,
) -> Decoding:
  """One token of every row.

  Args: as `rollout`.
  """
  log_probs, caches = _next_log_probs(
    model, params_by_name, lanes, state.caches, state.fed, temperature
  )
  new = _choose(keys, state.step, log_probs, state.alive, choose)
  return Decoding(
    step=state.step + 1,
    fed=new.tokens,
    alive=state.alive & ~is_end(new.tokens, eos_ids),
    caches=caches,
    written=_write(state.written, new, state.step),
  )


def _next_log_probs(model, params_by_name, lanes, caches, fed, temperature):
  """Feeds tokens int[B, L] -> log-probs f32[B, L, V] of each lane, caches."""
  runs = _runs(lanes)
  lanes = [_nonzero(lane) for lane in lanes]
  batch, caches, mixed = fed.shape[0], dict(caches), [0.0] * len(runs)
  for name, users in _users(lanes).items():
    logits, caches[name] = model.decode(
      params_by_name[name], caches[name], fed[:, jnp.array(users)].reshape(-1)
    )
    by_user = logits.reshape(batch, len(users), model.vocab_size)
    for number, (first, count) in enumerate(runs):
      if name in lanes[first]:
        start = users.index(first)
        one = arrays.log_softmax(by_user[:, start : start + count], temperature)
        mixed[number] = mixed[number] + lanes[first][name] * one
  return arrays.log_softmax(jnp.concatenate(mixed, axis=1), 1.0), caches


def _runs(lanes: Sequence[Lane]) -> list[tuple[int, int]]:
  """The first and the number of lanes in a row that are one object.

  A program that names each of hundreds of lanes takes minutes to compile.
  """
  found = []
  for number, lane in enumerate(lanes):
    if number and lane is lanes[number - 1]:
      found[-1] = (found[-1][0], found[-1][1] + 1)
    else:
      found.append((number, 1))
  return found


def _choose(keys, t, log_probs, alive, choose) -> Rollout:
  """One token of every row, arrays [B, L]; nothing of rows that ended."""

  def row(key, log_probs, alive):
    token = choose(jax.random.fold_in(key, t), log_probs)
    return Rollout(
      tokens=jnp.where(alive, token, 0),
      mask=alive,
      log_prob=jnp.where(alive, log_probs[token], 0).astype(jnp.float32),
    )

  return jax.vmap(jax.vmap(row))(keys, log_probs, alive)


def _write(out: Rollout, new: Rollout, t: jax.Array) -> Rollout:
  """Puts one token of every row, arrays [B, L], at position t."""
  return jax.tree.map(
    lambda filled, one: lax.dynamic_update_slice_in_dim(
      filled, one[..., None], t, axis=2
    ),
    out,
    new,
  )


def _users(lanes: Sequence[Lane]) -> dict[str, list[int]]:
  """The lanes that use each parameter set, by name."""
  names = sorted({name for lane in lanes for name in lane})
  return {
    name: [i for i, lane in enumerate(lanes) if name in lane] for name in names
  }


def _nonzero(lane: Lane) -> dict[str, float | jax.Array]:
  return {
    name: weight
    for name, weight in lane.items()
    if isinstance(weight, jax.Array) or weight != 0
  }
