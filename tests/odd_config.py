"""A config with a misspelt key, for the tests of what the user is told."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parent.parent / "configs" / "docstrings.py"


def get_config():
  """configs/docstrings.py:tiny with `log_every` misspelt in one section."""
  spec = importlib.util.spec_from_file_location("docstrings_config", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny").unlock()
  config.sft.train.log_evry = config.sft.train.log_every
  del config.sft.train.log_every
  return config.lock()
