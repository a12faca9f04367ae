"""Four trials, each long enough to be stopped in the middle."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parents[2] / "configs" / "worlds.py"
RUN = "nash_md_eighth"
STEPS, LOG_EVERY = 2000, 10


def get_config():
  """configs/worlds.py:tiny with more steps of one run."""
  spec = importlib.util.spec_from_file_location("worlds_config", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny").unlock()
  config.nash.runs = {RUN: {}}
  config.nash.train.update(
    {
      "steps": STEPS,
      "log_every": LOG_EVERY,
      "eval_every": STEPS,
      "save_every": 50 * LOG_EVERY,
    }
  )
  return config.lock()


def get_hyper(hyper):
  """One seed a trial."""
  return hyper.values("seed", 0, 1, 2, 3)
