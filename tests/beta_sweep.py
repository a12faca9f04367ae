"""Four β over one SFT and one judge, at the size of a test."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parent.parent / "configs" / "docstrings.py"


def get_config(records=None):
  """configs/docstrings.py:tiny with one run, judged by two judges."""
  spec = importlib.util.spec_from_file_location("docstrings_config", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny").unlock()
  config.data.records = records
  config.nash.runs = {"trained": {}}
  config.nash.watch = ("reward",)
  config.tournament.policies = ("sft", "trained")
  return config.lock()


def get_hyper(hyper, records=None):
  """The trials."""
  del records
  return hyper.values("nash.mixture", 0.0, 0.25, 0.5, 0.75)
