"""Stage `nash`: the game of `game.py` on text, from μ, before a frozen judge.

The judge decides which losses there are: the preference model gives win
probabilities, the reward model gives RLHF.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import NamedTuple

import jax
import ml_collections

from nashmd_jax import sampling
from nashmd_jax import task as task_lib
from nashmd_jax.judges import scorers
from nashmd_jax.nash import algorithms, opponents
from nashmd_jax.nash import play as game_lib
from nashmd_jax.training import followers as followers_lib
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib


class Kind(NamedTuple):
  """A judge that the config can name.

  Attributes:
    stage: that trained its parameters; also the name of its template.
    make: (model, params, template) -> the judge.
    scores: what it gives, a key of `algorithms.RULES`.
  """

  stage: str
  make: Callable[..., algorithms.Judge]
  scores: str


def _make_votes(model, params, template):
  return scorers.votes(scorers.make_preference_judge(model, params, template))


JUDGES = {
  "preference": Kind("preference", scorers.make_preference_judge, "win_prob"),
  "votes": Kind("preference", _make_votes, "win_prob"),
  "reward": Kind("reward", scorers.make_reward_scorer, "reward"),
}
OPPONENT = ("opponent", "mixture", "mixture_end", "mixture_steps")
DEPLOY = ("deploy", *OPPONENT[1:])
RULE = ("loss", "updates_per_rollout", "clip")
PLAY = ("judge", "samples", "kl_coef", "temperature")
GAME = (*OPPONENT, "deploy", *RULE, *PLAY)


def make_game(
  task: task_lib.Task, section: ml_collections.ConfigDict
) -> game_lib.Game:
  """The game of a checked config section on a task's model and text."""
  kind = JUDGES[section.judge]
  template = task.templates[kind.stage]
  return game_lib.Game(
    model=task.model,
    place=task.place,
    opponent=opponents.make_opponent(**chosen(section, OPPONENT)),
    judge=lambda sets: kind.make(task.judge_model, sets["judge"], template),
    rule=algorithms.make_rule(scores=kind.scores, **chosen(section, RULE)),
    samples=section.samples,
    kl_coef=section.kl_coef,
    temperature=section.temperature,
    max_response=task.max_response,
    eos_id=task.tokenizer.eos_id,
  )


def chosen(section: ml_collections.ConfigDict, keys: Sequence[str]) -> dict:
  return {key: section[key] for key in keys}


def make_experiment(
  task: task_lib.Task,
  game: game_lib.Game,
  *,
  deployed: sampling.Lane,
  score: algorithms.Score,
  followers: Mapping[str, followers_lib.Follower],
  reference: pathlib.Path,
  judge: pathlib.Path,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """The learner plays an opponent; a frozen judge scores the pair.

  Args:
    deployed: lane that is evaluated.
    score: of the evaluation, against μ.
    followers: sets that follow the policy for the opponent's sake.
    reference: stage that gave μ, which the policy also starts from.
    judge: stage that gave the judge.
    batch_size: prompts a step.
    eval_examples: held-out prompts an evaluation, whole batches of them.
    seed: of the order of the prompts and of the evaluation.
  """

  def init(rng):
    del rng
    start = task_lib.load_params(task, task.model, reference)
    scorer = task_lib.load_params(task, task.judge_model, judge)
    return start, {"reference": start, "judge": scorer}

  return loop.Experiment(
    init=init,
    rollout=functools.partial(game_lib.rollout, game),
    loss=functools.partial(game_lib.loss, game),
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
      functools.partial(_against_reference, game, deployed, score, seed),
      batch_size=batch_size,
      examples=eval_examples,
    ),
    followers=followers,
  )


def _against_reference(game, deployed, score, seed, params_by_name, batch):
  """The judge's scores of the deployed policy against μ."""
  write_rng, judge_rng = jax.random.split(jax.random.key(seed))
  _, scores = game_lib.play(
    game,
    score,
    game.place(params_by_name),
    [deployed],
    [{"reference": 1.0}],
    batch,
    write_rng,
    judge_rng,
  )
  return {f"{name}_against_reference": x for name, x in scores.items()}


def check(section: ml_collections.ConfigDict) -> None:
  """Raises ValueError for a section that makes no sense, before it is run."""
  if section.judge not in JUDGES:
    raise ValueError(
      f"nash.judge: got {section.judge!r}, expected one of {sorted(JUDGES)}"
    )
  if section.samples < 1:
    raise ValueError(f"nash.samples: got {section.samples}, expected 1 or more")
  if not section.kl_coef >= 0:
    raise ValueError(
      f"nash.kl_coef: got {section.kl_coef}, expected τ of 0 (no "
      "regularisation) or more"
    )
  if section.loss in ("ipo", "dpo") and section.kl_coef == 0:
    raise ValueError(
      f"nash.kl_coef: got 0 for the loss {section.loss!r}, expected τ above 0"
    )
  if not section.temperature > 0:
    raise ValueError(
      f"nash.temperature: got {section.temperature}, expected more than 0"
    )
  opponents.make_opponent(**chosen(section, OPPONENT))
  opponents.make_deployed(**chosen(section, DEPLOY))
  scores = JUDGES[section.judge].scores
  algorithms.make_rule(scores=scores, **chosen(section, RULE))
  followers_lib.past_policies(**section.past)


def run_section(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """The checked section of a run.

  Raises: ValueError for a run that does not exist or makes no sense.
  """
  section = task_lib.run_section(config, name)
  check(section)
  return section


def experiment_of(
  task: task_lib.Task,
  section: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  *,
  seed: int,
) -> loop.Experiment:
  """The experiment of a checked section; `make_experiment` says more."""
  kind = JUDGES[section.judge]
  followers = {"past": followers_lib.past_policies(**section.past)}
  return make_experiment(
    task,
    make_game(task, section),
    deployed=opponents.make_deployed(**chosen(section, DEPLOY)),
    score=algorithms.SCORES[kind.scores],
    followers=followers if section.opponent == "past" else {},
    reference=workdir / "sft",
    judge=workdir / kind.stage,
    seed=seed,
    **section.data,
  )


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str
) -> dict[str, float]:
  """Trains one of `config.nash.runs` and returns its last evaluation."""
  section = run_section(config, name)
  task = task_lib.load_task(config, workdir)
  experiment = experiment_of(task, section, workdir, seed=config.seed)
  return loop.train(
    experiment,
    optimizer_lib.make_optimizer(**section.optimizer),
    devices=task.devices,
    name=f"nash/{name}",
    folder=workdir / "nash" / name,
    seed=config.seed,
    updates_per_rollout=section.updates_per_rollout,
    **section.train,
  )
