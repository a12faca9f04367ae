"""The decode loop over lanes: one loop writes every response of a prompt.

A lane is a weighted sum of log-probs over named parameter sets, normalised at
each prefix: {"policy": 1.0}, {"policy": 1 − β, "reference": β}; or an ensemble
of sets, see `lanes`. Every set is run once a token over just the rows that use
it.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import operator
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays, turns
from nashmd_jax import lanes as lanes_lib
from nashmd_jax.models import language_model

# Prompts of the narrowest loop. Below, a step costs what its parameters cost.
FEWEST = 8

Lane = lanes_lib.Lane
Choose = Callable[[jax.Array, jax.Array], jax.Array]


class Rollout(NamedTuple):
  """Responses of B prompts in L lanes.

  Attributes:
    tokens: int32[B, L, R], zero behind EOS.
    mask: bool[B, L, R], true up to and including EOS; of several turns on
      those alone, see `turns`.
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
    script: of several turns, and the place in it; None for one turn.
  """

  step: jax.Array
  fed: jax.Array
  alive: jax.Array
  caches: Mapping[str, Any]
  written: Rollout
  script: tuple[turns.Script, turns.Place] | None = None


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
  script: turns.Script | None = None,
) -> Rollout:
  """Samples one response for every prompt and lane.

  At each prefix lane l draws from softmax((Σ_s w_s log π_s) / temperature), or
  from an ensemble of the tempered π_s, each on the lane's own prefix and cache.
  Prompts whose responses have all ended are left behind once they are half of
  those in the loop; rows that are split over devices stay where they are.

  Args:
    params_by_name: at least the sets that the lanes name. No gradient flows.
    lanes: L lanes; a set whose weight is the Python number 0 is never run.
    prompts, prompt_mask: int[B, P], padded on the right, and bool[B, P].
    keys: key[B, L], see `row_keys`.
    max_response: tokens at which a response, or each of its turns, is cut.
    temperature: > 0; log-probs are of the tempered distribution.
    eos_ids: tokens that end a response.
    choose: `sample` or `greedy`: (key, log_probs f32[V]) -> token.
    script: of several turns; None for one. `turns.width` is R.
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
    script=script,
  )
  params_by_name, state = _apart(model, params_by_name, state)
  step = functools.partial(
    advance,
    model,
    params_by_name,
    lanes,
    max_response=max_response,
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
  users = _users([lanes_lib.nonzero(lane) for lane in lanes])
  return Decoding(
    step=state.step,
    fed=state.fed[left],
    alive=state.alive[left],
    caches={
      name: model.take(cache, left, len(users[name]))
      for name, cache in state.caches.items()
    },
    written=jax.tree.map(lambda x: x[left], state.written),
    script=jax.tree.map(lambda x: x[left], state.script),
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
  """Which responses end by themselves, in every turn; the others are cut.

  Args:
    tokens: int[..., R].
    mask: bool[..., R], true up to and including the end token; see `turns`.
    eos_ids: tokens that end a response.
  Returns: bool[...].
  """
  whole = is_end(tokens, eos_ids) | ~turns.ends(mask)
  return jnp.all(whole, axis=-1) & jnp.any(mask, axis=-1)


def begin(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lanes: Sequence[Lane],
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  max_response: int,
  script: turns.Script | None = None,
) -> Decoding:
  """Runs every prompt once for each parameter set that a lane uses.

  Args: as `rollout`.
  """
  shape = (prompts.shape[0], len(lanes))
  size = turns.width(max_response, script)
  lanes = [lanes_lib.nonzero(lane) for lane in lanes]
  caches, first = {}, None
  for name, users in _users(lanes).items():
    caches[name], first = model.prefill(
      params_by_name[name], prompts, prompt_mask, len(users), size
    )
  tokens = jnp.zeros((*shape, size), jnp.int32)
  return Decoding(
    step=jnp.int32(0),
    fed=jnp.broadcast_to(first.reshape(shape[0], -1)[:, :1], shape),
    alive=jnp.ones(shape, bool),
    caches=caches,
    written=Rollout(tokens, tokens != 0, jnp.zeros(tokens.shape, jnp.float32)),
    script=None if script is None else (script, turns.begin(*shape)),
  )


def advance(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lanes: Sequence[Lane],
  state: Decoding,
  *,
  keys: jax.Array,
  max_response: int,
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
  going, script = ~is_end(new.tokens, eos_ids), state.script
  if script is not None:
    new = _as_fixed(new, *turns.fixed(*script))
    place, going = turns.advance(
      *script, is_end(new.tokens, eos_ids), max_response=max_response
    )
    script = (script[0], place)
  return Decoding(
    step=state.step + 1,
    fed=new.tokens,
    alive=state.alive & going,
    caches=caches,
    written=_write(state.written, new, state.step),
    script=script,
  )


def _as_fixed(new: Rollout, tokens: jax.Array, fixed: jax.Array) -> Rollout:
  """The tokens of a script in place of those drawn, where there are any."""
  return Rollout(
    tokens=jnp.where(fixed, tokens, new.tokens),
    mask=new.mask & ~fixed,
    log_prob=jnp.where(fixed, 0, new.log_prob),
  )


def _next_log_probs(model, params_by_name, lanes, caches, fed, temperature):
  """Feeds tokens int[B, L] -> log-probs f32[B, L, V] of each lane, caches."""
  runs = _runs(lanes)
  lanes = [lanes_lib.nonzero(lane) for lane in lanes]
  batch, caches, found = fed.shape[0], dict(caches), [{} for _ in runs]
  for name, users in _users(lanes).items():
    logits, caches[name] = model.decode(
      params_by_name[name], caches[name], fed[:, jnp.array(users)].reshape(-1)
    )
    by_user = logits.reshape(batch, len(users), model.vocab_size)
    for (first, count), log_probs in zip(runs, found, strict=True):
      if name in lanes[first]:
        start = users.index(first)
        log_probs[name] = arrays.log_softmax(
          by_user[:, start : start + count], temperature
        )
  mixed = [
    lanes_lib.combine(lanes[first], log_probs)
    for (first, _), log_probs in zip(runs, found, strict=True)
  ]
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
