"""Worlds of two turns, small enough to list every conversation.

The exact side is plain Python and sequence probabilities: what is said, which
tokens are the policy's, and the gradient of P_τ. The other side is a step of
play in which the real rollout writes every pair of conversations once: the
keys of its rows are numbers that count, and what is drawn is looked up by them.
Call in float64.
"""

import functools
import itertools
from typing import NamedTuple
from unittest import mock

import jax
from jax.extend import random as extend
import jax.numpy as jnp
import numpy as np

from nashmd_jax import sampling
from nashmd_jax.nash import play as play_lib
from tests import enumeration, paper_opponents, whole_step
from tests import gradient_oracle as oracle

EOS, VOCAB, GAP = enumeration.EOS, enumeration.VOCAB, 3
# By prompt: what stands between the turns, and how much of it ends the first.
BETWEEN = (((2,), 0), ((EOS, 1, 2), 1))
SETS = ("policy", "reference", "ema")
# A key is the number of a row and that of a token.
COUNTING = extend.define_prng_impl(
  key_shape=(2,),
  seed=lambda seed: jnp.stack([seed, seed]).astype(jnp.uint32),
  split=None,
  random_bits=None,
  fold_in=lambda key, data: jnp.stack([key[0], jnp.uint32(data)]),
  name="counting",
)


class World(NamedTuple):
  """Two prompts, C conversations of two turns with each.

  Attributes:
    most: tokens of a turn.
    tokens: int[X, C, R], own: bool[X, C, R], those of the policy, and before:
      int[X, C, R], the number of the prefix before each.
    read: for each prompt the conversations as judges read them, tuples.
    sets: parameters by name.
    win: f64[X, C, C], antisymmetric about ½.
  """

  most: int
  tokens: np.ndarray
  own: np.ndarray
  before: np.ndarray
  read: list[list[tuple[int, ...]]]
  sets: dict
  win: jax.Array


def width(most: int) -> int:
  return 2 * most + GAP


def said(most: int) -> list[tuple[int, ...]]:
  """All that a turn may be."""
  words = range(1, VOCAB)
  found = [
    (*body, EOS)
    for size in range(most)
    for body in itertools.product(words, repeat=size)
  ]
  return found + list(itertools.product(words, repeat=most))


@functools.cache
def make_world(most: int) -> World:
  size = width(most)
  shape = (2, len(said(most)) ** 2, size)
  tokens, own = np.zeros(shape, np.int32), np.zeros(shape, bool)
  before, read = np.zeros(shape, np.int32), []
  for x, (between, closing) in enumerate(BETWEEN):
    read.append([])
    for c, (y, z) in enumerate(itertools.product(said(most), repeat=2)):
      gap = between[closing if y[-1] == EOS else 0 :]
      row = [*y, *gap, *z]
      mine = [True] * len(y) + [False] * len(gap) + [True] * len(z)
      tokens[x, c, : len(row)], own[x, c, : len(row)] = row, mine
      prefix = 0
      for n in range(size):
        before[x, c, n] = prefix
        prefix = prefix * VOCAB + int(tokens[x, c, n]) + 1
      read[-1].append((*y, *between, *z))
  keys = jax.random.split(jax.random.key(5), len(SETS) + 1)
  model = enumeration.table_model(size)
  sets = {n: model.init(k) for n, k in zip(SETS, keys[1:], strict=True)}
  a = jax.random.uniform(keys[0], (2, shape[1], shape[1]), jnp.float64)
  win = 0.5 + 0.5 * (a - jnp.swapaxes(a, 1, 2))
  return World(most, tokens, own, before, read, sets, win)


def sequences(world: World, table: jax.Array) -> jax.Array:
  """log π(c|x) from log-probs [X, prefixes, V], the policy's tokens alone."""
  x = np.arange(2)[:, None, None]
  steps = table[x, world.before, world.tokens]
  return jnp.sum(jnp.where(world.own, steps, 0), axis=-1)


def log_policy(world: World, params) -> jax.Array:
  table = paper_opponents.log_probs(params["logits"], oracle.TEMPERATURE)
  return sequences(world, table)


def played(world: World, opponent: str) -> jax.Array:
  """π′(c|x), f64[X, C]."""
  (table,) = paper_opponents.TABLES[opponent](
    world.sets, oracle.MIXTURE, oracle.TEMPERATURE
  )
  return jnp.exp(sequences(world, table))


def exact(world: World, opponents: dict[str, float]) -> np.ndarray:
  """∇ P_τ(π_θ ≻ opponent), the weighted mean of several."""
  other = sum(w * played(world, name) for name, w in opponents.items())
  score = jnp.einsum("xyz,xz->xy", world.win, other)
  log_mu = log_policy(world, world.sets["reference"])

  def objective(params):
    log_pi = log_policy(world, params)
    paid = oracle.KL_COEF * (log_pi - log_mu)
    return jnp.mean(jnp.sum(jnp.exp(log_pi) * (score - paid), axis=1))

  slope = jax.jit(jax.grad(objective))
  return np.asarray(slope(world.sets["policy"])["logits"])


def judge_of(world: World):
  """Looks P(c ≻ c′) up by what is read, to the token."""
  size = width(world.most)
  place = (VOCAB + 1) ** np.arange(size)
  codes = np.array([
    [sum((t + 1) * p for t, p in zip(row, place, strict=False)) for row in rows]
    for rows in world.read
  ])  # fmt: skip
  order = np.argsort(codes, axis=1)

  def number(x, segment):
    tokens, mask = segment
    code = jnp.where(mask, tokens + 1, 0) @ place[: tokens.shape[1]]
    ascending = jnp.asarray(np.take_along_axis(codes, order, axis=1))[x]
    found = jax.vmap(jnp.searchsorted)(ascending, code)
    same = jnp.take_along_axis(ascending, found[:, None], axis=1)[:, 0] == code
    return jnp.where(same, jnp.asarray(order)[x, found], 10**6)

  def judge(keys, prompts, y, other):
    del keys
    x = jnp.repeat(prompts[0][:, 0], len(y[0]) // len(prompts[0]))
    return world.win.at[x, number(x, y), number(x, other)].get(
      mode="fill", fill_value=jnp.nan
    )

  return judge


def batch_of(prompts: np.ndarray) -> dict[str, jax.Array]:
  """A batch of the given of the two prompts, int[B]."""
  between = np.zeros((2, 1, GAP), np.int32)
  for x, (tokens, _) in enumerate(BETWEEN):
    between[x, 0, : len(tokens)] = tokens
  lengths = np.array([len(tokens) for tokens, _ in BETWEEN])
  mask = (np.arange(GAP) < lengths[:, None])[:, None]
  closing = np.array([[count] for _, count in BETWEEN], np.int32)
  return whole_step.prompts_batch(prompts) | {
    "between": jnp.asarray(between[prompts]),
    "between_mask": jnp.asarray(mask[prompts]),
    "closing": jnp.asarray(closing[prompts]),
    "turns": jnp.full(len(prompts), 2, jnp.int32),
  }


def make_play(world: World, **changes) -> play_lib.Play:
  """The play of `whole_step` in a world of two turns."""
  inner = oracle.make_world(1)  # its judges are replaced, its sets not read
  return whole_step.make_play(
    inner,
    model=enumeration.table_model(width(world.most)),
    judge=lambda sets: judge_of(world),
    max_response=world.most,
    **changes,
  )


def every_row(world: World, play: play_lib.Play):
  """The rows of a step in which all that may be written is, once.

  Returns: rows of the rollout, by prompt and conversations, and their numbers
    x int[N] and c, of every lane, int[N, L].
  """
  made = play_lib.algorithms_lanes(play, 0)
  lanes, size = len(made.own) + len(made.other), world.tokens.shape[1]
  x, *numbers = (i.reshape(-1) for i in np.indices((2, *[size] * lanes)))
  chosen = np.stack(numbers, axis=1)
  drawn = jnp.asarray(world.tokens[x[:, None], chosen].reshape(-1, width(
    world.most
  )))  # fmt: skip

  def row_keys(rng, example_ids, lanes):
    del rng
    row = example_ids[:, None] * lanes + jnp.arange(lanes)[None]
    data = jnp.stack([row, jnp.zeros_like(row)], axis=-1).astype(jnp.uint32)
    return jax.random.wrap_key_data(data, impl=COUNTING)

  def choose(key, log_probs):
    del log_probs
    row, n = jax.random.key_data(key)
    return drawn[row, n]

  rollout = functools.partial(sampling.rollout, choose=choose)
  with (
    mock.patch.object(sampling, "row_keys", row_keys),
    mock.patch.object(sampling, "rollout", rollout),
  ):
    rows = jax.jit(functools.partial(play_lib.rollout, play))(
      world.sets, batch_of(x), jax.random.key(0), jnp.int32(0)
    )
  return rows, x, chosen


def expected_ascent(world: World, play: play_lib.Play, rows, weight):
  """Minus the gradient of the loss of every row, weighted."""
  count = len(weight)
  parts = jax.tree.map(
    lambda v: v.reshape(count, len(v) // count, *v.shape[1:]), rows
  )

  def loss(params):
    def one(part):
      return play_lib.loss(play, params, world.sets, part, None)[0].value

    return jnp.sum(weight * jax.vmap(one)(parts)) / 2

  slope = jax.jit(jax.grad(loss))
  return -np.asarray(slope(world.sets["policy"])["logits"])


def error(most: int, opponent: str, **changes) -> float:
  """‖E[ascent of a step] − ∇ P_τ‖ / ‖∇ P_τ‖ against one opponent."""
  world = make_world(most)
  play = make_play(world, opponent=opponent, **changes)
  rows, x, chosen = every_row(world, play)
  mine = jnp.exp(log_policy(world, world.sets["policy"]))
  weight = mine[x, chosen[:, 0]] * played(world, opponent)[x, chosen[:, 1]]
  np.testing.assert_allclose(jnp.sum(weight), 2, rtol=1e-12)
  found = expected_ascent(world, play, rows, weight)
  return oracle.error(found, exact(world, {opponent: 1.0}))
