"""What a training step reads and returns."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any


class TrainState(NamedTuple):
  """Everything that a step needs, and all but `frozen` that it changes.

  Attributes:
    step: int32 scalar, updates done.
    params: the policy being trained.
    opt_state: of the optimizer.
    ema_params: exponential moving average of params, θ̄_0 = θ_0.
    frozen: further parameter sets by name, such as "reference" and "judge";
      never updated and never checkpointed here: the stage they come from
      keeps them.
  """

  step: jax.Array
  params: Params
  opt_state: optax.OptState
  ema_params: Params
  frozen: Mapping[str, Params]


def init_state(
  params: Params,
  frozen: Mapping[str, Params],
  optimizer: optax.GradientTransformation,
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
    ema_params=copy(params),
    frozen=copy(dict(frozen)),
  )


def params_by_name(state: TrainState) -> dict[str, Params]:
  """The parameter sets that lanes and judges can name."""
  return {"policy": state.params, "ema": state.ema_params, **state.frozen}
