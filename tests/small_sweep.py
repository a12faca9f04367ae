"""A sweep of two trials for the tests, and sweeps with mistakes in them."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parent.parent / "configs" / "worlds.py"

GAMES = ({"dice": (0.5, 0.3, 0.2)}, {"chess": (0.5, 0.5)})


def get_config(variant="good"):
  """configs/worlds.py:games_tiny with two step sizes."""
  del variant
  spec = importlib.util.spec_from_file_location("worlds_config", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("games_tiny").unlock()
  config.games.step_sizes.count = 2
  return config.lock()


def get_hyper(hyper, variant="good"):
  """The trials of a variant."""
  return {
    "good": lambda: hyper.values("games.kl_coef", 0.5, 1.0),
    "typo": lambda: [{}, {"games.kl_coeff": 1.0}],
    "negative": lambda: hyper.values("games.kl_coef", 0.5, -1.0),
    "text": lambda: hyper.values("games.kl_coef", 0.5, "much"),
    "none": lambda: hyper.values("games.horizon", 400, None),
    "game": lambda: hyper.values("games.references", *GAMES),
    "twice": lambda: [{}, {"games.kl_coef": 0.1}],
    "broken": lambda: hyper.zipped(
      hyper.values("games.kl_coef", 0.5, 1.0),
      hyper.values("games.horizon", 400),
    ),
    "empty": list,
  }[variant]()
