"""Stated objectives of the family by enumeration, and steps held against them.

The exact side is the gradient of each objective, written from sequence
probabilities alone; anchors stand there one by one, each with a KL of its own.
The other side is a whole step of play. Call in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import holding
from tests import gradient_oracle as oracle
from tests import whole_step

TAU, COEF = 0.2, 0.5  # of μ, of the anchors
WEIGHTS = {1: (1.0,), 2: (3.0, 1.0)}


def held(anchors: int, **changes) -> holding.Held:
  """What the policy is held to: μ, and so many of its last iterates."""
  settings = {"kl_coef": TAU, "coef": COEF, "every": 1, "anchor": "last"}
  settings |= {"weights": WEIGHTS[anchors]}
  return holding.make_held(**(settings | changes))


def logs(world: oracle.World, anchors: int) -> tuple:
  """Sequence log-probs f64[X, Y]: of μ, and of each anchor."""
  kept = world.sets["iterate"]["logits"]
  return oracle.log_policy(world, world.sets["reference"]), [
    oracle.sequences(world, kept[age]) for age in range(anchors)
  ]


def writer(world: oracle.World) -> jax.Array:
  """π_t(y|x), f64[X, Y], who writes what is learnt of."""
  return oracle.played(world, "anchor")[0]


def ascent_of(world: oracle.World, objective) -> np.ndarray:
  """Minus the gradient of a mean over prompts of a sum f64[X] of log π."""

  def value(params):
    return -jnp.mean(objective(oracle.log_policy(world, params)))

  return np.asarray(jax.grad(value)(world.sets["policy"])["logits"])


def margin(x: jax.Array) -> jax.Array:
  """x(y) − x(y′), f64[X, Y, Y]."""
  return x[:, :, None] - x[:, None, :]


def exact_mnpo(world: oracle.World, anchors: int) -> np.ndarray:
  """Of (Δ − (τ/η) Δ_μ − Σ_j λ_j Δ_j − 1/(2η))², λ summing to 1 − τ/η."""
  price = TAU + COEF
  mu, kept = logs(world, anchors)
  weights = np.array(WEIGHTS[anchors]) / sum(WEIGHTS[anchors])
  m = writer(world)

  def objective(log_pi):
    gap = margin(log_pi) - TAU / price * margin(mu)
    for weight, one in zip(weights, kept, strict=True):
      gap -= (1 - TAU / price) * weight * margin(one)
    half = 1 / (2 * price)
    lost = world.win * (gap - half) ** 2 + (1 - world.win) * (gap + half) ** 2
    return jnp.einsum("xy,xz,xyz->x", m, m, lost)

  return ascent_of(world, objective)


def exact_sppo(world: oracle.World) -> np.ndarray:
  """Of E_π_t (log(π/π_t) − (P(y ≻ π_t) − ½)/η)², η the price of the anchor."""
  _, (last,) = logs(world, 1)
  m = writer(world)
  wins = jnp.einsum("xyz,xz->xy", world.win, m)

  def objective(log_pi):
    return jnp.sum(m * (log_pi - last - (wins - 0.5) / COEF) ** 2, axis=1)

  return ascent_of(world, objective)


def exact_dno(world: oracle.World) -> np.ndarray:
  """Of the cross-entropy of σ(η margin) against σ(r − r′), r = P(· ≻ π_t)."""
  _, (last,) = logs(world, 1)
  m = writer(world)
  target = jax.nn.sigmoid(margin(jnp.einsum("xyz,xz->xy", world.win, m)))

  def objective(log_pi):
    z = COEF * margin(log_pi - last)
    nats = target * jax.nn.softplus(-z) + (1 - target) * jax.nn.softplus(z)
    return jnp.einsum("xy,xz,xyz->x", m, m, nats)

  return ascent_of(world, objective)


def exact_magnet(world: oracle.World, anchors: int) -> np.ndarray:
  """Of −P(π ≻ π_t) + τ KL(π, μ) + κ Σ_j w_j KL(π, π_j)."""
  mu, kept = logs(world, anchors)
  weights = np.array(WEIGHTS[anchors]) / sum(WEIGHTS[anchors])
  wins = jnp.einsum("xyz,xz->xy", world.win, writer(world))

  def objective(log_pi):
    paid = TAU * (log_pi - mu)
    for weight, one in zip(weights, kept, strict=True):
      paid += COEF * weight * (log_pi - one)
    return jnp.sum(jnp.exp(log_pi) * (paid - wins), axis=1)

  return ascent_of(world, objective)


def step_of(world: oracle.World, loss: str, made: holding.Held, **settings):
  """The expected ascent of a whole step on pairs that π_t wrote, flat."""
  play = whole_step.make_play(
    world, opponent="anchor", loss=loss, kl_coef=made.kl_coef, held=made.lane,
    **settings,
  )  # fmt: skip
  return np.asarray(whole_step.expected_ascent(world, play))


def of_mnpo(world: oracle.World, loss: str, anchors: int) -> float:
  found = step_of(world, loss, held(anchors))
  return oracle.error(found, exact_mnpo(world, anchors).ravel())


def of_magnet(world: oracle.World, anchors: int) -> float:
  found = step_of(world, "policy_gradient", held(anchors))
  return oracle.error(found, exact_magnet(world, anchors).ravel())


def of_sppo(world: oracle.World) -> float:
  found = step_of(world, "sppo", held(1, kl_coef=0.0))
  return oracle.error(found, exact_sppo(world).ravel())


def of_dno(world: oracle.World, samples: int) -> float:
  """Its bias: the others are too few to know P(y ≻ π_t) by."""
  found = step_of(world, "dno", held(1, kl_coef=0.0), samples=samples)
  return oracle.error(found, exact_dno(world).ravel())


def direction_error(found: np.ndarray, exact: np.ndarray) -> float:
  """The relative error after the best scale, the sine of the angle."""
  scale = np.vdot(found, exact) / np.vdot(found, found)
  return oracle.error(scale * found, exact)
