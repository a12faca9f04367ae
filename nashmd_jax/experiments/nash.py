"""Stage `nash`: policy gradient against an opponent, or for a reward.

The opponent is a choice of lanes; the judge decides which loss is used: the
preference model gives win probabilities, the reward model gives RLHF, where
the opponent's response is the baseline.
"""

from collections.abc import Mapping
import itertools
import pathlib
from typing import Any

import jax
from jax import lax
import ml_collections
import numpy as np

from nashmd_jax import (
  judges,
  losses,
  opponents,
  policy,
  preference_model,
  sampling,
)
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches
from nashmd_jax.training import checkpoints, loop
from nashmd_jax.training import optimizer as optimizer_lib

JUDGES = ("preference", "reward")
GAME = ("opponent", "mixture", "judge", "kl_coef", "temperature")


def make_experiment(
  task: task_lib.Task,
  *,
  reference: pathlib.Path,
  judge: str,
  judge_checkpoints: pathlib.Path,
  template: preference_model.Template,
  opponent: str,
  mixture: float,
  kl_coef: float,
  temperature: float,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """The learner plays an opponent; a frozen judge scores the pair.

  Args:
    reference: checkpoints of μ, which the policy also starts from.
    judge: "preference" or "reward".
    judge_checkpoints: of that judge.
    template: of that judge.
    opponent: a key of `opponents.OPPONENTS`.
    mixture: β in [0, 1], weight on the reference in the "mixture" opponent.
    kl_coef: τ ≥ 0, in units of the judge's score a nat.
    temperature: of sampling and of every log-prob.
    batch_size: prompts a step.
    eval_examples: held-out prompts an evaluation, whole batches of them.
    seed: of the order of the prompts and of the evaluation.
  """
  lanes = opponents.make_lanes(opponent=opponent, mixture=mixture)

  def init(rng):
    shapes = jax.eval_shape(task.model.init, rng)
    start = checkpoints.load_params(reference, shapes)
    scorer = checkpoints.load_params(judge_checkpoints, shapes)
    return start, {"reference": start, "judge": scorer}

  def play(params_by_name, lanes, batch, rng):
    """One response a lane, and the judge's score of the first two lanes."""
    play_rng, judge_rng = jax.random.split(rng)
    written = sampling.rollout(
      task.model,
      params_by_name,
      lanes,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      keys=sampling.row_keys(play_rng, batch["example_ids"], len(lanes)),
      max_response=task.max_response,
      temperature=temperature,
      eos_id=task.tokenizer.eos_id,
    )
    prompts = (batch["prompts"], batch["prompts_mask"])
    y, y_opp = (
      (written.tokens[:, lane], written.mask[:, lane]) for lane in (0, 1)
    )
    params = params_by_name["judge"]
    if judge == "preference":
      preference = judges.make_preference_judge(task.model, params, template)
      return y, {"win_prob": preference(judge_rng, prompts, y, y_opp)}
    reward, baseline = (
      preference_model.reward(
        task.model, params, template, prompts=prompts, responses=responses
      )
      for responses in (y, y_opp)
    )
    return y, {"reward": reward, "baseline": baseline}

  def log_prob(params, batch):
    return policy.response_log_probs(
      task.model,
      params,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      responses=batch["responses"],
      temperature=temperature,
    )

  def rollout(params_by_name, batch, rng):
    (tokens, mask), score = play(params_by_name, lanes, batch, rng)
    batch = {**batch, **score, "responses": tokens, "responses_mask": mask}
    batch["ref_log_prob"] = log_prob(params_by_name["reference"], batch)
    return lax.stop_gradient(batch)

  def loss(params, batch, rng):
    del rng
    common = dict(
      log_prob=log_prob(params, batch),
      ref_log_prob=batch["ref_log_prob"],
      mask=batch["responses_mask"],
      kl_coef=kl_coef,
    )
    if judge == "preference":
      return losses.nash_pg_loss(win_prob=batch["win_prob"], **common)
    return losses.rlhf_pg_loss(
      reward=batch["reward"], baseline=batch["baseline"], **common
    )

  def against_reference(params_by_name, batch, rng):
    pair = [opponents.LEARNER, {"reference": 1.0}]
    _, score = play(params_by_name, pair, batch, rng)
    return score

  return loop.Experiment(
    init=init,
    rollout=rollout,
    loss=loss,
    batches=lambda: batches.training_batches(
      task.splits["train"],
      task.encode,
      task.pad,
      batch_size=batch_size,
      seed=seed,
    ),
    evaluate=_evaluation(
      against_reference, task, batch_size, eval_examples, seed
    ),
  )


def _evaluation(against_reference, task, batch_size, eval_examples, seed):
  """params_by_name -> mean scores of the policy against μ, held-out prompts."""
  source = task.splits["validation"]
  count = max(1, min(eval_examples, len(source)) // batch_size)
  score = jax.jit(against_reference)

  def evaluate(params_by_name: Mapping[str, Any]) -> dict[str, float]:
    ordered = batches.ordered_batches(
      source, task.encode, task.pad, batch_size=batch_size
    )
    rows = [
      jax.device_get(score(params_by_name, batch, jax.random.key(seed)))
      for batch, _ in itertools.islice(ordered, count)
    ]
    return {
      f"{key}_against_reference": np.mean([row[key] for row in rows])
      for key in rows[0]
    }

  return evaluate


def check(
  *,
  opponent: str,
  mixture: float,
  judge: str,
  kl_coef: float,
  temperature: float,
) -> None:
  """Raises ValueError for a setting of the game that makes no sense."""
  opponents.make_lanes(opponent=opponent, mixture=mixture)
  if judge not in JUDGES:
    raise ValueError(f"nash.judge: got {judge!r}, expected one of {JUDGES}")
  if not kl_coef >= 0:
    raise ValueError(
      f"nash.kl_coef: got {kl_coef}, expected τ of 0 (no regularisation) or "
      "more"
    )
  if not temperature > 0:
    raise ValueError(
      f"nash.temperature: got {temperature}, expected more than 0"
    )


def run_section(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """`config.nash` with the changes that `config.nash.runs[name]` makes.

  Raises: ValueError for a run that does not exist, a key that `config.nash`
    does not have, or a game that makes no sense.
  """
  section = config.nash.copy_and_resolve_references()
  runs = section.runs
  if name not in runs:
    raise ValueError(f"nash.runs: no run {name!r} among {sorted(runs)}")
  try:
    section.update(runs[name])
  except (KeyError, AttributeError, TypeError) as error:
    raise ValueError(
      f"nash.runs.{name}: {dict(runs[name])} does not fit the keys of "
      f"config.nash ({error})"
    ) from None
  check(**{key: section[key] for key in GAME})
  return section


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str
) -> dict[str, float]:
  """Trains one of `config.nash.runs` and returns its last evaluation."""
  section = run_section(config, name)
  task = task_lib.load_task(config, workdir)
  experiment = make_experiment(
    task,
    reference=workdir / "sft" / "checkpoints",
    judge_checkpoints=workdir / section.judge / "checkpoints",
    template=preference_model.make_template(
      task.tokenizer.encode, **config[section.judge].template
    ),
    seed=config.seed,
    **{key: section[key] for key in GAME},
    **section.data,
  )
  return loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    name=f"nash/{name}",
    folder=workdir / "nash" / name,
    seed=config.seed,
    **section.train,
  )
