"""The exact answer of a run in a planted world, and the distance from it.

A policy's distribution over all responses is listed, and compared with the
exact point at which the run should come to rest.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games, mistakes, models, policy
from nashmd_jax.nash import second_turn
from nashmd_jax.worlds import planted, rest

World = planted.World
TOLERANCE, MAX_ITERATIONS = 1e-10, 5000
# 1 − β of the best response, whose τ/(1−β) is infinite: its limit, in effect.
LEAST_POLICY = 1e-6


class Answer(NamedTuple):
  """Exact policies for every prompt, log-probs f64[X, Y], nats.

  Attributes:
    policy: where the learner comes to rest, see `rest`.
    mixture: m, the token-wise mixture of that π and μ.
    equilibrium: π*_τ.
    hot_equilibrium: π*_τ′ at τ′ = τ/(1−β), which m would be if it were the
      sequence-level mixture and π ∝ μ exp(P m/τ).
    reference: μ.
    mixture_weight: β, a number.
    kl_coef: τ, a number.
    follower: log ω*(y′|x, y) f64[X, Y, Y], where there is one.
  """

  policy: np.ndarray
  mixture: np.ndarray
  equilibrium: np.ndarray
  hot_equilibrium: np.ndarray
  reference: np.ndarray
  mixture_weight: float
  kl_coef: float
  follower: np.ndarray | None = None


def exact_log_probs(
  world: World, model: models.LanguageModel, params: Any, *, temperature: float
) -> jax.Array:
  """log π(y|x) of every response, f32[X, Y], nats, by enumeration.

  Args:
    params: as the model runs on them.
    temperature: of the policy.
  """
  count, size = len(world.prompts), len(world.space.tokens)
  prompts = jnp.repeat(jnp.asarray(world.prompts), size, axis=0)
  steps = policy.response_log_probs(
    model,
    params,
    prompts=prompts,
    prompt_mask=jnp.ones(prompts.shape, bool),
    responses=jnp.tile(jnp.asarray(world.space.tokens), (count, 1)),
    temperature=temperature,
  ).reshape(count, size, -1)
  return jnp.sum(jnp.where(world.space.mask, steps, 0), axis=-1)


def second_log_probs(
  world: World, model: models.LanguageModel, params: Any, *, temperature: float
) -> jax.Array:
  """log ω(y′|x, y) of every answer to every response, f32[X, Y, Y], nats.

  Args: as `exact_log_probs`.
  """
  count, size = len(world.prompts), len(world.space.tokens)
  every = (count, *world.space.tokens.shape)
  first = {"prompts": jnp.asarray(world.prompts)}
  first["prompts_mask"] = jnp.ones(world.prompts.shape, bool)
  prompts, mask = second_turn.prompts(
    first,
    jnp.broadcast_to(jnp.asarray(world.space.tokens), every),
    jnp.broadcast_to(jnp.asarray(world.space.mask), every),
    (),
  )
  steps = policy.response_log_probs(
    model,
    params,
    prompts=prompts,
    prompt_mask=mask,
    responses=jnp.tile(jnp.asarray(world.space.tokens), (count * size, 1)),
    temperature=temperature,
  ).reshape(count, size, size, -1)
  return jnp.sum(jnp.where(world.space.mask, steps, 0), axis=-1)


def solve_in_turn(
  world: World,
  *,
  log_reference: np.ndarray,
  log_follower: np.ndarray,
  kl_coef: float,
  follower_kl_coef: float,
) -> Answer:
  """The exact answer of the Stackelberg game, in float64.

  Args:
    log_reference, kl_coef: as `solve`, of the leader.
    log_follower: log ω_0(y′|x, y) f[X, Y, Y], nats.
    follower_kl_coef: τ_F > 0.
  """
  found = solve(
    world,
    log_reference=log_reference,
    kl_coef=kl_coef,
    mixture=0.0,
    loss="policy_gradient",
  )
  with jax.enable_x64(True):
    game = games.make_game(
      preference=world.preference,
      reference=np.exp(found.reference),
      kl_coef=kl_coef,
    )
    leader, follower = jax.vmap(
      functools.partial(
        rest.leader_fixed_point, follower_kl_coef=follower_kl_coef
      )
    )(game, jnp.asarray(np.asarray(log_follower, np.float64)))
  leader, follower = np.asarray(leader), np.asarray(follower)
  return found._replace(policy=leader, mixture=leader, follower=follower)


def solve(
  world: World,
  *,
  log_reference: np.ndarray,
  kl_coef: float,
  mixture: float,
  loss: str,
) -> Answer:
  """The exact answer for a reference f[X, Y], in float64.

  Args:
    log_reference: log μ, nats.
    kl_coef: τ > 0.
    mixture: β, with which the opponent ends.
    loss: by name; see `rest.FIXED_POINTS`.
  Raises: Mistake if no fixed point was found, as may be for a small τ, or if
    that of the loss is not known.
  """
  limits = {"tolerance": TOLERANCE, "max_iterations": MAX_ITERATIONS}
  fixed_point = rest.fixed_point(loss)

  def one(game):
    found = fixed_point(
      world.space, game, mixture=mixture, start=game.log_reference, **limits
    )
    best = games.regularised_equilibrium(game, **limits)
    hot = games.regularised_equilibrium(_hotter(game, mixture), **limits)
    worst = jnp.maximum(best.distance, hot.distance)
    worst = jnp.maximum(worst, found.residual)
    policies = (found.log_policy, found.log_mixture)
    return (
      *policies,
      best.log_policy,
      hot.log_policy,
      game.log_reference,
    ), worst

  with jax.enable_x64(True):
    game = games.make_game(
      preference=world.preference,
      reference=np.exp(np.asarray(log_reference, np.float64)),
      kl_coef=kl_coef,
    )
    policies, worst = jax.jit(jax.vmap(one))(game)
    worst = float(jnp.max(worst))
  if not worst <= TOLERANCE:
    raise mistakes.Mistake(
      f"nash.kl_coef: no exact answer for {kl_coef} within {TOLERANCE:g} (got "
      f"{worst:.1g}); choose a larger τ"
    )
  return Answer(*map(np.asarray, policies), mixture, kl_coef)


def _hotter(game: games.Game, mixture: float) -> games.Game:
  """The game at temperature τ/(1−β)."""
  return game._replace(kl_coef=game.kl_coef / max(1 - mixture, LEAST_POLICY))


def distances(
  world: World, answer: Answer, log_probs: jax.Array
) -> dict[str, jax.Array]:
  """How far policies are from the answer, means over the prompts.

  Args:
    log_probs: f[X, Y] of π, nats.
  Returns: "kl", KL(answer ‖ π); "equilibrium_kl", KL(π*_τ ‖ π); "gap", the
    duality gap of π at τ; "mixture_kl", KL(π*_τ′ ‖ m) for the token-wise
    mixture m of π and μ and τ′ = τ/(1−β); "mixture_gap", the gap of m at τ′.
  """
  dtype = log_probs.dtype
  beta = answer.mixture_weight

  def one(preference, reference, target, equilibrium, hot, policy):
    tau = jnp.asarray(answer.kl_coef, dtype)
    game = games.Game(preference, reference, tau)
    mixed = games.token_mixture(world.space, policy, reference, beta)
    return {
      "kl": games.kl_divergence(target, policy),
      "equilibrium_kl": games.kl_divergence(equilibrium, policy),
      "gap": games.duality_gap(game, policy),
      "mixture_kl": games.kl_divergence(hot, mixed),
      "mixture_gap": games.duality_gap(_hotter(game, beta), mixed),
    }

  exact = (
    jnp.asarray(x, dtype)
    for x in (
      world.preference,
      answer.reference,
      answer.policy,
      answer.equilibrium,
      answer.hot_equilibrium,
    )
  )
  found = jax.vmap(one)(*exact, log_probs)
  return {name: jnp.mean(values) for name, values in found.items()}


def follower_distance(
  answer: Answer, log_probs: jax.Array
) -> dict[str, jax.Array]:
  """How far answers are from those of the follower, a mean over the prompts.

  Args:
    log_probs: f[X, Y, Y] log ω(y′|x, y), nats.
  Returns: "follower_kl", the mean of KL(ω* ‖ ω) over responses of π*.
  """
  target = jnp.asarray(answer.follower, log_probs.dtype)
  kl = jnp.sum(jnp.exp(target) * (target - log_probs), axis=-1)
  weight = jnp.exp(jnp.asarray(answer.policy, log_probs.dtype))
  return {"follower_kl": jnp.mean(jnp.sum(weight * kl, axis=1))}
