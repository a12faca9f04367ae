"""The expectation of a whole step: `play.rollout` and `play.loss` on all draws.

Only the draw itself is replaced. Every tuple of responses that a rollout could
write is written once, with the probability that the lanes it asks for give it,
on the sets and at the temperature that it names; the rows are the rollout's
own. What the lanes should be is the oracle's business. Call in float64.
"""

from collections.abc import Sequence
import functools
from typing import Any
from unittest import mock

import jax
from jax import flatten_util, lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import sampling
from nashmd_jax.nash import algorithms, opponents, rejection
from nashmd_jax.nash import play as play_lib
from nashmd_jax.training import followers
from tests import enumeration, paper_opponents
from tests import gradient_oracle as oracle

SHARE, PESSIMISM = 0.4, 0.1  # of the desired among unary records; of pepo


def make_play(
  world: oracle.World,
  *,
  samples: int = 1,
  opponent: str = "mixture",
  loss: str = "policy_gradient",
  scores: str = "win_prob",
  updates: int = 1,
  design: str = "all",
  orders: str = "one",
  **changes,
) -> play_lib.Play:
  """The table model in a play judged by the world's tables."""
  judges = {
    "win_prob": enumeration.table_judge(world.win, world.length),
    "reward": enumeration.table_scorer(world.reward, world.length),
  }
  play = play_lib.Play(
    model=enumeration.table_model(world.length),
    opponent=opponents.make_opponent(
      opponent=opponent,
      mixture=oracle.MIXTURE,
      mixture_end=oracle.MIXTURE,
      mixture_steps=0,
    ),
    judge=lambda sets: judges[scores],
    algorithm=algorithms.make_algorithm(
      scores=scores,
      loss=loss,
      updates_per_rollout=updates,
      judge_ahead=0,
      clip=np.inf,
      ratio="product",
      design=design,
      orders=orders,
      desired_share=SHARE,
      pessimism=PESSIMISM,
      follower_kl_coef=0.4,
    ),
    samples=samples,
    kl_coef=oracle.KL_COEF,
    held={"reference": 1.0},
    temperature=oracle.TEMPERATURE,
    max_response=world.length,
    eos_ids=(enumeration.EOS,),
    ready=play_lib.as_they_are,
  )
  return play._replace(**changes)


def prompts_batch(prompts: np.ndarray | jax.Array) -> dict[str, jax.Array]:
  """A batch of the given of the two prompts, int[B]."""
  prompts = jnp.asarray(prompts, jnp.int32)[:, None]
  return {
    "prompts": prompts,
    "prompts_mask": prompts == prompts,
    "example_ids": jnp.arange(len(prompts)),
  }


def expected_ascent(world: oracle.World, play: play_lib.Play) -> jax.Array:
  """Minus the expected gradient of a step on each prompt once, flat."""
  found = [_of_draw(world, play, sets) for sets in _draws(world.sets)]
  return -sum(found) / len(found)


def _draws(sets: dict) -> list[dict]:
  """The sets with each of the stored past policies as the only one."""
  if "past" not in sets:
    return [sets]
  snapshots, count = sets["past"]
  return [
    sets
    | {
      "past": followers.Past(
        jax.tree.map(lambda x, i=i: x[i : i + 1], snapshots), jnp.int32(1)
      )
    }
    for i in range(int(count))
  ]


def _of_draw(world, play, sets) -> jax.Array:
  made = play_lib.algorithms_lanes(play, 0)
  count = len(made.all)
  outcomes = [2] * len(made.other) if made.voters else []  # of proposals
  sizes = (oracle.PROMPTS, *[len(world.tokens)] * count, *outcomes)
  x, *every = (i.reshape(-1) for i in np.indices(sizes))
  numbers, accepted = every[:count], every[count:]
  chosen = np.stack(numbers, axis=1)

  def written(weight, model, ready, lanes, *, temperature, **rest):
    del rest
    by_lane = {
      id(lane): lane_log_probs(world, model, ready, lane, temperature)
      for lane in lanes
    }
    log_prob = jnp.stack(
      [
        by_lane[id(lane)][x, number]
        for lane, number in zip(lanes, numbers, strict=True)
      ],
      axis=1,
    )
    mask = world.mask[chosen]
    weight.append(jnp.exp(jnp.sum(jnp.where(mask, log_prob, 0), axis=(1, 2))))
    return sampling.Rollout(world.tokens[chosen], mask, log_prob)

  def taken(weight, keys, chance):
    del keys
    taken = jnp.asarray(np.stack(accepted, axis=1) > 0)
    weight.append(jnp.prod(jnp.where(taken, chance, 1 - chance), axis=1))
    return taken

  @jax.jit
  def run(sets):
    found = []
    writing = functools.partial(written, found)
    taking = functools.partial(taken, found)
    with (
      mock.patch.object(sampling, "rollout", writing),
      mock.patch.object(rejection, "taken", taking),
    ):
      rows = play_lib.rollout(
        play, sets, prompts_batch(x), jax.random.key(0), jnp.int32(0)
      )
    weight = total = functools.reduce(jnp.multiply, found)
    if accepted:  # of the tuples that are learnt from, each prompt by itself
      own = weight * jnp.any(rows["accepted"], axis=1)
      weight = own / jnp.zeros(oracle.PROMPTS).at[x].add(own)[x]
    parts = jax.tree.map(
      lambda v: v.reshape(len(x), len(v) // len(x), *v.shape[1:]), rows
    )

    return gradient_of(play, sets, parts, weight), jnp.sum(total)

  gradient, total = run(sets)
  np.testing.assert_allclose(total, oracle.PROMPTS, rtol=1e-12)
  return flatten_util.ravel_pytree(gradient)[0]


def gradient_of(
  play: play_lib.Play, sets: dict, parts: dict, weight: jax.Array
):
  """∇ of the mean loss of the prompts.

  Args:
    parts: rows of each tuple of responses, [N, ...], N first on all.
    weight: f64[N], the chance of each.
  """

  def loss(params):
    def one(part):
      return play_lib.loss(play, params, sets, part, None)[0].value

    return jnp.sum(weight * jax.vmap(one)(parts)) / oracle.PROMPTS

  return jax.grad(loss)(sets["policy"])


def lane_log_probs(
  world: oracle.World,
  model: Any,
  ready: dict,
  lane: sampling.Lane,
  temperature: float,
) -> jax.Array:
  """log π(y_n | x, y_<n) of a lane on every response, f64[X, Y, R]."""
  size = len(world.tokens)
  batch = prompts_batch(np.repeat(np.arange(oracle.PROMPTS), size))
  tokens = jnp.tile(world.tokens, (oracle.PROMPTS, 1))
  total = 0.0
  for name, weight in lane.items():
    logits = model.response_logits(
      ready[name], batch["prompts"], batch["prompts_mask"], tokens
    )
    total += weight * paper_opponents.log_probs(logits, temperature)
  log_probs = paper_opponents.log_probs(total, 1.0)
  found = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
  return found.reshape(oracle.PROMPTS, size, -1)


def error(world: oracle.World, play: play_lib.Play, exact: np.ndarray) -> float:
  """‖E[ascent of a step] − exact‖ / ‖exact‖."""
  return oracle.error(np.asarray(expected_ascent(world, play)), exact.ravel())


def nash(world: oracle.World, opponent: str, **settings) -> float:
  """Error of a step of Nash-PG against ∇ P_τ(π_θ ≻ opponent)."""
  play = make_play(world, opponent=opponent, **settings)
  return error(world, play, oracle.exact_nash(world, opponent))


def ipo(world: oracle.World, opponent: str, **settings) -> float:
  """Error of a step of IPO, whose ascent is 4/τ times PAPER's."""
  play = make_play(world, opponent=opponent, loss="ipo", **settings)
  exact = oracle.exact_ipo(world, opponent) * 4 / oracle.KL_COEF
  return error(world, play, exact)


def dpo(world: oracle.World, opponent: str) -> float:
  """Error of a step of online DPO."""
  play = make_play(world, opponent=opponent, loss="dpo")
  return error(world, play, oracle.exact_dpo(world, opponent))


def rlhf(world: oracle.World, **settings) -> float:
  """Error of a step of RLHF against ∇ [E r − τ KL(π, μ)]."""
  play = make_play(world, opponent="self", scores="reward", **settings)
  return error(world, play, oracle.exact_rlhf(world))


def several(world: oracle.World, weights: dict[str, float]) -> float:
  """Error against the weighted mean of what each opponent alone teaches."""
  plays = {name: make_play(world, opponent=name) for name in weights}
  lanes = [
    (weight, lane)
    for name, weight in weights.items()
    for _, lane in plays[name].opponent.lanes(0)
  ]
  opponent = plays["mixture"].opponent._replace(lanes=lambda step: lanes)
  exact = sum(
    weight * oracle.exact_nash(world, name) for name, weight in weights.items()
  )
  return error(world, make_play(world)._replace(opponent=opponent), exact)


def sampled_from(
  world: oracle.World, play: play_lib.Play, prompts: Sequence[int], seed: int
):
  """What a rollout really draws from: its rows, and each distribution.

  Returns: the rows of a rollout that waits for a judge on the host, and
    {(row, lane, n): log-probs f64[V] that token n was drawn from}.
  """
  batch, rng = prompts_batch(np.array(prompts)), jax.random.key(seed)
  real, seen = sampling.rollout, {}

  def note(key, bits):
    seen[tuple(np.asarray(key))] = np.asarray(bits).view(np.float64)[:, 0]

  def choose(key, log_probs):
    # As bits: the thread of the callback is not in float64.
    bits = lax.bitcast_convert_type(log_probs, jnp.uint32)
    jax.debug.callback(note, jax.random.key_data(key), bits)
    return sampling.sample(key, log_probs)

  def recorded(*args, **kwargs):
    return real(*args, **kwargs, choose=choose)

  with mock.patch.object(sampling, "rollout", recorded):
    rows = jax.device_get(
      play_lib.rollout(
        play._replace(judge=None), world.sets, batch, rng, jnp.int32(0)
      )
    )
    jax.effects_barrier()
  lanes = rows["written"].shape[1]
  write_rng = jax.random.split(rng, 3)[0]
  keys = sampling.row_keys(write_rng, batch["example_ids"], lanes)
  found = {}
  for n in range(world.length):
    folded = jax.vmap(jax.vmap(lambda key, n=n: jax.random.fold_in(key, n)))
    data = np.asarray(jax.random.key_data(folded(keys)))
    for row, lane in np.argwhere(rows["written_mask"][:, :, n]):
      found[row, lane, n] = seen[tuple(data[row, lane])]
  return rows, found
