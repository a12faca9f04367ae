"""Bias and variance by enumeration of what is no gradient, or not of one play.

Off-policy ratios on what an earlier policy wrote, and GRPO. Call in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses
from tests import family_oracle, whole_step
from tests import gradient_oracle as oracle

OPPONENT = "mixture"


def moved(world: oracle.World, times: float) -> oracle.World:
  """The world with π_b so many times as far from the policy."""
  behaviour = jax.tree.map(
    lambda x, y: x + times * (y - x),
    world.sets["policy"],
    world.sets["behaviour"],
  )
  return world._replace(sets={**world.sets, "behaviour": behaviour})


def distance(world: oracle.World) -> float:
  """KL(π_θ, π_b), nats, a mean over the prompts."""
  ours, theirs = (
    oracle.log_policy(world, world.sets[name])
    for name in ("policy", "behaviour")
  )
  return float(jnp.mean(jnp.sum(jnp.exp(ours) * (ours - theirs), axis=1)))


def ratio(world: oracle.World, name: str, clip: float) -> tuple[float, float]:
  """Relative bias and variance of Nash-PG on what an earlier policy wrote.

  One pair of responses to each prompt, y of the behaviour policy.

  Args:
    name: of `losses.RATIOS`.
    clip: ε; inf for none.
  Returns: ‖E g − exact‖ / ‖exact‖, and E‖g − E g‖² / ‖exact‖².
  """
  exact = oracle.exact_nash(world, OPPONENT)
  moments = jax.jit(functools.partial(_moments, world, name, clip))
  mean, variance = moments(world.sets["policy"])
  scale = np.sum(exact**2)
  return oracle.error(np.asarray(mean), exact.ravel()), float(variance / scale)


def _moments(world, name, clip, policy) -> tuple[jax.Array, jax.Array]:
  """The mean of the ascent direction over the prompts, and its variance."""
  x, y, z = oracle.pair_rows(world)
  behaviour = world.sets["behaviour"]
  at = functools.partial(oracle.token_log_probs, world)
  constant = dict(
    behaviour_log_prob=at(behaviour)[x, y],
    ref_log_prob=at(world.sets["reference"])[x, y],
    win_prob=world.win[x, y, z],
    mask=world.mask[y],
    kl_coef=oracle.KL_COEF,
    clip=clip,
    ratio=name,
  )

  def loss(rows):
    found, _ = losses.nash_pg_off_policy_loss(log_prob=rows, **constant)
    return found.total

  slopes = -jax.grad(loss)(at(policy)[x, y])
  scores = jax.jacobian(at)(policy)["logits"][x, y]
  each = jnp.einsum("in,in...->i...", slopes, scores).reshape(len(x), -1)
  (opponent,) = oracle.played(world, OPPONENT)
  weight = jnp.exp(oracle.log_policy(world, behaviour))[x, y] * opponent[x, z]
  own = weight[None] * (x[None] == jnp.arange(oracle.PROMPTS)[:, None])
  means = own @ each
  variances = own @ jnp.sum(each**2, axis=1) - jnp.sum(means**2, axis=1)
  variance = jnp.sum(variances) / oracle.PROMPTS**2
  return jnp.mean(means, axis=0), variance


def grpo(world: oracle.World, samples: int) -> float:
  """How far a step's direction is from ∇ [E r − τ KL]: a sine."""
  play = whole_step.make_play(
    world, opponent="self", scores="reward", loss="grpo", samples=samples
  )
  found = np.asarray(whole_step.expected_ascent(world, play))
  return family_oracle.direction_error(found, oracle.exact_rlhf(world).ravel())
