"""Steps that changed nothing, kept: the rows that they were of, on disk.

`nonfinite/step-12.npz` in the folder of a stage holds arrays, `step-12.json`
what they belong to. `replay` computes such a step again.
"""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import files, mistakes
from nashmd_jax.training import distributed

FOLDER = "nonfinite"
MOST = 3
LARGE = 3  # axes of numbers that are left to be made again


class Dump(NamedTuple):
  """A step that was kept.

  Attributes:
    step: its number.
    rows: by name, as the loss reads them: prompts, responses, answers.
    seed: of the run.
  """

  step: int
  rows: Mapping[str, np.ndarray]
  seed: int


def small(rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The rows that are kept: all but numbers of three axes or more."""
  return {
    name: x
    for name, x in rows.items()
    if x.ndim < LARGE or not jnp.issubdtype(x.dtype, jnp.floating)
  }


def place(folder: pathlib.Path, step: int) -> pathlib.Path:
  """Of the arrays of a step, in the folder of its stage."""
  return folder / FOLDER / f"step-{step}.npz"


def save(
  folder: pathlib.Path,
  step: int,
  rows: Mapping[str, Any],
  *,
  seed: int,
  must: bool,
) -> None:
  """Keeps a step, if there are not `MOST` of them; all processes call it.

  Args:
    folder: of the stage.
    step: its number.
    rows: kept of it, on the devices.
    seed: of the run.
    must: whether it takes the place of the newest if there are as many.
  """
  steps = functools.partial(there, folder)
  known = distributed.on_first(steps)
  if len(known) >= MOST and step not in known and not must:
    return
  arrays = {name: _plain(distributed.to_host(x)) for name, x in rows.items()}

  def write():
    if len(known) >= MOST and step not in known:
      for path in (place(folder, known[-1]), _facts(folder, known[-1])):
        path.unlink(missing_ok=True)
    path = place(folder, step)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with files.removed_if_not_whole(partial):
      with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
      partial.replace(path)
    ids = arrays.get("record_ids", arrays.get("example_ids", np.arange(0)))
    key = folder / "key.json"
    files.save_json(
      _facts(folder, step),
      {
        "step": step,
        "ids": ids.tolist(),
        "seed": seed,
        "key": step_key(seed, step),
        "made_of": files.load_json(key) if key.exists() else None,
      },
    )

  distributed.on_first(write)


def _plain(x: np.ndarray) -> np.ndarray:
  """The array in a type that files of NumPy know; bfloat16 is none."""
  return x.astype(np.float32) if x.dtype.kind == "V" else x


def step_key(seed: int, step: int) -> list[int]:
  """The data of the key from which all of a step is drawn."""
  key = jax.random.fold_in(jax.random.key(seed), step - 1)
  return np.asarray(jax.random.key_data(key)).tolist()


def there(folder: pathlib.Path) -> list[int]:
  """The steps that are kept in the folder of a stage, in order."""
  names = [path.stem for path in (folder / FOLDER).glob("step-*.json")]
  return sorted(int(x[5:]) for x in names if x[5:].isdecimal())


def load(folder: pathlib.Path, step: int) -> Dump:
  """A step that was kept.

  Raises: Mistake if it is not, or is damaged.
  """
  known, path = there(folder), place(folder, step)
  if step not in known:
    kept = ", ".join(map(str, known)) or "none"
    raise mistakes.Mistake(
      f"--replay: step {step} is not kept in {folder / FOLDER}; kept are {kept}"
    )
  facts = files.load_object(_facts(folder, step), "step", "seed")
  with files.readable(path, "it cannot be computed again, so delete it"):
    rows = _arrays(path)
    if [type(facts[name]) for name in ("step", "seed")] != [int, int]:
      raise ValueError("its step or seed is no number")
    if facts["step"] != step or len(rows["example_ids"]) < 1:
      raise ValueError(f"it is of step {mistakes.quote(facts['step'])}")
  return Dump(step, rows, facts["seed"])


def _facts(folder: pathlib.Path, step: int) -> pathlib.Path:
  return place(folder, step).with_suffix(".json")


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  with files.opened(path) as file, np.load(file, allow_pickle=False) as held:
    try:
      return {name: held[name] for name in held.files}
    except RuntimeError as error:  # of zipfile, for what asks for a password
      raise ValueError(mistakes.brief(error)) from None
