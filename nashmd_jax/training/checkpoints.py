"""Checkpoints of a stage: parameter sets, optimizer, the place in the data.

The pieces are saved side by side, so that a later stage reads only the set
that it needs of an earlier one. A save that was cut off is never read, and
nothing is read whose checksums differ: see `checksums`.
"""

from collections.abc import Mapping
import contextlib
import errno
import functools
import logging
import math
import os
import pathlib
import threading
import time
from typing import Any

import grain
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from nashmd_jax import files, mistakes
from nashmd_jax.training import checksums, distributed, ending
from nashmd_jax.training import state as state_lib

FOLDER, DAMAGED = "checkpoints", "damaged"
FLOATS = "real floating"
PATIENCE = 3.0  # seconds that a failing run waits for what is behind it
preservation = ocp.training.preservation_policies


class Checkpointer:
  """Saves one checkpoint after another behind the training.

  Attributes:
    directory: of the checkpoints.
    save_every: steps.
    latest: step of the newest whole checkpoint, None if there is none.
    orbax: what reads and writes them.
  """

  def __init__(self, directory: pathlib.Path, *, save_every: int):
    """Opens a folder of whole checkpoints; see `make_checkpointer`."""
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    self.directory, self.save_every = directory, save_every
    self.orbax = ocp.training.Checkpointer(
      directory,
      preservation_policy=preservation.LatestN(2),
      cleanup_tmp_directories=True,
    )
    self.latest = newest(directory.parent)
    self._behind: threading.Thread | None = None
    self._error: BaseException | None = None
    self._until: float | None = None

  def begin(self, step: int, pieces: Mapping[str, Any]) -> None:
    """Copies the pieces; they are written, and summed up, behind."""
    self.wait()
    try:
      if not self.directory.is_dir():  # orbax would make it anew
        raise FileNotFoundError(errno.ENOENT, "gone", str(self.directory))
      response = self.orbax.save_checkpointables_async(
        step, dict(pieces), force=True, custom_metadata=checksums.promise()
      )
    except Exception as error:  # orbax raises many kinds
      self._error = error
      self.check()
    self._behind = threading.Thread(
      target=self._complete, args=(step, response), daemon=True
    )
    self._behind.start()

  def _complete(self, step: int, response) -> None:
    try:
      response.result()
      checksums.write(
        self.directory / str(step), jax.process_index(), jax.process_count()
      )
      self.latest = step
    except BaseException as error:  # raised where it is asked for
      self._error = error

  def check(self) -> None:
    """Raises Fault if the save behind has failed."""
    if self._error is not None:
      error, self._error = self._error, None
      raise mistakes.Fault(
        f"a checkpoint could not be saved ({files.reason(error)}); mend that, "
        f"and the same command goes on: {self.last_good()}"
      ) from error

  def last_good(self) -> str:
    """The newest whole checkpoint, in words, once what is being saved is."""
    self._outlast(self._behind)
    step = "none" if self.latest is None else f"step {self.latest}"
    return f"the last good checkpoint is {step} in {self.directory}"

  def _outlast(self, thread: threading.Thread | None) -> None:
    """Waits for a thread of a run that fails, in all at most `PATIENCE`."""
    if self._until is None:
      self._until = time.monotonic() + PATIENCE
    if thread is not None:
      thread.join(max(0.0, self._until - time.monotonic()))

  def wait(self) -> None:
    """Waits until what is being saved is whole.

    Raises: Fault if that failed.
    """
    if self._behind is not None:
      self._behind.join()
    self.check()

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace) -> None:
    """Waits until all processes have saved; in a run that fails, not for long.

    What is saved when a run fails may be what it fails of, and may wait for
    processes that have ended.
    """
    if kind is None or issubclass(kind, ending.Preempted):
      if self._behind is not None:
        self._behind.join()
      failed = distributed.anywhere(self._error is not None)
      self.check()
      if failed:
        raise mistakes.Fault("another process could not save a checkpoint")
      self._close()
      return
    self._outlast(self._behind)
    closing = threading.Thread(target=self._close, daemon=True)
    closing.start()
    self._outlast(closing)

  def _close(self) -> None:
    with contextlib.suppress(Exception):  # it was told of
      self.orbax.close()


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  """False for what orbax logs of a save that fails: long, and told here."""
  return f"{os.sep}orbax{os.sep}" not in record.pathname


def make_checkpointer(folder: pathlib.Path, *, save_every: int) -> Checkpointer:
  """A checkpointer that saves every `save_every` steps and keeps two.

  Leftovers of a save that was cut off are removed; newer checkpoints than the
  newest whole one are set aside.

  Args:
    folder: of the stage; the checkpoints are in a folder of their own there.
    save_every: steps.
  Raises: Mistake if there are checkpoints, and all are damaged.
  """
  directory = folder.absolute() / FOLDER
  for line in distributed.on_first(functools.partial(_settle, directory)):
    print(line, flush=True)
  return Checkpointer(directory, save_every=save_every)


def _settle(directory: pathlib.Path) -> list[str]:
  """Sets aside what is newer than the newest whole one; says what it did."""
  said, lost = [], False
  for step in reversed(_steps(directory)):
    place = directory / str(step)
    if checksums.is_of_before(place):
      return [*said, _unchecked(place)]
    damage = checksums.find_damage(place)
    if damage is None:
      return said
    lost |= not damage.cut
    said.append(f"{place}: {damage.what}; {set_aside(directory, step)}")
  if lost:
    raise mistakes.Mistake(
      f"{'; '.join(said)}; no older whole checkpoint is left, delete "
      f"{directory.parent} to train it anew"
    )
  return said


def set_aside(directory: pathlib.Path, step: int) -> str:
  """Moves a checkpoint to where nothing reads it, and says where."""
  folder = directory.parent / DAMAGED
  folder.mkdir(exist_ok=True)
  number = 1 + sum(1 for _ in folder.glob(f"{step}-*"))
  to = folder / f"{step}-{number}"
  (directory / str(step)).rename(to)
  return f"it is set aside as {to}"


def _unchecked(place: pathlib.Path) -> str:
  return f"{place}: is of a version without checksums and is read unchecked"


def _steps(directory: pathlib.Path) -> list[int]:
  """The steps of the checkpoints in a folder, in order."""
  if not directory.is_dir():
    return []
  return sorted(int(x.name) for x in directory.iterdir() if x.name.isdigit())


def newest(folder: pathlib.Path, before: float = math.inf) -> int | None:
  """The step of the newest whole checkpoint of a stage, below a step."""
  steps = _steps(folder.absolute() / FOLDER)
  return max((step for step in steps if step < before), default=None)


def save(
  checkpointer: Checkpointer,
  step: int,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
  *,
  now: bool,
) -> None:
  """Saves if `step` is due, or regardless when told to do it now.

  The arrays are copied before this returns; writing goes on behind.

  Raises: Fault if the save before has failed; FloatingPointError for a state
    that is not finite.
  """
  checkpointer.check()
  if not now and step % checkpointer.save_every:
    return
  if not is_finite(state):
    raise FloatingPointError(
      f"the update of step {step} left parameters or moments that are not "
      f"finite; {checkpointer.last_good()}"
    )
  checkpointer.begin(
    step,
    {
      "params": state.params,
      **state.followers,
      "optimizer": {"step": state.step, "state": state.opt_state},
      "data": batches,
    },
  )


def is_finite(state: state_lib.TrainState) -> bool:
  """Whether all that a checkpoint holds of a state is finite."""
  return bool(_is_finite((state.params, state.opt_state, state.followers)))


@jax.jit
def _is_finite(tree):
  # The largest of a leaf is NaN where one is, and quicker to find than all
  # that are finite.
  leaves = [x for x in jax.tree.leaves(tree) if jnp.isdtype(x.dtype, FLOATS)]
  largest = [jnp.max(jnp.abs(x), initial=0) for x in leaves]
  return jnp.all(jnp.isfinite(jnp.array(largest, jnp.float32)))


def restore(
  checkpointer: Checkpointer,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
) -> state_lib.TrainState:
  """The state of the latest checkpoint, or the given one if there is none.

  Args:
    state: gives shapes, dtypes, shardings and the frozen sets.
    batches: the iterator that is set to its saved place, which all processes
      share: any number of them goes on from what any number saved.
  Raises: Mistake if it does not fit, or is not finite.
  """
  latest = checkpointer.latest
  if latest is None:
    return state
  place = checkpointer.directory / str(latest)
  loaded = _load(
    place,
    {
      "params": _abstract(state.params),
      **_abstract(state.followers),
      "optimizer": _abstract({"step": state.step, "state": state.opt_state}),
    },
  )
  restored = state._replace(
    step=loaded["optimizer"]["step"],
    params=loaded["params"],
    followers={name: loaded[name] for name in state.followers},
    opt_state=loaded["optimizer"]["state"],
  )
  if not is_finite(restored):
    raise mistakes.Mistake(
      f"{place}: holds numbers that are not finite; move it elsewhere to go on "
      "from the one before"
    )
  first = next((place / "data").glob("process_0-of-*.json"), place / "data")
  batches.set_state(files.load_json(first))
  return restored


def load_params(
  folder: pathlib.Path,
  like: Any,
  *,
  name: str = "params",
  before: float = math.inf,
) -> Any:
  """A parameter set in the latest checkpoint of another stage.

  All processes call it together; nothing is moved or written.

  Args:
    folder: of that stage.
    name: "params", or that of a follower, such as "ema".
    like: arrays or shapes of the tree, with shardings or on their own; any
      mesh may read what another has written.
    before: a step, below which that checkpoint is.
  Raises: Mistake if there is no checkpoint, if it is damaged, or if its shapes
    are others.
  """
  directory = folder.absolute() / FOLDER
  if not directory.is_dir():
    raise mistakes.Mistake(
      f"{directory}: no checkpoints here; run that stage first"
    )
  latest = newest(folder, before)
  if latest is None:
    raise mistakes.Mistake(f"{directory}: holds no finished checkpoint")
  place = directory / str(latest)
  distributed.on_first(functools.partial(_check_part, place, name))
  return _load(place, {name: _abstract(like)})[name]


def _check_part(place: pathlib.Path, name: str) -> None:
  """Raises Mistake if a part of a checkpoint is damaged."""
  if checksums.is_of_before(place):
    _tell(_unchecked(place))
    return
  damage = checksums.find_damage(place, part=name)
  if damage is not None:
    stage = place.parent.parent
    raise mistakes.Mistake(
      f"{place}: {damage.what}; delete {stage / 'done.json'} and run that "
      "stage again, which goes on from the checkpoint before"
    )


@functools.cache
def _tell(line: str) -> None:
  """Prints a line once."""
  print(line, flush=True)


def _load(place: pathlib.Path, like: Mapping[str, Any]) -> Mapping[str, Any]:
  """Pieces of a checkpoint, shaped and placed as told."""
  try:
    return ocp.load_checkpointables(place, like)
  except Exception as error:  # orbax raises many kinds
    raise mistakes.Mistake(
      f"{place}: what is saved here does not fit the model of the config, or "
      f"is damaged ({mistakes.brief(error.__cause__ or error)})"
    ) from error


def _abstract(tree: Any) -> Any:
  one = SingleDeviceSharding(jax.local_devices()[0])

  def leaf(x):
    place = getattr(x, "sharding", None) or one
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

  return jax.tree.map(leaf, tree)
