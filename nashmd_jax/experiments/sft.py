"""Stage `sft`: maximum likelihood on written summaries; gives μ."""

import itertools
import pathlib

import jax
import ml_collections
import numpy as np

from nashmd_jax import losses, policy
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib


def make_experiment(
  task: task_lib.Task, *, batch_size: int, eval_examples: int, seed: int
) -> loop.Experiment:
  """Supervised fine-tuning from a random start.

  Args:
    batch_size: rows a step.
    eval_examples: held-out summaries an evaluation, whole batches of them.
    seed: of the order of the data.
  """

  def loss(params, batch, rng):
    del rng
    log_prob = policy.response_log_probs(
      task.model,
      params,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      responses=batch["responses"],
      temperature=1.0,
    )
    return losses.sft_loss(log_prob=log_prob, mask=batch["responses_mask"])

  return loop.Experiment(
    init=lambda rng: (jax.jit(task.model.init)(rng), {}),
    rollout=lambda params_by_name, batch, rng: batch,
    loss=loss,
    batches=lambda: batches.training_batches(
      task.splits["train"],
      task.encode,
      task.pad,
      batch_size=batch_size,
      seed=seed,
    ),
    evaluate=held_out_mean(
      loss,
      task.splits["validation"],
      task,
      batch_size=batch_size,
      examples=eval_examples,
    ),
  )


def held_out_mean(loss, source, task, *, batch_size, examples):
  """params_by_name -> mean loss and metrics over the first whole batches.

  Raises: ValueError if the source does not fill one batch.
  """
  if len(source) < batch_size:
    raise ValueError(
      f"{len(source)} held-out records do not fill one batch of {batch_size}; "
      "lower batch_size or give more data"
    )
  count = max(1, min(examples, len(source)) // batch_size)

  @jax.jit
  def scores(params, batch):
    value, metrics = loss(params, batch, jax.random.key(0))
    return {"loss": value, **metrics}

  def evaluate(params_by_name):
    ordered = batches.ordered_batches(
      source, task.encode, task.pad, batch_size=batch_size
    )
    rows = [
      jax.device_get(scores(params_by_name["policy"], batch))
      for batch, _ in itertools.islice(ordered, count)
    ]
    return {key: np.mean([row[key] for row in rows]) for key in rows[0]}

  return evaluate


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains the stage and returns its last evaluation."""
  section = config.sft
  experiment = make_experiment(
    task_lib.load_task(config, workdir), seed=config.seed, **section.data
  )
  return loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    name="sft",
    folder=workdir / "sft",
    seed=config.seed,
    **section.train,
  )
