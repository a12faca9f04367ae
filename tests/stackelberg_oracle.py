"""Both players' gradients of a Stackelberg game by enumeration.

A table of logits for both turns: of every prompt, and of every response to it.
The exact side is written from sequence probabilities alone; the other is a
whole step of play on every y and every answer to it. Call in float64.
"""

import functools
from unittest import mock

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models, sampling
from nashmd_jax.nash import play as play_lib
from tests import enumeration, paper_opponents, whole_step
from tests import gradient_oracle as oracle

FOLLOWER_KL_COEF = 0.4  # as in `whole_step`
INSTRUCTION = (2, 1)


def two_turn_table(length: int) -> models.LanguageModel:
  """`table_model` whose prompts are x, or x, y and the instruction."""
  table = enumeration.table_model(length)
  number = enumeration.response_number(length)
  count = len(enumeration.responses(length)[0])

  def place(prompts, mask):
    size = jnp.sum(mask, axis=1, keepdims=True)
    behind = jnp.arange(1, 1 + length)[None]
    of_y = behind < size - len(INSTRUCTION)
    fill = ((0, 0), (0, length))
    tokens = jnp.pad(prompts, fill)[:, 1 : 1 + length]
    second = 2 + prompts[:, 0] * count + number((tokens, of_y))
    place = jnp.where(size[:, 0] > 1, second, prompts[:, 0])
    return place[:, None].astype(jnp.int32)

  def init(rng):
    prefixes = table.init(rng)["logits"].shape[1]
    shape = (2 + 2 * count, prefixes, enumeration.VOCAB)
    return {"logits": jax.random.normal(rng, shape)}

  def response_states(params, prompts, mask, tokens):
    at = place(prompts, mask)
    return table.response_states(params, at, at == at, tokens)

  def prefill(params, prompts, mask, *rest):
    at = place(prompts, mask)
    return table.prefill(params, at, at == at, *rest)

  return table._replace(
    init=init, response_states=response_states, prefill=prefill
  )


def make_sets(length: int) -> dict:
  """Policy and reference of both turns."""
  model = two_turn_table(length)
  names = ("policy", "reference")
  return {n: model.init(jax.random.key(9 + i)) for i, n in enumerate(names)}


def make_play(world: oracle.World, **changes) -> play_lib.Play:
  """The two-turn table in a play before the world's judge."""
  return whole_step.make_play(
    world, opponent="self", loss="stackelberg", instruction=INSTRUCTION,
    **({"model": two_turn_table(world.length)} | changes),
  )  # fmt: skip


def both_logs(world: oracle.World, params) -> tuple[jax.Array, jax.Array]:
  """log π(y|x) f64[X, Y], log ω(y′|x, y) f64[X, Y, Y]."""
  table = paper_opponents.log_probs(params["logits"], oracle.TEMPERATURE)
  every = jnp.stack([
    enumeration.sequence_log_probs(one, world.tokens, world.mask)
    for one in table
  ])  # fmt: skip
  size = len(world.tokens)
  return every[:2], every[2:].reshape(2, size, size)


def exact(world: oracle.World, sets: dict) -> np.ndarray:
  """∇ of what the leader ascends less ∇ of what the follower descends."""
  log_mu, log_first = both_logs(world, sets["reference"])
  tau, own = oracle.KL_COEF, FOLLOWER_KL_COEF

  def game(log_pi, log_omega):
    paid = world.win + own * (log_omega - log_first)
    value = jnp.sum(jnp.exp(log_omega) * paid, axis=2)
    value = value - tau * (log_pi - log_mu)
    return jnp.mean(jnp.sum(jnp.exp(log_pi) * value, axis=1))

  def played(params):
    pi, omega = both_logs(world, params)
    stop = lax.stop_gradient
    return game(pi, stop(omega)) - game(stop(pi), omega)

  return np.asarray(jax.grad(played)(sets["policy"])["logits"])


def expected(world: oracle.World, sets: dict, play: play_lib.Play):
  """The expected ascent of a whole step, K = 1."""
  size = len(world.tokens)
  x, *numbers = (
    i.reshape(-1) for i in np.indices((oracle.PROMPTS, size, size))
  )

  def written(weights, model, ready, lanes, **given):
    number = numbers[len(weights)]
    tokens, mask = world.tokens[number], world.mask[number]
    logits = model.response_logits(
      ready["policy"], given["prompts"], given["prompt_mask"], tokens
    )
    table = paper_opponents.log_probs(logits, given["temperature"])
    steps = jnp.take_along_axis(table, tokens[..., None], axis=-1)[..., 0]
    weights.append(jnp.exp(jnp.sum(jnp.where(mask, steps, 0), axis=1)))
    assert lanes == [{"policy": 1.0}]
    return sampling.Rollout(tokens[:, None], mask[:, None], steps[:, None])

  @jax.jit
  def run(sets):
    weights = []
    patched = functools.partial(written, weights)
    with mock.patch.object(sampling, "rollout", patched):
      rows = play_lib.rollout(
        play, sets, whole_step.prompts_batch(x), jax.random.key(0), 0
      )
    weight = weights[0] * weights[1]
    parts = jax.tree.map(lambda v: v[:, None], rows)

    gradient = whole_step.gradient_of(play, sets, parts, weight)
    return gradient, jnp.sum(weight)

  gradient, total = run(sets)
  np.testing.assert_allclose(total, oracle.PROMPTS, rtol=1e-12)
  return -np.asarray(gradient["logits"])


def measure(world: oracle.World) -> float:
  """Error of a step, of responses of up to two tokens."""
  world = oracle.make_world(min(world.length, 2))
  sets = make_sets(world.length)
  found = expected(world, sets, make_play(world))
  return oracle.error(found, exact(world, sets))
