"""Attention kernels of real folders as the TPU compiler is given them.

Part of `make real`, in the environment that has libtpu; leaves
out/real_kernels.json. Some minutes a folder on 2 CPU cores.
"""

import pathlib
import sys

from configs import finetune
from figures import rows, scale_pod
from tests import real_data

OUT = pathlib.Path("out") / "real_kernels.json"
SLICE, KERNEL = "v5e:2x2", "splash"
HEADS = {"smollm2": "heads of 64", "gemma3-270m": "windows"}


def kernel_row(name: str) -> rows.Row:
  """Training programs in whose attention the kernel is not."""
  folder = real_data.MODELS / name
  claim = (
    f"{name}, {HEADS[name]}, on {SLICE}: training programs without {KERNEL}"
  )
  if not (folder / "config.json").exists():
    return rows.row(f"{claim}; {folder} is absent", None, "=", 0)
  config = finetune.get_config().unlock()
  config.model.pretrained = str(folder.absolute())
  check = scale_pod.measure(config, SLICE)
  if check is None:
    return rows.row(claim, None, "=", 0)
  costs = [check.costs[job] for job in ("nash/nash_md", "preference", "sft")]
  without = sum(KERNEL not in cost.kernels for cost in costs)
  return rows.row(f"{claim}, of {len(costs)}", without, "=", 0)


if __name__ == "__main__":
  sys.exit(rows.report(OUT, [kernel_row(name) for name in HEADS]))
