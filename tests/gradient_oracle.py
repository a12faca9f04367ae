"""Exact gradients by enumeration, and the expectation of every estimator.

On a table model all responses are listed, so both sides are finite sums in
float64: the exact gradient from sequence probabilities alone, opponents from
`paper_opponents`; the expectation from the library's loss on every row that
sampling could give, weighted by its probability. Used by the tests and by
`make certify`.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses, policy
from nashmd_jax.training import followers
from tests import enumeration, paper_opponents

TEMPERATURE, KL_COEF, MIXTURE, PROMPTS = 0.8, 0.3, 0.25, 2
SETS = (
  "policy", "reference", "ema", "behaviour", "past_0", "past_1", "rival",
)  # fmt: skip


ANCHORS = 2  # iterates kept


class World(NamedTuple):
  """Two prompts, Y responses, random sets, preferences and rewards.

  Attributes:
    length: longest response, tokens.
    sets: parameters by name, "past" and "iterate" among them.
    tokens, mask: of the responses, [Y, R].
    win: f64[X, Y, Y], antisymmetric about ½.
    reward: f64[X, Y].
  """

  length: int
  sets: dict
  tokens: jax.Array
  mask: jax.Array
  win: jax.Array
  reward: jax.Array


@functools.cache
def make_world(length: int) -> World:
  """A world whose sets all differ; call in float64."""
  model = enumeration.table_model(length)
  *keys, win_key, reward_key = jax.random.split(
    jax.random.key(0), len(SETS) + 2
  )
  sets = {k: model.init(key) for k, key in zip(SETS, keys, strict=True)}
  # A policy that has moved a few updates away from the one that sampled.
  sets["behaviour"] = jax.tree.map(
    lambda x, y: x + 0.3 * y, sets["policy"], sets["behaviour"]
  )
  past = (sets.pop("past_0"), sets.pop("past_1"))
  sets["past"] = followers.Past(
    jax.tree.map(lambda *xs: jnp.stack(xs), *past), jnp.int32(2)
  )
  anchors = [model.init(jax.random.key(1 + age)) for age in range(ANCHORS)]
  sets["iterate"] = jax.tree.map(lambda *xs: jnp.stack(xs), *anchors)
  tokens, mask = (jnp.asarray(x) for x in enumeration.responses(length))
  size = len(tokens)
  a = jax.random.uniform(win_key, (PROMPTS, size, size), jnp.float64)
  return World(
    length=length,
    sets=sets,
    tokens=tokens,
    mask=mask,
    win=0.5 + 0.5 * (a - jnp.swapaxes(a, 1, 2)),
    reward=jax.random.normal(reward_key, (PROMPTS, size), jnp.float64),
  )


def distributions(
  world: World, params, temperature: float = TEMPERATURE
) -> jax.Array:
  """log π(· | x, y_<n) of every response, teacher forced, f64[X, Y, R, V]."""
  model, read = _states(world, params)
  log_probs = policy.distributions(model, read, temperature=temperature)
  return log_probs.reshape(PROMPTS, -1, *log_probs.shape[1:])


def _states(world: World, params):
  """A table's reading of every response to every prompt, prompt by prompt."""
  model = enumeration.table_model(world.length)
  prompts = jnp.arange(PROMPTS)[:, None]
  every = jnp.tile(world.tokens, (PROMPTS, 1))
  states = model.response_states(params, prompts, prompts == prompts, every)
  return model, policy.States(params, states)


def token_log_probs_and_kl(world: World, params) -> jax.Array:
  """What a loss with the exact KL reads of every token, f64[X, Y, R, 2]."""
  model, read = _states(world, params)
  _, reference = _states(world, world.sets["reference"])
  found = policy.log_probs_and_kl(
    model,
    read,
    reference,
    jnp.tile(world.tokens, (PROMPTS, 1)),
    temperature=TEMPERATURE,
  )
  found = jnp.stack(found, axis=-1)
  return found.reshape(PROMPTS, -1, *found.shape[1:])


def token_log_probs(
  world: World, params, temperature: float = TEMPERATURE
) -> jax.Array:
  """log π(y_n | x, y_<n) of every response, f64[X, Y, R]."""
  every = jnp.broadcast_to(world.tokens, (PROMPTS, *world.tokens.shape))
  log_probs = distributions(world, params, temperature)
  return jnp.take_along_axis(log_probs, every[..., None], axis=-1)[..., 0]


def sequences(world: World, logits, temperature: float = TEMPERATURE):
  """log π(y|x) from a table of logits [X, prefixes, V], f64[X, Y]."""
  table = paper_opponents.log_probs(logits, temperature)
  return jnp.stack(
    [
      enumeration.sequence_log_probs(table[x], world.tokens, world.mask)
      for x in range(PROMPTS)
    ]
  )


def log_policy(world: World, params) -> jax.Array:
  return sequences(world, params["logits"])


def played(world: World, opponent: str) -> list[jax.Array]:
  """π′(y|x), f64[X, Y], for each set that the opponent may draw."""
  tables = paper_opponents.TABLES[opponent](world.sets, MIXTURE, TEMPERATURE)
  return [jnp.exp(sequences(world, table, 1.0)) for table in tables]


def ascent(world: World, weights: jax.Array) -> np.ndarray:
  """mean_x Σ_y weights(x, y) ∇log π(y|x) at the policy; weights f64[X, Y]."""

  def inner(params):
    return jnp.sum(weights * log_policy(world, params)) / PROMPTS

  return np.asarray(jax.grad(inner)(world.sets["policy"])["logits"])


def kl_ascent(world: World, score: jax.Array) -> np.ndarray:
  """∇ of mean_x [Σ_y π(y) score(x, y) − τ KL(π, μ)], score constant."""
  log_mu = log_policy(world, world.sets["reference"])

  def objective(params):
    log_pi = log_policy(world, params)
    value = score - KL_COEF * (log_pi - log_mu)
    return jnp.sum(jnp.exp(log_pi) * value) / PROMPTS

  return np.asarray(jax.grad(objective)(world.sets["policy"])["logits"])


def exact_nash(world: World, opponent: str) -> np.ndarray:
  """∇ P_τ(π_θ ≻ opponent)."""
  mean = sum(played(world, opponent)) / len(played(world, opponent))
  return kl_ascent(world, jnp.einsum("xyz,xz->xy", world.win, mean))


def exact_rlhf(world: World) -> np.ndarray:
  """∇ [E r − τ KL(π, μ)]."""
  return kl_ascent(world, world.reward)


def exact_ipo(world: World, opponent: str) -> np.ndarray:
  """E_{y~m}[∇log π(y) (P(y ≻ m) − ½ − τ (h − E_m h))], h = log π/μ."""
  log_mu = log_policy(world, world.sets["reference"])
  h = log_policy(world, world.sets["policy"]) - log_mu
  total = 0.0
  draws = played(world, opponent)
  for m in draws:
    centred = h - jnp.sum(m * h, axis=1, keepdims=True)
    wins = jnp.einsum("xyz,xz->xy", world.win, m)
    total += m * (wins - 0.5 - KL_COEF * centred)
  return ascent(world, total / len(draws))


def exact_dpo(world: World, opponent: str) -> np.ndarray:
  """τ E_{y, y′ ~ m}[(P(y ≻ y′) − σ(τ (h(y) − h(y′)))) (∇h(y) − ∇h(y′))]."""
  log_mu = log_policy(world, world.sets["reference"])
  h = log_policy(world, world.sets["policy"]) - log_mu
  belief = jax.nn.sigmoid(KL_COEF * (h[:, :, None] - h[:, None, :]))
  total = 0.0
  draws = played(world, opponent)
  for m in draws:
    error = m[:, :, None] * m[:, None, :] * (world.win - belief)
    total += jnp.sum(error, axis=2) - jnp.sum(error, axis=1)
  return ascent(world, KL_COEF * total / len(draws))


def expectation(
  world: World,
  read: Callable[[World, dict], jax.Array],
  loss: Callable[..., jax.Array],
  weights: jax.Array,
  *index: jax.Array,
) -> np.ndarray:
  """Minus the expected gradient of a loss that is a mean over its rows.

  Args:
    read: (world, params) -> f64[X, Y, …], what of the policy the loss reads.
    loss: f64[rows, …] -> scalar.
    weights: f64[rows], probability of each row, summing to the X prompts.
    index: the prompt and the response of each row.
  """
  rows = read(world, world.sets["policy"])[index]
  slopes = len(rows) * jax.grad(loss)(rows)
  slopes = slopes * weights.reshape(-1, *[1] * (rows.ndim - 1)) / PROMPTS

  def pulled(params):
    return jnp.sum(slopes * read(world, params)[index])

  return -np.asarray(jax.grad(pulled)(world.sets["policy"])["logits"])


def error(estimate: np.ndarray, exact: np.ndarray) -> float:
  """‖E[estimator] − exact‖ / ‖exact‖."""
  return float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact))


def pair_rows(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Prompt, y and y′ of every pair of responses, each int[X·Y·Y]."""
  size = len(world.tokens)
  return tuple(
    i.reshape(-1) for i in np.indices((PROMPTS, size, size), np.int32)
  )


def pg_estimate(
  world: World,
  loss,
  draws: list[jax.Array],
  *,
  writer: jax.Array | None = None,
  temperature: float = TEMPERATURE,
  **scores,
) -> np.ndarray:
  """Expectation of a loss of sampled log-probs, y from `writer`, y′ drawn.

  Args:
    draws: π′ of each draw of the opponent.
    writer: f64[X, Y] who writes y; the policy itself if None.
    temperature: at which the loss is told the log-probs.
    scores: further arguments of the loss, f64[X, Y, Y, …].
  """
  x, y, z = pair_rows(world)
  if writer is None:
    writer = jnp.exp(log_policy(world, world.sets["policy"]))
  read = functools.partial(token_log_probs, temperature=temperature)
  reference = read(world, world.sets["reference"])
  constant = dict(
    ref_log_prob=reference[x, y],
    mask=world.mask[y],
    kl_coef=KL_COEF,
    **{name: value[x, y, z] for name, value in scores.items()},
  )
  mean = sum(draws) / len(draws)
  return expectation(
    world,
    read,
    lambda rows: loss(log_prob=rows, **constant)[0].value,
    writer[x, y] * mean[x, z],
    x,
    y,
  )


def exact_kl_estimate(world: World, loss, draws, **scores) -> np.ndarray:
  """`pg_estimate` of a loss with the KL of each prefix."""
  x, y, z = pair_rows(world)
  writer = jnp.exp(log_policy(world, world.sets["policy"]))
  constant = dict(
    mask=world.mask[y],
    kl_coef=KL_COEF,
    **{name: value[x, y, z] for name, value in scores.items()},
  )
  mean = sum(draws) / len(draws)
  return expectation(
    world,
    token_log_probs_and_kl,
    lambda rows: (
      loss(log_prob=rows[..., 0], token_kl=rows[..., 1], **constant)[0].value
    ),
    writer[x, y] * mean[x, z],
    x,
    y,
  )


def leave_one_out_estimate(world: World) -> np.ndarray:
  """Expectation of RLHF with K = 2 and `leave_one_out`."""
  x, y, z = pair_rows(world)
  both = jnp.stack([world.reward[x, y], world.reward[x, z]], axis=1)
  known = jnp.ones(both.shape, bool)
  baseline = losses.leave_one_out(both, known)[:, 0].reshape(world.win.shape)
  return pg_estimate(
    world,
    losses.rlhf_pg_loss,
    played(world, "self"),
    reward=jnp.broadcast_to(world.reward[:, :, None], world.win.shape),
    baseline=baseline,
  )


def pairwise_estimate(world: World, loss, opponent: str) -> np.ndarray:
  """Expectation of a pairwise loss, both responses from the opponent."""
  x, y, z = pair_rows(world)
  win = jnp.zeros((len(x), 2, 2)).at[:, 0, 1].set(world.win[x, y, z])
  log_mu = log_policy(world, world.sets["reference"])
  draws = played(world, opponent)
  weights = sum(m[x, y] * m[x, z] for m in draws) / len(draws)

  def read(world, params):
    """h of both responses of every pair, f64[rows, 2]."""
    h = log_policy(world, params) - log_mu
    return jnp.stack([h[x, y], h[x, z]], axis=1)

  return expectation(
    world,
    read,
    lambda rows: (
      loss(
        log_ratio=rows,
        win_prob=win,
        judged=jnp.ones(win.shape, bool),
        kl_coef=KL_COEF,
      )[0].value
    ),
    weights,
    slice(None),
  )
