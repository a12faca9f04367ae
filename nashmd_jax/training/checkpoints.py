"""Checkpoints of a stage: parameter sets, optimizer, the place in the data.

The pieces are saved side by side, so that a later stage reads only the set
that it needs of an earlier one. A save that was cut off is never read, and
nothing is read whose checksums differ: see `checksums`.
"""

from collections.abc import Mapping, Sequence
import contextlib
import errno
import functools
import json
import logging
import math
import os
import pathlib
import threading
import time
from typing import Any

import grain
import jax
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from nashmd_jax import files, mistakes
from nashmd_jax.training import checksums, distributed, ending, keeping
from nashmd_jax.training import state as state_lib

FOLDER, DAMAGED = "checkpoints", "damaged"
WINDOW = "window"  # what it is called in a checkpoint's metadata
PATIENCE = 3.0  # seconds that a failing run waits for what is behind it
Window = Sequence[Mapping[str, Any]]


class Checkpointer:
  """Saves one checkpoint after another behind the training.

  Attributes:
    directory: of the checkpoints.
    keep: which checkpoints stay.
    latest: step of the newest whole checkpoint, None if there is none.
    orbax: what reads and writes them.
  """

  def __init__(self, directory: pathlib.Path, *, keep: keeping.Keep):
    """Opens a folder of whole checkpoints; see `make_checkpointer`."""
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    self.directory, self.keep = directory, keep
    self.orbax = ocp.training.Checkpointer(
      directory,
      preservation_policy=keep.policy(),
      cleanup_tmp_directories=True,
    )
    self.latest = newest(directory.parent)
    self._behind: threading.Thread | None = None
    self._error: BaseException | None = None
    self._until: float | None = None

  def begin(
    self,
    step: int,
    pieces: Mapping[str, Any],
    window: Window = (),
    scores: Mapping[str, float] | None = None,
  ) -> None:
    """Copies the pieces; they are written, and summed up, behind."""
    self.wait()
    try:
      if not self.directory.is_dir():  # orbax would make it anew
        raise FileNotFoundError(errno.ENOENT, "gone", str(self.directory))
      response = self.orbax.save_checkpointables_async(
        step,
        dict(pieces),
        force=True,
        metrics=scores,
        custom_metadata={**checksums.promise(), WINDOW: json.dumps(window)},
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


def make_checkpointer(
  folder: pathlib.Path, *, keep: keeping.Keep = keeping.TWO
) -> Checkpointer:
  """A checkpointer that keeps some of what it saves.

  Leftovers of a save that was cut off are removed; newer checkpoints than the
  newest whole one are set aside.

  Args:
    folder: of the stage; the checkpoints are in a folder of their own there.
    keep: which stay.
  Raises: Mistake if there are checkpoints, and all are damaged.
  """
  directory = folder.absolute() / FOLDER
  for line in distributed.on_first(functools.partial(_settle, directory)):
    print(line, flush=True)
  return Checkpointer(directory, keep=keep)


def _settle(directory: pathlib.Path) -> list[str]:
  """Sets aside what is newer than the newest whole one; says what it did."""
  said, lost = [], False
  for step in reversed(steps(directory)):
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


def steps(directory: pathlib.Path) -> list[int]:
  """The steps of the checkpoints in a folder, in order."""
  if not directory.is_dir():
    return []
  return sorted(int(x.name) for x in directory.iterdir() if x.name.isdigit())


def newest(folder: pathlib.Path, before: float = math.inf) -> int | None:
  """The step of the newest whole checkpoint of a stage, below a step."""
  there = steps(folder.absolute() / FOLDER)
  return max((step for step in there if step < before), default=None)


def save(
  checkpointer: Checkpointer,
  step: int,
  state: state_lib.TrainState,
  batches: grain.DatasetIterator,
  *,
  window: Window = (),
  scores: Mapping[str, float] | None = None,
) -> None:
  """Saves the state, unless that step is saved already.

  The arrays are copied before this returns; writing goes on behind.

  Args:
    window: steps that no row of metrics tells of yet, as JSON.
    scores: of an evaluation of the state, by which the best are kept.
  Raises: Fault if the save before has failed; FloatingPointError for a state
    that is not finite.
  """
  checkpointer.wait()
  if checkpointer.latest == step:
    return
  if not state_lib.is_finite(state):
    raise FloatingPointError(
      f"the update of step {step} left parameters or moments that are not "
      f"finite; {checkpointer.last_good()}"
    )
  pieces = {**state_lib.held(state), "data": batches}
  checkpointer.begin(step, pieces, window, scores)


def check_space(
  checkpointer: Checkpointer, state: state_lib.TrainState
) -> None:
  """Raises Fault if the disk cannot hold the checkpoints that will be."""

  def work():
    there = len(steps(checkpointer.directory))
    keeping.check_space(
      checkpointer.directory,
      state_lib.held(state),
      checkpointer.keep,
      there=there,
    )

  distributed.on_first(work)


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
  loaded = _load(place, _abstract(state_lib.held(state)))
  restored = state._replace(
    step=loaded["optimizer"]["step"],
    params=loaded["params"],
    followers={name: loaded[name] for name in state.followers},
    opt_state=loaded["optimizer"]["state"],
  )
  if not state_lib.is_finite(restored):
    raise mistakes.Mistake(
      f"{place}: holds numbers that are not finite; move it elsewhere to go on "
      "from the one before"
    )
  first = next((place / "data").glob("process_0-of-*.json"), place / "data")
  batches.set_state(files.load_json(first))
  return restored


def load_window(checkpointer: Checkpointer) -> Window:
  """What was saved as the window with the latest checkpoint, if there is one.

  Raises: Mistake if it cannot be read.
  """
  if checkpointer.latest is None:
    return ()
  place = checkpointer.directory / str(checkpointer.latest)
  own = files.load_json(place / checksums.METADATA).get("custom_metadata") or {}
  return json.loads(own.get(WINDOW, "[]"))


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
