"""Stage `sft`: maximum likelihood on written summaries; gives μ."""

import functools
import pathlib

import ml_collections

from nashmd_jax import losses, policy
from nashmd_jax import task as task_lib
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib


def make_experiment(
  task: task_lib.Task, *, batch_size: int, eval_examples: int, seed: int
) -> loop.Experiment:
  """Supervised fine-tuning from the start of the model.

  Args:
    batch_size: rows a step.
    eval_examples: held-out summaries an evaluation, whole batches of them.
    seed: of the order of the data.
  """

  def loss(params, batch, rng):
    del rng
    log_prob = policy.response_log_probs(
      task.model,
      task.place(params),
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      responses=batch["responses"],
      temperature=1.0,
    )
    return losses.sft_loss(log_prob=log_prob, mask=batch["responses_mask"])

  return loop.Experiment(
    init=lambda rng: (task_lib.init_params(task, "model", rng), {}),
    rollout=lambda params_by_name, batch, rng, step: batch,
    loss=loss,
    batches=functools.partial(
      task_lib.training_batches,
      task,
      task.splits["train"],
      batch_size=batch_size,
      seed=seed,
    ),
    evaluate=task_lib.held_out_mean(
      task,
      task.splits["validation"],
      task_lib.supervised_scores(loss),
      batch_size=batch_size,
      examples=eval_examples,
    ),
    followers={},
  )


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains the stage and returns its last evaluation."""
  section = config.sft
  task = task_lib.load_task(config, workdir)
  experiment = make_experiment(task, seed=config.seed, **section.data)
  return loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    devices=task.devices,
    name="sft",
    folder=workdir / "sft",
    seed=config.seed,
    updates_per_rollout=1,
    **section.train,
  )
