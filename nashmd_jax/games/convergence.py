"""How long an algorithm takes, measured: iterations until KL stays small."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax.games import preference_game, solvers

Game = preference_game.Game


def settling_time(
  game: Game,
  *,
  step: solvers.Step,
  step_size: Callable[[jax.Array], jax.Array],
  judged: str,
  target: jax.Array,
  target_kl: float,
  horizon: int,
) -> tuple[jax.Array, jax.Array]:
  """The first iteration from which KL(target, π_t) stays at most target_kl.

  Passing close to the target on the way to elsewhere does not count: the run
  goes on for as long again as may be needed. From μ, with exact preferences.
  Pure; `jax.vmap` it over games and step sizes.

  Args:
    game: one context.
    step: one of `solvers`.
    step_size: iteration -> η.
    judged: "logits" for the last policy, "average" for the average.
    target: f[Y], logits of the policy to reach.
    target_kl: nats.
    horizon: T; the run ends after 2 T iterations.
  Returns: i32[], from 0 to T, or T + 1 if KL is above target_kl later than
    that; and the KL at the end, nats.
  """
  unused = jax.random.key(0)

  def distance(state: solvers.State) -> jax.Array:
    return preference_game.kl_divergence(target, getattr(state, judged))

  def advance(_, carry):
    state, settled = carry
    size = step_size(state.iteration)
    state = step(unused, state, game, size, solvers.exact_query)
    near = distance(state) <= target_kl
    return state, jnp.where(near, settled, state.iteration + 1)

  state = solvers.init_state(game.log_reference)
  settled = jnp.where(distance(state) <= target_kl, 0, 1).astype(jnp.int32)
  state, settled = lax.fori_loop(0, 2 * horizon, advance, (state, settled))
  return jnp.minimum(settled, horizon + 1), distance(state)


def best_constant_step(
  game: Game,
  *,
  step: solvers.Step,
  step_sizes: jax.Array,
  judged: str,
  target: jax.Array,
  target_kl: float,
  horizon: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The constant step that settles first, of those given.

  Args:
    step_sizes: f[S], candidates for η, ascending; the smallest of those that
      are as fast is returned, and where none settles the one that ends
      nearest.
    step, judged, target, target_kl, horizon: see `settling_time`.
  Returns: η, f[], then iterations and last KL as of `settling_time`.
  """

  def settle(step_size: jax.Array) -> tuple[jax.Array, jax.Array]:
    return settling_time(
      game,
      step=step,
      step_size=solvers.constant(step_size),
      judged=judged,
      target=target,
      target_kl=target_kl,
      horizon=horizon,
    )

  times, last_kls = jax.vmap(settle)(step_sizes)
  best = jnp.lexsort((jnp.maximum(last_kls, target_kl), times))[0]
  return step_sizes[best], times[best], last_kls[best]
