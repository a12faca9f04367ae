"""Least squares as an experiment: small enough to start, cut and resume."""

import functools
import pathlib

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays
from nashmd_jax.training import (
  followers,
  loop,
  optimizer,
  sharding,
  state,
  writers,
)
from nashmd_jax.training import step as step_lib

PAST = dict(size=3, every=2, law="uniform")
LOG = writers.Log(("tensorboard",), "project", "group", {"seed": 0})
KEEP = {"last": 2, "best": 0, "metric": None, "highest": False}
TARGET = np.arange(8.0, dtype=np.float32)


@functools.cache
def devices() -> sharding.Devices:
  """All devices, looked up after a process has found the others."""
  return sharding.make_devices(
    mode="jit", model=1, fsdp=False, smallest=1,
    run_dtype="float32", frozen_dtype="float32",
  )  # fmt: skip


def rows() -> grain.MapDataset:
  """Rows of a linear function, shuffled, endless."""

  def row(index):
    rng = np.random.default_rng(index)
    x = rng.normal(size=8).astype(np.float32)
    return {"x": x, "y": np.float32(x @ TARGET)}

  return grain.MapDataset.range(100).seed(0).shuffle().repeat().map(row)


def make_batches() -> grain.DatasetIterator:
  """Batches of 16 rows."""
  return iter(rows().batch(16).to_iter_dataset())


def rollout(sets, batch, rng, step):
  """The batch, with what the frozen set says of it."""
  del rng, step
  return {**batch, "shift": batch["x"] @ sets["anchor"]["w"]}


def loss(params, sets, batch, rng):
  """Squared error with noise in it, so that randomness matters."""
  del sets
  noise = 0.1 * jax.random.normal(rng, batch["y"].shape)
  error = batch["x"] @ params["w"] - batch["y"] - batch["shift"] + noise
  all_rows = jnp.ones(error.shape, bool)
  metrics = {"error": arrays.mean_over(jnp.abs(error), all_rows)}
  return arrays.mean_over(error**2, all_rows), metrics


def experiment() -> step_lib.Experiment:
  """With a frozen set, a moving average and stored past policies."""
  return step_lib.Experiment(
    init=lambda rng: ({"w": jnp.zeros(8)}, {"anchor": {"w": jnp.ones(8)}}),
    rollout=rollout,
    host=None,
    loss=loss,
    batches=make_batches,
    evaluate=lambda sets: {"w0": float(np.asarray(sets["policy"]["w"])[0])},
    followers={
      "ema": followers.moving_average(decay=0.9),
      "past": followers.past_policies(**PAST),
    },
  )


def adamw() -> optax.GradientTransformation:
  """What it is trained with."""
  return optimizer.make_optimizer(
    name="adamw", learning_rate=0.1, warmup_steps=2, decay_steps=0,
    max_grad_norm=10.0, b1=0.9, b2=0.99, weight_decay=0.0,
  )  # fmt: skip


def start() -> state.TrainState:
  """The state at step 0."""
  made = experiment()
  return state.init_state(*made.init(None), adamw(), made.followers)


def train(folder, steps: int, made=None, **changes) -> dict[str, float]:
  """Trains it, or another experiment, in a folder."""
  kwargs = dict(
    devices=devices(),
    name="test",
    seed=0,
    updates_per_rollout=1,
    micro_batches=1,
    nonfinite_steps=3,
    log_every=2,
    eval_every=4,
    save_every=4,
    save_minutes=0,
    keep=KEEP,
    log=LOG,
  )
  return loop.train(
    made or experiment(),
    adamw(),
    folder=pathlib.Path(folder),
    steps=steps,
    **(kwargs | changes),
  )
