"""Stages `preference` and `reward`: judges learned from comparisons.

The comparisons are drawn once, after SFT, from simulated raters; both stages
read the same files.
"""

import pathlib

import jax
import ml_collections
import numpy as np

from nashmd_jax import losses, opponents, preference_model
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches, raters, records
from nashmd_jax.experiments import sft
from nashmd_jax.training import checkpoints, loop
from nashmd_jax.training import optimizer as optimizer_lib


def preference_logit(model, params, template, batch) -> jax.Array:
  """Log-odds that a is preferred, from the preference model."""
  return preference_model.win_logit(
    model,
    params,
    template,
    prompts=(batch["prompts"], batch["prompts_mask"]),
    responses=(batch["responses_a"], batch["responses_a_mask"]),
    opponents=(batch["responses_b"], batch["responses_b_mask"]),
  )


def rewards(model, params, template, batch) -> tuple[jax.Array, jax.Array]:
  """The scalar rewards of a and of b."""
  reward_a, reward_b = (
    preference_model.reward(
      model,
      params,
      template,
      prompts=(batch["prompts"], batch["prompts_mask"]),
      responses=(batch[name], batch[name + "_mask"]),
    )
    for name in ("responses_a", "responses_b")
  )
  return reward_a, reward_b


def make_experiment(
  task: task_lib.Task,
  kind: str,
  comparisons: dict[str, list[records.Record]],
  *,
  template: ml_collections.ConfigDict,
  start: pathlib.Path | None,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """A judge trained on comparisons.

  Args:
    kind: "preference" or "reward".
    comparisons: by split: "train", "validation".
    template: keyword arguments of `make_template`.
    start: checkpoints of the policy to start from; None for a random start.
    batch_size: comparisons a step.
    eval_examples: held-out comparisons an evaluation, whole batches of them.
    seed: of the order of the data.
  """
  filled = preference_model.make_template(task.tokenizer.encode, **template)

  def preference_loss(params, batch, rng):
    del rng
    logit = preference_logit(task.model, params, filled, batch)
    return losses.preference_loss(logit=logit, prob_a=batch["prob_a"])

  def reward_loss(params, batch, rng):
    del rng
    reward_a, reward_b = rewards(task.model, params, filled, batch)
    return losses.bradley_terry_loss(
      reward_a=reward_a, reward_b=reward_b, prob_a=batch["prob_a"]
    )

  def init(rng):
    params = jax.jit(task.model.init)(rng)
    if start is not None:
      params = checkpoints.load_params(start, params)
    return params, {}

  loss = {"preference": preference_loss, "reward": reward_loss}[kind]
  return loop.Experiment(
    init=init,
    rollout=lambda params_by_name, batch, rng: batch,
    loss=loss,
    batches=lambda: batches.training_batches(
      comparisons["train"],
      task.encode,
      task.pad,
      batch_size=batch_size,
      seed=seed,
    ),
    evaluate=sft.held_out_mean(
      loss,
      comparisons["validation"],
      task,
      batch_size=batch_size,
      examples=eval_examples,
    ),
  )


def prepare_comparisons(
  task: task_lib.Task,
  population: raters.Population,
  sft_checkpoints: pathlib.Path,
  folder: pathlib.Path,
  *,
  prompts: int,
  held_out_prompts: int,
  pairs_per_prompt: int,
  samples_per_prompt: int,
  batch_size: int,
  temperature: float,
  seed: int,
) -> dict[str, list[records.Record]]:
  """Comparisons by split, drawn once and then read from `folder`.

  Args:
    population: who decides.
    sft_checkpoints: of the policy whose samples are among the candidates.
    prompts: training prompts, at most as many as there are.
    held_out_prompts: validation prompts, at most as many as there are.
    pairs_per_prompt: comparisons a prompt.
    samples_per_prompt: samples of the policy among the candidates.
    batch_size: prompts sampled at a time.
    temperature: of the samples.
    seed: of samples, pairs and raters.
  """
  paths = {
    split: folder / f"{split}.jsonl" for split in ("train", "validation")
  }
  if not all(path.exists() for path in paths.values()):
    shapes = jax.eval_shape(task.model.init, jax.random.key(0))
    params = checkpoints.load_params(sft_checkpoints, shapes)
    cyclic = []
    for split, count in (("train", prompts), ("validation", held_out_prompts)):
      source = task.splits[split][:count]
      samples = task_lib.write_responses(
        task,
        {"policy": params},
        [opponents.LEARNER] * samples_per_prompt,
        source,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
      )
      drawn = []
      rng = np.random.default_rng([seed, len(split)])
      for i, (row, texts) in enumerate(zip(source, samples, strict=True)):
        other = source[(i + len(source) // 2) % len(source)]["response"]
        found = list(raters.candidates(row, other, texts, rng).values())
        scores = raters.score_matrix(
          population, row["prompt"], row["response"], found
        )
        cyclic.append(
          raters.has_cycle(
            raters.win_prob(population, scores[:, None], scores[None])
          )
        )
        drawn += raters.draw_comparisons(
          population, row, found, pairs_per_prompt, rng
        )
      records.save_records(paths[split], drawn)
    print(
      f"raters: the population's preference is cyclic among the candidates of "
      f"{np.mean(cyclic):.1%} of {len(cyclic)} prompts"
    )
  return {
    split: records.load_records(path, "comparison")
    for split, path in paths.items()
  }


def run(
  kind: str, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains one of the two judges and returns its last evaluation.

  "eval/best_accuracy" is the accuracy of the population's own majority on the
  same held-out choices: no judge can be expected to do better.
  """
  section = config[kind]
  task = task_lib.load_task(config, workdir)
  comparisons = prepare_comparisons(
    task,
    raters.make_population(**config.raters),
    workdir / "sft" / "checkpoints",
    workdir / "comparisons",
    seed=config.seed,
    **config.comparisons,
  )
  experiment = make_experiment(
    task,
    kind,
    comparisons,
    template=section.template,
    start=workdir / "sft" / "checkpoints" if section.start_from_sft else None,
    seed=config.seed,
    **section.data,
  )
  scores = loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    name=kind,
    folder=workdir / kind,
    seed=config.seed,
    **section.train,
  )
  count = section.data.eval_examples
  held_out = comparisons["validation"][:count]
  exact = np.array([row["population_prob_a"] for row in held_out])
  best = float(np.mean(np.maximum(exact, 1 - exact)))
  print(
    f"{kind}: accuracy on held-out choices {scores['eval/accuracy']:.3f}; the "
    f"raters' noise allows {best:.3f}"
  )
  return scores | {"eval/best_accuracy": best}
