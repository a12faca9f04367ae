"""What a judge behind an address costs a step, and judging ahead saves."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import pathlib
import statistics
import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from configs import docstrings
from figures import rows
from nashmd_jax import task as task_lib
from nashmd_jax.capacity import programs as capacity
from nashmd_jax.nash import settings
from nashmd_jax.stages import nash
from nashmd_jax.training import loop, optimizer, programs, state, step
from tests import judge_server, tiny_runs

STEPS, TURNS = 6, 4
DELAY = 0.25  # seconds of the server for each question


class Stepping(NamedTuple):
  """A way of stepping: a row of steps at a time."""

  take: Callable
  start: state.TrainState
  batches: Iterator
  waited: list[float]  # seconds for the judge, a step


def same_length(keys, prompts, responses, opponents):
  """A judge inside jit that costs nothing."""
  del keys, prompts
  sizes = (jnp.sum(mask, axis=1) for _, mask in (responses, opponents))
  first, second = sizes
  return jax.nn.sigmoid(0.1 * (second - first))


def make_stepping(folder: pathlib.Path, url: str, **changes) -> Stepping:
  """The steps of the Nash-MD run of docstrings.py from a random start."""
  config = docstrings.get_config()
  with config.unlocked():
    config.nash.watch = ()
    config.nash.data.batch_size = 8
    config.nash.judge = "served"
    config.judges.served.update({
      "url": url, "model": "any", "prompt": judge_server.PROMPT,
      "connections": 128, "cache": str(folder / "answers.sqlite3"),
    })  # fmt: skip
    config.nash.update(changes)
  task = capacity.stand_in_task(config, tiny_runs.devices())
  section = settings.run_section(config, "nash_md")
  experiment = nash.make_experiment(config, task, section, folder)
  made = optimizer.make_optimizer(**section.optimizer)
  start = task_lib.init_trained(task, "model")
  first = loop.make_first_state(experiment, made, devices=task.devices)
  waited: list[float] = []
  host = experiment.host
  if host is not None:
    host = host._replace(rows=functools.partial(_noted, host.rows, waited))
  now = first(start, {"reference": start})
  making = functools.partial(
    step.make_programs, experiment, made,
    seed=0, updates_per_rollout=1, micro_batches=1,
  )  # fmt: skip
  take = programs.compile_step(task.devices, making, now, host=host)
  return Stepping(take, now, experiment.batches(), waited)


def _noted(further, waited, told):
  waited.append(told["judge_seconds"][0])
  return further(told)


def timed(stepping: Stepping) -> tuple[Stepping, float]:
  """One row of steps: how it goes on, and seconds a step."""
  now, batch = stepping.start, next(stepping.batches)
  began = time.monotonic()
  for number in range(STEPS):
    following = next(stepping.batches) if number < STEPS - 1 else None
    now, metrics = stepping.take(now, batch, following)
    batch = following
  jax.block_until_ready((now, metrics))
  seconds = (time.monotonic() - began) / STEPS
  return stepping._replace(start=now), seconds


def ahead_rows() -> list[rows.Row]:
  """The three ways in turn, after a row each to compile."""
  found: dict[str, list[float]] = {"inside": [], "waits": [], "ahead": []}
  waited: list[float] = []
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    url = stack.enter_context(judge_server.spawn(DELAY))
    own = f"{__name__}:same_length"
    ways = {
      "inside": make_stepping(folder, url, judge=own),
      "waits": make_stepping(folder, url),
      "ahead": make_stepping(folder, url, judge_ahead=1),
    }
    for turn in range(TURNS + 1):
      for name, stepping in ways.items():
        del stepping.waited[:]
        ways[name], seconds = timed(stepping)
        if turn:
          found[name].append(seconds)
          waited += stepping.waited if name == "waits" else []
  inside, waits, ahead = map(statistics.median, found.values())
  judge = statistics.mean(waited)
  print(f"seconds a step: {found}; of them for the judge {judge:.3f}")
  least = max(judge, inside)
  return [
    rows.row(
      f"a step with a served judge ({waits:.2f} s) less the judge's time "
      f"({judge:.2f} s), of one with a judge that costs nothing",
      (waits - judge) / inside, "≤", 1.25,
    ),
    rows.row(
      "a step that is judged ahead, of one that waits (the longer of judge and "
      f"step alone would be {least / waits:.2f})",
      ahead / waits, "≤", 0.85,
    ),
  ]  # fmt: skip
