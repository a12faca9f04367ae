"""Stage `games`: measures how fast each algorithm converges on exact games."""

import pathlib
from typing import Any

from nashmd_jax import mistakes, pipeline
from nashmd_jax.evaluation import game_study

NAME = "games"
STEP_SIZES = ("smallest", "largest", "count")


def check(config: pipeline.Config, findings: mistakes.Findings) -> None:
  """Collects what would fail later, before anything runs."""
  pipeline.at_least_one(config, findings, "games.step_sizes", "count")
  with findings.collect():
    game_study.check(**config.games)


def run(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> dict[str, Any]:
  """The study of `config.games`."""
  del job
  return game_study.run(config, workdir)


STAGE = pipeline.Stage(
  name=NAME,
  keys={
    NAME: pipeline.keywords(game_study.check),
    f"{NAME}.step_sizes": set(STEP_SIZES),
  },
  check=check,
  jobs=lambda config: [NAME],
  needs=lambda config, job: [],
  reads=lambda config, job: pipeline.settings(config, NAME),
  run=run,
  alone=True,
)
PIPELINE = pipeline.Pipeline(
  stages=[STAGE],
  keys={"pipeline": None},
  check=lambda config, findings: None,
  prepare=lambda config, workdir: {},
  page="games/table.md",
)
