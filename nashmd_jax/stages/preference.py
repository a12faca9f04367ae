"""Stages `preference` and `reward`: judges learned from comparisons.

The comparisons are drawn once, after SFT, from simulated raters; both stages
read the same files.
"""

from collections.abc import Mapping
import functools
import itertools
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from nashmd_jax import losses, texts
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.judges import preference_model, raters
from nashmd_jax.nash import opponents
from nashmd_jax.training import distributed, loop
from nashmd_jax.training import optimizer as optimizer_lib


def make_experiment(
  task: task_lib.Task,
  kind: str,
  comparisons: dict[str, list[records.Record]],
  *,
  start: pathlib.Path | None,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """A judge trained on comparisons.

  Args:
    kind: "preference" or "reward".
    comparisons: by split: "train", "validation".
    start: stage of the policy to start from; None for a random start.
    batch_size: comparisons a step.
    eval_examples: held-out comparisons an evaluation, whole batches of them.
    seed: of the order of the data.
  """
  loss = functools.partial(comparison_loss, task, kind)

  def init(rng):
    if start is None:
      return task_lib.init_params(task, "judge_model", rng), {}
    return task_lib.load_params(task, task.judge_model, start), {}

  return loop.Experiment(
    init=init,
    rollout=lambda params_by_name, batch, rng, step: batch,
    loss=loss,
    batches=functools.partial(
      task_lib.training_batches,
      task,
      comparisons["train"],
      batch_size=batch_size,
      seed=seed,
    ),
    evaluate=task_lib.held_out_mean(
      task,
      comparisons["validation"],
      task_lib.supervised_scores(loss),
      batch_size=batch_size,
      examples=eval_examples,
    ),
    followers={},
  )


def comparison_loss(
  task: task_lib.Task,
  kind: str,
  params: Any,
  batch: Mapping[str, jax.Array],
  rng: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of one kind of judge on a batch of comparisons."""
  del rng
  judge = (task.judge_model, task.place(params), task.templates[kind])
  prompts, a, b = (
    preference_model.segment(batch, name)
    for name in ("prompts", "responses_a", "responses_b")
  )
  prob_a = batch["prob_a"]
  if kind == "preference":
    logit = preference_model.win_logit(
      *judge, prompts=prompts, responses=a, opponents=b
    )
    return losses.preference_loss(logit=logit, prob_a=prob_a)
  reward_a, reward_b = (
    preference_model.reward(*judge, prompts=prompts, responses=responses)
    for responses in (a, b)
  )
  return losses.bradley_terry_loss(
    reward_a=reward_a, reward_b=reward_b, prob_a=prob_a
  )


def draw_comparisons(
  task: task_lib.Task,
  population: raters.Population,
  params: Any,
  source: list[records.Record],
  *,
  pairs_per_prompt: int,
  votes_per_pair: int,
  samples_per_prompt: int,
  batch_size: int,
  temperature: float,
  seed: tuple[int, int],
) -> list[records.Record]:
  """Comparisons of candidate summaries of each record.

  Args:
    population: who votes.
    params: of the policy whose samples are among the candidates.
    source: summary records.
    pairs_per_prompt: comparisons a record.
    votes_per_pair: simulated raters who vote on each.
    samples_per_prompt: samples of the policy among the candidates.
    batch_size: prompts sampled at a time.
    temperature: of the samples.
    seed: of samples, pairs and votes: the run's and the split's.
  """
  samples = task_lib.write_responses(
    task,
    {"policy": params},
    [opponents.LEARNER] * samples_per_prompt,
    source,
    batch_size=batch_size,
    temperature=temperature,
    rng=jax.random.fold_in(jax.random.key(seed[0]), seed[1]),
  )
  rng = np.random.default_rng(seed)
  drawn = []
  for row, found in zip(source, _candidates(source, samples, rng), strict=True):
    drawn += raters.draw_comparisons(
      population,
      row,
      found,
      pairs=pairs_per_prompt,
      votes=votes_per_pair,
      rng=rng,
    )
  return drawn


def _candidates(source, samples, rng) -> list[list[str]]:
  """The candidate responses of every record, the others' summaries included."""
  half = len(source) // 2
  others = [row["response"] for row in source[half:] + source[:half]]
  return [
    list(raters.candidates(row, other, own, rng).values())
    for row, other, own in zip(source, others, samples, strict=True)
  ]


def prepare_comparisons(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  task: task_lib.Task,
) -> dict[str, list[records.Record]]:
  """Comparisons by split: the user's, or drawn once and kept in the workdir."""
  population = raters.make_population(**config.raters)
  own = texts.load_comparisons(config, workdir)
  if own is not None:
    return own
  paths = {}
  for number, (split, count) in enumerate(config.comparisons.prompts.items()):
    path = paths[split] = workdir / "comparisons" / f"{split}.jsonl"
    if not distributed.on_first(path.exists):
      drawn = draw_comparisons(
        task,
        population,
        task_lib.load_params(task, task.model, workdir / "sft"),
        task.splits[split][:count],
        seed=(config.seed, number),
        **config.comparisons.drawing,
      )
      distributed.on_first(functools.partial(records.save_records, path, drawn))
  return {
    split: records.load_records(path, "comparison")
    for split, path in paths.items()
  }


def run(
  kind: str, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains one of the two judges and returns its last evaluation."""
  section = config[kind]
  task = task_lib.load_task(config, workdir)
  comparisons = prepare_comparisons(config, workdir, task)
  experiment = make_experiment(
    task,
    kind,
    comparisons,
    start=workdir / "sft" if section.start_from_sft else None,
    seed=config.seed,
    **section.data,
  )
  scores = loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    devices=task.devices,
    name=kind,
    folder=workdir / kind,
    seed=config.seed,
    updates_per_rollout=1,
    **section.train,
  )
  accuracy = (
    f"{kind}: accuracy on held-out comparisons {scores['eval/accuracy']:.3f}"
  )
  if config.data.comparisons is not None:
    print(accuracy)
    return scores
  known = what_is_known(config, comparisons, section.data)
  print(
    f"raters: the population's preference is cyclic among the candidates of "
    f"{known['cyclic_prompts']:.1%} of the prompts\n"
    f"{accuracy}; the raters' noise allows {known['eval/best_accuracy']:.3f}"
  )
  return scores | known


def what_is_known(
  config: ml_collections.ConfigDict,
  comparisons: dict[str, list[records.Record]],
  data: ml_collections.ConfigDict,
) -> dict[str, float]:
  """What simulated raters let us know of their comparisons.

  Returns: "eval/best_accuracy", what a judge that knows the population exactly
    would be expected to reach on the held-out comparisons; "cyclic_prompts".
  """
  judged = task_lib.held_out(
    comparisons["validation"],
    batch_size=data.batch_size,
    examples=data.eval_examples,
  )
  exact = np.array([row["population_prob_a"] for row in judged])
  votes = config.comparisons.drawing.votes_per_pair
  return {
    "eval/best_accuracy": raters.best_accuracy(exact, votes),
    "cyclic_prompts": cyclic_share(comparisons),
  }


def cyclic_share(comparisons: dict[str, list[records.Record]]) -> float:
  """Share of the prompts whose candidates the population prefers in a ring."""
  rows = itertools.chain.from_iterable(comparisons.values())
  cyclic = {row["prompt"]: row["prompt_is_cyclic"] for row in rows}
  return float(np.mean(list(cyclic.values())))
