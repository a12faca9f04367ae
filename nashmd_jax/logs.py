"""What a config says of where its jobs tell of their training."""

import pathlib

from nashmd_jax import declare, pipeline
from nashmd_jax.training import writers

SETTINGS = writers.SETTINGS
# Of policies whose evaluation writes texts, besides.
SAMPLES = declare.whole(
  "Held-out prompts of which each evaluation of a policy is shown with what "
  "was written for them, in the log, in samples.jsonl and by the writers; 0 "
  "shows none.",
  least=0,
  unit="prompts",
)


def make_log(config: pipeline.Config, workdir: pathlib.Path) -> writers.Log:
  """What the jobs of a workdir tell their writers."""
  return writers.Log(
    writers=tuple(config.log.writers),
    project=config.log.project,
    group=workdir.resolve().name,
    settings=pipeline.flat(pipeline.plain(config)),
  )
