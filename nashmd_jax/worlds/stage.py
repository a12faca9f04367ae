"""Stage `nash` in a planted world: a language model against the exact answer.

A real language model is trained through the whole stack, by sampling, against
the planted P; a job for each run.
"""

from collections.abc import Callable, Mapping
import functools
import pathlib
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import declare, logs, mistakes, models, pipeline
from nashmd_jax.models import settings as model_settings
from nashmd_jax.nash import checks, settings
from nashmd_jax.nash import play as play_lib
from nashmd_jax.training import loop, sharding, writers
from nashmd_jax.training import optimizer as optimizer_lib
from nashmd_jax.training import replay as replay_lib
from nashmd_jax.training import settings as training_settings
from nashmd_jax.training import step as step_lib
from nashmd_jax.worlds import answer as answer_lib
from nashmd_jax.worlds import planted, rest

Config = pipeline.Config
World = planted.World
NAME = "nash"
JUDGE = "planted"  # the frozen set that holds P
OWN = {
  **settings.OPPONENT,
  **settings.LOSS,
  **settings.PLAY,
  **settings.FOLLOWED,
  "data": {
    "batch_size": declare.whole(
      "Rows of a step, a multiple of the prompts of the world.",
      least=1,
      unit="rows",
    )
  },
  "optimizer": optimizer_lib.SETTINGS,
  "train": training_settings.TRAIN,
}
SETTINGS = OWN | {"runs": {declare.ANY: declare.Changes(NAME, OWN)}}


def make_model(config: Config, world: World) -> models.LanguageModel:
  """`config.model` on the world's vocabulary."""
  return models.make_language_model(
    vocab_size=world.space.vocab_size, **config.model
  )


def make_play(
  world: World,
  model: models.LanguageModel,
  section: Config,
  devices: sharding.Devices,
) -> play_lib.Play:
  """The play of a checked section `nash` before the planted P."""
  held = settings.make_held(section)
  return play_lib.Play(
    model=model,
    opponent=settings.make_opponent(section),
    judge=lambda sets: planted.make_judge(world.space, sets[JUDGE]),
    algorithm=settings.make_algorithm(section, "win_prob", judge_ahead=0),
    samples=section.samples,
    kl_coef=held.kl_coef,
    held=held.lane,
    temperature=section.temperature,
    max_response=world.space.tokens.shape[1],
    eos_ids=(world.space.eos_id,),
    ready=lambda sets, names: sharding.to_run(
      play_lib.as_they_are(sets, names), devices
    ),
  )


def make_experiment(
  world: World,
  play: play_lib.Play,
  section: Config,
  evaluate: Callable[[play_lib.Sets], Mapping[str, float]],
) -> step_lib.Experiment:
  """Training on the world's prompts from a random start, which is μ.

  Args:
    section: of the run, checked.
    evaluate: see `make_evaluation`.
  """

  def init(rng):
    start = play.model.init(rng)
    tables = {
      "prompts": jnp.asarray(world.prompts),
      "preference": jnp.asarray(world.preference, jnp.float32),
    }
    return start, {"reference": start, JUDGE: tables}

  return step_lib.Experiment(
    init=init,
    rollout=functools.partial(play_lib.rollout, play),
    host=None,
    loss=functools.partial(play_lib.loss, play),
    batches=functools.partial(make_batches, world, section.data.batch_size),
    evaluate=evaluate,
    followers=settings.played_followers(section),
    optimizer=settings.optimizer_of(section),
  )


def make_batches(world: World, batch_size: int) -> grain.DatasetIterator:
  """Endless batches with every prompt as often; only `example_ids` differ."""
  prompts = np.tile(world.prompts, (batch_size // len(world.prompts), 1))

  def batch(index, prompts):
    ids = (index * batch_size + np.arange(batch_size)) % 2**31
    return {
      "prompts": prompts,
      "prompts_mask": np.ones(prompts.shape, bool),
      "example_ids": ids.astype(np.int32),
    }

  dataset = grain.MapDataset.source([prompts]).repeat().map_with_index(batch)
  return iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
  )


def make_evaluation(
  world: World,
  play: play_lib.Play,
  answer: answer_lib.Answer,
  devices: sharding.Devices,
):
  """(sets) -> `answer.distances` of the policy.

  With those, "ema_kl", KL(answer ‖ average), for a run that plays the average.
  """
  names = ["policy", *sorted(play.opponent.follows & {"ema"})]

  @functools.partial(jax.jit, out_shardings=sharding.replicated(devices.mesh))
  def evaluate(sets):
    found = {
      name: answer_lib.distances(
        world,
        answer,
        answer_lib.exact_log_probs(
          world, play.model, params, temperature=play.temperature
        ),
      )
      for name, params in play.ready(sets, names).items()
    }
    last = found.pop("policy")
    if answer.follower is not None:
      last |= answer_lib.follower_distance(
        answer,
        answer_lib.second_log_probs(
          world,
          play.model,
          play.ready(sets, names)["policy"],
          temperature=play.temperature,
        ),
      )
    return last | {f"{name}_kl": one["kl"] for name, one in found.items()}

  return evaluate


def solve(config: Config, section: Config) -> tuple[World, answer_lib.Answer]:
  """The world of a checked run, and its exact answer.

  Raises: Mistake if none was found.
  """
  world = planted.make_world(**config.world)
  model = make_model(config, world)
  # The loop makes the same start of the same seed, and keeps it as μ.
  reference = model.init(jax.random.key(config.seed))
  for dtype in (config.devices.frozen_dtype, config.devices.run_dtype):
    reference = sharding.cast(reference, dtype)
  at = {"temperature": section.temperature}
  given = {
    "log_reference": answer_lib.exact_log_probs(world, model, reference, **at),
    "kl_coef": section.kl_coef,
  }
  if section.loss == rest.STACKELBERG:
    return world, answer_lib.solve_in_turn(
      world,
      log_follower=answer_lib.second_log_probs(world, model, reference, **at),
      follower_kl_coef=section.follower_kl_coef,
      **given,
    )
  return world, answer_lib.solve(
    world,
    **given,
    mixture=rest.weight_on_reference(
      settings.make_opponent(section), section.train.steps
    ),
    loss=section.loss,
  )


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, float]:
  """Trains one of `config.nash.runs`; returns `distances` of its end."""
  experiment, where = _made(config, workdir, job)
  section = settings.run_section(config, job.split("/")[1])
  tx = experiment.optimizer(optimizer_lib.make_optimizer(**section.optimizer))
  log = logs.make_log(config, workdir)
  return loop.train(experiment, tx, **where, **section.train, log=log)


def replay(
  config: Config, workdir: pathlib.Path, job: str, step: int
) -> list[str]:
  """Lines about a step of a run that was kept; see `replay.replay`."""
  experiment, where = _made(config, workdir, job)
  return replay_lib.replay(experiment, step=step, **where)


def _made(config, workdir, job) -> tuple[step_lib.Experiment, dict[str, Any]]:
  """The experiment of a run, and what loop and replay are both told."""
  section = settings.run_section(config, job.split("/")[1])
  devices = sharding.make_devices(**config.devices)
  world, answer = solve(config, section)
  play = make_play(world, make_model(config, world), section, devices)
  evaluate = make_evaluation(world, play, answer, devices)
  return make_experiment(world, play, section, evaluate), {
    "devices": devices,
    "name": job,
    "folder": workdir / job,
    "seed": config.seed,
    "updates_per_rollout": section.updates_per_rollout,
  }


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the runs."""

  def check_run(section, own):
    checks.check_play(section, "win_prob", own)
    _check_rest(section, own)
    counted = settings.steps_counted(section)
    training_settings.check_together(NAME, section, own, steps_counted=counted)
    with own.collect():
      _check_prompts(config, section.data.batch_size)

  checks.check_runs(config, config.nash.runs, check_run, findings)


def _check_rest(section: Config, findings: mistakes.Findings) -> None:
  """Collects why the point of rest of a run is not known."""
  with findings.collect():
    if section.kl_coef == 0:
      raise mistakes.Mistake(
        "nash.kl_coef: got 0, expected τ above 0: without it no exact answer "
        "is known"
      )
  with findings.collect():
    if settings.compares(section):
      raise mistakes.Mistake(
        "nash.design: got 'records', but there are no comparisons of a world; "
        "choose another"
      )
    settings.make_algorithm(section, "win_prob", judge_ahead=0)
    if section.loss != rest.STACKELBERG:
      rest.fixed_point(section.loss)
    elif not section.follower_kl_coef:
      raise mistakes.Mistake(
        "nash.follower_kl_coef: got 0, expected τ_F above 0: without it no "
        "exact answer is known"
      )
  with findings.collect():
    beta = rest.weight_on_reference(
      settings.make_opponent(section), section.train.steps
    )
    if section.loss == "sppo" and beta:
      raise mistakes.Mistake(
        f"nash.opponent: got {mistakes.quote(section.opponent)} for the loss "
        "'sppo', whose point of rest is known where the policy plays itself; "
        "choose anchor or self"
      )


def _check_prompts(config: Config, batch_size: int) -> None:
  if batch_size % config.world.prompts:
    raise mistakes.Mistake(
      f"nash.data.batch_size: got {batch_size}, expected a multiple of the "
      f"{config.world.prompts} prompts of the world"
    )


def check_shared(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with world, model and devices."""
  with findings.collect():
    planted.make_world(**config.world)
  with findings.collect():
    models.make_language_model(
      vocab_size=config.world.vocab_size, **config.model
    )
  with findings.collect():
    sharding.check_mode(config.devices)
  writers.check(config.log.writers, findings)


def prepare(config: Config, workdir: pathlib.Path) -> Mapping[str, Any]:
  """Checks what takes devices to know: their share, and the exact answers.

  Returns: no facts, the settings tell all.
  Raises: Mistake with everything that was found.
  """
  del workdir
  findings = mistakes.Findings()
  with findings.collect():
    parts = sharding.make_devices(**config.devices).mesh.shape["data"]
    for name in config.nash.runs:
      section = settings.run_section(config, name)
      rows = section.data.batch_size // section.train.micro_batches
      with findings.collect(f"nash.runs.{name}"):
        if rows % parts:
          raise mistakes.Mistake(
            f"nash.data.batch_size: got {rows} rows at a time, expected a "
            f"multiple of {parts}, the parts in which the devices share a batch"
          )
      with findings.collect(f"nash.runs.{name}"):
        solve(config, section)
  findings.tell()
  return {}


def reads(config: Config, job: str) -> dict[str, Any]:
  """The settings of the run as it is played."""
  section = settings.run_section(config, job.split("/")[1])
  with section.unlocked():
    del section.runs
  dtypes = ("devices.run_dtype", "devices.frozen_dtype")
  return pipeline.settings(
    config, "seed", "world", "model", *dtypes
  ) | pipeline.flat(pipeline.plain(section), NAME)


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [f"{NAME}/{name}" for name in config.nash.runs],
  needs=lambda config, job: [],
  reads=reads,
  run=run,
  replay=replay,
)
PIPELINE = pipeline.Pipeline(
  stages=[STAGE],
  settings={
    "pipeline": pipeline.NAME,
    "seed": pipeline.SEED,
    "world": planted.SETTINGS,
    "model": {"family": model_settings.FAMILY, **model_settings.SIZES},
    "devices": sharding.SETTINGS,
    "log": logs.SETTINGS,
  },
  check=check_shared,
  prepare=prepare,
  page=NAME,
)
