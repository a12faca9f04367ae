"""Rows of `make endure` on what saving costs, and how soon a signal is met."""

import contextlib
import os
import pathlib
import signal
import tempfile
import threading
import time
from unittest import mock

import numpy as np

from configs import docstrings
from figures import rows
from nashmd_jax.stages import sft, text
from nashmd_jax.training import checkpoints, ending, metrics
from tests import least_squares, process_run

STEP_SECONDS, TRIALS = 1.5, 5
LOG_EVERY = 20


def cost_of_saving() -> float:
  """A save that is waited for, in % of the steps from one to the next.

  Of SFT in `configs/docstrings.py`, at its interval. In a run the most of a
  save is behind the training, so that it costs at most this.
  """
  config = docstrings.get_config().unlock()
  config.sft.train.update({"steps": 240, "eval_every": 240})
  every, written, saves = config.sft.train.save_every, [], []
  write, save = metrics.MetricWriter.write, checkpoints.save

  def timed_write(writer, *row):
    written.append(time.monotonic())
    write(writer, *row)

  def timed_save(checkpointer, step, *args, **how):
    began = time.monotonic()
    save(checkpointer, step, *args, **how)
    checkpointer.wait()
    if step % every == 0:
      saves.append(time.monotonic() - began)

  with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch.object(metrics.MetricWriter, "write", timed_write),
    mock.patch.object(checkpoints, "save", timed_save),
  ):
    text.PIPELINE.prepare(config, pathlib.Path(folder))
    sft.run(config, pathlib.Path(folder), sft.NAME)
  step = np.median(np.diff(written)) / config.sft.train.log_every
  return float(100 * np.median(saves) / (every * step))


def answers(rng: np.random.Generator) -> list[tuple[float, float]]:
  """SIGTERM at drawn moments: steps until the save begins, and its seconds."""
  ending.listen()
  return [_answer(rng.uniform(1, 4) * STEP_SECONDS) for _ in range(TRIALS)]


def _answer(delay: float) -> tuple[float, float]:
  """Of a run of slow steps, so many seconds behind the first."""
  sent, begun, save = [], [], checkpoints.save
  holding = ending.holding

  def send():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGTERM)

  @contextlib.contextmanager
  def held():
    with holding() as hold:
      yield lambda: (hold(), threading.Timer(delay, send).start())

  def timed(*args, **how):
    begun.append(time.monotonic())
    save(*args, **how)

  made = least_squares.experiment()._replace(
    batches=lambda: process_run.slow_batches(STEP_SECONDS)
  )
  with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch.object(checkpoints, "save", timed),
    mock.patch.object(ending, "holding", held),
    contextlib.suppress(ending.Preempted),
  ):
    least_squares.train(
      folder, 1000, made, log_every=LOG_EVERY, eval_every=100, save_every=100
    )
  ended = time.monotonic()
  ending._Asked.number, ending._Asked.since = 0, None
  return (begun[0] - sent[0]) / STEP_SECONDS, ended - begun[0]


def cost_rows(seed: int) -> list[rows.Row]:
  """About two minutes on 2 CPU cores."""
  waits, seconds = zip(*answers(np.random.default_rng(seed)), strict=True)
  return [
    rows.row(
      "a save that is waited for, in % of the steps between two at the default "
      "interval, SFT of configs/docstrings.py",
      cost_of_saving(), "≤", 5,
    ),
    rows.row(
      f"the longest of {TRIALS} waits from SIGTERM to the save that answers "
      f"it, in steps, a row of metrics being of {LOG_EVERY}",
      max(waits), "≤", 1,
    ),
    rows.row(
      "the longest of these saves, seconds to the end of the run",
      max(seconds), "≤", ending.SECONDS,
    ),
  ]  # fmt: skip
