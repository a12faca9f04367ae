"""`make scale`: devices, processes and trials, in out/scale.json.

The parts on devices run in a process of their own, which has eight; a TPU
slice is compiled for, never run on.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from figures import rows, scale_launch, scale_sweeps
from nashmd_jax import files

OUT = pathlib.Path("out") / "scale.json"
SWEEPS = pathlib.Path("out") / "scale-sweeps"
EIGHT_DEVICES = {
  "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
  "JAX_PLATFORMS": "cpu",
}


def device_rows() -> list[rows.Row]:
  """Layouts on eight devices of this machine, and TPU slices on paper."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "rows.json"
    subprocess.run(
      [sys.executable, "-u", "-m", "figures.scale_pod", path],
      env=os.environ | EIGHT_DEVICES,
      check=True,
    )
    return files.load_json(path)


def sweep_rows() -> list[rows.Row]:
  """The sweeps, run anew."""
  shutil.rmtree(SWEEPS, ignore_errors=True)
  return scale_sweeps.sweep_rows(SWEEPS)


def main() -> int:
  """Measures all parts and writes their rows."""
  return rows.report(
    OUT, [*device_rows(), *scale_launch.scale_rows(), *sweep_rows()]
  )


if __name__ == "__main__":
  sys.exit(main())
