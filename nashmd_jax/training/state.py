"""What a training step reads and returns."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nashmd_jax.training import followers as followers_lib

Params = Any
FLOATS = "real floating"


class TrainState(NamedTuple):
  """Everything that a step needs, and all but `frozen` that it changes.

  Attributes:
    step: int32 scalar, steps done.
    params: the policy being trained.
    opt_state: of the optimizer.
    followers: sets that follow params by name; see `followers`.
    frozen: further parameter sets by name, such as "reference" and "judge";
      never updated and never checkpointed here: the stage they come from
      keeps them.
  """

  step: jax.Array
  params: Params
  opt_state: optax.OptState
  followers: Mapping[str, Any]
  frozen: Mapping[str, Params]


def init_state(
  params: Params,
  frozen: Mapping[str, Params],
  optimizer: optax.GradientTransformation,
  followers: Mapping[str, followers_lib.Follower],
) -> TrainState:
  """The state at step 0. Every set gets buffers of its own.

  Donating the state must not delete a set that shares memory with another,
  hence the copies.
  """

  def copy(tree):
    return jax.tree.map(jnp.copy, tree)

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=copy(params),
    opt_state=optimizer.init(params),
    followers={
      name: follower.init(params) for name, follower in followers.items()
    },
    frozen=copy(dict(frozen)),
  )


def other_sets(state: TrainState) -> dict[str, Params]:
  """All sets but the one in training, by name."""
  return {**state.followers, **state.frozen}


def params_by_name(state: TrainState) -> dict[str, Params]:
  """The parameter sets that lanes and judges can name."""
  return {"policy": state.params, **other_sets(state)}


def held(state: TrainState) -> dict[str, Any]:
  """The arrays of a state that a checkpoint holds, piece by piece."""
  return {
    "params": state.params,
    **state.followers,
    "optimizer": {"step": state.step, "state": state.opt_state},
  }


def is_finite(state: TrainState) -> bool:
  """Whether all that a checkpoint holds of a state is finite."""
  return bool(_is_finite((state.params, state.opt_state, state.followers)))


@jax.jit
def _is_finite(tree):
  # The largest of a leaf is NaN where one is, and quicker to find than all
  # that are finite.
  leaves = [x for x in jax.tree.leaves(tree) if jnp.isdtype(x.dtype, FLOATS)]
  largest = [jnp.max(jnp.abs(x), initial=0) for x in leaves]
  return jnp.all(jnp.isfinite(jnp.array(largest, jnp.float32)))
