"""Equilibria to round-off: π*_τ with a certificate, and the exact one at τ = 0.

`regularised_equilibrium` is pure JAX; `nash_equilibrium` runs SciPy's linear
and nonlinear programming once, on the host.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.games import payoffs, preference_game, solvers

Game = preference_game.Game
# Nash-MP at this step contracts KL by 1 + 2τ, whatever the game.
SAFE_STEP = 2.0
# Linear programs and ranks: what is zero, for entries between 0 and 1.
ZERO = 1e-9
# The largest gap of a policy that is taken for an equilibrium.
SOLVED = 1e-6


class Equilibrium(NamedTuple):
  """π*_τ and how near it surely is.

  Attributes:
    log_policy: f[Y], normalised, nats.
    gap: f[], duality gap of this policy, nats times τ.
    distance: f[], bound on Σ_y |π(y) − π*_τ(y)|: the gap is at least
      P_τ(π*_τ ≻ π) − ½ = τ KL(π, π*_τ), so Pinsker gives √(2 gap / τ).
    iterations: i32[], steps taken.
  """

  log_policy: jax.Array
  gap: jax.Array
  distance: jax.Array
  iterations: jax.Array


def regularised_equilibrium(
  game: Game, *, tolerance: float, max_iterations: int
) -> Equilibrium:
  """π*_τ ∝ μ exp(P(y ≻ π*_τ) / τ) for τ > 0, with its certificate.

  Newton's method on log π = log μ + P π / τ; a Newton step that does not
  halve the smallest gap so far is replaced by a step of Nash-MP, which
  contracts KL(π*_τ, π) by 1 + 2τ from anywhere. So it ends for every game.
  Pure: `jax.vmap` it over games, contexts and τ.

  Args:
    game: one context, τ > 0.
    tolerance: of `distance`; 1e-12 needs float64.
    max_iterations: steps after which it stops; compare `distance` then.
  Returns: the best policy seen. A game with τ = 0 gives `distance` inf: that
    is for `nash_equilibrium`.
  """

  def certificate(log_policy: jax.Array) -> tuple[jax.Array, jax.Array]:
    gap = preference_game.duality_gap(game, log_policy)
    return gap, jnp.where(
      game.kl_coef > 0, jnp.sqrt(2 * gap / game.kl_coef), jnp.inf
    )

  def equilibrium(logits, iterations) -> Equilibrium:
    log_policy = jax.nn.log_softmax(logits)
    gap, distance = certificate(log_policy)
    return Equilibrium(log_policy, gap, distance, iterations)

  def goes_on(carry) -> jax.Array:
    best, _ = carry
    return (best.distance > tolerance) & (best.iterations < max_iterations)

  def advance(carry):
    best, current = carry
    iterations = best.iterations + 1
    leap = equilibrium(_newton(game, current), iterations)
    walk = equilibrium(_safe_step(game, current), iterations)
    leaps = leap.gap < best.gap / 2
    moved = jax.tree.map(lambda a, b: jnp.where(leaps, a, b), leap, walk)
    improves = moved.gap < best.gap
    best = jax.tree.map(lambda a, b: jnp.where(improves, a, b), moved, best)
    return best._replace(iterations=iterations), moved.log_policy

  start = equilibrium(game.log_reference, jnp.zeros((), jnp.int32))
  return lax.while_loop(goes_on, advance, (start, start.log_policy))[0]


def _newton(game: Game, logits: jax.Array) -> jax.Array:
  """One Newton step for F(log π) = log π − log μ − P π / τ = 0.

  Its Jacobian 1 − (P − ½)(diag π − π πᵀ) / τ is never singular: the
  eigenvalues of the product are imaginary.
  """
  policy = jax.nn.softmax(logits)
  advantage = game.preference - 0.5
  covariance = jnp.diag(policy) - jnp.outer(policy, policy)
  identity = jnp.eye(policy.shape[-1], dtype=policy.dtype)
  jacobian = game.kl_coef * identity - advantage @ covariance
  excess = game.kl_coef * (logits - game.log_reference) - advantage @ policy
  return logits - jnp.linalg.solve(jacobian, excess)


def _safe_step(game: Game, logits: jax.Array) -> jax.Array:
  state = solvers.init_state(logits)
  unused = jax.random.key(0)
  return solvers.nash_mp(
    unused, state, game, SAFE_STEP, solvers.exact_query
  ).logits


class NashEquilibrium(NamedTuple):
  """An equilibrium of the game without regularisation.

  Attributes:
    policy: f64[Y].
    gap: its duality gap max_y P(y ≻ π) − ½, round-off.
    unique: whether it is the only one.
  """

  policy: np.ndarray
  gap: float
  unique: bool


class _Unsolved(RuntimeError):
  """A game that is too close to another for the precision there is."""


def nash_equilibrium(
  preference: np.ndarray, *, reference: np.ndarray
) -> NashEquilibrium:
  """The equilibrium of τ = 0, of several the one nearest to μ.

  Of all π with P(y ≻ π) ≤ ½ for every y it returns the one of smallest
  KL(π, μ): with uniform μ the one of maximum entropy, and for any μ the limit
  of π*_τ as τ → 0. A linear program (HiGHS) finds the responses that some
  equilibrium gives; if the antisymmetric game among these has a kernel of one
  dimension, that is the equilibrium, computed from its singular vectors.
  Otherwise interior-point steps minimise the KL over all of them.

  Preferences that differ by less than the linear program can tell, as those of
  a float32 judge do where they should be equal, may defeat it. The game is
  then solved with preferences rounded to 1e-5, or 1e-4; `gap` is that of the
  game as it was given.

  Args:
    preference: [Y, Y].
    reference: [Y], μ, every entry above 0.
  Raises: ValueError that names a wrong cell.
  """
  matrix = payoffs.check_preference(preference)
  if matrix.ndim != 2:
    raise ValueError(f"preference: expected [Y, Y], got shape {matrix.shape}")
  reference = payoffs.check_distribution(reference, "reference")
  if reference.shape != matrix.shape[:1]:
    raise ValueError(
      f"reference: expected shape {matrix.shape[:1]}, got {reference.shape}"
    )
  advantage = matrix - 0.5
  for digits in (None, 5, 4):
    game, allowed = advantage, SOLVED
    if digits is not None:
      half = np.triu(np.round(advantage, digits))
      game, allowed = half - half.T, 10.0**-digits
    try:
      policy, unique = _solve(game, reference)
    except (_Unsolved, np.linalg.LinAlgError):
      continue
    gap = float((advantage @ policy).max())
    if gap <= allowed:
      return NashEquilibrium(policy, gap, unique)
  raise RuntimeError("no equilibrium was found, not of a rounded game either")


def _solve(
  advantage: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, bool]:
  """The equilibrium nearest to μ, and whether it is the only one."""
  interior = _widest(advantage)
  given = interior > 0
  inner = advantage[np.ix_(given, given)]
  _, sizes, rows = np.linalg.svd(inner)
  kernel = rows[sizes <= ZERO * len(sizes)]
  policy = np.zeros(len(advantage))
  if len(kernel) == 1:
    policy[given] = np.abs(kernel[0]) / np.abs(kernel[0]).sum()
  else:
    policy[given] = _nearest(
      interior[given], kernel, advantage[~given][:, given], reference[given]
    )
  return policy, len(kernel) == 1


def _widest(advantage: np.ndarray) -> np.ndarray:
  """An equilibrium with every response that any equilibrium gives.

  Equilibria are the rays of {v ≥ 0, advantage v ≤ 0}. The most that
  Σ min(v, 1) reaches there counts the responses of the widest; asking as much
  of the slacks −advantage v leaves just the constraints that must hold.
  """
  from scipy import optimize  # as long to load as JAX, and for this alone

  count = len(advantage)
  eye, none = np.eye(count), np.zeros((count, count))
  # Unknowns: v, s ≤ min(v, 1), t ≤ min(−advantage v, 1).
  result = optimize.linprog(
    np.concatenate([np.zeros(count), -np.ones(2 * count)]),
    A_ub=np.block([[-eye, eye, none], [advantage, none, eye]]),
    b_ub=np.zeros(2 * count),
    bounds=[(0, None)] * count + [(0, 1)] * (2 * count),
    method="highs",
  )
  if not result.success:
    raise _Unsolved(result.message)
  ray, reached = result.x[:count], result.x[count : 2 * count]
  ray = np.where(reached > 0.5, ray, 0)
  return ray / ray.sum()


def _nearest(
  start: np.ndarray,
  kernel: np.ndarray,
  outside: np.ndarray,
  reference: np.ndarray,
) -> np.ndarray:
  """The equilibrium π that minimises KL(π, μ), by Newton's method on faces.

  A primal active-set method: Newton steps inside the face of the constraints
  that hold with equality; a step that meets another one adds it, and a rest
  with a negative multiplier drops that one.

  Args:
    start: [S], inside: positive, and `outside` @ start below 0.
    kernel: [K, S], directions that change no advantage inside the support.
    outside: [O, S]: outside @ π ≤ 0 for the responses never given.
    reference: [S].
  """
  # Of the directions, those that keep the sum.
  sums = kernel.sum(1, keepdims=True)
  free = np.linalg.svd(sums.T)[2][1:] @ kernel
  policy, active = start, []
  for _ in range(1000):
    face = free
    if active:
      turn = np.linalg.svd(outside[active] @ free.T)[2]
      face = turn[len(active) :] @ free
    slope = np.log(policy / reference)
    step = np.linalg.solve((face / policy) @ face.T, -face @ slope) @ face
    if np.abs(step / policy).max(initial=0) <= 1e-13:
      if not active:
        break
      weights = np.linalg.lstsq((outside[active] @ free.T).T, -free @ slope)[0]
      if weights.min() >= -ZERO:
        break
      del active[int(weights.argmin())]
      continue
    # Short of where an entry would reach 0; whole steps near the end.
    change = np.abs(step / policy).max()
    length = 1.0 if change < 0.1 else 1 / (1 + change)
    towards, slack = outside @ step, -(outside @ policy)
    meets = [
      (max(slack[row], 0) / towards[row], row)
      for row in range(len(outside))
      if row not in active and towards[row] > ZERO * np.abs(step).max()
    ]
    nearest = min(meets, default=(np.inf, -1))
    if nearest[0] <= length:
      length = nearest[0]
      active.append(nearest[1])
    policy = policy + length * step
  else:
    raise _Unsolved("the search among several equilibria found no rest")
  return policy / policy.sum()
