"""Parameter sets that follow the policy: a moving average, stored snapshots.

A follower is a pure function of the policy after each step; the loop advances
it and the checkpoint keeps it. Frozen sets are not here: they never move.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any


class Follower(NamedTuple):
  """How one set follows.

  Attributes:
    init: (params) -> the set at step 0.
    update: (set, params, step, rng) -> the set after `step` steps, `params`
      being the policy after them.
  """

  init: Callable[[Params], Any]
  update: Callable[[Any, Params, jax.Array, jax.Array], Any]


class Past(NamedTuple):
  """Stored past policies.

  Attributes:
    snapshots: parameters with a leading axis of S slots; the first
      min(count, S) are filled.
    count: int32 scalar, snapshots taken so far, θ_0 the first.
  """

  snapshots: Params
  count: jax.Array


def moving_average(*, decay: float) -> Follower:
  """θ̄ ← decay θ̄ + (1 − decay) θ after each step, θ̄_0 = θ_0.

  Args:
    decay: in [0, 1).
  Raises: ValueError for another decay.
  """
  if not 0 <= decay < 1:
    raise ValueError(f"ema.decay: got {decay}, expected 0 ≤ decay < 1")

  def update(average, params, step, rng):
    del step, rng
    return optax.incremental_update(params, average, 1.0 - decay)

  return Follower(
    init=lambda params: jax.tree.map(jnp.copy, params), update=update
  )


def past_policies(*, size: int, every: int, law: str) -> Follower:
  """A sample of the past policies, θ_0 among them.

  Args:
    size: S, snapshots kept.
    every: steps between snapshots.
    law: once all slots are filled, "uniform" keeps each snapshot ever taken
      with the same probability (reservoir sampling); "exponential" puts each
      new one in a uniformly drawn slot, so that ages are geometric.
  Raises: ValueError for a law that does not exist or counts below 1.
  Source: Vitter, 1985 (the reservoir).
  """
  if law not in LAWS:
    raise ValueError(f"past.law: got {law!r}, expected one of {sorted(LAWS)}")
  if min(size, every) < 1:
    raise ValueError(
      f"past: got size {size} and every {every}, expected 1 or more"
    )

  def init(params):
    def slots(leaf):
      return jnp.zeros((size, *leaf.shape), leaf.dtype).at[0].set(leaf)

    return Past(jax.tree.map(slots, params), jnp.int32(1))

  def update(past, params, step, rng):
    slot = jnp.where(
      past.count < size, past.count, LAWS[law](rng, past.count, size)
    )
    taken = step % every == 0
    slot = jnp.where(taken, slot, size)  # a slot out of range is dropped
    return Past(
      snapshots=jax.tree.map(
        lambda kept, leaf: kept.at[slot].set(leaf, mode="drop"),
        past.snapshots,
        params,
      ),
      count=past.count + taken,
    )

  return Follower(init, update)


def _reservoir(rng, count, size):
  del size
  return jax.random.randint(rng, (), 0, count + 1)


def _any_slot(rng, count, size):
  del count
  return jax.random.randint(rng, (), 0, size)


LAWS = {"uniform": _reservoir, "exponential": _any_slot}


def draw(past: Past, rng: jax.Array) -> Params:
  """The parameters in one of the filled slots, each as likely."""
  size = len(jax.tree.leaves(past.snapshots)[0])
  slot = jax.random.randint(rng, (), 0, jnp.minimum(past.count, size))
  return jax.tree.map(lambda kept: kept[slot], past.snapshots)
