"""Language models behind one seam: `make_language_model(family=..., ...)`."""

from nashmd_jax.models.families import (
  FAMILIES,
  make_config,
  make_language_model,
  make_model,
  on_devices,
)
from nashmd_jax.models.language_model import LanguageModel

__all__ = [
  "FAMILIES",
  "LanguageModel",
  "make_config",
  "make_language_model",
  "make_model",
  "on_devices",
]
