"""Rows of `make seams` on adapters, through every stage of a run on text."""

import pathlib
import tempfile

import jax
import numpy as np

from figures import model_files, rows
from nashmd_jax import task as task_lib
from tests import certificate, lora_runs, lora_stages_test, small_records
from tests import gradient_oracle as oracle

BAR = 1e-9


def lora_rows() -> list[rows.Row]:
  """Adapters trained, kept, certified, and written as folders."""
  return [
    *stage_rows(),
    *size_rows(),
    certificate_row(),
    *model_files.stage_rows("t5"),
    *model_files.stage_rows("gemma2"),
  ]


def stage_rows() -> list[rows.Row]:
  """The base at the end of every stage, against its start."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    config = lora_runs.config(small_records.write(folder / "records"))
    ends = lora_runs.run(config, folder / "run")
    task = lora_runs.load_task(config, folder / "run")
    base = jax.device_get(task_lib.base_params(task, "model"))
  differing = [
    int(np.sum(a != b))
    for end in ends.values()
    for a, b in zip(
      *map(jax.tree.leaves, (base, end.frozen["base"])), strict=True
    )
  ]
  return [
    rows.row(
      f"numbers of the base that {len(ends)} jobs of a run with adapters have "
      "changed",
      sum(differing) if differing else None,
      "=",
      0,
    )
  ]


def size_rows() -> list[rows.Row]:
  """A checkpoint of adapters of rank 8, of a whole one, on disk."""
  return [
    rows.row(
      f"checkpoint of adapters of rank 8 of a whole one, {name}",
      lora_stages_test.share_on_disk(name, pathlib.Path(folder)),
      "≤",
      0.05,
    )
    for name in lora_stages_test.OPTIMIZERS
    for folder in [tempfile.mkdtemp()]
  ]


def certificate_row() -> rows.Row:
  """The gradient of adapters against enumeration."""
  with jax.enable_x64(True):
    world = oracle.make_world(2)
    errors = [case.measure(world) for case in certificate.ADAPTERS]
  return rows.row(
    f"gradient of adapters against enumeration, worst of {len(errors)} cases",
    max(errors),
    "≤",
    BAR,
  )
