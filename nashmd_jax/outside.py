"""What a user brings: a function of their own, named module:function.

The folder of the config file is on Python's path, so that a file beside it is
enough. What goes wrong in it is the user's mistake: one sentence that names
the setting and the function, after the traceback that says where.
"""

from collections.abc import Callable, Mapping
import functools
import hashlib
import importlib
import os
import pathlib
import sys
import traceback
from typing import Any

import jax

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
      f"{setting}: got {mistakes.quote(name)}, expected one of "
      f"{sorted(table)}, or your own "
      "as module:function"
    )
  found = getattr(_imported(module, name, setting), function, None)
  if not callable(found):
    raise mistakes.Mistake(
      f"{setting}: {mistakes.some([module])} has no function "
      f"{mistakes.quote(function)}"
    )
  return guarded(found, name=name, setting=setting)


def guarded(found: Callable, *, name: str, setting: str) -> Callable:
  """A function of the user's, whose errors are the user's mistakes."""

  @functools.wraps(found)
  def call(*args, **kwargs):
    try:
      return found(*args, **kwargs)
    except mistakes.Mistake:
      raise
    except Exception as error:
      _tell(_traceback(error))
      raise mistakes.Mistake(f"{setting}: {name}: {_line(error)}") from None

  return call


def source_hash(name: str) -> str | None:
  """SHA-256 of the file that a user's function is in; None for a built-in.

  What that file imports is not part of it.

  Args:
    name: as `find` takes it, and has found it.
  """
  module, colon, _ = str(name).partition(":")
  if not colon:
    return None
  file = getattr(importlib.import_module(module), "__file__", None)
  if file is None:
    return None
  return hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()


def sources(path: str, *names: str) -> dict[str, str]:
  """What a result depends on besides the names of a user's functions.

  Args:
    path: dotted name of the setting, such as "nash.loss".
    *names: what it names; built-ins add nothing.
  Returns: "nash.loss mine:loss source" and the like -> `source_hash`.
  """
  digests = {f"{path} {name} source": source_hash(name) for name in names}
  return {key: digest for key, digest in digests.items() if digest is not None}


def _imported(module: str, name: str, setting: str) -> Any:
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not f"{module}.".startswith(f"{error.name}."):
      _tell(_traceback(error))
    raise mistakes.Mistake(
      f"{setting}: got {mistakes.quote(name)}, but {mistakes.brief(error)}; "
      "the folder of the "
      "config file "
      "and the current one are searched"
    ) from None
  except Exception as error:
    _tell(_traceback(error))
    raise mistakes.Mistake(
      f"{setting}: {mistakes.some([module])} cannot be imported "
      f"({_line(error)})"
    ) from None


def _traceback(error: BaseException) -> str:
  """The traceback as far as it is in the user's code; empty if nowhere is."""
  told = traceback.TracebackException.from_exception(error)
  others = [os.path.dirname(one.__file__) for one in (jax, importlib)]
  others += [__file__, "<frozen importlib"]
  frames = [
    one for one in told.stack if not one.filename.startswith(tuple(others))
  ]
  told.stack = traceback.StackSummary.from_list(frames)
  nowhere = not frames and not isinstance(error, SyntaxError)
  return "" if nowhere else "".join(told.format(chain=False))


@functools.lru_cache
def _tell(told: str) -> None:
  """Prints a traceback once, however often a config is looked at."""
  print(told, file=sys.stderr, end="")


def _line(error: BaseException) -> str:
  return f"{type(error).__name__}: {mistakes.brief(error)}"
