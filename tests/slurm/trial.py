"""Stands for `python` in train.sbatch: a small run with the flags of main.

--config is STEPS:PAUSE:DELAY, seconds a step and seconds before start-up; the
delay is served once a workdir. A trial goes to a folder of its own.
"""

import os
import pathlib
import sys
import time

from absl import flags

from tests import process_run

CONFIG = flags.DEFINE_string("config", None, "STEPS:PAUSE:DELAY")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all trials.")
TRIAL = flags.DEFINE_integer("trial", 0, "Number of the trial.")


def main() -> None:
  """Says where it goes on from, and trains."""
  program, module = sys.argv[1:3]
  if (program, module) != ("-m", "nashmd_jax.main"):
    raise ValueError(f"train.sbatch starts {program} {module}")
  flags.FLAGS([sys.argv[0], *sys.argv[3:]])
  steps, pause, delay = CONFIG.value.split(":")
  folder = pathlib.Path(WORKDIR.value) / f"{TRIAL.value:03d}"
  early = folder.with_suffix(".early")
  if float(delay) and not early.exists():
    early.touch()
    time.sleep(float(delay))
  saved = folder / "checkpoints"
  found = saved.iterdir() if saved.exists() else []
  steps_saved = [int(p.name) for p in found if p.name.isdigit()]
  restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
  print(f"restart {restarts} from step {max(steps_saved, default=0)}")
  process_run.main(folder, int(steps), float(pause))


if __name__ == "__main__":
  main()
