"""Measured KL against the theorems' bounds, on random games at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from tests import games_oracle

# Two numbers this small are both round-off: π*_τ is known to 1e-12.
ROUND_OFF = 1e-20
STEP = 0.2


@functools.partial(jax.jit, static_argnames="iterations")
@functools.partial(jax.vmap, in_axes=(0, None))
def excess(game: games.Game, iterations: int) -> dict[str, jax.Array]:
  """The largest KL_t / bound_t over iterations, for each theorem."""
  found = games.regularised_equilibrium(
    game, tolerance=1e-12, max_iterations=20_000
  )
  start = games.kl_divergence(found.log_policy, game.log_reference)
  time, tau = jnp.arange(iterations + 1.0), game.kl_coef

  def ratio(name: str, step_size, bound: jax.Array) -> jax.Array:
    _, curves = games.solve(
      game,
      step=games.ALGORITHMS[name].step,
      step_size=step_size,
      query=games.exact_query,
      logits=game.log_reference,
      iterations=iterations,
      key=jax.random.key(0),
      measures={"kl": games.kl_to(found.log_policy)},
      measure_every=1,
      judged="logits",
    )
    return jnp.max((curves["kl"] / (bound + ROUND_OFF))[1:])

  ratios = {}
  for name in ("nash_md", "omd"):
    ratios[f"{name}, decreasing steps"] = ratio(
      name,
      games.decreasing_steps(tau),
      games.decreasing_step_bound(tau, time),
    )
    ratios[f"{name}, constant step"] = ratio(
      name,
      games.constant(STEP),
      games.constant_step_bound(
        start, step_size=STEP, kl_coef=tau, iteration=time
      ),
    )
  for name in ("mmd", "egpo", "nash_mp"):
    schedule = games.theory_steps(name, game, iterations=iterations)
    bound = games.linear_bound(
      start, name=name, step_size=schedule(0), kl_coef=tau, iteration=time
    )
    ratios[f"{name}, theory's step"] = ratio(name, schedule, bound)
  return ratios | {"distance": found.distance}


def largest_excess(
  sizes: tuple[int, ...], each: int, kl_coefs: tuple[float, ...], iterations
) -> dict[str, float]:
  """`excess` over `each` random games of every size and τ, in float64."""
  worst: dict[str, float] = {}
  with jax.enable_x64(True):
    for responses in sizes:
      matrices = games.random_preferences(
        jax.random.key(responses), contexts=each, responses=responses
      )
      reference = games_oracle.random_policies(responses, each, responses)
      for kl_coef in kl_coefs:
        game = games.make_game(
          preference=matrices, reference=reference, kl_coef=kl_coef
        )
        for name, values in excess(game, iterations).items():
          worst[name] = max(worst.get(name, 0.0), float(np.max(values)))
  return worst
