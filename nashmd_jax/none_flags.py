"""Flags of settings that may be None: `--config.data.records=None`."""

from absl import flags
from ml_collections import config_flags


class _OrNone(flags.ArgumentParser):
  """Reads None as None, and all else as the parser of a type does."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, argument):
    return None if argument == "None" else self._parser.parse(argument)

  def flag_type(self):
    return self._parser.flag_type()


def register() -> None:
  """Lets every flag of a config be None; what may be, its check says."""
  for kind, parser in (
    (bool, flags.BooleanParser),
    (int, flags.IntegerParser),
    (float, flags.FloatParser),
    (str, flags.ArgumentParser),
  ):
    config_flags.register_flag_parser_for_type(kind, _OrNone(parser()))
