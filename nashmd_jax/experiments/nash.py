"""Stage `nash`: the game of `game.py` on text, from μ, before a frozen judge.

The judge decides which losses there are: the preference model gives win
probabilities, the reward model gives RLHF.
"""

import functools
import pathlib

import jax
import ml_collections

from nashmd_jax import judges, opponents
from nashmd_jax import task as task_lib
from nashmd_jax.experiments import game as game_lib
from nashmd_jax.training import loop
from nashmd_jax.training import optimizer as optimizer_lib

JUDGES = {
  "preference": (judges.make_preference_judge, "win_prob"),
  "reward": (judges.make_reward_scorer, "reward"),
}
OPPONENT = ("opponent", "mixture", "mixture_end", "mixture_steps")
GAME = (*OPPONENT, "judge", "loss", "samples", "kl_coef", "temperature")


def make_game(
  task: task_lib.Task,
  *,
  opponent: str,
  mixture: float,
  mixture_end: float,
  mixture_steps: int,
  judge: str,
  loss: str,
  samples: int,
  kl_coef: float,
  temperature: float,
) -> game_lib.Game:
  """The game of a config on a task's model and text.

  Args:
    opponent, mixture, mixture_end, mixture_steps: of `make_opponent`.
    judge: "preference" or "reward".
    loss: a key of `game.RULES` for that judge.
    samples: K, responses of each side to a prompt.
    kl_coef: τ ≥ 0, in units of the judge's score a nat.
    temperature: of sampling and of every log-prob.
  """
  make_judge, given = JUDGES[judge]
  return game_lib.Game(
    model=task.model,
    opponent=opponents.make_opponent(
      opponent=opponent,
      mixture=mixture,
      mixture_end=mixture_end,
      mixture_steps=mixture_steps,
    ),
    judge=lambda sets: make_judge(
      task.model, sets["judge"], task.templates[judge]
    ),
    rule=game_lib.RULES[given][loss],
    samples=samples,
    kl_coef=kl_coef,
    temperature=temperature,
    max_response=task.max_response,
    eos_id=task.tokenizer.eos_id,
  )


def make_experiment(
  task: task_lib.Task,
  game: game_lib.Game,
  *,
  score: game_lib.Score,
  reference: pathlib.Path,
  judge: pathlib.Path,
  batch_size: int,
  eval_examples: int,
  seed: int,
) -> loop.Experiment:
  """The learner plays an opponent; a frozen judge scores the pair.

  Args:
    score: of the evaluation, against μ.
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
      functools.partial(_against_reference, game, score, seed),
      batch_size=batch_size,
      examples=eval_examples,
    ),
  )


def _against_reference(game, score, seed, params_by_name, batch):
  """The judge's scores of the policy against μ."""
  write_rng, judge_rng = jax.random.split(jax.random.key(seed))
  _, scores = game_lib.play(
    game,
    score,
    params_by_name,
    [opponents.LEARNER],
    [{"reference": 1.0}],
    batch,
    write_rng,
    judge_rng,
  )
  return {f"{name}_against_reference": x for name, x in scores.items()}


def check(
  *,
  judge: str,
  loss: str,
  samples: int,
  kl_coef: float,
  temperature: float,
  **opponent,
) -> None:
  """Raises ValueError for a setting of the game that makes no sense."""
  opponents.make_opponent(**opponent)
  if judge not in JUDGES:
    raise ValueError(
      f"nash.judge: got {judge!r}, expected one of {sorted(JUDGES)}"
    )
  rules = game_lib.RULES[JUDGES[judge][1]]
  if loss not in rules:
    raise ValueError(
      f"nash.loss: got {loss!r}, expected one of {sorted(rules)} for the "
      f"judge {judge!r}"
    )
  if samples < 1:
    raise ValueError(f"nash.samples: got {samples}, expected 1 or more")
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
  game = make_game(task, **{key: section[key] for key in GAME})
  experiment = make_experiment(
    task,
    game,
    score=game_lib.SCORES[JUDGES[section.judge][1]],
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
