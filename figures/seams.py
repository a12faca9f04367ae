"""`make seams`: what the seams allow, and what they cost, in out/seams.json.

About half an hour on 2 CPU cores. Exit status 1 when a row does not hold.
"""

from collections.abc import Callable, Iterator
import os
import pathlib
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

# Before JAX is imported: the layouts of the tests need eight devices.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from configs import docstrings
from figures import rows, seams_lora, seams_sweep
from nashmd_jax.capacity import programs
from nashmd_jax.stages import preference
from nashmd_jax.training import loop, optimizer
from tests import (
  golden_metrics,
  gradient_test,
  main_test,
  plays,
  small_records,
  step_test,
  tiny_runs,
)

OUT = pathlib.Path("out")
WORK = OUT / "seams"


def golden_rows() -> list[rows.Row]:
  """Metrics of tiny runs against those from before the first change."""
  records = small_records.write(WORK / "records")
  count, told = 0, []
  for name, runs in golden_metrics.recorded()["runs"].items():
    own = golden_metrics.flags(name, records)
    workdir = WORK / f"golden_{name}"
    out = main_test.run_main(
      f"--workdir={workdir}", *own, config=f"configs/{name}.py:tiny"
    )
    if out.returncode:
      told.append(out.stderr)
    else:
      told += golden_metrics.differences(name, workdir)
    count += sum(len(row) for job in runs.values() for row in job)
  print("\n".join(told))
  same = golden_metrics.machine() == golden_metrics.recorded()["machine"]
  return [
    rows.row(
      f"of {count} metrics of four tiny runs, those that are another than "
      f"before, but for the {len(golden_metrics.CHANGED)} that mended faults "
      "change",
      len(told) if same else None,
      "=",
      0,
    )
  ]


def outside_rows() -> list[rows.Row]:
  """Everything that can be brought from outside."""
  path = WORK / "extending.xml"
  subprocess.run(
    [sys.executable, "-m", "pytest", "-n", "0", f"--junitxml={path}",
     "tests/extending_test.py"]
  )  # fmt: skip
  suite = ElementTree.parse(path).getroot()[0].attrib if path.exists() else {}
  failed = sum(int(suite.get(name, 1)) for name in ("failures", "errors"))
  return [
    rows.row(
      "a loss, an opponent, judges of tokens and of text, an unary loss on "
      f"unary records, each one function and one config line: of "
      f"{suite.get('tests', 0)} tests those that fail",
      failed,
      "=",
      0,
    )
  ]


def step_rows() -> list[rows.Row]:
  """Parts of a batch, and a step as two programs."""
  whole = step_test.uneven_steps(1, "one")[0].params
  played = step_test.played_steps("policy_gradient", 1, "one")[0].params
  worst = 0.0
  for parts in (2, 4):
    for expected, (found, _) in (
      (whole, step_test.uneven_steps(parts, "one")),
      (played, step_test.played_steps("policy_gradient", parts, "one")),
    ):
      worst = max(worst, plays.distance(expected, found.params))
  one, four = step_test.update_bytes((1, 4))
  differing = 0
  for settings in ({"loss": "ipo"}, {"samples": 2}):
    (one_way, codes), (other_way, others) = step_test.both_ways(
      "table", "one", settings
    )
    both = [one["code"].total for found in (codes, others) for one in found]
    pairs = zip(both[:4], both[4:], strict=True)
    differing += sum(int(a != b) for a, b in pairs)
    leaves = map(jax.tree.leaves, (one_way, other_way))
    differing += sum(int(np.sum(a != b)) for a, b in zip(*leaves, strict=True))
  return [
    rows.row(
      "1, 2 and 4 micro-batches: parameters after 5 steps, relative",
      worst, "≤", 1e-6,
    ),
    rows.row(
      "temporary memory of an update in 4 parts, of that in one",
      four / one, "≤", 0.5,
    ),
    rows.row(
      "numbers of state and completions that differ after 4 steps, one program "
      "against rollout, host and update",
      differing, "=", 0,
    ),
  ]  # fmt: skip


def memory_rows() -> list[rows.Row]:
  """What the state of a judge's stage holds, in copies of its parameters."""
  config = docstrings.get_config("tiny")
  task = programs.stand_in_task(config, tiny_runs.devices())
  pairs = dict.fromkeys(("train", "validation"), [{}])
  experiment = preference.make_experiment(
    config, task, "preference", pairs, pathlib.Path()
  )
  params = jax.eval_shape(task.judge_model.init, jax.random.key(0))
  make = loop.make_first_state(
    experiment,
    optimizer.make_optimizer(**config.preference.optimizer),
    devices=task.devices,
  )
  state = jax.eval_shape(make, params, {})

  def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

  return [
    rows.row(
      "copies of its parameters that a judge's stage holds, moments included "
      "(4 before)",
      round(size(state) / size(params), 2), "≤", 3.01,
    )
  ]  # fmt: skip


def check_rows() -> list[rows.Row]:
  """Faults of a config in all its sections, named in one go."""
  faults = main_test.FAULTS
  began = time.monotonic()
  out = main_test.run_main(f"--workdir={WORK / 'faults'}", *faults)
  seconds = time.monotonic() - began
  missing = [told for told in faults.values() if told not in out.stderr]
  print(out.stderr)
  return [
    rows.row(
      f"of {len(faults)} faults in one command, those that are not named",
      len(missing), "=", 0,
    ),
    rows.row("seconds until they are", seconds, "≤", 10),
  ]  # fmt: skip


def mutation_rows() -> list[rows.Row]:
  """Faults that are planted in the library, seen by the certificate."""
  missed = 0
  for fault, opponent in gradient_test.FAULTS:
    with fault():
      missed += gradient_test.step_error(opponent) <= gradient_test.CAUGHT
  return [
    rows.row(
      f"of {len(gradient_test.FAULTS)} faults planted in opponents, losses and "
      "sampling, those that the certificate misses",
      missed, "=", 0,
    )
  ]  # fmt: skip


MEASURES: tuple[Callable[[], list[rows.Row]], ...] = (
  check_rows,
  memory_rows,
  step_rows,
  mutation_rows,
  outside_rows,
  golden_rows,
  seams_lora.lora_rows,
  lambda: seams_sweep.sweep_rows(WORK / "sweep"),
)


def all_rows() -> Iterator[rows.Row]:
  """Everything, in the order of what takes longest."""
  for measure in MEASURES:
    for row in measure():
      print(row, flush=True)
      yield row


def main() -> int:
  """Measures and reports; returns the exit status."""
  shutil.rmtree(WORK, ignore_errors=True)
  WORK.mkdir(parents=True)
  return rows.report(OUT / "seams.json", list(all_rows()))


if __name__ == "__main__":
  sys.exit(main())
