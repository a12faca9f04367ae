"""The kinds of config, each with its stages: `config.pipeline` names one."""

from nashmd_jax.pipelines import games, text
from nashmd_jax.pipelines.pipeline import Pipeline

PIPELINES = {"text": text.PIPELINE, "games": games.PIPELINE}

__all__ = ["PIPELINES", "Pipeline"]
