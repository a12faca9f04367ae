"""The one loop: every stage is an Experiment that this trains.

rollout → loss and gradient → reduce → optax → followers → metrics
"""

from collections.abc import Callable, Mapping
import contextlib
import functools
import pathlib
from typing import Any, NamedTuple

import grain
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax.training import checkpoints, distributed, sharding
from nashmd_jax.training import followers as followers_lib
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import state as state_lib

Batch = Mapping[str, jax.Array]
Params = Any


class Experiment(NamedTuple):
  """What one stage trains, as pure functions; the loop does the rest.

  Attributes:
    init: (rng) -> (params, frozen): the parameters to train, and the further
      sets by name.
    rollout: (params_by_name, batch, rng, step) -> batch for the loss. No
      gradient flows through it. Supervised stages return the batch as it is.
    loss: (params, batch, rng) -> (loss, metrics), a mean over rows.
    batches: () -> endless training batches whose place can be saved.
    evaluate: (params_by_name) -> scalars on held-out data.
    followers: sets that follow the policy besides its moving average "ema".
  """

  init: Callable[[jax.Array], tuple[Params, Mapping[str, Params]]]
  rollout: Callable[[Mapping[str, Params], Batch, jax.Array, jax.Array], Batch]
  loss: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Mapping]]
  batches: Callable[[], grain.DatasetIterator]
  evaluate: Callable[[Mapping[str, Params]], Mapping[str, float]]
  followers: Mapping[str, followers_lib.Follower]


def all_followers(
  experiment: Experiment, ema_decay: float
) -> dict[str, followers_lib.Follower]:
  """The experiment's followers and the moving average of every run."""
  average = followers_lib.moving_average(decay=ema_decay)
  return {"ema": average, **experiment.followers}


def make_train_step(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  ema_decay: float,
  updates_per_rollout: int,
  reduce: Callable[[Any], Any] = lambda tree: tree,
):
  """The pure step (state, batch) -> (state, metrics): one rollout, its updates.

  Args:
    experiment: gives rollout and loss.
    optimizer: of the trained parameters.
    seed: randomness of a step is fold_in(key(seed), step).
    ema_decay: θ̄ ← decay θ̄ + (1 − decay) θ after each step.
    updates_per_rollout: updates on one rollout; metrics are their mean.
    reduce: averages gradients and metrics over the devices where each sees
      its own part of the batch (`lax.pmean` under pmap); the global view of
      jit needs nothing.
  """
  followers = all_followers(experiment, ema_decay)
  value_and_grad = jax.value_and_grad(experiment.loss, has_aux=True)

  def update(batch, trained, rng):
    params, opt_state = trained
    (loss, metrics), grads = value_and_grad(params, batch, rng)
    grads, metrics = reduce((grads, {"loss": loss, **metrics}))
    updates, opt_state = optimizer.update(grads, opt_state, params)
    metrics["grad_norm"] = optax.tree.norm(grads)
    return (optax.apply_updates(params, updates), opt_state), metrics

  def train_step(state: state_lib.TrainState, batch: Batch):
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    rollout_rng, loss_rng, follow_rng = jax.random.split(rng, 3)
    batch = experiment.rollout(
      state_lib.params_by_name(state), batch, rollout_rng, state.step
    )
    trained = (state.params, state.opt_state)
    if updates_per_rollout == 1:
      trained, metrics = update(batch, trained, loss_rng)
    else:
      trained, metrics = lax.scan(
        functools.partial(update, batch),
        trained,
        jax.random.split(loss_rng, updates_per_rollout),
      )
      metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)
    params, opt_state = trained
    step = state.step + 1
    return state._replace(
      step=step,
      params=params,
      opt_state=opt_state,
      followers={
        name: follower.update(state.followers[name], params, step, follow_rng)
        for name, follower in followers.items()
      },
    ), metrics

  return train_step


def make_first_state(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  *,
  devices: sharding.Devices,
  ema_decay: float,
) -> Callable[[Params, Mapping[str, Params]], state_lib.TrainState]:
  """(params, frozen) -> the state at step 0; arguments as of `train`."""
  followers = all_followers(experiment, ema_decay)

  def make(params, frozen):
    frozen = sharding.cast(dict(frozen), devices.frozen_dtype)
    return state_lib.init_state(params, frozen, optimizer, followers)

  return make


def check_intervals(
  name: str,
  *,
  steps: int,
  ema_decay: float,
  log_every: int,
  eval_every: int,
  save_every: int,
) -> None:
  """Raises ValueError for settings of `train` that cannot work.

  Evaluations and saves happen where a row of metrics is written, so that no
  half-filled row is lost when a run is cut off. SIGTERM therefore waits for
  the end of the row: log_every steps are to take less than the grace time.
  """
  if min(steps, log_every) < 1:
    raise ValueError(
      f"{name}.train: got steps {steps} and log_every {log_every}, expected "
      "1 or more"
    )
  if not 0 <= ema_decay < 1:
    raise ValueError(
      f"{name}.train.ema_decay: got {ema_decay}, expected 0 ≤ decay < 1"
    )
  for key, value in (("save_every", save_every), ("eval_every", eval_every)):
    if value < 1 or value % log_every:
      raise ValueError(
        f"{name}.train.{key}: got {value}, expected a multiple of log_every "
        f"({log_every})"
      )


def train(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  *,
  devices: sharding.Devices,
  name: str,
  folder: pathlib.Path,
  seed: int,
  updates_per_rollout: int,
  steps: int,
  ema_decay: float,
  log_every: int,
  eval_every: int,
  save_every: int,
) -> dict[str, float]:
  """Trains to `steps`, from the latest checkpoint in `folder` if there is one.

  Args:
    devices: where the state is stored, and how the step is run.
    name: shown in the progress bar and in errors.
    folder: receives `checkpoints/`, `metrics.jsonl` and `events/`.
    seed: of initialisation and of every step.
    updates_per_rollout: see `make_train_step`; a step is one rollout.
    steps: in all.
    ema_decay: see `make_train_step`.
    log_every: steps whose mean makes one row of metrics.
    eval_every: steps between evaluations; the last step is always evaluated.
    save_every: steps between checkpoints; the last step is always saved.
  Returns: the metrics of the last evaluation, prefixed with "eval/".
  Raises: ValueError for settings that cannot work; FloatingPointError when
    the loss or its gradient is not finite, before anything of it is saved;
    Preempted after SIGTERM to any process, with the last whole row saved.
  """
  check_intervals(
    name,
    steps=steps,
    ema_decay=ema_decay,
    log_every=log_every,
    eval_every=eval_every,
    save_every=save_every,
  )
  state = sharding.store(
    devices,
    make_first_state(
      experiment, optimizer, devices=devices, ema_decay=ema_decay
    ),
    *experiment.init(jax.random.key(seed)),
  )
  batches = experiment.batches()
  train_step = sharding.compile_step(
    devices,
    functools.partial(
      make_train_step,
      experiment,
      optimizer,
      seed=seed,
      ema_decay=ema_decay,
      updates_per_rollout=updates_per_rollout,
    ),
    state,
  )

  def evaluate():
    scores = experiment.evaluate(state_lib.params_by_name(state))
    return {f"eval/{key}": float(value) for key, value in scores.items()}

  with contextlib.ExitStack() as stack:
    checkpointer = stack.enter_context(
      checkpoints.make_checkpointer(folder, save_every=save_every)
    )
    state = checkpoints.restore(checkpointer, state, batches)
    start = int(state.step)
    if start:
      print(f"{name}: goes on from step {start}", flush=True)
    writer = stack.enter_context(
      metrics_lib.MetricWriter(folder, start_step=start)
    )
    progress = stack.enter_context(
      metrics_lib.Progress(name, start=start, total=steps)
    )
    window, evaluation = [], {}
    for step in range(start + 1, steps + 1):
      batch = sharding.shard_batch(next(batches), devices.mesh)
      with jax.transfer_guard("disallow"):
        state, metrics = train_step(state, batch)
      window.append(metrics)
      last = step == steps
      if step % log_every and not last:
        continue
      row = _mean(window)
      window = []
      _check_finite(name, step, row, checkpointer)
      if last or step % eval_every == 0:
        evaluation = evaluate()
        row |= evaluation
      writer.write(step, row)
      stop = distributed.must_stop() and not last
      checkpoints.save(checkpointer, step, state, batches, now=last or stop)
      progress.update(step, f"loss {row['loss']:.3f}")
      if stop:
        raise distributed.Preempted(f"{name}: saved at step {step}")
    return evaluation or evaluate()


def _check_finite(name, step, row, checkpointer) -> None:
  for key in ("loss", "grad_norm"):
    if not np.isfinite(row[key]):
      latest = checkpointer.latest
      good = "none" if latest is None else f"step {latest.step}"
      raise FloatingPointError(
        f"{name}: {key} is {row[key]} in the steps up to {step}; the last good "
        f"checkpoint is {good} in {checkpointer.directory}"
      )


def _mean(window: list[dict[str, jax.Array]]) -> dict[str, float]:
  rows = jax.device_get(window)
  return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
