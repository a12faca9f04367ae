"""Settings on the command line, as a target of `fuzz`."""

import ast
import functools
import sys
from unittest import mock
import warnings

from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from nashmd_jax import main, mistakes, pipeline
from tests import forked, fuzz, odd_values

CONFIG = "docstrings:tiny"
VALUES = (
  "None", "()", "(1,2)", "('a',)", "{}", "{'a': 1}", "1e20", "inf",
  "__import__('os')",
  "lambda: 0", "1+1", "('raters', 'raters')", "a:b", "nash_md", "True", "False",
  "0x10", "1_000", "'" * 99, "os:system", "config", "../x", "~", "$HOME",
)  # fmt: skip


@functools.cache
def _config():
  return odd_values.load(CONFIG)


def _read_override(folder):
  """What main makes of one flag of a config, up to the check of all."""
  path = folder / "flag"
  text = path.read_bytes().decode() if path.is_file() else "seed=0"
  setting, _, value = text.partition("=")
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values)
  path = f"{forked.ROOT}/configs/{CONFIG.replace(':', '.py:')}"
  argv = ["program", f"--config={path}", f"--config.{setting}={value}"]
  try:
    with mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
      warnings.simplefilter("ignore")  # ml_collections loads as of old
      values(argv)
  except Exception as error:  # as main has it
    raise mistakes.Mistake(main.one_sentence(error)) from None
  config = values.config
  pipeline.check(main.pipeline_of(config, main.CHECK), config)
  return pipeline.flat(config.to_dict())


def _override_means(data: bytes, found) -> bool:
  """One setting is what was given, if that is a literal, and no other moved."""
  setting, _, value = data.decode().partition("=")
  before = pipeline.flat(_config().to_dict())
  moved = [name for name in before if not fuzz.same(before[name], found[name])]
  top = setting.split("[")[0]
  if any(not name.startswith(top) for name in moved):
    return False
  try:
    given = ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return True
  now = found.get(setting)
  if isinstance(now, bool | str) or now is None or isinstance(given, str):
    return True
  if isinstance(now, tuple):  # of a list, of a dict's keys, or of one thing
    given = tuple(given) if isinstance(given, list | dict | tuple) else (given,)
  return fuzz.same(now, given) or now == given


def overrides() -> fuzz.Target:
  """A setting of a config on the command line."""
  return fuzz.Target(
    "settings", "flag", b"nash.kl_coef=0.25", _read_override, _override_means,
    None, texts=_overrides(),
  )  # fmt: skip


def _overrides():
  names = sorted(pipeline.flat(_config().to_dict()))
  return st.builds(
    lambda name, change, value: f"{name}{change}={value}".encode(
      "utf-8", "surrogatepass"
    ),
    st.sampled_from(names),
    st.sampled_from(("", "", "", "", "x", ".a", "[0]")),
    st.one_of(
      st.sampled_from([*fuzz.RAW, *VALUES]),
      st.integers().map(str),
      st.floats().map(str),
      st.text(max_size=20),
    ),
  )
