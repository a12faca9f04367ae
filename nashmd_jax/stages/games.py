"""Stage `games`: measures how fast each algorithm converges on exact games."""

import pathlib
from typing import Any

from nashmd_jax import mistakes, pipeline
from nashmd_jax.evaluation import game_study

NAME = "games"


def check(config: pipeline.Config, findings: mistakes.Findings) -> None:
  """Collects what would fail later, before anything runs."""
  game_study.check(config.games, findings)


def run(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> dict[str, Any]:
  """The study of `config.games`."""
  del job
  return game_study.run(config, workdir)


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: game_study.SETTINGS},
  check=check,
  jobs=lambda config: [NAME],
  needs=lambda config, job: [],
  reads=lambda config, job: pipeline.settings(config, NAME),
  run=run,
  alone=True,
)
PIPELINE = pipeline.Pipeline(
  stages=[STAGE],
  settings={"pipeline": pipeline.NAME},
  check=lambda config, findings: None,
  prepare=lambda config, workdir: {},
  page="games/table.md",
)
