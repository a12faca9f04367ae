"""Rows of `make scale` on devices: layouts of one machine, slices on paper.

Layouts need eight devices (XLA_FLAGS=--xla_force_host_platform_device_count=8);
slices need libtpu, without which their figures are None. What concerns slices
is what the TPU compiler says, or arithmetic on it; nothing of it is measured.
"""

from collections.abc import Callable
import itertools
import pathlib
import sys

import jax
import ml_collections
import numpy as np

from configs import tldr_decoder, tldr_t5
from figures import rows
from nashmd_jax import files
from nashmd_jax.capacity import compiled, pod_check, programs
from nashmd_jax.stages import judge_templates, text
from tests import plays, tiny_runs

DEVICES = 8
FAMILIES = ("t5", "gemma2")
LAYOUTS = {
  "jit on 2": dict(count=2),
  "jit on 8": dict(count=8),
  "fsdp on 2": dict(count=2, fsdp=True),
  "fsdp on 8": dict(count=8, fsdp=True),
  "tensor on 2": dict(count=2, model=2),
  "tensor on 8": dict(count=8, model=2),
  "fsdp and tensor on 8": dict(count=8, model=2, fsdp=True),
  "pmap on 2": dict(count=2, mode="pmap"),
  "pmap on 8": dict(count=8, mode="pmap"),
}
RUN = "nash_md"
CHIP = "v5e"
SLICE = "v5e:4x4"
OTHERS = ("v6e:4x4", "v5p:2x2x4")
# Chips that the smallest slice may have.
DECODERS = {"2b": 4, "9b": 16}
WEAK = ("v5e:8x8", "v5e:16x16")


def layout_rows() -> list[rows.Row]:
  """Every layout against one device: parameters, completions."""
  found = []
  for stage, family in itertools.product(("sft", "nash"), FAMILIES):
    worst = None
    if len(jax.devices()) >= DEVICES:
      one = tiny_runs.five_steps(stage, family).params
      worst = max(
        plays.distance(
          one, tiny_runs.five_steps(stage, family, **layout).params
        )
        for layout in LAYOUTS.values()
      )
    found.append(
      rows.row(
        f"{family}: largest relative difference of a parameter from one "
        f"device after 5 steps of {stage}, {', '.join(LAYOUTS)}",
        worst,
        "≤",
        1e-5,
      )
    )
  return found + [completion_row(family) for family in FAMILIES]


def completion_row(family: str) -> rows.Row:
  """Tokens that differ between layouts."""
  differ = None
  if len(jax.devices()) >= DEVICES:
    one, _ = tiny_runs.roll(family)
    jitted = [x for x in LAYOUTS.values() if "mode" not in x]
    differ = sum(
      int(np.sum(one.tokens != tiny_runs.roll(family, **layout)[0].tokens))
      for layout in jitted
    )
  return rows.row(
    f"{family}: tokens of completions that differ from one device's, all "
    "layouts of jit",
    differ,
    "=",
    0,
  )


def decode_rows() -> list[rows.Row]:
  """What the decode loop exchanges for each token, as compiled for CPU."""
  found = []
  for family in FAMILIES:
    replicas = moved = None
    if len(jax.devices()) >= DEVICES:
      replicas, tensor = (
        tiny_runs.roll(family, fsdp=True, count=8, **layout)[1]
        for layout in ({}, {"model": 2})
      )
      replicas = tiny_runs.in_decode_loop(replicas)
      places = tiny_runs.devices(8, model=2, fsdp=True)
      moved = len(tiny_runs.beside_the_sampler(tensor, places)) + sum(
        one.kind == "all-to-all" for one in tiny_runs.in_decode_loop(tensor)
      )
    found += [
      rows.row(
        f"{family}: collectives a token where decode reads replicas (the stop "
        "test)",
        None if replicas is None else len(replicas),
        "≤",
        1,
      ),
      rows.row(
        f"{family}: all-to-all, and gathers of anything but the sampler's "
        "distributions, a token where decode is tensor-parallel",
        moved,
        "=",
        0,
      ),
    ]
  return found


def measure(
  config: ml_collections.ConfigDict, topology: str
) -> pod_check.Check | None:
  """None without libtpu, or if no slice is large enough."""
  try:
    return pod_check.check_config(text.PIPELINE, config, topology, print)
  except ValueError as error:
    print(error)
    return None


def t5_rows(check: pod_check.Check | None) -> list[rows.Row]:
  """Fit and speed of the paper's run on its slice; `check` of `SLICE`."""

  def of(read: Callable[[pod_check.Check], float]) -> float | None:
    return None if check is None else read(check)

  hbm = compiled.CHIPS[CHIP].hbm
  return [
    rows.row(
      f"tldr_t5 on {SLICE}: share of a chip's memory that the largest program "
      "needs, by the compiler",
      of(lambda c: max(cost.hbm for cost in c.costs.values()) / hbm),
      "≤",
      1,
    ),
    rows.row(
      f"tldr_t5 on {SLICE}: predicted seconds a step of Nash-MD, the program "
      "as a whole",
      of(lambda c: c.step_seconds[RUN]),
      "≤",
      1,
    ),
    rows.row(
      f"tldr_t5 on {SLICE}: the same as the sum of its parts",
      of(lambda c: c.parts_seconds),
      "≤",
      1,
    ),
    rows.row(
      f"tldr_t5 on {SLICE}: collectives of a decode step, compiled alone",
      of(lambda c: len(c.costs["decode"].collectives)),
      "=",
      0,
    ),
  ]


def decoder_rows() -> list[rows.Row]:
  """The smallest slices that hold the runs with decoders."""
  found = []
  for variant, bar in DECODERS.items():
    check = measure(tldr_decoder.get_config(variant), CHIP)
    name = "no slice" if check is None else check.topology
    found.append(
      rows.row(
        f"tldr_decoder:{variant}: chips of the smallest {CHIP} slice that "
        f"holds every program ({name})",
        None if check is None else check.chips,
        "≤",
        bar,
      )
    )
    found.append(
      rows.row(
        f"tldr_decoder:{variant} on {name}: all-gathers of parameters and "
        "all-to-alls of a decode step",
        None
        if check is None
        else check.exchanged[pod_check.GATHERS] + check.exchanged["all-to-all"],
        "=",
        0,
      )
    )
  return found


def nash_cost(
  config: ml_collections.ConfigDict, topology: str
) -> compiled.Cost | None:
  """Of a whole step of Nash-MD alone; None without libtpu."""
  config = pod_check.checked(text.PIPELINE, config)
  try:
    devices = pod_check.make_devices(config, topology)
  except ValueError as error:
    print(error)
    return None
  task = programs.stand_in_task(config, devices)
  training = programs.nash_training(config, task, RUN)
  chip = compiled.CHIPS[topology.split(":")[0]]
  step = training.compiled.step
  return compiled.measure(RUN, step, chip, training.state, training.batch)


def other_rows() -> list[rows.Row]:
  """The paper's run on as many chips of other kinds."""
  costs = {
    topology: nash_cost(tldr_t5.get_config(), topology) for topology in OTHERS
  }
  return [
    rows.row(
      f"tldr_t5 on {topology}: predicted seconds a step of Nash-MD",
      None if cost is None else cost.seconds,
      "≤",
      1,
    )
    for topology, cost in costs.items()
  ]


def limiting(cost: compiled.Cost) -> str:
  """The kind of collective that moves most bytes, and what it serves."""
  total = {}
  for one in cost.collectives:
    bytes_moved = one.count * compiled.transfer_bytes(one)
    total[one.kind] = total.get(one.kind, 0.0) + bytes_moved
  kind = max(total, key=total.get)
  return f"{kind}, {total[kind] / 1e9:.1f} GB a step"


def _of_rows(config: ml_collections.ConfigDict, rows: int):
  """The config with as many rows in every batch."""
  config = config.copy_and_resolve_references()
  trained = ("sft", *judge_templates.SLOTS, "nash")
  stages = (config[name].data for name in trained)
  for batches in (*stages, config.tournament):
    batches.batch_size = rows
  return config


def weak_rows(start: compiled.Cost | None) -> list[rows.Row]:
  """Weak scaling at two rows a chip; `start` is the cost on 16 chips."""
  found = []
  for topology in WEAK:
    cost = efficiency = None
    if start is not None:
      chips = len(compiled.topology_devices(topology))
      cost = nash_cost(_of_rows(tldr_t5.get_config(), 2 * chips), topology)
      efficiency = start.seconds / cost.seconds
    name = "not compiled" if cost is None else limiting(cost)
    found.append(
      rows.row(
        f"tldr_t5 on {topology}: predicted efficiency against {SLICE} at the "
        f"same rows a chip; limited by {name}",
        efficiency,
        "≥",
        0.9,
      )
    )
  return found


def pod_rows() -> list[rows.Row]:
  """All rows on devices."""
  check = measure(tldr_t5.get_config(), SLICE)
  start = None if check is None else check.costs[f"nash/{RUN}"]
  return [
    *layout_rows(),
    *decode_rows(),
    *t5_rows(check),
    *other_rows(),
    *decoder_rows(),
    *weak_rows(start),
  ]


if __name__ == "__main__":
  files.save_json(pathlib.Path(sys.argv[1]), pod_rows())
