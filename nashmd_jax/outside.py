"""What a user brings: a function of their own, named module:function.

The folder of the config file is on Python's path, so that a file beside it is
enough.
"""

from collections.abc import Callable, Mapping
import functools
import importlib
import traceback
from typing import Any

from nashmd_jax import mistakes


def find(name: str, table: Mapping[str, Any], *, setting: str) -> Any:
  """An entry of a table by its name, or a user's function.

  Args:
    name: a key of the table, or module:function.
    table: what is built in.
    setting: dotted name of the setting, for the error.
  Raises: Mistake for a name that is neither; the traceback of a module of the
    user's that fails is printed.
  """
  if name in table:
    return table[name]
  module, colon, function = str(name).partition(":")
  if not colon:
    raise mistakes.Mistake(
      f"{setting}: got {name!r}, expected one of {sorted(table)}, or your own "
      "as module:function"
    )
  try:
    loaded = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name != module.partition(".")[0]:
      traceback.print_exc()
    raise mistakes.Mistake(
      f"{setting}: got {name!r}, but {error}; the folder of the config file "
      "and the current one are searched"
    ) from None
  except Exception as error:
    traceback.print_exc()
    raise mistakes.Mistake(
      f"{setting}: {module} cannot be imported ({_line(error)})"
    ) from None
  found = getattr(loaded, function, None)
  if not callable(found):
    raise mistakes.Mistake(f"{setting}: {module} has no function {function!r}")
  return functools.wraps(found)(functools.partial(_call, found, name, setting))


def _call(found: Callable, name: str, setting: str, *args, **kwargs) -> Any:
  """The user's function, whose errors are the user's mistakes."""
  try:
    return found(*args, **kwargs)
  except Exception as error:
    traceback.print_exc()
    raise mistakes.Mistake(f"{setting}: {name}: {_line(error)}") from None


def _line(error: BaseException) -> str:
  text = " ".join(str(error).split())
  return f"{type(error).__name__}: {text[:200]}"
