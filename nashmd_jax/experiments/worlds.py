"""Stage `worlds`: games whose every response can be listed, and the answer.

A small vocabulary, a few prompts, a planted cyclic P over all responses, and
a real language model that is trained through the whole stack. Its exact
distribution is compared with the exact point at which it should come to rest.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nashmd_jax import games, judges, models, opponents, policy
from nashmd_jax.experiments import game as game_lib
from nashmd_jax.experiments import nash, rules
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib

KINDS = 3
TOLERANCE, MAX_ITERATIONS = 1e-10, 5000


class World(NamedTuple):
  """Prompts, all their responses, and what is preferred.

  Attributes:
    space: the Y responses, the same for every prompt.
    prompts: int32[X, P], no two alike.
    preference: f64[X, Y, Y], P(y ≻ y′|x).
  """

  space: games.Space
  prompts: np.ndarray
  preference: np.ndarray


class Answer(NamedTuple):
  """Exact policies of every prompt, log-probs f64[X, Y], nats.

  Attributes:
    policy: where the learner comes to rest, π ∝ μ exp(P m(π) / τ).
    mixture: m, the token-wise mixture of that π and μ.
    equilibrium: π*_τ′ at τ′ = τ/(1−β), which m would be if it were the
      sequence-level mixture; μ for β = 1.
  """

  policy: np.ndarray
  mixture: np.ndarray
  equilibrium: np.ndarray


def make_world(
  *,
  vocab_size: int,
  max_response: int,
  prompts: int,
  prompt_length: int,
  cycle: float,
  brevity: float,
  noise: float,
  seed: int,
) -> World:
  """A world with rock, paper and scissors planted in its responses.

    logit P(y ≻ y′|x) = cycle C[k(x, y), k(x, y′)] + brevity (|y′| − |y|)
        + noise (ε − εᵀ) / √2

  C[k, k + 1] = 1, C[k, k − 1] = −1, C[k, k] = 0; the kind of a response is
  k(x, y) = Σ_n w_xn y_n mod 3 over its tokens, w_xn drawn from {1, 2} for each
  prompt and position; |y| counts tokens, EOS (token 0) included.

  Args:
    vocab_size: V, EOS included.
    max_response: R, tokens.
    prompts: X, drawn without repetition.
    prompt_length: P, tokens, none of them EOS.
    cycle: log-odds of a kind against the next one.
    brevity: log-odds for each token that a response is shorter.
    noise: standard deviation of what each pair has of its own, log-odds.
    seed: of prompts, w and ε.
  Raises: ValueError for more prompts than there are.
  """
  space = games.response_space(
    vocab_size=vocab_size, eos_id=0, max_response=max_response
  )
  possible = (vocab_size - 1) ** prompt_length
  if not 1 <= prompts <= possible:
    raise ValueError(
      f"world.prompts: got {prompts}, expected 1 to {possible}, as many as "
      f"{prompt_length} of {vocab_size - 1} tokens make"
    )
  rng = np.random.default_rng(seed)
  numbers = rng.choice(possible, prompts, replace=False)
  digits = np.unravel_index(numbers, (vocab_size - 1,) * prompt_length)
  weights = rng.integers(1, KINDS, (prompts, max_response))
  kind = (weights @ space.tokens.T) % KINDS
  # 1 against the next kind, −1 against the one before.
  turn = (kind[:, None, :] - kind[:, :, None] + 1) % KINDS - 1
  length = space.mask.sum(1)
  own = rng.normal(size=turn.shape)
  logit = (
    cycle * turn
    + brevity * (length[None, :] - length[:, None])
    + noise * (own - own.swapaxes(1, 2)) / np.sqrt(2)
  )
  return World(
    space=space,
    prompts=np.stack(digits, axis=1).astype(np.int32) + 1,
    preference=games.check_preference(1 / (1 + np.exp(-logit))),
  )


def make_judge(space: games.Space, tables: Any) -> judges.TokenJudge:
  """Looks P(y ≻ y′|x) up.

  Args:
    tables: "prompts" int[X, P], "preference" f[X, Y, Y].
  """

  def judge(keys, prompts, responses, others):
    del keys
    same = jnp.all(prompts[0][:, None] == tables["prompts"][None], axis=-1)
    return tables["preference"][
      jnp.argmax(same, axis=-1),
      games.response_index(space, *responses),
      games.response_index(space, *others),
    ]

  return judge


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
    opponent=opponents.make_opponent(**_of(section, nash.OPPONENT)),
    judge=lambda sets: make_judge(world.space, sets["judge"]),
    rule=rules.make_rule(scores="win_prob", **_of(section, nash.RULE)),
    samples=section.samples,
    kl_coef=section.kl_coef,
    temperature=section.temperature,
    max_response=world.space.tokens.shape[1],
    eos_id=world.space.eos_id,
  )


def _of(section, keys):
  return {key: section[key] for key in keys}


def exact_log_probs(
  world: World, game: game_lib.Game, params: models.LanguageModel
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
  """The exact answer in float64."""
  with jax.enable_x64(True):
    log_reference = jnp.asarray(np.asarray(log_reference, np.float64))
    game = games.make_game(
      preference=world.preference,
      reference=np.exp(log_reference),
      kl_coef=kl_coef,
    )

    def one(game):
      found = games.mixture_fixed_point(
        world.space,
        game,
        mixture=mixture,
        tolerance=TOLERANCE,
        max_iterations=MAX_ITERATIONS,
        start=game.log_reference,
      )
      if mixture == 1:
        return found, game.log_reference, 0.0
      hotter = game._replace(kl_coef=game.kl_coef / (1 - mixture))
      best = games.regularised_equilibrium(
        hotter, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS
      )
      return found, best.log_policy, best.distance

    found, equilibrium, distance = jax.jit(jax.vmap(one))(game)
    worst = float(max(found.residual.max(), jnp.max(distance)))
    if not worst <= TOLERANCE:
      raise ValueError(f"no fixed point within {TOLERANCE:g}: {worst:g}")
    return Answer(
      np.asarray(found.log_policy),
      np.asarray(found.log_mixture),
      np.asarray(equilibrium),
    )


def make_experiment(
  world: World, game: game_lib.Game, answer: Answer, *, batch_size: int
) -> loop.Experiment:
  """Training on the world's prompts from a random start, which is μ.

  Args:
    answer: what the evaluation compares with.
    batch_size: prompts a step, a multiple of X: each prompt as often.
  """

  def init(rng):
    start = game.model.init(rng)
    tables = {"prompts": world.prompts, "preference": world.preference}
    tables = jax.tree.map(lambda x: jnp.asarray(x, _dtype(x)), tables)
    return start, {"reference": start, "judge": tables}

  return loop.Experiment(
    init=init,
    rollout=functools.partial(game_lib.rollout, game),
    loss=functools.partial(game_lib.loss, game),
    batches=functools.partial(_batches, world, batch_size),
    evaluate=jax.jit(functools.partial(_distances, world, game, answer)),
    followers={},
  )


def _dtype(x):
  return jnp.float32 if np.issubdtype(x.dtype, np.floating) else jnp.int32


def _batches(world, batch_size) -> grain.DatasetIterator:
  copies = batch_size // len(world.prompts)
  prompts = np.tile(world.prompts, (copies, 1))

  def batch(index, prompts):
    first = index * batch_size
    return {
      "prompts": prompts,
      "prompts_mask": np.ones(prompts.shape, bool),
      "example_ids": np.arange(first, first + batch_size, dtype=np.int64)
      .astype(np.int32),
    }

  dataset = grain.MapDataset.source([prompts]).repeat().map_with_index(batch)
  return iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
  )


def _distances(world, game, answer, params_by_name):
  """How far the exact policy is from the answer, means over prompts."""
  kl = jax.vmap(games.kl_divergence)
  found = {}
  for name in ("policy", "ema"):
    log_probs = exact_log_probs(world, game, params_by_name[name])
    target = jnp.asarray(answer.policy, jnp.float32)
    found[f"{name}_kl"] = jnp.mean(kl(target, log_probs))
    found[f"{name}_kl_max"] = jnp.max(kl(target, log_probs))
    found[f"{name}_eqkl"] = jnp.mean(kl(jnp.asarray(answer.equilibrium, jnp.float32), log_probs))
  return found
