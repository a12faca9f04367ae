"""Checkpoints of a stage: parameter sets, optimizer, the place in the data.

The pieces are saved side by side, so that a later stage reads only the set
that it needs of an earlier one. A save that was cut off is never read.
"""

import json
import pathlib
from typing import Any

import grain
import jax
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from nashmd_jax import mistakes
from nashmd_jax.training import state as state_lib

FOLDER = "checkpoints"
policies = ocp.training.save_decision_policies
preservation = ocp.training.preservation_policies


def make_checkpointer(
  folder: pathlib.Path, *, save_every: int
) -> ocp.training.Checkpointer:
  """A checkpointer that saves every `save_every` steps and keeps two.

  Leftovers of a save that was cut off are removed.

  Args:
    folder: of the stage; the checkpoints are in a folder of their own there.
    save_every: steps.
  """
  return ocp.training.Checkpointer(
    folder.absolute() / FOLDER,
    save_decision_policy=policies.FixedIntervalPolicy(save_every),
    preservation_policy=preservation.LatestN(2),
    cleanup_tmp_directories=True,
  )


def save(
  checkpointer: ocp.training.Checkpointer,
  step: int,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
  *,
  now: bool,
) -> None:
  """Saves if `step` is due, or regardless when told to do it now.

  The arrays are copied before this returns; writing goes on behind.
  """
  if now:
    checkpointer.wait()
  checkpointer.save_checkpointables_async(
    step,
    {
      "params": state.params,
      **state.followers,
      "optimizer": {"step": state.step, "state": state.opt_state},
      "data": batches,
    },
    force=now,
  )


def restore(
  checkpointer: ocp.training.Checkpointer,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
) -> state_lib.TrainState:
  """The state of the latest checkpoint, or the given one if there is none.

  Args:
    state: gives shapes, dtypes, shardings and the frozen sets.
    batches: the iterator that is set to its saved place, which all processes
      share: any number of them goes on from what any number saved.
  """
  latest = checkpointer.latest
  if latest is None:
    return state
  loaded = checkpointer.load_checkpointables(
    latest,
    {
      "params": _abstract(state.params),
      **_abstract(state.followers),
      "optimizer": _abstract({"step": state.step, "state": state.opt_state}),
    },
  )
  place = pathlib.Path(checkpointer.directory) / str(latest.step) / "data"
  first = next(place.glob("process_0-of-*.json"))
  batches.set_state(json.loads(first.read_text(encoding="utf-8")))
  return state._replace(
    step=loaded["optimizer"]["step"],
    params=loaded["params"],
    followers={name: loaded[name] for name in state.followers},
    opt_state=loaded["optimizer"]["state"],
  )


def load_params(
  folder: pathlib.Path, like: Any, *, name: str = "params"
) -> Any:
  """A parameter set in the latest checkpoint of another stage.

  Args:
    folder: of that stage.
    name: "params", or that of a follower, such as "ema".
    like: arrays or shapes of the tree, with shardings or on their own; any
      mesh may read what another has written.
  Raises: ValueError if there is no checkpoint or its shapes are others.
  """
  folder = folder.absolute() / FOLDER
  if not folder.is_dir():
    raise mistakes.Mistake(
      f"{folder}: no checkpoints here; run that stage first"
    )
  with ocp.training.Checkpointer(folder) as checkpointer:
    if checkpointer.latest is None:
      raise mistakes.Mistake(f"{folder}: holds no finished checkpoint")
    try:
      return checkpointer.load_checkpointables(
        checkpointer.latest, {name: _abstract(like)}
      )[name]
    except (ValueError, KeyError) as error:
      raise mistakes.Mistake(
        f"{folder}: these parameters do not fit the model of the config "
        f"({str(error).splitlines()[0]})"
      ) from error


def _abstract(tree: Any) -> Any:
  one = SingleDeviceSharding(jax.local_devices()[0])

  def leaf(x):
    place = getattr(x, "sharding", None) or one
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

  return jax.tree.map(leaf, tree)
