"""What a judge that the user brings gives back, checked as it is given."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.judges import preference_model


def of_tokens(judge: Callable, *, name: str, setting: str) -> Callable:
  """A token judge or scorer whose answers are f32[B·N], one a row.

  Args:
    judge: see `scorers`; it is given prompts of as many rows as responses.
    name: of it in the config.
    setting: dotted name of the setting, for the error.
  """

  def checked(*args):
    rows = args[-1][0].shape[0]
    keys, (prompts, *written) = args[:-3], args[-3:]
    said = judge(*keys, preference_model.each(prompts, rows), *written)
    shape = getattr(said, "shape", None)
    if shape != (rows,):
      got = type(said).__name__ if shape is None else f"the shape {shape}"
      raise mistakes.Mistake(
        f"{setting}: {name} gave {got}, expected an array of one number for "
        f"each row, the shape {(rows,)}"
      )
    kind = jnp.promote_types(said.dtype, jnp.float32)
    return jnp.asarray(said, kind)

  return checked


def of_text(judge: Callable, *, gives: str, name: str, setting: str):
  """A text judge or scorer whose answers are f64[N], NaN for none.

  Args:
    judge: see `scorers`; None in what it gives stands for NaN.
    gives: "win_prob", which must lie in [0, 1], or "reward".
    name: of it in the config.
    setting: dotted name of the setting, for the error.
  """

  def checked(records, *texts):
    said = judge(list(records), *map(list, texts))
    try:
      numbers = np.array(said, np.float64)
    except (TypeError, ValueError):
      numbers = np.zeros(())
    if numbers.shape != (len(records),):
      got = type(said).__name__
      got += f" of {len(said)}" if hasattr(said, "__len__") else ""
      raise mistakes.Mistake(
        f"{setting}: {name} gave a {got}, expected a number for each of the "
        f"{len(records)} records, NaN where it could not judge"
      )
    wrong = np.abs(numbers - 0.5) > 0.5
    if gives == "win_prob" and wrong.any():
      raise mistakes.Mistake(
        f"{setting}: {name} gave {numbers[wrong][0]:g}, expected probabilities "
        "between 0 and 1, or NaN where it could not judge"
      )
    return numbers

  return checked
