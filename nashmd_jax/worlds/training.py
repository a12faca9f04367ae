"""Stage `nash` in a planted world: a language model against the exact answer.

A real language model is trained through the whole stack, by sampling; its
exact distribution, by enumeration, is compared with the exact point at which
it should come to rest.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nashmd_jax import games, models, policy
from nashmd_jax.nash import algorithms, opponents
from nashmd_jax.nash import play as game_lib
from nashmd_jax.stages import nash
from nashmd_jax.training import loop, sharding
from nashmd_jax.training import optimizer as optimizer_lib
from nashmd_jax.worlds import planted

World = planted.World
TOLERANCE, MAX_ITERATIONS = 1e-10, 5000
# 1 − β of the best response, whose τ/(1−β) is infinite: its limit, in effect.
LEAST_POLICY = 1e-6


class Answer(NamedTuple):
  """Exact policies for every prompt, log-probs f64[X, Y], nats.

  Attributes:
    policy: where the learner comes to rest, π ∝ μ exp(P m(π) / τ).
    mixture: m, the token-wise mixture of that π and μ.
    equilibrium: π*_τ.
    hot_equilibrium: π*_τ′ at τ′ = τ/(1−β), which m would be if it were the
      sequence-level mixture.
    reference: μ.
    mixture_weight: β, a number.
    kl_coef: τ, a number.
  """

  policy: np.ndarray
  mixture: np.ndarray
  equilibrium: np.ndarray
  hot_equilibrium: np.ndarray
  reference: np.ndarray
  mixture_weight: float
  kl_coef: float


def make_game(
  world: World,
  model: models.LanguageModel,
  section: ml_collections.ConfigDict,
) -> game_lib.Game:
  """The game of a checked `nash` section on this world.

  Args:
    section: its judge is "preference", which here is the planted one.
  """
  if section.judge != "preference":
    raise ValueError(
      f"nash.judge: got {section.judge!r}, expected 'preference', which in a "
      "world is the planted one"
    )
  return game_lib.Game(
    model=model,
    opponent=opponents.make_opponent(**nash.chosen(section, nash.OPPONENT)),
    judge=lambda sets: planted.make_judge(world.space, sets["judge"]),
    rule=algorithms.make_rule(
      scores="win_prob", **nash.chosen(section, nash.RULE)
    ),
    samples=section.samples,
    kl_coef=section.kl_coef,
    temperature=section.temperature,
    max_response=world.space.tokens.shape[1],
    eos_id=world.space.eos_id,
  )


def weight_on_reference(game: game_lib.Game, steps: int) -> float:
  """β that the opponent ends with, after `steps` steps.

  Raises: ValueError for an opponent that is no mixture of the learner, or a
    moving average that follows it, with μ: its point of rest is not known.
  """
  lane = game.opponent.lane(steps)
  if not set(lane) <= {"policy", "ema", "reference"}:
    raise ValueError(
      f"nash.opponent: no exact answer is known for the lane {dict(lane)}; "
      "choose self, mixture, reference, or a moving average"
    )
  return float(lane.get("reference", 0.0))


def exact_log_probs(
  world: World, game: game_lib.Game, params: Any
) -> jax.Array:
  """log π(y|x) of every response, f32[X, Y], nats, by enumeration."""
  count, size = len(world.prompts), len(world.space.tokens)
  prompts = jnp.repeat(jnp.asarray(world.prompts), size, axis=0)
  steps = policy.response_log_probs(
    game.model,
    params,
    prompts=prompts,
    prompt_mask=jnp.ones(prompts.shape, bool),
    responses=jnp.tile(jnp.asarray(world.space.tokens), (count, 1)),
    temperature=game.temperature,
  ).reshape(count, size, -1)
  return jnp.sum(jnp.where(world.space.mask, steps, 0), axis=-1)


def solve(
  world: World, *, log_reference: np.ndarray, kl_coef: float, mixture: float
) -> Answer:
  """The exact answer for a reference f[X, Y], in float64.

  Raises: ValueError if no fixed point was found, as may be for a small τ.
  """
  limits = {"tolerance": TOLERANCE, "max_iterations": MAX_ITERATIONS}

  def one(game):
    found = games.mixture_fixed_point(
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
    raise ValueError(
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


def make_experiment(
  world: World, game: game_lib.Game, answer: Answer, *, batch_size: int
) -> loop.Experiment:
  """Training on the world's prompts from a random start, which is μ.

  Args:
    answer: what the evaluation compares with, for this start.
    batch_size: prompts a step, a multiple of X: each prompt as often.
  Raises: ValueError for another batch size.
  """
  if batch_size < 1 or batch_size % len(world.prompts):
    raise ValueError(
      f"nash.data.batch_size: got {batch_size}, expected a multiple of the "
      f"{len(world.prompts)} prompts of the world"
    )

  def init(rng):
    start = game.model.init(rng)
    tables = {
      "prompts": jnp.asarray(world.prompts),
      "preference": jnp.asarray(world.preference, jnp.float32),
    }
    return start, {"reference": start, "judge": tables}

  @jax.jit
  def evaluate(params_by_name):
    last, average = (
      distances(
        world, answer, exact_log_probs(world, game, params_by_name[name])
      )
      for name in ("policy", "ema")
    )
    return last | {"ema_kl": average["kl"]}

  return loop.Experiment(
    init=init,
    rollout=functools.partial(game_lib.rollout, game),
    loss=functools.partial(game_lib.loss, game),
    batches=functools.partial(_batches, world, batch_size),
    evaluate=evaluate,
    followers={},
  )


def _batches(world: World, batch_size: int) -> grain.DatasetIterator:
  """Endless batches with every prompt as often; only `example_ids` differ."""
  prompts = np.tile(world.prompts, (batch_size // len(world.prompts), 1))

  def batch(index, prompts):
    ids = (index * batch_size + np.arange(batch_size)) % 2**31
    return {
      "prompts": prompts,
      "prompts_mask": np.ones(prompts.shape, bool),
      "example_ids": ids.astype(np.int32),
    }

  dataset = grain.MapDataset.source([prompts]).repeat().map_with_index(batch)
  return iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
  )


def make_model(
  config: ml_collections.ConfigDict, world: World
) -> models.LanguageModel:
  """`config.model` on the world's vocabulary."""
  return models.make_language_model(
    vocab_size=world.space.vocab_size, **config.model
  )


def run_section(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """The checked section of a run; raises ValueError, see `nash.run_section`."""
  section = nash.run_section(config, name)
  world = planted.make_world(**config.world)
  game = make_game(world, make_model(config, world), section)
  weight_on_reference(game, section.train.steps)
  return section


def prepare(
  config: ml_collections.ConfigDict, name: str
) -> tuple[World, game_lib.Game, Answer]:
  """The world, the game and the exact answer of a run."""
  section = run_section(config, name)
  world = planted.make_world(**config.world)
  game = make_game(world, make_model(config, world), section)
  # The loop makes the same start of the same seed.
  start = game.model.init(jax.random.key(config.seed))
  answer = solve(
    world,
    log_reference=exact_log_probs(world, game, start),
    kl_coef=section.kl_coef,
    mixture=weight_on_reference(game, section.train.steps),
  )
  return world, game, answer


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str
) -> dict[str, float]:
  """Trains one of `config.nash.runs`; returns `distances` of its end."""
  section = run_section(config, name)
  world, game, answer = prepare(config, name)
  return loop.train(
    make_experiment(world, game, answer, **section.data),
    optimizer_lib.make_optimizer(**section.optimizer),
    devices=sharding.make_devices(**config.devices),
    name=f"nash/{name}",
    folder=workdir / "nash" / name,
    seed=config.seed,
    updates_per_rollout=section.updates_per_rollout,
    **section.train,
  )
