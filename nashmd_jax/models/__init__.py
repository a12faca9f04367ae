"""Language models behind one seam: `make_language_model(family=..., ...)`."""

from nashmd_jax.models import t5
from nashmd_jax.models.language_model import LanguageModel

FAMILIES = {"t5": t5.make_t5}


def make_language_model(*, family: str, **kwargs) -> LanguageModel:
  """The pure functions of one architecture.

  Args:
    family: a key of `FAMILIES`.
    **kwargs: the arguments of that family's maker.
  Raises: ValueError for a family that does not exist, or sizes that are
    missing or not its own.
  """
  if family not in FAMILIES:
    raise ValueError(
      f"model.family: got {family!r}, expected one of {sorted(FAMILIES)}"
    )
  try:
    return FAMILIES[family](**kwargs)
  except TypeError as error:
    raise ValueError(f"model: {error}") from None


__all__ = ["FAMILIES", "LanguageModel", "make_language_model"]
