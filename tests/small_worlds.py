"""Worlds of a few responses, for tests."""

import jax

from figures import landing
from nashmd_jax.nash import settings
from nashmd_jax.training import loop, optimizer, sharding
from nashmd_jax.worlds import planted, stage

SMALL = dict(
  vocab_size=3,
  max_response=2,
  prompts=2,
  prompt_length=2,
  cycle=1.0,
  brevity=0.0,
  noise=0.0,
  seed=0,
)
RUN = "nash_md_eighth"


def small_config(**nash):
  """`configs/worlds.py:tiny` with changes of the section `nash`."""
  config = landing.load_config("tiny").copy_and_resolve_references()
  config.nash.update(nash)
  return config


def make_world_and_model(config):
  """Those of a config."""
  world = planted.make_world(**config.world)
  return world, stage.make_model(config, world)


def make_experiment(config, name=RUN):
  """World, answer, experiment of a run, and its sets at the start."""
  section = settings.run_section(config, name)
  devices = sharding.make_devices(**config.devices)
  world, answer = stage.solve(config, section)
  model = stage.make_model(config, world)
  play = stage.make_play(world, model, section, devices)
  evaluate = stage.make_evaluation(world, play, answer, devices)
  experiment = stage.make_experiment(world, play, section, evaluate)
  state = sharding.store(
    devices,
    loop.make_first_state(
      experiment,
      optimizer.make_optimizer(**section.optimizer),
      devices=devices,
    ),
    *experiment.init(jax.random.key(config.seed)),
  )
  sets = {"policy": state.params, **state.followers, **state.frozen}
  return world, answer, experiment, sets
