"""The one loop: every stage is an Experiment that this trains."""

from collections.abc import Callable, Mapping
import contextlib
import functools
import pathlib
import time
from typing import Any

import jax
import optax

from nashmd_jax.training import (
  checkpoints,
  distributed,
  ending,
  finite,
  memory,
  programs,
  settings,
  sharding,
  warned,
)
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import state as state_lib
from nashmd_jax.training import step as step_lib


def make_first_state(
  experiment: step_lib.Experiment,
  optimizer: optax.GradientTransformation,
  *,
  devices: sharding.Devices,
) -> Callable[[Any, Mapping[str, Any]], state_lib.TrainState]:
  """(params, frozen) -> the state at step 0; arguments as of `train`."""

  def make(params, frozen):
    frozen = sharding.cast(dict(frozen), devices.frozen_dtype)
    return state_lib.init_state(params, frozen, optimizer, experiment.followers)

  return make


def train(
  experiment: step_lib.Experiment,
  optimizer: optax.GradientTransformation,
  *,
  devices: sharding.Devices,
  name: str,
  folder: pathlib.Path,
  seed: int,
  updates_per_rollout: int,
  steps: int,
  micro_batches: int,
  nonfinite_steps: int,
  log_every: int,
  eval_every: int,
  save_every: int,
) -> dict[str, float]:
  """Trains to `steps`, from the latest checkpoint in `folder` if there is one.

  A row of metrics is fetched once the next step is under way, but for one
  that is saved or evaluated.

  Args:
    devices: where the state is stored, and how the step is run.
    name: shown in the progress bar and in errors.
    folder: receives `checkpoints/`, `metrics.jsonl`, `events/`, and
      `warnings.jsonl` when there are any.
    seed: of initialisation and of every step.
    updates_per_rollout: see `step.make_programs`; a step is one rollout.
    steps: in all; 0 saves the start as it is.
    micro_batches: see `step.make_programs`.
    nonfinite_steps: steps in a row whose loss or gradient is not finite, at
      which the run stops; each of them changes nothing.
    log_every: steps that one row of metrics is the mean of.
    eval_every: steps between evaluations; the last step is always evaluated.
    save_every: steps between checkpoints; the last step is always saved.
  Returns: the metrics of the last evaluation, prefixed with "eval/".
  Raises: ValueError for settings that cannot work; FloatingPointError after
    `nonfinite_steps`, or for a state to save that is not finite; Preempted
    after a signal to any process, with the last whole row saved.
  """
  settings.check_train(
    steps=steps,
    micro_batches=micro_batches,
    nonfinite_steps=nonfinite_steps,
    log_every=log_every,
    eval_every=eval_every,
    save_every=save_every,
  )
  state = sharding.store(
    devices,
    make_first_state(experiment, optimizer, devices=devices),
    *experiment.init(jax.random.key(seed)),
  )
  batches = experiment.batches()
  take_step = programs.compile_step(
    devices,
    functools.partial(
      step_lib.make_programs,
      experiment,
      optimizer,
      seed=seed,
      updates_per_rollout=updates_per_rollout,
      micro_batches=micro_batches,
    ),
    state,
    host=experiment.host,
  )

  def evaluate():
    scores = experiment.evaluate(state_lib.params_by_name(state))
    return {f"eval/{key}": float(value) for key, value in scores.items()}

  with contextlib.ExitStack() as stack:
    hold = stack.enter_context(ending.holding())
    checkpointer = stack.enter_context(
      checkpoints.make_checkpointer(folder, save_every=save_every)
    )
    state = checkpoints.restore(checkpointer, state, batches)
    memory.give_back()
    start = int(state.step)
    if start:
      print(f"{name}: goes on from step {start}", flush=True)
    writer = stack.enter_context(
      metrics_lib.MetricWriter(folder, start_step=start)
    )
    teller = warned.Teller(name, folder, experiment.rules, start_step=start)
    progress = stack.enter_context(
      metrics_lib.Progress(name, start=start, total=steps, unit="step")
    )
    watch = finite.Watch(
      name, checkpointer, folder, seed=seed, nonfinite_steps=nonfinite_steps
    )
    window, waits, evaluation, batch = [], None, {}, None

    def write(step, window, further=dict):
      row, found = watch.row(window), further()
      writer.write(step, teller.row(step, row | found))
      progress.update(step, metrics_lib.note(row | found))
      return found

    for step in range(start + 1, steps + 1):
      batch = next(batches) if batch is None else batch
      last = step == steps
      within = step % log_every and not last
      # Nothing is begun across a row, where the state may be saved.
      following = next(batches) if within else None
      began = time.monotonic()
      state, metrics = take_step(state, batch, following)
      if step == start + 1:
        hold()
        memory.give_back()
        seconds = time.monotonic() - began
        progress.begin(step, f"compiled its step in {seconds:.0f} s")
      window.append(finite.Taken.of(step, batch, metrics, take_step.rows))
      batch = following
      if waits:
        write(*waits)
        waits = None
      if within:
        continue
      stop = distributed.must_stop() and not last
      judged = last or step % eval_every == 0
      if not (judged or stop or step % save_every == 0):
        waits, window = (step, window), []
        continue
      if judged:
        evaluation = write(step, window, evaluate)
      else:
        write(step, window)
      window = []
      checkpoints.save(checkpointer, step, state, batches, now=last or stop)
      if stop:
        raise distributed.Preempted(f"{name}: saved at step {step}")
    if not steps and not start:
      checkpoints.save(checkpointer, 0, state, batches, now=True)
    return evaluation or evaluate()
