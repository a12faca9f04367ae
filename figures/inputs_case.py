"""Runs one of the cases of others, written before modules moved.

  python -m figures.inputs_case FOLDER

FOLDER holds `run.py`; a name that has moved since is found at its new place,
and what is a stage of its own now is run before the one that it was part of.
"""

import importlib
import importlib.abc
import importlib.util
import pathlib
import runpy
import subprocess
import sys

from nashmd_jax import judges
from nashmd_jax.judges import scorers
from nashmd_jax.models import decoder, decoder_config

MOVED = {
  "nashmd_jax.pretrained": "nashmd_jax.hub.pretrained",
  "nashmd_jax.models.hub": "nashmd_jax.hub.folders",
  "nashmd_jax.models.safetensors": "nashmd_jax.hub.safetensors",
  "nashmd_jax.models.architectures": "nashmd_jax.hub.architectures",
  "nashmd_jax.data.raters": "nashmd_jax.judges.raters",
  "nashmd_jax.evaluation.tournament": "nashmd_jax.evaluation.win_rates",
}
PARTED = {"--stage=preference": "--stage=comparisons"}


def run_parts(command, *args, run=subprocess.run, **how):
  """`subprocess.run` of a stage behind the one that was part of it."""
  for stage, before in PARTED.items():
    if stage in command:
      first = [before if word == stage else word for word in command]
      made = run(first, *args, **how)
      if made.returncode:
        return made
  return run(command, *args, **how)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds the modules of `MOVED` where they are now."""

  def find_spec(self, name, path, target=None):
    """The spec of a module that has moved."""
    del path, target
    return (
      importlib.util.spec_from_loader(name, self) if name in MOVED else None
    )

  def create_module(self, spec):
    """The module at its new place."""
    return importlib.import_module(MOVED[spec.name])

  def exec_module(self, module):
    """It has run already."""


if __name__ == "__main__":
  sys.meta_path.append(Finder())
  judges.make_rater_judge = scorers.make_rater_judge
  decoder.DecoderConfig = decoder_config.DecoderConfig
  decoder.layer_data = decoder_config.layer_data
  subprocess.run = run_parts
  sys.argv = [str(pathlib.Path(sys.argv[1]) / "run.py")]  # as run by itself
  runpy.run_path(sys.argv[0], run_name="__main__")
