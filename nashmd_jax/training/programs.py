"""The programs of a step, compiled: jitted over the mesh, or pmapped."""

from collections.abc import Callable
from concurrent import futures
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nashmd_jax.training import distributed, sharding
from nashmd_jax.training import step as step_lib


def compile_step(
  devices: sharding.Devices,
  make_programs: Callable[..., Any],
  state: Any,
  *,
  host: step_lib.Host | None,
) -> Callable[..., tuple[Any, Any]]:
  """The step (state, batch of the host, the next one) -> (state, metrics).

  The next batch is None where nothing may be begun of it: at the end, and
  where the state is saved. Every other call is given it, and must be followed
  by a call with it.

  Args:
    devices: of the run.
    make_programs: () or (reduce=...) -> the pure programs; see `loop`.
    state: arrays or shapes with shardings, which the new state keeps; the
      old one is donated.
    host: what stands between rollout and update, see `step.Host`; with None
      the two are one program.
  """
  compiled = compile_programs(devices, make_programs, state)

  def whole(state, batch, following=None):
    del following
    batch = sharding.shard_batch(batch, devices.mesh)
    with jax.transfer_guard("disallow"):
      return compiled.step(state, batch)

  return whole if host is None else _around(host, devices, compiled)


def _around(
  host: step_lib.Host, devices: sharding.Devices, compiled: "Compiled"
) -> Callable[..., tuple[Any, Any]]:
  """The step around a host; see `compile_step`."""
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

  def step(state, batch, following=None):
    rows, answers = waiting.pop() if waiting else write(state, batch)
    if host.ahead and following is not None:
      waiting.append(write(state, following))
    further = host.rows(distributed.on_first(answers))
    rows = {**rows, **sharding.shard_batch(further, devices.mesh)}
    with jax.transfer_guard("disallow"):
      return compiled.update(state, rows)

  return step


class Compiled(NamedTuple):
  """The programs of a step, jitted or pmapped; rows are global arrays.

  Attributes:
    step: (state, batch) -> (state, metrics); the old state is donated.
    rollout: (state, batch) -> rows.
    update: (state, rows) -> (state, metrics); the old state is donated.
  """

  step: Callable[[Any, Any], tuple[Any, Any]]
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
    keep = dict(
      donate_argnums=0,
      out_shardings=(places, sharding.replicated(devices.mesh)),
    )
    return Compiled(
      step=jax.jit(programs.step, **keep),
      rollout=jax.jit(programs.rollout, out_shardings=rows),
      update=jax.jit(programs.update, **keep),
    )
  parts = devices.mesh.shape["data"]
  programs = make_programs(reduce=functools.partial(lax.psum, axis_name="data"))
  mapped = functools.partial(
    jax.pmap,
    axis_name="data",
    in_axes=(None, 0),
    devices=list(devices.mesh.devices.flat),
  )
  step, update = (
    mapped(function, out_axes=None, donate_argnums=0)
    for function in (programs.step, programs.update)
  )
  rollout = mapped(programs.rollout)

  def split(batch):
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

  def join(rows):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

  return Compiled(
    step=lambda state, batch: step(state, split(batch)),
    rollout=lambda state, batch: join(rollout(state, split(batch))),
    update=lambda state, rows: update(state, split(rows)),
  )
