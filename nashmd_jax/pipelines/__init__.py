"""The kinds of config, each with its stages: `config.pipeline` names one."""

from nashmd_jax.pipelines import games, text, worlds
from nashmd_jax.pipelines.pipeline import Pipeline

PIPELINES = {
  "text": text.PIPELINE,
  "games": games.PIPELINE,
  "worlds": worlds.PIPELINE,
}

__all__ = ["PIPELINES", "Pipeline"]
