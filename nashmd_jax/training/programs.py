"""The programs of a step, compiled: jitted over the mesh, or pmapped."""

from collections.abc import Callable
from concurrent import futures
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nashmd_jax.training import distributed, dumps, sharding
from nashmd_jax.training import step as step_lib


class Step:
  """The step (state, batch of the host, the next one) -> (state, metrics).

  The next batch is None where nothing may be begun of it: at the end, and
  where the state is saved. Every other call is given it, and must be followed
  by a call with it.

  Attributes:
    rows: that the last call learnt from, on the devices; see `dumps.small`.
  """

  def __init__(self, take: Callable[..., tuple[Any, Any, dict]]):
    """Of the same function, which returns its rows too."""
    self._take = take
    self.rows: dict[str, Any] = {}

  def __call__(self, state, batch, following=None):
    """Takes one step."""
    state, metrics, self.rows = self._take(state, batch, following)
    return state, metrics


def compile_step(
  devices: sharding.Devices,
  make_programs: Callable[..., Any],
  state: Any,
  *,
  host: step_lib.Host | None,
) -> Step:
  """The step, compiled when it is first taken.

  Args:
    devices: of the run.
    make_programs: () or (reduce=...) -> the pure programs; see `loop`.
    state: arrays or shapes with shardings, which the new state keeps; the
      old one is donated.
    host: what stands between rollout and update, see `step.Host`; with None
      the two are one program.
  """
  compiled = compile_programs(devices, make_programs, state)

  def whole(state, batch, following):
    del following
    batch = sharding.shard_batch(batch, devices.mesh)
    with jax.transfer_guard("disallow"):
      return compiled.step(state, batch)

  return Step(whole if host is None else _around(host, devices, compiled))


def _around(
  host: step_lib.Host, devices: sharding.Devices, compiled: "Compiled"
) -> Callable[..., tuple[Any, Any, dict]]:
  """The step around a host; see `Step`."""
  asking = futures.ThreadPoolExecutor(1, "judge")
  waiting: list[tuple[Any, Callable[[], Any]]] = []

  def write(state, batch):
    """Rows of a batch, and what waits for the answers."""
    batch = sharding.shard_batch(batch, devices.mesh)
    with jax.transfer_guard("disallow"):
      rows = compiled.rollout(state, batch)
    read = {name: distributed.to_host(rows[name]) for name in host.reads}
    if not host.ahead:
      return rows, functools.partial(host.ask, read)
    if not distributed.is_first():
      return rows, None  # only process 0 ever waits
    return rows, asking.submit(host.ask, read).result

  def step(state, batch, following):
    rows, answers = waiting.pop() if waiting else write(state, batch)
    if host.ahead and following is not None:
      waiting.append(write(state, following))
    further = host.rows(distributed.on_first(answers))
    rows = {**rows, **sharding.shard_batch(further, devices.mesh)}
    with jax.transfer_guard("disallow"):
      return *compiled.update(state, rows), dumps.small(rows)

  return step


class Compiled(NamedTuple):
  """The programs of a step, jitted or pmapped; rows are global arrays.

  Attributes:
    step: (state, batch) -> (state, metrics, the small rows); the old state is
      donated.
    rollout: (state, batch) -> rows.
    update: (state, rows) -> (state, metrics); the old state is donated.
  """

  step: Callable[[Any, Any], tuple[Any, Any, Any]]
  rollout: Callable[[Any, Any], Any]
  update: Callable[[Any, Any], tuple[Any, Any]]


def compile_programs(
  devices: sharding.Devices, make_programs: Callable[..., Any], state: Any
) -> Compiled:
  """The programs of a step in the mode of the run; see `compile_step`."""
  rows = NamedSharding(devices.mesh, P("data"))
  if devices.mode == "jit":
    programs = make_programs()
    places = jax.tree.map(lambda x: x.sharding, state)
    kept = (places, sharding.replicated(devices.mesh))
    jit = functools.partial(jax.jit, donate_argnums=0)
    return Compiled(
      step=jit(programs.step_on, out_shardings=(*kept, rows)),
      rollout=jax.jit(programs.rollout, out_shardings=rows),
      update=jit(programs.update, out_shardings=kept),
    )
  parts = devices.mesh.shape["data"]
  programs = make_programs(reduce=functools.partial(lax.psum, axis_name="data"))
  mapped = functools.partial(
    jax.pmap,
    axis_name="data",
    in_axes=(None, 0),
    devices=list(devices.mesh.devices.flat),
  )
  once = functools.partial(mapped, donate_argnums=0)
  step = once(programs.step_on, out_axes=(None, None, 0))
  update = once(programs.update, out_axes=None)
  rollout = mapped(programs.rollout)

  def split(batch):
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

  def join(rows):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

  def step_on(state, batch):
    *found, rows = step(state, split(batch))
    return *found, join(rows)

  return Compiled(
    step=step_on,
    rollout=lambda state, batch: join(rollout(state, split(batch))),
    update=lambda state, rows: update(state, split(rows)),
  )
