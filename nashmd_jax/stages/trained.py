"""What every trained stage of a run on text has: settings, checks, training."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nashmd_jax import arrays, declare, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.hub import pretrained
from nashmd_jax.training import loop, optimizer, replay, settings
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import step as step_lib

Config = ml_collections.ConfigDict
BATCH_SIZE = declare.whole(
  "Prompts or records at a time; a multiple of the parts in which the devices "
  "share them.",
  least=1,
  unit="rows",
)
# What every section of a trained stage has.
SETTINGS = {
  "data": {
    "batch_size": BATCH_SIZE,
    "eval_examples": declare.whole(
      "Held-out records of an evaluation, at most.", least=1, unit="records"
    ),
  },
  "optimizer": optimizer.SETTINGS,
  "train": settings.TRAIN,
}
# What texts and tokens of a run depend on, and how its models are trained.
READS = (
  "seed",
  "tokenizer.eos_token",
  "tokenizer.bos_token",
  "chat",
  "layout",
  "lora",
  "devices.run_dtype",
  "devices.frozen_dtype",
)
FACTS = ("records", "tokenizer", "model")
ALWAYS = 0.95  # share of rows from which a clip is warned of


def reads(config: Config, *paths: str) -> dict[str, Any]:
  """The settings that a job on texts depends on, by dotted name.

  Args:
    config: of the run.
    *paths: sections besides those that every such job reads, among them
      "judge_model".
  """
  found = pretrained.settings(config, "model")
  if "judge_model" in paths:
    found |= pretrained.settings(config, "judge_model")
  others = [path for path in paths if path not in pretrained.SECTIONS]
  if config.turns.most > 1:
    others.append("turns")
  return found | pipeline.settings(config, *READS, *others)


def shares(
  batch: Mapping[str, jax.Array], *names: str
) -> dict[str, arrays.Mean]:
  """The shares of a batch's real rows in which bool columns are true.

  Args:
    batch: see `data.batches`; a column that it does not have is left out.
    names: of columns bool[B], such as "prompts_cut".
  """
  return {
    name: arrays.mean_over(batch[name].astype(jnp.float32), batch["real"])
    for name in names
    if name in batch
  }


def supervised(
  task: task_lib.Task,
  init: Callable[[jax.Array], tuple[Any, task_lib.Sets]],
  loss: Callable[..., tuple[arrays.Mean, Mapping[str, arrays.Mean]]],
  splits: Mapping[str, Sequence[records.Record]],
  *,
  batch_size: int,
  eval_examples: int,
) -> step_lib.Experiment:
  """The experiment of a loss on records, with nothing written in between.

  Args:
    task: of the run.
    init, loss: see `step.Experiment`.
    splits: records, "train" and "validation".
    batch_size: rows a step.
    eval_examples: held-out records an evaluation.
  """

  def scores(sets, batch):
    value, metrics = loss(sets["policy"], sets, batch, jax.random.key(0))
    return {"loss": value, **metrics}

  return step_lib.Experiment(
    init=init,
    rollout=lambda sets, batch, rng, step: batch,
    host=None,
    loss=loss,
    batches=functools.partial(
      task_lib.training_batches,
      task,
      splits["train"],
      batch_size=batch_size,
      seed=task.seed,
    ),
    evaluate=task_lib.held_out_scores(
      task,
      splits["validation"],
      scores,
      batch_size=batch_size,
      examples=eval_examples,
    ),
    followers={},
  )


class Training(NamedTuple):
  """How a job trains.

  Attributes:
    experiment: see `step.Experiment`.
    section: of the config, checked.
    task: of the run.
    updates_per_rollout: see `step.make_programs`.
  """

  experiment: step_lib.Experiment
  section: Config
  task: task_lib.Task
  updates_per_rollout: int = 1


def train(
  training: Training, workdir: pathlib.Path, job: str
) -> dict[str, float]:
  """Trains a stage with its section and returns its last evaluation."""
  section = training.section
  scores = loop.train(
    training.experiment,
    training.experiment.optimizer(
      optimizer.make_optimizer(**section.optimizer)
    ),
    **_where(training, workdir, job),
    **section.train,
    log=training.task.log,
  )
  clipped = clipping(
    metrics_lib.load_metrics(workdir / job / "metrics.jsonl"),
    section.optimizer.max_grad_norm,
  )
  if clipped:
    print(f"{job}: {clipped}")
  return scores


def replays(
  make: Callable[[Config, pathlib.Path, str], Training],
) -> Callable[[Config, pathlib.Path, str, int], list[str]]:
  """The field "replay" of a stage.

  Args:
    make: (config, workdir, job) -> how it trains.
  """

  def again(config, workdir, job, step):
    training = make(config, workdir, job)
    where = _where(training, workdir, job)
    return replay.replay(training.experiment, step=step, **where)

  return again


def _where(training: Training, workdir: pathlib.Path, job: str):
  """What loop and replay are both told."""
  return {
    "devices": training.task.devices,
    "name": job,
    "folder": workdir / job,
    "seed": training.task.seed,
    "updates_per_rollout": training.updates_per_rollout,
  }


def clipping(
  rows: Sequence[Mapping[str, float]], max_grad_norm: float
) -> str | None:
  """A warning of a gradient that is clipped at nearly every step, or None.

  Args:
    rows: of metrics, each the mean over some steps.
    max_grad_norm: where it is clipped.
  """
  norms = np.array([row["grad_norm"] for row in rows])
  norms = norms[np.isfinite(norms)]
  if not len(norms) or np.mean(norms > max_grad_norm) < ALWAYS:
    return None
  return (
    f"the gradient was clipped nearly always: its norm is "
    f"{np.median(norms):.3g} (median), optimizer.max_grad_norm "
    f"{max_grad_norm:g}, so that only the direction of a step counts"
  )
