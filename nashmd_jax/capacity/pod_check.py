"""Stage `pod_check`: the programs of a run on text, compiled for a slice.

From shapes alone: no weights, no data and no TPU are needed.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from nashmd_jax import pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.capacity import compiled, programs
from nashmd_jax.training import sharding

# Of a step of nash; what decode takes comes on top, once a token.
PARTS = ("prefill", "judge", "reference", "update")
GATHERS = "all-gather of parameters"
HEADER = (
  "program      HBM GiB  of   TFLOP     GB  optimal s  compute s  transfer s  "
  "collectives: count × MB"
)


class Check(NamedTuple):
  """What was found for one slice.

  Attributes:
    topology: of the slice.
    chips: in it.
    costs: by program; a step of `nash` is "nash" whole, and also in parts.
    step_seconds: predicted for a step of nash, the sum of its parts with
      nothing overlapped.
    exchanged: collectives a token of decode; see `exchanged`.
  """

  topology: str
  chips: int
  costs: Mapping[str, compiled.Cost]
  step_seconds: float
  exchanged: Mapping[str, int]


def make_devices(config: pipeline.Config, topology: str) -> sharding.Devices:
  """The devices of a slice as the config uses them.

  Raises: ValueError for a slice that is none; DoesNotFit for one that the
    config cannot use.
  """
  found = compiled.topology_devices(topology)
  try:
    return task_lib.make_devices(config, found)
  except ValueError as error:
    raise compiled.DoesNotFit(f"pod_check: {error}") from None


def check(
  config: pipeline.Config, topology: str, report: Callable[[str], None]
) -> Check:
  """Compiles every program of a checked config for a slice.

  Args:
    topology: of the slice, such as "v5e:4x4"; of a kind of chip alone, such
      as "v5e", the smallest slice that holds all programs is found.
    report: receives a line for each program as soon as it is known.
  Raises: ValueError for a slice that is none, or too small for a program, and
    for a decode step that exchanges too much.
  """
  shapes = compiled.SLICES.get(topology, ())
  for number, shape in enumerate(shapes, start=1):
    try:
      return check(config, f"{topology}:{shape}", report)
    except compiled.DoesNotFit as error:
      if number == len(shapes):
        raise
      report(f"{topology}:{shape}: {error}")
  devices = make_devices(config, topology)
  chip = compiled.CHIPS[topology.split(":")[0]]
  task = programs.stand_in_task(config, devices)
  costs = {}
  report(HEADER)
  for name, (function, *args) in programs.all_programs(config, task).items():
    costs[name] = compiled.measure(name, function, chip, *args)
    report(row(name, costs[name], chip))
  tokens = config.layout.max_response
  found = Check(
    topology,
    devices.mesh.size,
    costs,
    step_seconds(costs, tokens),
    exchanged(costs["decode"], devices),
  )
  report(check_decode(found.exchanged, devices))
  report(
    f"{topology}: everything fits; a step of nash takes "
    f"{costs['nash'].seconds:.3f} s, or {found.step_seconds:.3f} s as "
    f"{' + '.join(PARTS)} + {tokens} × decode; predicted from the compiler's "
    "cycles, with no transfer behind a computation and all tokens used"
  )
  return found


def step_seconds(costs: Mapping[str, compiled.Cost], tokens: int) -> float:
  """Predicted for a step of nash whose responses have all their tokens."""
  once = sum(costs[name].seconds for name in PARTS)
  return once + tokens * costs["decode"].seconds


def exchanged(
  decode: compiled.Cost, devices: sharding.Devices
) -> dict[str, int]:
  """How many collectives of a kind a decode step has.

  An all-gather is one of parameters if it is as large as those that are split.
  """
  least = devices.smallest * jnp.dtype(devices.run_dtype).itemsize
  counts = dict.fromkeys((GATHERS, "all-to-all", "all-reduce"), 0)
  for one in decode.collectives:
    gathers = one.kind == "all-gather" and one.size >= least
    kind = GATHERS if gathers else one.kind
    if kind in counts:
      counts[kind] += one.count
  return counts


def check_decode(counts: Mapping[str, int], devices: sharding.Devices) -> str:
  """The counts of `exchanged` in words.

  Raises: ValueError if a token costs what it must not: parameters gathered,
    an all-to-all, or of replicas more than one all-reduce.
  """
  told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
  replicas = devices.mesh.shape["model"] == 1
  most = {"all-reduce": 1 if replicas else counts["all-reduce"]}
  if any(count > most.get(kind, 0) for kind, count in counts.items()):
    raise ValueError(
      f"pod_check: decode exchanges too much for a token, {told}; choose a "
      "devices.model that divides the heads and the vocabulary of the model"
    )
  kept = "replicas" if replicas else "tensor-parallel"
  return f"decode, {kept}: a token costs {told}"


def row(name: str, cost: compiled.Cost, chip: compiled.Chip) -> str:
  """One line of the table; figures are of one chip."""
  kinds = {}
  for one in cost.collectives:
    count, size = kinds.get(one.kind, (0, 0.0))
    kinds[one.kind] = (count + one.count, size + one.count * one.size)
  listed = ", ".join(
    f"{kind} {count} × {size / count / 1e6:.3g}"
    for kind, (count, size) in sorted(kinds.items())
  )
  return (
    f"{name:<12} {cost.hbm / 2**30:7.2f} {chip.hbm / 2**30:3.0f} "
    f"{cost.flops / 1e12:7.3f} {cost.bytes_accessed / 1e9:6.2f} "
    f"{cost.optimal_seconds:10.4f} {cost.compute_seconds:10.4f} "
    f"{cost.transfer_seconds:11.4f}  {listed or 'none'}"
  )
