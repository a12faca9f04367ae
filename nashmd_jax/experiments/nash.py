"""Stage `nash`: policy gradient against an opponent, or for a reward.

The opponent is a choice of lanes; the judge decides which loss is used: the
preference model gives win probabilities, the reward model gives RLHF, where
the opponent's response is the baseline.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import ml_collections

from nashmd_jax import (
  judges,
  losses,
  opponents,
  policy,
  preference_model,
  sampling,
)
from nashmd_jax import task as task_lib
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib

JUDGES = ("preference", "reward")
GAME = ("opponent", "mixture", "judge", "kl_coef", "temperature")


class Game(NamedTuple):
  """What is played, apart from who the opponent is.

  Attributes:
    judge: "preference" or "reward".
    template: of that judge.
    kl_coef: τ ≥ 0, in units of the judge's score a nat.
    temperature: of sampling and of every log-prob.
  """

  judge: str
  template: preference_model.Template
  kl_coef: float
  temperature: float


def make_experiment(
  task: task_lib.Task,
  game: Game,
  *,
  lanes: Sequence[sampling.Lane],
  reference: pathlib.Path,
  judge: pathlib.Path,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """The learner plays an opponent; a frozen judge scores the pair.

  Args:
    lanes: the learner's and the opponent's.
    reference: stage that gave μ, which the policy also starts from.
    judge: stage that gave the judge.
    batch_size: prompts a step.
    eval_examples: held-out prompts an evaluation, whole batches of them.
    seed: of the order of the prompts and of the evaluation.
  """

  def init(rng):
    del rng
    start = task_lib.load_params(task, reference)
    scorer = task_lib.load_params(task, judge)
    return start, {"reference": start, "judge": scorer}

  return loop.Experiment(
    init=init,
    rollout=functools.partial(rollout, task, game, lanes),
    loss=functools.partial(loss, task, game),
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
      functools.partial(_against_reference, task, game, seed),
      batch_size=batch_size,
      examples=eval_examples,
    ),
  )


def play(
  task: task_lib.Task,
  game: Game,
  lanes: Sequence[sampling.Lane],
  params_by_name: Mapping[str, Any],
  batch: Mapping[str, jax.Array],
  rng: jax.Array,
) -> tuple[preference_model.Segment, dict[str, jax.Array]]:
  """One response in each of two lanes, and the judge's score of the first.

  Returns: the first lane's responses, tokens and mask [B, R]; and "win_prob"
    f32[B] from a preference model, or "reward" and "baseline" f32[B] from a
    reward model, the baseline being the reward of the second lane.
  """
  play_rng, judge_rng = jax.random.split(rng)
  prompts = preference_model.segment(batch, "prompts")
  written = sampling.rollout(
    task.model,
    params_by_name,
    lanes,
    prompts=prompts[0],
    prompt_mask=prompts[1],
    keys=sampling.row_keys(play_rng, batch["example_ids"], len(lanes)),
    max_response=task.max_response,
    temperature=game.temperature,
    eos_id=task.tokenizer.eos_id,
  )
  y, y_opp = (
    (written.tokens[:, lane], written.mask[:, lane]) for lane in (0, 1)
  )
  params = params_by_name["judge"]
  if game.judge == "preference":
    judge = judges.make_preference_judge(task.model, params, game.template)
    return y, {"win_prob": judge(judge_rng, prompts, y, y_opp)}
  reward, baseline = (
    preference_model.reward(
      task.model, params, game.template, prompts=prompts, responses=responses
    )
    for responses in (y, y_opp)
  )
  return y, {"reward": reward, "baseline": baseline}


def rollout(
  task: task_lib.Task,
  game: Game,
  lanes: Sequence[sampling.Lane],
  params_by_name: Mapping[str, Any],
  batch: Mapping[str, jax.Array],
  rng: jax.Array,
) -> dict[str, jax.Array]:
  """The batch with responses, their scores and log μ; no gradient flows."""
  (tokens, mask), score = play(task, game, lanes, params_by_name, batch, rng)
  batch = {**batch, **score, "responses": tokens, "responses_mask": mask}
  reference = params_by_name["reference"]
  batch["ref_log_prob"] = log_prob(task, game, reference, batch)
  return lax.stop_gradient(batch)


def loss(
  task: task_lib.Task,
  game: Game,
  params: Any,
  batch: Mapping[str, jax.Array],
  rng: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of the game on a batch that `rollout` filled in."""
  del rng
  common = {
    "log_prob": log_prob(task, game, params, batch),
    "ref_log_prob": batch["ref_log_prob"],
    "mask": batch["responses_mask"],
    "kl_coef": game.kl_coef,
  }
  if game.judge == "preference":
    return losses.nash_pg_loss(win_prob=batch["win_prob"], **common)
  return losses.rlhf_pg_loss(
    reward=batch["reward"], baseline=batch["baseline"], **common
  )


def log_prob(
  task: task_lib.Task,
  game: Game,
  params: Any,
  batch: Mapping[str, jax.Array],
) -> jax.Array:
  """log π(y_n | x, y_<n) of the batch's responses, f32[B, R], nats."""
  return policy.response_log_probs(
    task.model,
    params,
    prompts=batch["prompts"],
    prompt_mask=batch["prompts_mask"],
    responses=batch["responses"],
    temperature=game.temperature,
  )


def _against_reference(task, game, seed, params_by_name, batch):
  """The judge's scores of the policy against μ."""
  lanes = [opponents.LEARNER, {"reference": 1.0}]
  rng = jax.random.key(seed)
  _, score = play(task, game, lanes, params_by_name, batch, rng)
  return {f"{name}_against_reference": x for name, x in score.items()}


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
  game = Game(
    judge=section.judge,
    template=task.templates[section.judge],
    kl_coef=section.kl_coef,
    temperature=section.temperature,
  )
  experiment = make_experiment(
    task,
    game,
    lanes=opponents.make_lanes(
      opponent=section.opponent, mixture=section.mixture
    ),
    reference=workdir / "sft",
    judge=workdir / section.judge,
    seed=config.seed,
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
