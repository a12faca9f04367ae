"""Exact games: one stage that measures how fast each algorithm converges."""

import functools
import pathlib

from nashmd_jax import pipeline
from nashmd_jax.evaluation import game_study

SETTINGS = pipeline.keywords(game_study.check)


def jobs(
  config: pipeline.Config, workdir: pathlib.Path
) -> dict[str, pipeline.Job]:
  """The study of `config.games`."""
  return {"games": functools.partial(game_study.run, config, workdir)}


def check(config: pipeline.Config) -> None:
  """Raises ValueError for what would fail later, before anything runs."""
  pipeline.check_keys(config, "", ("pipeline", "games"))
  pipeline.check_keys(config, "games", SETTINGS)
  sizes = ("smallest", "largest", "count")
  pipeline.check_keys(config, "games.step_sizes", sizes)
  pipeline.at_least_one(config, "games.step_sizes", "count")
  game_study.check(**config.games)


PIPELINE = pipeline.Pipeline(
  stages=("games",),
  check=check,
  jobs=jobs,
  alone=("games",),
  needed=lambda config, name: (),
  page="games/table.md",
  pod_check=None,
)
