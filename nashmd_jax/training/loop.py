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
  distributed,
  ending,
  finite,
  keeping,
  programs,
  settings,
  sharding,
  telling,
  trail,
  writers,
)
from nashmd_jax.training import state as state_lib
from nashmd_jax.training import step as step_lib

SLOW = 1.0  # seconds


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


def _make_step(experiment, optimizer, devices, state, **how):
  make = functools.partial(step_lib.make_programs, experiment, optimizer, **how)
  return programs.compile_step(devices, make, state, host=experiment.host)


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
  save_minutes: float,
  keep: Mapping[str, Any],
  log: writers.Log,
) -> dict[str, float]:
  """Trains to `steps`, from the latest checkpoint in `folder` if there is one.

  A row of metrics is fetched once the next step is under way, but for one
  that is saved or evaluated.

  Args:
    devices: where the state is stored, and how the step is run.
    name: shown in the line of progress and in errors.
    folder: receives `checkpoints/`, `metrics.jsonl`, `samples.jsonl` where
      there are any, `warnings.jsonl` likewise, and what writers leave there.
    seed: of initialisation and of every step.
    updates_per_rollout: see `step.make_programs`; a step is one rollout.
    log: where metrics and samples go besides.
    others: of a section `train`, see `settings.TRAIN`.
  Returns: the metrics of the last evaluation, prefixed with "eval/".
  Raises: ValueError for settings that cannot work; FloatingPointError after
    `nonfinite_steps`, or for a state to save that is not finite; Preempted
    after a signal to any process, with the last step saved; of several
    processes, or with a judge that is ahead, the last whole row.
  """
  settings.check_train(
    steps=steps,
    micro_batches=micro_batches,
    nonfinite_steps=nonfinite_steps,
    log_every=log_every,
    eval_every=eval_every,
    save_every=save_every,
    save_minutes=save_minutes,
    keep=dict(keep),
  )
  state = sharding.store(
    devices,
    make_first_state(experiment, optimizer, devices=devices),
    *experiment.init(jax.random.key(seed)),
  )
  batches = experiment.batches()
  take_step = _make_step(
    experiment,
    optimizer,
    devices,
    state,
    seed=seed,
    updates_per_rollout=updates_per_rollout,
    micro_batches=micro_batches,
  )

  def evaluate():
    found = experiment.evaluate(state_lib.params_by_name(state))
    return telling.Evaluation.of(found)

  with contextlib.ExitStack() as stack:
    hold = stack.enter_context(ending.holding())
    left, state = stack.enter_context(
      trail.opened(
        name,
        folder,
        state,
        batches,
        rules=experiment.rules,
        steps=steps,
        seed=seed,
        nonfinite_steps=nonfinite_steps,
        keep=keep,
        log=log,
      )
    )
    start, window, waits, evaluation = int(state.step), left.window, None, {}
    if window and (start == steps or start % log_every == 0):
      if left.writer.last_step < start:
        evaluation = left.write(start, left.row(window), evaluate())
      window = []
    ahead = experiment.host is not None and experiment.host.ahead
    clock, batch, slow = keeping.Clock(save_minutes), None, False
    for step in range(start + 1, steps + 1):
      began = time.monotonic()
      if batch is None:
        place = batches.get_state() if experiment.host else None
        batch = next(batches)
      last = step == steps
      within = step % log_every and not last
      # What is begun across a row could not be saved with the state.
      following = next(batches) if within and ahead else None
      try:
        state, metrics = take_step(state, batch, following)
      except distributed.Preempted:
        if not ahead:
          batches.set_state(place)
          if waits:
            left.write(waits[0], left.row(waits[1]))
          left.stop(step - 1, state, batches, window=window)
        raise
      window.append(finite.Taken.of(step, batch, metrics, take_step.rows))
      batch = following
      if waits:
        left.write(waits[0], left.row(waits[1]))
        waits = None
      # A signal waits for what is under way: one slow step, or two.
      jax.block_until_ready(window[-1:] if slow else window[-2:-1])
      slow = (seconds := time.monotonic() - began) > SLOW
      if step == start + 1:
        hold()
        left.begin(step, seconds)
      if within:
        if not ahead and distributed.asked_alone():
          left.stop(step, state, batches, window=window)
        continue
      asked = distributed.must_stop() and not last
      judged = last or step % eval_every == 0
      due = clock.due() or step % save_every == 0 or last
      if not (judged or asked or due):
        waits, window = (step, window), []
        continue
      row = left.row(window)
      try:
        found = evaluate() if judged else telling.NOTHING
        evaluation = left.write(step, row, found)
      except distributed.Preempted:
        left.stop(step, state, batches, window=window)
      window = []
      if asked:
        left.stop(step, state, batches)
      if due or (judged and keep["best"]):
        left.save(step, state, batches, scores=evaluation)
        clock.saved()
    if not steps and not start:
      left.save(0, state, batches)
    return evaluation or evaluate().scores
