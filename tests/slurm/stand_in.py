"""Stands for `python` in train.sbatch: a small run with the flags of main.

--config is STEPS:PAUSE:DELAY, seconds a step and seconds before start-up; the
delay is served once a workdir.
"""

import os
import pathlib
import sys
import time

from tests import process_run

EARLY = "early"


def main() -> None:
  """Says how often it was started again, and trains."""
  program, module = sys.argv[1:3]
  if (program, module) != ("-m", "nashmd_jax.main"):
    raise ValueError(f"train.sbatch starts {program} {module}")
  given = dict(arg.split("=", 1) for arg in sys.argv[3:])
  steps, pause, delay = given["--config"].split(":")
  folder = pathlib.Path(given["--workdir"])
  early = folder.with_name(f"{folder.name}.{EARLY}")
  print(f"restart {os.environ.get('SLURM_RESTART_COUNT', '0')}", flush=True)
  if float(delay) and not early.exists():
    early.touch()
    time.sleep(float(delay))
  process_run.main(folder, int(steps), float(pause))


if __name__ == "__main__":
  main()
