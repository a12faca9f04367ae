"""A half step of EGPO by enumeration, against the gradient of its objective.

θ_t is the newest iterate, and the policy is where the half step before has led.
Call in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests import gradient_oracle as oracle
from tests import whole_step


def exact(world: oracle.World, other: dict) -> np.ndarray:
  """−∇ at θ_t of E_{y, y′ ~ π_t} (h − h′ − (P(y ≻ π″) − P(y′ ≻ π″))/τ)², flat.

  Args:
    other: parameters of π″.
  """
  start = {"logits": world.sets["iterate"]["logits"][0]}
  log_mu = oracle.log_policy(world, world.sets["reference"])
  m = jnp.exp(oracle.log_policy(world, start))
  against = jnp.exp(oracle.log_policy(world, other))
  wins = jnp.einsum("xyz,xz->xy", world.win, against) / oracle.KL_COEF

  def objective(params):
    left = oracle.log_policy(world, params) - log_mu - wins
    apart = left[:, :, None] - left[:, None, :]
    return -jnp.mean(jnp.einsum("xy,xz,xyz->x", m, m, apart**2))

  return np.asarray(jax.grad(objective)(start)["logits"]).ravel()


def step(world: oracle.World) -> np.ndarray:
  """The expected ascent of a half step, flat."""
  play = whole_step.make_play(world, opponent="self", loss="egpo")
  return np.asarray(whole_step.expected_ascent(world, play))


def measure(world: oracle.World) -> float:
  """Error of the second half step, whose π″ is not π_t."""
  world = oracle.make_world(min(world.length, 3))
  return oracle.error(step(world), exact(world, world.sets["policy"]))


def first_is_online_ipo(world: oracle.World) -> float:
  """How far a first half step, π″ = π_t, is from a step of online IPO."""
  start = {"logits": world.sets["iterate"]["logits"][0]}
  there = world._replace(sets={**world.sets, "policy": start})
  ipo = whole_step.make_play(there, opponent="self", loss="ipo")
  expected = np.asarray(whole_step.expected_ascent(there, ipo))
  return oracle.error(step(there), expected)
