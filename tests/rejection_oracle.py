"""The best response drawn by rejection, against the duality gap by enumeration.

The exact side is written from sequence probabilities alone. The other side is
a whole step of play on every tuple of responses, voters included, and every
outcome of the proposals, by its probability. Call in float64.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import rejection
from tests import gradient_oracle as oracle
from tests import whole_step

ONE = 1  # token: tuples of many responses are listed
# τ, and voters whose series leaves out next to nothing there.
WARM, MANY = 5.0, 7


def _ascent(world: oracle.World, objective) -> np.ndarray:
  """∇ of a mean over prompts of an f64[X] of log π, flat."""

  def value(params):
    return jnp.mean(objective(oracle.log_policy(world, params)))

  return np.asarray(jax.grad(value)(world.sets["policy"])["logits"]).ravel()


def minus_gap(world: oracle.World, kl_coef: float) -> np.ndarray:
  """∇ (½ − gap_τ(π)), flat: the gap by its closed form, differentiated."""
  log_mu = oracle.log_policy(world, world.sets["reference"])

  def objective(log_pi):
    wins = jnp.einsum("xyz,xz->xy", world.win, jnp.exp(log_pi))
    won = jax.scipy.special.logsumexp(log_mu + wins / kl_coef, axis=1)
    kl = jnp.sum(jnp.exp(log_pi) * (log_pi - log_mu), axis=1)
    return -kl_coef * (won + kl)

  return _ascent(world, objective)


def against_series(
  world: oracle.World, kl_coef: float, voters: int
) -> np.ndarray:
  """∇ P_τ(π ≻ m), flat, m ∝ μ Σ_{k ≤ n} (P(y ≻ π)/τ)^k/k!."""
  log_mu = oracle.log_policy(world, world.sets["reference"])
  pi = jnp.exp(oracle.log_policy(world, world.sets["policy"]))
  scaled = jnp.einsum("xyz,xz->xy", world.win, pi) / kl_coef
  m = jnp.exp(log_mu) * sum(
    scaled**k / math.factorial(k) for k in range(voters + 1)
  )
  wins = jnp.einsum(
    "xyz,xz->xy", world.win, m / jnp.sum(m, axis=1, keepdims=True)
  )

  def objective(log_pi):
    return jnp.sum(jnp.exp(log_pi) * (wins - kl_coef * (log_pi - log_mu)), 1)

  return _ascent(world, objective)


def step(kl_coef: float, proposals: int, voters: int, **settings) -> np.ndarray:
  """The expected ascent of a step whose prompts all have an accepted one."""
  world = oracle.make_world(ONE)
  opponent = rejection.make_opponent(kl_coef=kl_coef, proposals=proposals)
  assert opponent.accepts is not None
  play = whole_step.make_play(world, kl_coef=kl_coef, **settings)._replace(
    opponent=opponent._replace(accepts=opponent.accepts._replace(voters=voters))
  )
  return np.asarray(whole_step.expected_ascent(world, play))


def of_gap(world: oracle.World) -> float:
  """Error of a step against ∇ (½ − gap)."""
  del world
  exact = minus_gap(oracle.make_world(ONE), WARM)
  return oracle.error(step(WARM, 1, MANY), exact)


def of_several(world: oracle.World) -> float:
  """Error of a step with several proposals of few voters, of their law."""
  del world
  exact = against_series(oracle.make_world(ONE), oracle.KL_COEF, 2)
  return oracle.error(step(oracle.KL_COEF, 2, 2), exact)


def of_series(world: oracle.World) -> float:
  """How far the gradient that is learnt is from that of the gap, by voters."""
  tau = oracle.KL_COEF
  found = against_series(world, tau, rejection.voters(tau))
  return oracle.error(found, minus_gap(world, tau))


def drawn(world: oracle.World, kl_coef: float, proposals: int, seed: int):
  """Rows of a rollout on each prompt so many times, none of it replaced."""
  opponent = rejection.make_opponent(kl_coef=kl_coef, proposals=proposals)
  play = whole_step.make_play(world, kl_coef=kl_coef, opponent="self")
  play = play._replace(opponent=opponent)
  batch = whole_step.prompts_batch(np.arange(oracle.PROMPTS).repeat(500))
  run = jax.jit(functools.partial(whole_step.play_lib.rollout, play))
  return run(world.sets, batch, jax.random.key(seed), jnp.int32(0))
