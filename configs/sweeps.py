"""Named sweeps: over the text run of docstrings.py, and over exact games.

  make sweep CONFIG=configs/sweeps.py:mixture
  python -m nashmd_jax.main --config=configs/sweeps.py:mixture --trial=0

| variant | trials | what they set |
|---|---|---|
| `mixture` | 18 | six β, three seeds each |
| `kl_coef` | 12 | four τ, three seeds each |
| `opponents` | 12 | four opponents, three seeds each |
| `seeds` | 8 | the seed of the whole demo, all of its policies |
| `games` | 4 | τ of the games of worlds.py, which have no seed |

Trials that agree on SFT and judges, as those of one seed do, train them once. A
trial of `seeds` is a whole demo, one of the others trains a single policy.
`_tiny` after the name makes three trials of the tiny base.
"""

import importlib.util
import pathlib

import ml_collections

SEEDS = (0, 1, 2)
VARIANTS = ("mixture", "kl_coef", "opponents", "seeds", "games")


def get_config(variant: str = "mixture") -> ml_collections.ConfigDict:
  """The base config of a sweep."""
  name, tiny = split(variant)
  if name == "games":
    return load("worlds").get_config("games_tiny" if tiny else "games")
  config = load("docstrings").get_config("tiny" if tiny else "full")
  if name == "seeds":
    return config
  config.unlock()
  # One policy, under a name that is true of every trial.
  config.nash.runs = {"trained": {}}
  config.tournament.policies = ("sft", "trained")
  return config.lock()


def get_hyper(hyper, variant: str = "mixture") -> list[dict]:
  """The trials of a sweep; `hyper` has the combinators."""
  name, tiny = split(variant)
  seeds = hyper.values("seed", *SEEDS)
  sweep = {
    "mixture": hyper.product(
      hyper.values("nash.mixture", 0.0, 0.125, 0.25, 0.5, 0.75, 1.0), seeds
    ),
    "kl_coef": hyper.product(
      hyper.values("nash.kl_coef", 0.02, 0.05, 0.1, 0.2), seeds
    ),
    "opponents": hyper.product(
      hyper.values(
        "nash.opponent", "mixture", "self", "reference", "moving_average"
      ),
      seeds,
    ),
    "seeds": hyper.values("seed", *range(8)),
    "games": hyper.values("games.kl_coef", 0.05, 0.1, 0.2, 0.5),
  }[name]
  return sweep[:3] if tiny else sweep


def split(variant: str) -> tuple[str, bool]:
  """The name of a sweep, and whether it is the tiny one."""
  name = variant.removesuffix("_tiny")
  if name not in VARIANTS:
    raise ValueError(
      f"configs/sweeps.py: no variant {variant!r}, expected one of {VARIANTS}"
    )
  return name, name != variant


def load(name: str):
  """A config file of this folder, which is no package."""
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  spec = importlib.util.spec_from_file_location(f"{name}_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
