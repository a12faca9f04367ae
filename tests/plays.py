"""Plays of small models, their experiments, and runs of them on any layout.

The judge looks a float32 table up by first tokens, so that it says the same
number inside jit and on the host.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays
from nashmd_jax.nash import algorithms, opponents
from nashmd_jax.nash import play as play_lib
from nashmd_jax.training import followers, programs, sharding, state, step
from tests import enumeration, t5_test

MAX_RESPONSE = 4
MODELS = {
  "table": lambda: enumeration.table_model(MAX_RESPONSE),
  "t5": t5_test.tiny_model,
}
SIZE = t5_test.VOCAB
_UNIFORM = np.random.default_rng(0).uniform(size=(2, SIZE, SIZE))
WIN = np.float32(0.5 + 0.5 * (_UNIFORM[0] - _UNIFORM[0].T))
REWARD = np.float32(3 * _UNIFORM[1, 0])
FOLLOWERS = {
  "ema": followers.moving_average(decay=0.9),
  "past": followers.past_policies(size=3, every=1, law="uniform"),
}


def devices(count: int = 1, mode: str = "jit") -> sharding.Devices:
  """The first devices of the test's, every tree whole on each."""
  return sharding.make_devices(
    jax.devices()[:count], mode=mode, model=1, fsdp=False, smallest=1,
    run_dtype="float32", frozen_dtype="float32",
  )  # fmt: skip


def distance(expected, found) -> float:
  """Largest ‖a − b‖ / ‖a‖ over the leaves of two trees."""
  worst = 0.0
  for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
    a, b = np.float64(a), np.float64(b)
    worst = max(worst, np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30))
  return float(worst)


def table_judge(keys, prompts, y, y_opp):
  """P(y ≻ y′) by their first tokens, antisymmetric about ½."""
  del keys, prompts
  return jnp.asarray(WIN)[y[0][:, 0], y_opp[0][:, 0]]


def table_scorer(prompts, y):
  """r(y) by its first token."""
  del prompts
  return jnp.asarray(REWARD)[y[0][:, 0]]


JUDGES = {"win_prob": table_judge, "reward": table_scorer}


def make_play(
  *, model=None, loss="policy_gradient", scores="win_prob", samples=1,
  updates=1, judge=None, kl_coef=0.1, design="all", orders="one", ahead=0,
  **opponent,
) -> play_lib.Play:  # fmt: skip
  """A play of the table model before the judge of that score."""
  settings = dict(
    opponent="mixture", mixture=0.25, mixture_end=0.25, mixture_steps=0
  )
  judge = judge or JUDGES[scores]
  return play_lib.Play(
    model=model or MODELS["table"](),
    opponent=opponents.make_opponent(**(settings | opponent)),
    judge=lambda sets: judge,
    algorithm=algorithms.make_algorithm(
      scores=scores,
      loss=loss,
      updates_per_rollout=updates,
      judge_ahead=ahead,
      clip=0.2,
      ratio="product",
      design=design,
      orders=orders,
      desired_share=0.4,
      pessimism=0.1,
      follower_kl_coef=0.4,
    ),
    samples=samples,
    kl_coef=kl_coef,
    held={"reference": 1.0},
    temperature=0.8,
    max_response=MAX_RESPONSE,
    eos_ids=(enumeration.EOS,),
    ready=play_lib.as_they_are,
  )


def host(play: play_lib.Play, rows):
  """What the judge of `make_play` says, on numpy rows."""
  made = play_lib.algorithms_lanes(play, 0)
  i, j = play.algorithm.way.asks(len(made.own), len(made.other))
  first = np.asarray(rows["written"])[:, :, 0]
  said = REWARD[first[:, i]] if j is None else WIN[first[:, i], first[:, j]]
  return {"answers": said, "judged": np.ones(said.shape, bool)}


def experiment(
  play: play_lib.Play,
  *,
  on_host: bool = False,
  silent: bool = False,
  hashed: bool = False,
  ahead: int = 0,
) -> step.Experiment:
  """The play as an experiment, policy and μ apart from the start.

  Args:
    on_host: the judge is asked between rollout and update.
    silent: it says nothing of a part of what it is asked, by example.
    hashed: the metric "code" tells responses apart.
    ahead: of the host.
  """
  asked = play._replace(judge=None) if on_host else play

  def init(rng):
    del rng
    start, reference = (play.model.init(jax.random.key(n)) for n in (1, 2))
    return start, {"reference": reference}

  def loss(params, sets, rows, rng):
    if silent:
      pair = jnp.arange(rows["judged"].shape[1])[None]
      kept = (rows["example_ids"][:, None] + pair) % 5 > 1
      rows = {**rows, "judged": rows["judged"] & kept}
    mean, metrics = play_lib.loss(play, params, sets, rows, rng)
    if hashed:
      place = 3 ** jnp.arange(MAX_RESPONSE)[None]
      code = jnp.sum(rows["responses"] * place, axis=1)
      row = 1 + jnp.arange(len(code)) % 7
      total = jnp.sum(code * row).astype(jnp.float32)
      metrics = {**metrics, "code": arrays.Mean(total, jnp.float32(1))}
    return mean, metrics

  return step.Experiment(
    init=init,
    rollout=functools.partial(play_lib.rollout, asked),
    host=step.Host(("written",), functools.partial(host, play), dict, (), ahead)
    if on_host
    else None,
    loss=loss,
    batches=None,
    evaluate=None,
    followers=FOLLOWERS,
  )


def batches(count: int, *, rows: int) -> list[dict[str, np.ndarray]]:
  """Prompts of one token, each of the two in turn."""
  prompts = np.arange(rows, dtype=np.int32)[:, None] % 2
  return [
    {
      "prompts": prompts,
      "prompts_mask": prompts == prompts,
      "example_ids": np.arange(rows, dtype=np.int32) + number * rows,
    }
    for number in range(count)
  ]


def start(
  made: step.Experiment,
  tx: optax.GradientTransformation,
  devices: sharding.Devices,
) -> state.TrainState:
  """The state at step 0, stored on the devices."""

  def first(params, frozen):
    return state.init_state(params, frozen, tx, made.followers)

  return sharding.store(devices, first, *made.init(jax.random.key(0)))


def run(
  made: step.Experiment,
  tx: optax.GradientTransformation,
  *,
  batches: Sequence,
  devices: sharding.Devices,
  **settings,
):
  """A step on every batch: the last state and all metrics, on the host."""
  kwargs = dict(seed=0, updates_per_rollout=1, micro_batches=1) | settings
  now = start(made, tx, devices)
  take = programs.compile_step(
    devices,
    functools.partial(step.make_programs, made, tx, **kwargs),
    now,
    host=made.host,
  )
  found = []
  for batch in batches:
    now, metrics = take(now, batch)
    found.append(metrics)
  return jax.device_get((now, found))
