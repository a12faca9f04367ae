"""Saves a model that all devices of all processes share, as a program.

python -m tests.save_run FOLDER
"""

import pathlib
import sys

import jax

from nashmd_jax import models
from nashmd_jax.hub import folders
from nashmd_jax.training import distributed, sharding
from tests import tiny_runs


def main(folder: pathlib.Path) -> None:
  """Writes a tiny T5, the same on any number of processes and devices."""
  distributed.start()
  devices = tiny_runs.devices(jax.device_count(), fsdp=True)
  config = models.make_config(vocab_size=64, **tiny_runs.SIZES["t5"])
  params = sharding.store(
    devices, models.make_model(config).init, jax.random.key(0)
  )
  folders.save_pretrained(
    folder, params, config, settings={}, beside=None, max_file_bytes=8192
  )
  distributed.finish(0)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
