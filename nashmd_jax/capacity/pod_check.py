"""Stage `pod_check`: the programs of a run on text, compiled for a slice.

From shapes alone: no weights, no data and no TPU are needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from nashmd_jax import mistakes
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax.capacity import compiled, parts, programs
from nashmd_jax.hub import pretrained
from nashmd_jax.stages import text
from nashmd_jax.training import sharding

Config = pipeline_lib.Config
GATHERS = "all-gather of parameters"
DECODE = "decode"


class Check(NamedTuple):
  """What was found for one slice.

  Attributes:
    topology: of the slice.
    chips: in it.
    costs: by program: of `programs.all_programs`, and of `parts.of_step` for
      the first run.
    step_seconds: predicted for a step of every run, by its name.
    parts_seconds: the same for the first run as the sum of its parts, with
      nothing overlapped; see `parts_seconds`.
    exchanged: collectives a token of decode, see `exchanged`; None without.
  """

  topology: str
  chips: int
  costs: Mapping[str, compiled.Cost]
  step_seconds: Mapping[str, float]
  parts_seconds: float | None
  exchanged: Mapping[str, int] | None


def check_config(
  pipeline: pipeline_lib.Pipeline,
  config: Config,
  topology: str,
  report: Callable[[str], None],
) -> Check:
  """Checks a config, then its programs; what a user has to give may be absent.

  Args: see `check`.
  """
  return check(checked(pipeline, config), topology, report)


def checked(pipeline: pipeline_lib.Pipeline, config: Config) -> Config:
  """The config as if all that it requires were given.

  Raises: Mistake with every fault that was found.
  """
  config = config.copy_and_resolve_references()
  section_at = pipeline_lib.section_at
  absent = [x for x in config.required if section_at(config, x) is None]
  folders = [name for name in absent if name.endswith(".pretrained")]
  with config.unlocked():
    config.required = ()
    config.update_from_flattened_dict(dict.fromkeys(folders, pretrained.RANDOM))
    pipeline_lib.check(pipeline, config)
    # Two folders, which may differ: adapters then need two bases.
    config.update_from_flattened_dict(
      {x: pretrained.STAND_IN + x for x in absent}
    )
  return config


def make_devices(config: Config, topology: str) -> sharding.Devices:
  """The devices of a slice as the config uses them.

  Raises: Mistake for a slice that is none; DoesNotFit for one that the config
    cannot use.
  """
  found = compiled.topology_devices(topology)
  try:
    devices = sharding.make_devices(found, **config.devices)
    text.check_batches(config, devices)
  except ValueError as error:
    raise compiled.DoesNotFit(f"pod_check: {error}") from None
  return devices


def check(
  config: Config, topology: str, report: Callable[[str], None]
) -> Check:
  """Compiles every training program of a checked config for a slice.

  Args:
    config: see `checked`.
    topology: of the slice, such as "v5e:4x4"; of a kind of chip alone, such
      as "v5e", the smallest slice that holds all programs is found.
    report: receives a line for each program as soon as it is known.
  Raises: Mistake for a slice that is none, or too small for a program, and
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
  task = programs.stand_in_task(config, devices)
  runs = programs.distinct_runs(config, task)
  wanted = programs.all_programs(config, task, runs)
  if runs:
    wanted |= parts.of_step(config, task, runs[0])
  for run in runs:
    if run.also:
      report(f"nash/{run.name}: also the program of {', '.join(run.also)}")
  costs = _measure(wanted, topology, report)
  found = Check(
    topology,
    devices.mesh.size,
    costs,
    step_seconds(costs, runs),
    parts_seconds(costs, config.layout.max_response),
    exchanged(costs[DECODE], devices) if DECODE in costs else None,
  )
  for line in _conclusion(found, devices, config.layout.max_response):
    report(line)
  return found


def _measure(wanted, topology, report) -> dict[str, compiled.Cost]:
  """The costs of programs; tells each as soon as it is known."""
  chip = compiled.CHIPS[topology.split(":")[0]]
  width = max(map(len, wanted))
  report(header(width))
  costs = {}
  for name, (function, *args) in wanted.items():
    costs[name] = compiled.measure(name, function, chip, *args)
    report(row(name.ljust(width), costs[name], chip))
  return costs


def _conclusion(found: Check, devices, tokens: int) -> list[str]:
  """What follows from the costs; raises as `check_decode`."""
  lines = []
  if found.exchanged is not None:
    lines.append(check_decode(found.exchanged, devices))
  trained = [name for name in found.costs if name not in (*parts.ONCE, DECODE)]
  lines.append(
    f"{found.topology}: every training program fits: {', '.join(trained)}"
  )
  lines += [
    f"nash/{name}: a step takes {seconds:.3f} s"
    for name, seconds in found.step_seconds.items()
  ]
  if found.parts_seconds is not None:
    lines.append(
      f"nash/{next(iter(found.step_seconds))}: or {found.parts_seconds:.3f} s "
      f"as its parts, {tokens} × decode among them"
    )
  if found.step_seconds:
    lines.append(
      "predicted from the compiler's cycles, with no transfer behind a "
      "computation and all tokens used; what a judge on the host takes comes "
      "on top"
    )
  return lines


def step_seconds(
  costs: Mapping[str, compiled.Cost], runs: Sequence[programs.Run]
) -> dict[str, float]:
  """Predicted for a step of every run, by its name."""
  found = {}
  for run in runs:
    own = [costs[name].seconds for name in programs.names(run)]
    found |= dict.fromkeys([run.name, *run.also], sum(own))
  return found


def parts_seconds(
  costs: Mapping[str, compiled.Cost], tokens: int
) -> float | None:
  """Predicted for a step of the first run, whose responses use all tokens.

  None if it writes none, or if its update is a program by itself.
  """
  if DECODE not in costs or "update" not in costs:
    return None
  once = sum(costs[name].seconds for name in parts.ONCE if name in costs)
  return once + tokens * costs[DECODE].seconds


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

  Raises: Mistake if a token costs what it must not: parameters gathered,
    an all-to-all, or of replicas more than one all-reduce.
  """
  told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
  replicas = devices.mesh.shape["model"] == 1
  most = {"all-reduce": 1 if replicas else counts["all-reduce"]}
  if any(count > most.get(kind, 0) for kind, count in counts.items()):
    raise mistakes.Mistake(
      f"pod_check: decode exchanges too much for a token, {told}; choose a "
      "devices.model that divides the heads and the vocabulary of the model"
    )
  kept = "replicas" if replicas else "tensor-parallel"
  return f"decode, {kept}: a token costs {told}"


def header(width: int) -> str:
  """Over the lines of `row`; `width` is that of the names."""
  return (
    f"{'program':<{width}} HBM GiB  of   TFLOP     GB  compute s  transfer s  "
    "attention     collectives: count × MB"
  )


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
    f"{name} {cost.hbm / 2**30:7.2f} {chip.hbm / 2**30:3.0f} "
    f"{cost.flops / 1e12:7.3f} {cost.bytes_accessed / 1e9:6.2f} "
    f"{cost.compute_seconds:10.4f} {cost.transfer_seconds:11.4f}  "
    f"{'+'.join(cost.kernels) or 'none':<12}  {listed or 'none'}"
  )
