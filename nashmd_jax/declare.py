"""What a setting may be: declared once, beside what reads it.

A section is a dict of its settings by name, other sections among them; the name
"*" stands for any that the user gives. From the declarations come the check of
a config, what `--explain` says and docs/settings.md.
"""

from collections.abc import Mapping
import math
import re
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax import mistakes

ANY = "*"
NAME = re.compile(r"\w[\w-]*")  # of what the user names: folders are called so
LARGEST = 2**31 - 1  # what devices count to
SMALLEST = np.finfo(np.float32).tiny  # what is not 0 to them
KINDS = {
  bool: (bool, np.bool_),
  int: (int, np.integer),
  float: (int, float, np.integer, np.floating),
  str: (str,),
}
NOUNS = {int: "whole number", float: "number", str: "text"}


class Setting(NamedTuple):
  """What a value may be.

  Attributes:
    kind: of one value: bool, int, float (an int will do) or str.
    says: what it sets, in one sentence.
    least, above, most, below: the ends of the range of a number, which is
      finite whatever they are; None for no such end.
    one_of: all values that there are; none of them for any.
    unit: of a number.
    optional: whether None is a value.
    many: None for one value alone, or how many there are at least and at most
      in a tuple; None for no most.
    repeats: whether a tuple may hold a value twice.
    empty: whether a text may be empty.
    absent: whether its section may lack it.
  """

  kind: type
  says: str
  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None
  one_of: tuple = ()
  unit: str = ""
  optional: bool = False
  many: tuple[int, int | None] | None = None
  repeats: bool = False
  empty: bool = False
  absent: bool = False


class Changes(NamedTuple):
  """A section of what is another there than in another section.

  It may lack anything, and so may the sections in it.

  Attributes:
    of: dotted name of the other section.
    settings: of it that may be changed.
  """

  of: str
  settings: "Settings"


Settings = Mapping[str, "Setting | Settings | Changes"]


def flag(says: str, **further: Any) -> Setting:
  """A setting that is True or False; `further` as of `Setting`."""
  return Setting(bool, says, **further)


def whole(says: str, *, most: int = LARGEST, **further: Any) -> Setting:
  """A whole number."""
  return Setting(int, says, most=most, **further)


def number(says: str, **further: Any) -> Setting:
  """A number."""
  return Setting(float, says, **further)


def text(says: str, **further: Any) -> Setting:
  """A text."""
  return Setting(str, says, **further)


def several(
  one: Setting, *, least: int = 0, most: int | None = None, **further: Any
) -> Setting:
  """A tuple of values that may each be what another setting may be."""
  return one._replace(many=(least, most), **further)


def wrong(setting: Setting, value: Any) -> str | None:
  """What is wrong with a value, "got …, expected …"; None for nothing."""
  if value is None and setting.optional:
    return None
  right = _is_one if setting.many is None else _are_many
  if right(setting, value):
    return None
  return f"got {mistakes.quote(value)}, expected {expected(setting, value)}"


def _is_one(setting: Setting, value: Any) -> bool:
  kinds = KINDS[setting.kind]
  if not isinstance(value, kinds):
    return False
  if isinstance(value, bool) and bool not in kinds:
    return False
  if setting.one_of:
    return value in setting.one_of
  if setting.kind is str:
    return _is_text(value) and (setting.empty or bool(value))
  return setting.kind is bool or _is_within(setting, value)


def _is_within(setting: Setting, value: Any) -> bool:
  """Whether a number is finite, and where it is to be.

  A number that is not whole is looked at as devices see it, in float32.
  """
  if setting.kind is float:
    try:
      with np.errstate(over="ignore", under="ignore"):
        value = float(np.float32(value))
    except OverflowError:  # an int that no float holds
      return False
    value = 0.0 if abs(value) < SMALLEST else value
  return (setting.kind is int or math.isfinite(value)) and all(
    end is None or holds(value, end)
    for end, holds in (
      (setting.least, lambda x, end: x >= end),
      (setting.above, lambda x, end: x > end),
      (setting.most, lambda x, end: x <= end),
      (setting.below, lambda x, end: x < end),
    )
  )


def _is_text(value: str) -> bool:
  """Whether files and their names can hold a text."""
  try:
    return b"\0" not in value.encode()
  except UnicodeEncodeError:  # half a character
    return False


def _are_many(setting: Setting, value: Any) -> bool:
  least, most = setting.many
  return (
    isinstance(value, tuple | list)
    and all(_is_one(setting, one) for one in value)
    and least <= len(value)
    and (most is None or len(value) <= most)
    and (setting.repeats or len(set(value)) == len(value))
  )


def expected(setting: Setting, value: Any = None) -> str:
  """What a setting may be, in words.

  Args:
    setting: of any kind.
    value: that it is not; an end that is LARGEST is told of one beyond it only.
  """
  return f"{_words(setting, value)}{' or None' if setting.optional else ''}"


def _words(setting: Setting, value: Any) -> str:
  one = NOUNS.get(setting.kind, "")
  if setting.many is None:
    if setting.kind is bool:
      return "True or False"
    if setting.one_of:
      return f"one of {setting.one_of}"
    return f"a {one}{_range(setting, value)}"
  least, most = setting.many
  each = f"{one}s{_range(setting, value)}"
  if setting.kind is bool:
    each = "True and False"
  elif setting.one_of:
    each = f"some of {setting.one_of}"
  count = ""
  if least == most:
    count = f", {least} of them"
  elif least:
    count = f", {least} or more of them"
  once = "" if setting.repeats else ", each once"
  return f"a tuple of {each}{count}{once}"


def _range(setting: Setting, value: Any) -> str:
  """Where a number is to be; of a text what the value lacks."""
  if setting.kind is str:
    texts = [one for one in _values(value) if isinstance(one, str)]
    if not all(map(_is_text, texts)):
      return " of whole characters, none of them NUL"
    verb = "is" if setting.many is None else "are"
    return "" if all(texts) else f" that {verb} not empty"
  least, above, most, below = setting[2:6]
  if most == LARGEST and not any(
    isinstance(one, KINDS[int]) and one > LARGEST for one in _values(value)
  ):
    most = None
  least, above, most, below = map(_shown, (least, above, most, below))
  if least is not None and most is not None:
    return f" from {least} to {most}"
  ends = [
    None if least is None else f"of {least} or more",
    None if above is None else f"above {above}",
    None if most is None else f"of {most} or less",
    None if below is None else f"below {below}",
  ]
  told = " and ".join(end for end in ends if end is not None)
  return f" {told}" if told else ""


def _shown(end: float | None) -> float | None:
  """An end as it is written: 1000 rather than 1000.0."""
  return end if end is None or end != int(end) else int(end)


def _values(value: Any) -> tuple | list:
  return value if isinstance(value, tuple | list) else (value,)


def faults(settings: Settings, given: Any, where: str = "") -> list[str]:
  """A sentence for everything that is wrong with a section.

  Args:
    settings: that it has.
    given: its values, nested dicts.
    where: its dotted name; empty for a whole config.
  """
  return _faults(settings, given, where, partial=False)


def check(settings: Settings, given: Mapping[str, Any], where: str) -> None:
  """Raises Mistake with the `faults` of a section."""
  found = faults(settings, given, where)
  if found:
    raise mistakes.Mistake(*found)


def _faults(declared, given, where: str, partial: bool) -> list[str]:
  if isinstance(declared, Setting):
    told = wrong(declared, given)
    return [f"{where}: {told}"] if told else []
  if isinstance(declared, Changes):
    declared, partial = declared.settings, True
  if not hasattr(given, "items"):
    keys = "" if ANY in declared else f" with the keys {sorted(declared)}"
    return [
      f"{where or 'config'}: got {mistakes.quote(given)}, expected a section"
      f"{keys}"
    ]
  found = _names(declared, given, where, partial)
  for name, value in given.items():
    one = declared.get(name, declared.get(ANY))
    if one is not None:
      found += _faults(one, value, join(where, name), partial)
  return found


def _names(declared, given, where: str, partial: bool) -> list[str]:
  """What is wrong with the names in a section."""
  if ANY in declared:
    return [
      f"{where or 'config'}: {mistakes.quote(name)} is no name, expected "
      "letters, digits, _ and -"
      for name in given
      if not (isinstance(name, str) and NAME.fullmatch(name))
    ]
  unknown = sorted(str(name) for name in given if name not in declared)
  missing = [] if partial else sorted(needed(declared) - set(given))
  if not (missing or unknown):
    return []
  return [
    f"{where or 'config'}: missing {missing}, unknown {unknown}; expected "
    f"{sorted(declared)}"
  ]


def needed(settings: Settings) -> set[str]:
  """The names that a section has to have."""
  return {
    name
    for name, one in settings.items()
    if name != ANY and not (isinstance(one, Setting) and one.absent)
  }


def join(where: str, name: str) -> str:
  """The dotted name of what a section holds."""
  return f"{where}.{name}" if where and name else where or name


def find(settings: Settings, name: str) -> "Setting | Settings | None":
  """What is declared of a dotted name; None if nothing is.

  The changes of a section are the settings that they change.
  """
  found = settings
  for key in name.split("."):
    if isinstance(found, Changes):
      found = found.settings
    if isinstance(found, Setting) or found is None:
      return None
    found = found.get(key, found.get(ANY))
  return found.settings if isinstance(found, Changes) else found
