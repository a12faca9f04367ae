"""What theory promises: step sizes, bounds on KL, local rates of convergence.

A bound is on KL(π*_τ, π_t) in nats from a start π_0. The local rates say how
a small deviation from equilibrium grows or shrinks in a step.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.games import preference_game, solvers

Game = preference_game.Game


def decreasing_steps(kl_coef: jax.Array) -> Callable[[jax.Array], jax.Array]:
  """η_t = 2 / (τ (t + 2)), the schedule of Nash-MD; τ > 0.

  Source: Munos et al., ICML 2024, theorem 1.
  """
  return lambda iteration: 2 / (kl_coef * (iteration + 2))


def theory_steps(
  name: str, game: Game, *, iterations: int
) -> Callable[[jax.Array], jax.Array] | None:
  """The steps for which an algorithm's guarantee is stated.

  Args:
    name: of `solvers.ALGORITHMS`.
    game: one context.
    iterations: T, on which the step of multiplicative weights depends.
  Returns: iteration -> η, or None where no theorem names a step
    (`fictitious_play` has none to name).
  """
  tau, count = game.kl_coef, game.log_reference.shape[-1]
  largest = jnp.max(jnp.abs(game.preference - 0.5))
  steps = {
    "nash_md": decreasing_steps(tau),
    "omd": decreasing_steps(tau),
    "mmd": solvers.constant(tau / largest**2),
    "egpo": solvers.constant(1 / (tau + 3)),
    "nash_mp": solvers.constant(2.0),
    "onpo": solvers.constant(1 / 8),
    "mwu": solvers.constant(math.sqrt(8 * math.log(count) / iterations)),
  }
  return steps.get(name)


def constant_step_bound(
  initial_kl: jax.Array,
  *,
  step_size: jax.Array,
  kl_coef: jax.Array,
  iteration: jax.Array,
) -> jax.Array:
  """Nash-MD at a constant η: KL_{t+1} ≤ (1 − ητ) KL_t + 2η², summed up.

  (1 − ητ)^t KL_0 + (1 − (1 − ητ)^t) 2η / τ. It holds for OMD from π_0 = μ as
  well, where the last term is four times what is needed.

  Source: Munos et al., ICML 2024, lemma behind theorem 1; ητ ≤ 1.
  """
  kept = (1 - step_size * kl_coef) ** iteration
  return kept * initial_kl + (1 - kept) * 2 * step_size / kl_coef


def decreasing_step_bound(
  kl_coef: jax.Array, iteration: jax.Array
) -> jax.Array:
  """8 / (τ² (t + 1)) for `decreasing_steps`, from any start, t ≥ 1.

  Source: Munos et al., ICML 2024, theorem 1, for Nash-MD. For OMD from
  π_0 = μ it follows in the same way.
  """
  return 8 / (kl_coef**2 * (iteration + 1))


def linear_bound(
  initial_kl: jax.Array,
  *,
  name: str,
  step_size: jax.Array,
  kl_coef: jax.Array,
  iteration: jax.Array,
) -> jax.Array:
  """KL_0 times the contraction to the power t, at a constant η.

  1 / (1 + ητ) for `mmd` with η ≤ τ / max|P − ½|² and for `nash_mp` with
  η ≤ 2; 1 − ητ for `egpo` with η ≤ 2 / (1 + 2τ), the same step in other
  coordinates, and for `omwu` with η ≤ min(1 / (1 + 2τ), ½).

  Raises: ValueError for an algorithm without such a theorem.
  """
  shrink = {
    "mmd": lambda pull: 1 / (1 + pull),
    "nash_mp": lambda pull: 1 / (1 + pull),
    "egpo": lambda pull: 1 - pull,
    "omwu": lambda pull: 1 - pull,
  }
  if name not in shrink:
    raise ValueError(
      f"name: expected one of {sorted(shrink)} for a linear rate, got {name!r}"
    )
  return shrink[name](step_size * kl_coef) ** iteration * initial_kl


def rotation_speeds(game: Game, logits: jax.Array) -> jax.Array:
  """How fast the game turns around a policy: ω of the eigenvalues ±iω.

  The map δ → (P − ½)(diag π − π πᵀ) δ says how win probabilities change with
  a deviation δ of log π. With D = diag √π and Q the projection away from √π
  it has the spectrum of the antisymmetric Q D (P − ½) D Q. One zero, of the
  deviation that only scales π, is left out.

  Args:
    game: one context.
    logits: f[Y] of the policy.
  Returns: f[Y − 1], ascending.
  """
  root = jnp.sqrt(jax.nn.softmax(logits))
  turned = root[:, None] * (game.preference - 0.5) * root[None, :]
  project = jnp.eye(root.shape[-1], dtype=root.dtype) - jnp.outer(root, root)
  turned = project @ turned @ project
  return jnp.sort(jnp.abs(jnp.linalg.eigvalsh(1j * turned)))[1:]


# (ητ, η s) -> what a step multiplies a deviation by, along an eigenvalue s.
MULTIPLIERS = {
  "nash_md": lambda pull, turn: (1 - pull) * (1 + turn),
  "omd": lambda pull, turn: 1 - pull + turn,
  "mmd": lambda pull, turn: (1 + turn) / (1 + pull),
  "egpo": lambda pull, turn: 1 - pull + turn * (1 - pull + turn),
  "nash_mp": lambda pull, turn: (
    (1 + turn * (1 + turn) / (1 + pull)) / (1 + pull)
  ),
  "onpo": lambda pull, turn: 0.5 + turn + jnp.sqrt((0.5 + turn) ** 2 - turn),
}


def spectral_radius(
  name: str,
  game: Game,
  opponent: jax.Array,
  *,
  step_size: jax.Array,
) -> jax.Array:
  """The factor by which a step shrinks the slowest small deviation.

  Above 1 the fixed point is unstable and the policy cycles; below, KL falls by
  its square in a step. Each of Nash-MD's fixed points has its own: the
  mixture that is played there is the equilibrium at τ / (1 − ητ).

  Args:
    name: of `MULTIPLIERS`.
    game: one context; τ as in the algorithm (`onpo` takes it as 0).
    opponent: f[Y], logits of the policy that is played against at the fixed
      point: π*_τ, for `nash_md` the mixture, for `onpo` an equilibrium of
      τ = 0 that gives every response.
    step_size: η.
  Returns: scalar.
  Raises: ValueError for an algorithm without a fixed point of this kind.
  """
  if name not in MULTIPLIERS:
    raise ValueError(
      f"name: expected one of {sorted(MULTIPLIERS)}, got {name!r}"
    )
  turn = 1j * step_size * rotation_speeds(game, opponent)
  factors = jnp.abs(MULTIPLIERS[name](step_size * game.kl_coef, turn))
  return jnp.max(factors)


def largest_stable_step(game: Game, equilibrium: jax.Array) -> jax.Array:
  """2τ / (τ² + ω²): above it OMD leaves π*_τ and cycles.

  Args:
    game: one context, τ > 0.
    equilibrium: f[Y], logits of π*_τ.
  """
  fastest = rotation_speeds(game, equilibrium)[-1]
  return 2 * game.kl_coef / (game.kl_coef**2 + fastest**2)


def iterations_to(target_kl: float, initial_kl: float, radius: float) -> float:
  """Steps that the local rate predicts from one KL to another, in nats."""
  if not 0 < radius < 1:
    return math.inf
  return max(0.0, math.log(target_kl / initial_kl) / (2 * np.log(radius)))
