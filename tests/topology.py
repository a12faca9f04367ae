"""One run on one process and on two, and the difference that it makes."""

import importlib.util
import pathlib
import shutil

from etils import epath
import jax
import numpy as np

from nashmd_jax import task as task_lib
from nashmd_jax.hub import safetensors
from nashmd_jax.training import metrics
from tests import processes

CONFIG = "configs/docstrings.py"
WHOLE = "configs/tldr_t5.py:tiny"
STAGES = ("sft", "comparisons", "preference", "nash")
NASH = "nash/nash_md"
SHAPES = {"1x4": (1, 4), "2x2": (2, 2)}  # processes × devices of each


def tiny():
  """The config of all these runs."""
  spec = importlib.util.spec_from_file_location(
    "docstrings", processes.ROOT / CONFIG
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny").unlock()
  config.tournament.policies = ("sft", "nash_md")
  return config.lock()


def run(workdir: pathlib.Path, shape: str, *flags: str) -> None:
  """Runs the program; raises RuntimeError if a process fails."""
  count, devices = SHAPES[shape]
  statuses, _, errors = processes.run(
    ["nashmd_jax.main", f"--workdir={workdir}", *flags],
    processes=count,
    devices=devices,
  )
  if any(statuses):
    raise RuntimeError(f"{flags} on {shape}: {statuses} {errors[0][-3000:]}")


def train(workdir: pathlib.Path, stage: str, shape: str) -> None:
  """Runs a stage."""
  run(
    workdir,
    shape,
    f"--config={CONFIG}:tiny",
    "--config.tournament.policies=('sft', 'nash_md')",
    f"--stage={stage}",
  )


def cut(workdir: pathlib.Path, copy: pathlib.Path, stage: str) -> None:
  """A copy of a workdir in which a stage stopped at its last save but one."""
  shutil.copytree(workdir, copy, dirs_exist_ok=True)
  (copy / stage / "done.json").unlink()
  saved = copy / stage / "checkpoints"
  shutil.rmtree(max(saved.iterdir(), key=lambda path: int(path.name)))


def forget(workdir: pathlib.Path, copy: pathlib.Path, stage: str) -> None:
  """A copy of a workdir in which a stage never ran."""
  shutil.copytree(workdir, copy, dirs_exist_ok=True)
  shutil.rmtree(copy / stage)


def difference(a: pathlib.Path, b: pathlib.Path, stage: str) -> float:
  """Largest difference of parameters and metrics between two workdirs.

  Relative to the largest entry of an array, and to 1 or the value of a
  metric, whichever is larger.
  """
  worst = 0.0
  task = task_lib.load_task(tiny(), a)
  ours, theirs = (
    task_lib.load_trained(task, "model", x / stage) for x in (a, b)
  )
  for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    x, y = np.asarray(x), np.asarray(y)
    worst = max(worst, float(np.max(np.abs(x - y)) / np.max(np.abs(x))))
  rows = [metrics.load_metrics(x / stage / "metrics.jsonl") for x in (a, b)]
  for mine, other in zip(*rows, strict=True):
    for name, value in mine.items():
      gap = abs(value - other[name]) / max(1.0, abs(value))
      worst = max(worst, gap)
  return worst


def measure(root: pathlib.Path) -> dict[str, float]:
  """`difference` of stages trained otherwise than on one process.

  Whole stages on two processes, and the last half of `nash` on two after one
  and on one after two.
  """
  one = root / "one"
  for stage in STAGES:
    train(one, stage, "1x4")
  train(root / "sft", "sft", "2x2")
  found = {"sft": difference(one, root / "sft", "sft")}
  for name, shape, source, change in (
    ("nash", "2x2", "one", forget),
    ("nash, 1 process then 2", "2x2", "one", cut),
    ("nash, 2 processes then 1", "1x4", "nash", cut),
  ):
    change(root / source, root / name, NASH)
    train(root / name, "nash", shape)
    found[name] = difference(one, root / name, NASH)
  return found


def whole_run(root: pathlib.Path) -> tuple[float, int]:
  """All stages of `WHOLE`, whose parameters no process holds whole.

  Returns: largest difference of an exported tensor between one process and
    two, relative to its largest entry; characters that differ between what
    the policies wrote for the tournament.
  """
  weights, written = [], []
  for shape in SHAPES:
    run(root / shape, shape, f"--config={WHOLE}")
    files = sorted((root / shape / "export").rglob("*.safetensors"))
    weights.append([safetensors.load_file(epath.Path(path)) for path in files])
    answers = sorted((root / shape / "tournament" / "responses").iterdir())
    written.append("".join(path.read_text() for path in answers))
  worst = 0.0
  for x, y in zip(*map(jax.tree.leaves, weights), strict=True):
    gap = np.max(np.abs(x - y)) / np.max(np.abs(x))
    worst = max(worst, float(gap))
  one, two = written
  differ = sum(a != b for a, b in zip(one, two, strict=False))
  return worst, differ + abs(len(one) - len(two))
