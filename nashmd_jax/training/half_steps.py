"""Two half steps from one start: an optimizer for extragradient methods.

An even step moves the parameters from their start; an odd step moves them from
that start too, by a gradient that has seen where the even one led. Only the odd
step has the inner optimizer go on, so that its schedule counts iterations.
"""

from typing import Any, NamedTuple

import jax
import optax


class HalfSteps(NamedTuple):
  """The state of the optimizer.

  Attributes:
    start: the parameters from which both half steps go.
    inner: the state of the inner optimizer there.
  """

  start: Any
  inner: optax.OptState


def half_steps(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Every two steps are one iteration of an extragradient method.

    θ_{t+½} = θ_t + u(g(θ_t; π_t)),  θ_{t+1} = θ_t + u(g(θ_t; π_{t+½}))

  The gradients have to be those at θ_t, whatever the parameters are. A step
  that is left out leaves its half of the iteration out.

  Args:
    inner: gives u, of the gradient at the start.
  Returns: an optimizer whose `update` also takes `step`, the steps done.
  """

  def init(params):
    return HalfSteps(
      jax.tree.map(lambda x: x.copy(), params), inner.init(params)
    )

  def update(grads, state, params, *, step, **extra):
    del extra
    updates, moved = inner.update(grads, state.inner, state.start)
    led = optax.apply_updates(state.start, updates)
    second = step % 2 == 1
    after = jax.tree.map(
      lambda new, old: jax.numpy.where(second, new, old),
      HalfSteps(led, moved),
      state,
    )
    return jax.tree.map(lambda to, at: to - at, led, params), after

  return optax.GradientTransformationExtraArgs(init, update)
