"""Sets that follow the policy: a moving average, snapshots, last iterates.

A follower is a pure function of the policy after each step; the loop advances
it and the checkpoint keeps it. Frozen sets are not here: they never move.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nashmd_jax import declare

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
  Raises: ValueError for a decay outside of it.
  """
  declare.check(MOVING_AVERAGE, {"decay": decay}, "ema")

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
  given = {"size": size, "every": every, "law": law}
  declare.check(PAST_POLICIES, given, "past")

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


def iterates(*, every: int, count: int) -> Follower:
  """The policy of every n-th step: the last such, the one before, and so on.

  Until there are so many θ_0 stands for those that there are not.

  Args:
    every: n ≥ 1, steps of an iteration.
    count: iterates kept, in a leading axis, the newest first.
  """

  def init(params):
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)).copy(), params
    )

  def shifted(kept, params):
    return jax.tree.map(
      lambda old, leaf: jnp.concatenate([leaf[None], old[:-1]]), kept, params
    )

  def update(kept, params, step, rng):
    del rng
    return lax.cond(
      step % every == 0, shifted, lambda kept, _: kept, kept, params
    )

  return Follower(init, update)


def iterate(kept: Params, age: int) -> Params:
  """One of the kept iterates; 0 is the newest."""
  return jax.tree.map(lambda leaf: leaf[age], kept)


def _reservoir(rng, count, size):
  del size
  return jax.random.randint(rng, (), 0, count + 1)


def _any_slot(rng, count, size):
  del count
  return jax.random.randint(rng, (), 0, size)


LAWS = {"uniform": _reservoir, "exponential": _any_slot}
MOVING_AVERAGE = {
  "decay": declare.number(
    "Weight of the moving average on what it was, a step.", least=0, below=1
  )
}
PAST_POLICIES = {
  "size": declare.whole("Past policies that are kept.", least=1),
  "every": declare.whole(
    "Steps from one that is kept to the next.", least=1, unit="steps"
  ),
  "law": declare.text(
    "Which one leaves when there are as many: any of all ever kept with the "
    "same probability, or any of those kept.",
    one_of=tuple(LAWS),
  ),
}


ITERATES = {
  "every": declare.whole(
    "Steps of an iteration, after which the policy is the last iterate.",
    least=1,
    unit="steps",
  ),
  "weights": declare.several(
    declare.number(
      "Weight of each iterate, the newest first.", above=0, most=1e6
    ),
    least=1,
    most=16,
    repeats=True,
  ),
}


def draw(past: Past, rng: jax.Array) -> Params:
  """The parameters in one of the filled slots, each as likely."""
  size = len(jax.tree.leaves(past.snapshots)[0])
  slot = jax.random.randint(rng, (), 0, jnp.minimum(past.count, size))
  return jax.tree.map(lambda kept: kept[slot], past.snapshots)
