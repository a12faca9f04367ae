"""What a compiler says of a program: memory, work, collectives, time.

The TPU compiler runs without a TPU; only its library is needed. Everything
here is its estimate or arithmetic on it, nothing is measured.
"""

from collections.abc import Callable, Sequence
import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from nashmd_jax import mistakes
from nashmd_jax.models import attention


class Chip(NamedTuple):
  """Of one kind of chip, as published.

  Attributes:
    flops: a second, bfloat16.
    clock: Hz; the compiler estimates cycles.
    hbm: bytes.
    ici: bytes a second that a ring through all chips carries, both
      directions of one link together.
  Source: cloud.google.com/tpu/docs; Austin et al., How to scale your model.
  """

  flops: float
  clock: float
  hbm: float
  ici: float


CHIPS = {
  "v5e": Chip(flops=1.97e14, clock=1.5e9, hbm=16 * 2**30, ici=0.9e11),
  "v5p": Chip(flops=4.59e14, clock=1.75e9, hbm=95 * 2**30, ici=1.8e11),
  "v6e": Chip(flops=9.18e14, clock=1.75e9, hbm=32 * 2**30, ici=1.8e11),
}
ITEM_BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "bf16": 2,
  "f16": 2,
  "s16": 2,
  "u16": 2,
  "f32": 4,
  "s32": 4,
  "u32": 4,
  "f64": 8,
  "s64": 8,
  "u64": 8,
}
# Shapes of slices that can be had, the smaller ones of each kind of chip.
SLICES = {
  "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
  "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}
TOO_LARGE = (
  r"Used (\S+) of (\S+) hbm",
  r"required for .*\((\S+)\) exceeds available HBM \((\S+)\)",
)
# Else the library asks a metadata server that only TPU machines have, and lets
# one process in at a time: it only compiles here.
COMPILE_ONLY = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
}
COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)


class DoesNotFit(mistakes.Mistake):
  """A slice is too small for a program, or cannot be used as configured."""


class Collective(NamedTuple):
  """One collective of a program.

  Attributes:
    kind: one of `COLLECTIVES`.
    size: bytes of its result on a chip; of its operand for a reduce-scatter.
    count: how often it runs, loops with a known number of turns included.
    in_loop: whether it is in the body of any loop.
    origin: the traced operation that it serves.
    shape: of its result on a chip, or of the largest of several.
  """

  kind: str
  size: int
  count: int
  in_loop: bool
  origin: str
  shape: tuple[int, ...]


class Cost(NamedTuple):
  """Of one program on one chip.

  Attributes:
    hbm: bytes, arguments and temporaries.
    flops: of matrix products, loops included.
    bytes_accessed: the compiler's figure, each loop body counted once.
    compute_seconds: the compiler's cycles of every operation, loops included.
    transfer_seconds: of the collectives, as if nothing else went on.
    collectives: all of them.
    kernels: of attention to whole sequences, if it has any.
  """

  hbm: float
  flops: float
  bytes_accessed: float
  compute_seconds: float
  transfer_seconds: float
  collectives: Sequence[Collective]
  kernels: Sequence[str]

  @property
  def seconds(self) -> float:
    return self.compute_seconds + self.transfer_seconds


def topology_devices(topology: str) -> list[jax.Device]:
  """Compile-only devices of a slice, such as "v5e:4x4".

  Raises: Mistake if the name is not one or libtpu is not installed.
  """
  if topology.split(":")[0] not in CHIPS:
    raise mistakes.Mistake(
      f"--topology: got {mistakes.quote(topology)}, expected v5e:4x4 or "
      "another shape of "
      f"one of {sorted(CHIPS)}"
    )
  if importlib.util.find_spec("libtpu") is None:
    raise mistakes.Mistake(
      "--stage=pod_check: needs the TPU compiler; install the extra [tpu], pip "
      "install 'nashmd_jax[tpu]'"
    )
  for name, value in COMPILE_ONLY.items():
    os.environ.setdefault(name, value)
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  except jax.errors.JaxRuntimeError as error:
    raise mistakes.Mistake(
      f"--topology: libtpu knows no slice {mistakes.quote(topology)} "
      f"({str(error).splitlines()[0]})"
    ) from None
  return list(found.devices)


def measure(name: str, function: Callable, chip: Chip, *args: Any) -> Cost:
  """Compiles a jitted function for the devices of its arguments.

  Args:
    name: for errors.
    function: jitted.
    chip: of those devices.
    *args: shapes with shardings.
  Raises: DoesNotFit if the program is too large for a chip's memory.
  """
  given = argument_bytes(args)
  if given > chip.hbm:
    raise DoesNotFit(
      f"pod_check: {name} does not fit, its arguments alone are "
      f"{given / 2**30:.1f} of the {chip.hbm / 2**30:.0f} GiB of a chip; take "
      "a larger slice or split more (config.devices)"
    )
  traced = function.trace(*args)
  try:
    program = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    needs = too_large(str(error))
    if needs is None:
      raise
    raise DoesNotFit(
      f"pod_check: {name} does not fit, it needs {needs[0]} of the {needs[1]} "
      "bytes of a chip; take a larger slice or split more (config.devices)"
    ) from None
  memory, cost = program.memory_analysis(), program.cost_analysis()
  text = program.as_text()
  chips = len(jax.tree.leaves(args)[0].sharding.device_set)
  collectives = find_collectives(text)
  return Cost(
    hbm=memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes,
    flops=product_flops(traced.jaxpr.jaxpr) / chips,
    bytes_accessed=cost["bytes accessed"],
    compute_seconds=count_cycles(text) / chip.clock,
    transfer_seconds=sum(
      one.count * transfer_bytes(one) / chip.ici for one in collectives
    ),
    collectives=collectives,
    kernels=find_kernels(text),
  )


def too_large(error: str) -> tuple[str, str] | None:
  """(needed, there), if the compiler says that memory does not suffice."""
  found = (re.search(pattern, error) for pattern in TOO_LARGE)
  return next((match.groups() for match in found if match), None)


def argument_bytes(args: Any) -> int:
  """Of shapes with shardings, on one chip."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(args)
  )


def transfer_bytes(one: Collective) -> float:
  """Bytes that a ring carries past every chip; 2 × for an all-reduce."""
  return one.size * (2 if one.kind == "all-reduce" else 1)


def product_flops(jaxpr) -> float:
  """Of the matrix products of a traced program, all devices together.

  A scan counts its length, a while loop once.
  """
  total = 0.0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      left = eqn.invars[0].aval.shape
      inner = math.prod(left[axis] for axis in contracted)
      total += 2 * math.prod(eqn.outvars[0].aval.shape) * inner
    turns = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
    for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
      if _is_jaxpr(inner):
        total += turns * product_flops(getattr(inner, "jaxpr", inner))
  return total


def _is_jaxpr(x: Any) -> bool:
  return hasattr(x, "eqns")


def computations(text: str) -> dict[str, list[str]]:
  """The instructions of every computation of an HLO module, by its name.

  The entry is under "ENTRY" as well.
  """
  found, name = {}, None
  for line in text.splitlines():
    opening = re.match(r"(ENTRY )?%?(\S+) \(.*\{$", line)
    if opening:
      name = opening[2]
      found[name] = []
      if opening[1]:
        found["ENTRY"] = found[name]
    elif line.startswith("}"):
      name = None
    elif name is not None:
      found[name].append(line.strip())
  return found


def _visits(text: str):
  """(instruction, turns, in a loop, inside a fusion) of all that is reached."""
  blocks = computations(text)

  def visit(name, turns, looped, fused):
    for line in blocks[name]:
      yield line, turns, looped, fused
      loop = re.search(r"condition=%?([\w.-]+), body=%?([\w.-]+)", line)
      if loop:
        inside = turns * _turns(blocks[loop[1]])
        for part in loop.groups():
          yield from visit(part, inside, True, fused)
        continue
      inner = re.findall(r"(?:calls|to_apply)=%?([\w.-]+)", line)
      branches = re.search(r"branch_computations=\{([^}]*)\}", line)
      if branches:
        inner += re.findall(r"[\w.-]+", branches[1])
      for called in inner:
        yield from visit(called, turns, looped, fused or " fusion(" in line)

  yield from visit("ENTRY", 1, False, False)


def _turns(condition: list[str]) -> int:
  """Of a loop that counts up to a constant; 1 where that is not known."""
  compares = [line for line in condition if " compare(" in line]
  limits = re.findall(r"= s32\[\]\S* constant\((\d+)\)", "\n".join(condition))
  if len(limits) == 1 and len(compares) == 1 and "direction=LT" in compares[0]:
    return int(limits[0])
  return 1


def count_cycles(text: str) -> int:
  """The compiler's estimate for every operation, loops included."""
  total = 0
  for line, turns, _, fused in _visits(text):
    cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
    if cycles and not fused:
      total += turns * int(cycles[1])
  return total


def find_collectives(text: str) -> list[Collective]:
  """All collectives of an optimised HLO module.

  An asynchronous one may be spread over many operations and turns of a loop,
  all with its channel; it counts once, where it turns least.
  """
  by_channel = {}
  pattern = rf"= (.*?) ({'|'.join(COLLECTIVES)})(-start)?\((.*)"
  for line, turns, looped, _ in _visits(text):
    match = re.search(pattern, line)
    if not match:
      continue
    result, kind, rest = match[1], match[2], match[4]
    arrays = re.findall(r"\w+\[[\d,]*\]", result)
    sizes = [_array_bytes(array) for array in arrays]
    # An asynchronous one returns its operand beside its result.
    size = max(sizes) if match[3] else sum(sizes)
    largest = max(arrays, key=_array_bytes)
    if kind == "reduce-scatter":
      size *= _group_size(rest)
    origin = re.search(r'op_name="([^"]*)"', line)
    one = Collective(
      kind,
      size,
      turns,
      looped,
      origin[1] if origin else "",
      tuple(map(int, re.findall(r"\d+", largest.partition("[")[2]))),
    )
    number = re.search(r"channel_id=(\d+)", line)
    channel = number[1] if number else line
    known = by_channel.get(channel, one)
    by_channel[channel] = min(one, known, key=lambda x: (x.count, x.in_loop))
  return list(by_channel.values())


def find_kernels(text: str) -> list[str]:
  """The kernels of `attention` that operations of an HLO module are part of."""
  return sorted(set(re.findall(rf"{attention.SCOPE}(\w+)", text)))


def _array_bytes(shape: str) -> int:
  dtype, sizes = re.fullmatch(r"(\w+)\[([\d,]*)\]", shape).groups()
  return ITEM_BYTES.get(dtype, 4) * math.prod(
    int(size) for size in sizes.split(",") if size
  )


def _group_size(attributes: str) -> int:
  groups = re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes)
  if groups:
    return int(groups[2])
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
  if mesh:
    sizes = dict(re.findall(r"('\w+')=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", mesh[2]))
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
  return listed[1].count(",") + 1 if listed else 1
