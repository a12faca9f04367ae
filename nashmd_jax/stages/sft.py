"""Stage `sft`: maximum likelihood on written summaries; gives μ."""

import pathlib
from typing import Any

from nashmd_jax import declare, losses, mistakes, pipeline, policy
from nashmd_jax import task as task_lib
from nashmd_jax.stages import start, trained
from nashmd_jax.training import settings
from nashmd_jax.training import step as step_lib

NAME = "sft"
SETTINGS = trained.SETTINGS | {
  "seed": declare.whole(
    "The seed of this stage alone, so that runs of other seeds have one start; "
    "None: that of the run.",
    least=0,
    optional=True,
  )
}


def make_experiment(
  task: task_lib.Task, *, batch_size: int, eval_examples: int
) -> step_lib.Experiment:
  """Supervised fine-tuning from the start of the model.

  Args:
    batch_size: rows a step.
    eval_examples: held-out summaries an evaluation.
  """

  def init(rng):
    del rng
    return task_lib.init_trained(task, "model"), task_lib.bases(task, "model")

  def loss(params, sets, batch, rng):
    del rng
    log_prob = policy.response_log_probs(
      task.model,
      task.ready({**sets, "policy": params}, ["policy"])["policy"],
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      responses=batch["responses"],
      temperature=1.0,
    )
    mask = batch["responses_mask"] & batch["real"][:, None]
    value, metrics = losses.sft_loss(log_prob=log_prob, mask=mask)
    cut = trained.shares(batch, "prompts_cut", "responses_cut")
    return value, {**metrics, **cut}

  return trained.supervised(
    task,
    init,
    loss,
    task.splits,
    batch_size=batch_size,
    eval_examples=eval_examples,
  )


def run(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> dict[str, float]:
  """Trains the stage and returns its last evaluation."""
  return trained.train(make_training(config, workdir, job), workdir, job)


def make_training(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> trained.Training:
  """How the stage trains."""
  del job
  task = task_lib.load_task(config, workdir)._replace(seed=seed_of(config))
  experiment = make_experiment(task, **config.sft.data)
  return trained.Training(experiment, config.sft, task)


def seed_of(config: pipeline.Config) -> int:
  """The seed that the stage is trained with."""
  return config.seed if config.sft.seed is None else config.sft.seed


def reads(config: pipeline.Config, job: str) -> dict[str, Any]:
  """The settings of the stage; of the seeds that which counts."""
  del job
  return trained.reads(config, NAME) | {"seed": seed_of(config)}


def check(config: pipeline.Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the section, or with leaving the stage out."""
  settings.check_together(NAME, config.sft, findings)
  if not config.sft.train.steps and config.model.pretrained is None:
    findings.sentences.append(
      "sft.train.steps: got 0 with a model that starts at random, which is no "
      "policy to start from; name a folder in model.pretrained, or train"
    )


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [NAME],
  needs=lambda config, job: start.STAGE.jobs(config),
  reads=reads,
  run=run,
  replay=trained.replays(make_training),
  facts=trained.FACTS,
  shared=True,
)
