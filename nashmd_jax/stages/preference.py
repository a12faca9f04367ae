"""Stages `preference` and `reward`: judges learned from comparisons."""

from collections.abc import Mapping
import functools
import itertools
import pathlib
from typing import Any

import jax
import numpy as np

from nashmd_jax import declare, losses, mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.judges import preference_model, raters, table
from nashmd_jax.losses import supervised
from nashmd_jax.stages import comparisons as comparisons_lib
from nashmd_jax.stages import judge_templates, judging, sft, start, trained
from nashmd_jax.training import settings
from nashmd_jax.training import step as step_lib

Config = pipeline.Config
Comparisons = comparisons_lib.Comparisons
LABELS = {
  "kind": declare.text(
    "What is learnt of a comparison: the stated share, or the side that more "
    "than half prefer.",
    one_of=supervised.KINDS,
  ),
  "ties": declare.text(
    "What a share of just ½ is: a target of ½, or nothing to learn from.",
    one_of=supervised.TIES,
  ),
  "smoothing": declare.number(
    "Share of a target that is replaced by ½.", least=0, below=1
  ),
}
SETTINGS = {
  **trained.SETTINGS,
  "start_from_sft": declare.flag(
    "Whether the judge starts from the fine-tuned policy."
  ),
  "template": preference_model.TEMPLATE
  | {
    "chat": declare.flag(
      "Whether the judge is asked in the chat template of its folder."
    )
  },
  "labels": LABELS,
}
MEMBER_SEEDS = 1_000_003  # between members, so that no sweep of seeds meets it


def make_experiment(
  config: Config,
  task: task_lib.Task,
  stage: str,
  comparisons: Comparisons,
  workdir: pathlib.Path,
) -> step_lib.Experiment:
  """A judge trained on comparisons.

  Args:
    stage: "preference" or "reward", whose section says how; or a further one
      of that kind, "preference-1", which starts from another seed and learns
      from a bootstrap sample of the comparisons.
    comparisons: by split: "train", "validation".
    workdir: holds the policy to start from, if the section asks for it.
  """
  kind, member = table.kind_of(stage)
  section, part = config[kind], judge_templates.base_section(config, kind)
  template = judge_templates.make_template(config, task.tokenizer, kind)
  own = task._replace(seed=task.seed + member * MEMBER_SEEDS)

  def init(rng):
    del rng
    # The base of adapters is that of all members.
    frozen = task_lib.bases(task, part)
    if section.start_from_sft:
      return task_lib.load_trained(task, part, workdir / sft.NAME), frozen
    return task_lib.init_trained(own, part), frozen

  def loss(params, sets, batch, rng):
    del rng
    base = task_lib.BASES[part]
    params = task.ready({**sets, "policy": params}, ["policy"], base)["policy"]
    judge = (task.judge_model, params, template)
    value, metrics = comparison_loss(kind, judge, batch, section.labels)
    return value, {**metrics, **trained.shares(batch, "prompts_cut")}

  if member:
    comparisons = {**comparisons, "train": resampled(comparisons, own.seed)}
  return trained.supervised(own, init, loss, comparisons, **section.data)


def resampled(comparisons: Comparisons, seed: int) -> list[records.Record]:
  """As many comparisons as there are to train on, drawn with replacement."""
  source = comparisons["train"]
  drawn = np.random.default_rng(seed).integers(len(source), size=len(source))
  return [source[number] for number in drawn]


def comparison_loss(
  kind: str, judge, batch: Mapping[str, jax.Array], labels: Mapping[str, Any]
):
  """Cross-entropy of one kind of judge on a batch of comparisons.

  Args:
    kind: "preference" or "reward".
    judge: model, ready parameters, template. Gradient flows to the second.
    batch: prompts, responses_a, responses_b with masks; prob_a, weight, real.
    labels: keyword arguments of `losses.comparison_targets`.
  """
  prompts, a, b = preference_model.compared(batch)
  target, weight = losses.comparison_targets(
    batch["prob_a"], batch["weight"], **labels
  )
  stated = {"prob_a": target, "weight": weight, "mask": batch["real"]}
  if kind == "preference":
    logit = preference_model.win_logit(
      *judge, prompts=prompts, responses=a, opponents=b
    )
    return losses.preference_loss(logit=logit, **stated)
  reward_a, reward_b = preference_model.both_rewards(
    *judge, prompts=prompts, responses=a, opponents=b
  )
  return losses.bradley_terry_loss(
    reward_a=reward_a, reward_b=reward_b, **stated
  )


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, float]:
  """Trains one of the two judges and returns its last evaluation."""
  section = config[table.kind_of(job)[0]]
  comparisons = comparisons_lib.load(config, workdir)
  training = make_training(config, workdir, job, comparisons)
  scores = trained.train(training, workdir, job)
  count = min(len(comparisons["validation"]), section.data.eval_examples)
  accuracy = (
    f"{job}: accuracy on {count} held-out comparisons "
    f"{scores['eval/accuracy']:.3f}"
  )
  if config.data.comparisons is not None:
    print(accuracy)
    return scores
  known = what_is_known(config, comparisons, section.data.eval_examples)
  print(
    f"raters: the population's preference is cyclic among the candidates of "
    f"{known['cyclic_prompts']:.1%} of the prompts\n"
    f"{accuracy}; the raters' noise allows {known['eval/best_accuracy']:.3f}"
  )
  return scores | known


def make_training(
  config: Config,
  workdir: pathlib.Path,
  job: str,
  comparisons: Comparisons | None = None,
) -> trained.Training:
  """How one of the two judges trains.

  Args:
    comparisons: where they are loaded already.
  """
  task = task_lib.load_task(config, workdir)
  comparisons = comparisons or comparisons_lib.load(config, workdir)
  experiment = make_experiment(config, task, job, comparisons, workdir)
  return trained.Training(experiment, config[table.kind_of(job)[0]], task)


def what_is_known(
  config: Config, comparisons: Comparisons, examples: int
) -> dict[str, float]:
  """What simulated raters let us know of their comparisons.

  Args:
    examples: held-out comparisons of an evaluation.
  Returns: "eval/best_accuracy", what a judge that knows the population exactly
    would be expected to reach on the held-out comparisons; "cyclic_prompts".
  """
  judged = comparisons["validation"][:examples]
  exact = np.array([row["population_prob_a"] for row in judged])
  votes = config.comparisons.drawing.votes_per_pair
  return {
    "eval/best_accuracy": raters.best_accuracy(exact, votes),
    "cyclic_prompts": cyclic_share(comparisons),
  }


def cyclic_share(comparisons: Comparisons) -> float:
  """Share of the prompts whose candidates the population prefers in a ring."""
  rows = itertools.chain.from_iterable(comparisons.values())
  cyclic = {row["prompt"]: row["prompt_is_cyclic"] for row in rows}
  return float(np.mean(list(cyclic.values())))


def check(kind: str, config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the section of a judge, and its data's."""
  section = config[kind]
  settings.check_together(kind, section, findings)
  with findings.collect(kind, "."):
    template = section.template
    slots = judge_templates.SLOTS[kind]
    preference_model.check_slots(template.prompt, template.response, slots)
  with findings.collect():
    if config.judge_model and section.start_from_sft:
      raise mistakes.Mistake(
        f"config.{kind}.start_from_sft: got True with a judge_model of other "
        "sizes than the model; set it to False"
      )


def needs(config: Config, job: str) -> list[str]:
  """The comparisons, and SFT where the judge starts from it."""
  section = config[table.kind_of(job)[0]]
  after_sft = [sft.NAME] if section.start_from_sft else []
  before = (*start.STAGE.jobs(config), *comparisons_lib.STAGE.jobs(config))
  return [*before, *after_sft]


def _stage(kind: str) -> pipeline.Stage:
  return pipeline.Stage(
    name=kind,
    settings={kind: SETTINGS},
    check=functools.partial(check, kind),
    jobs=functools.partial(_jobs, kind),
    needs=needs,
    reads=lambda config, job: (
      trained.reads(config, "judge_model", table.kind_of(job)[0])
      | {"member": table.kind_of(job)[1]}
    ),
    run=run,
    replay=trained.replays(make_training),
    facts=(*trained.FACTS, "judge_model", "comparisons"),
    shared=True,
  )


def _jobs(kind: str, config: Config) -> list[str]:
  return [
    stage for stage in judging.wanted(config) if table.kind_of(stage)[0] == kind
  ]


STAGES = [_stage(kind) for kind in judge_templates.SLOTS]
