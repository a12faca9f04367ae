"""What a setting is, in words: for `--explain`, and as docs/settings.md."""

from collections.abc import Iterator, Mapping
import difflib
from typing import Any

from nashmd_jax import declare, mistakes

NEAR = 3  # names to tell of where one is unknown
SOME = "NAME"  # on the page, of what the user names
PAGE = """\
# Settings

What every setting of a config may be, made from what the code declares by `make
settings`. What one is in a config, your flags included, and whether a run may
change it, `--explain=nash.mixture` says, and `--explain=nash` of a whole
section.
"""


def explain(
  settings: declare.Settings, config: Mapping[str, Any], name: str
) -> str:
  """What a setting of a config is, or each of a section.

  Args:
    settings: of the config.
    config: nested dicts.
    name: dotted.
  Raises: Mistake with the nearest names for one that there is not.
  """
  found = declare.find(settings, name)
  known = dict(walk(settings, config))
  changed, _ = _changed(settings, name)
  place = changed or name.rpartition(".")[0]
  if found is None or (place and place not in known):
    near = difflib.get_close_matches(name, known, n=NEAR, cutoff=0)
    raise mistakes.Mistake(
      f"--explain: there is no setting {mistakes.quote(name)}; the nearest are "
      f"{', '.join(near)}"
    )
  if isinstance(found, declare.Setting):
    return "\n".join(_one(settings, config, name, found))
  lines = [f"{name}: a section"]
  lines += [
    f"  {other} = {_value(config, other)}: {one.says}"
    for other, one in known.items()
    if other.startswith(f"{name}.") and isinstance(one, declare.Setting)
  ]
  return "\n".join(lines)


def walk(
  settings: declare.Settings, config: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, declare.Setting | declare.Settings]]:
  """Every section and setting that a config has, by its dotted name."""
  for key, value in config.items():
    name = declare.join(where, key)
    found = declare.find(settings, name)
    if found is None:
      continue
    yield name, found
    if not isinstance(found, declare.Setting) and isinstance(value, Mapping):
      yield from walk(settings, value, name)


def changes(
  settings: declare.Settings, where: str = ""
) -> Iterator[tuple[str, declare.Changes]]:
  """The sections of changes to others, by their dotted names."""
  for key, one in settings.items():
    name = declare.join(where, SOME if key == declare.ANY else key)
    if isinstance(one, declare.Changes):
      yield name, one
    elif not isinstance(one, declare.Setting):
      yield from changes(one, name)


def _changed(settings, name: str) -> tuple[str, str]:
  """The section of changes that a name is in, and the setting it changes."""
  keys = name.split(".")
  for place, one in changes(settings):
    there = place.split(".")
    at = len(there)
    if len(keys) > at and all(
      other in (SOME, key) for key, other in zip(keys[:at], there, strict=True)
    ):
      rest = ".".join(keys[at:])
      return ".".join(keys[:at]), declare.join(one.of, rest)
  return "", ""


def _one(settings, config, name: str, found: declare.Setting) -> list[str]:
  """The lines about a setting."""
  lines = [f"{name}: {found.says}", f"  expected: {described(found)}"]
  here, (_, other) = _value(config, name), _changed(settings, name)
  if other and here == ABSENT:
    here = f"as {other}, {_value(config, other)}"
  lines.append(f"  here: {here}")
  for place, one in changes(settings):
    rest = name.removeprefix(f"{one.of}.")
    if rest != name and declare.find(one.settings, rest) is not None:
      lines.append(f"  may be another in {place}.{rest}")
  return lines


ABSENT = "absent"


def _value(config: Mapping[str, Any], name: str) -> str:
  """A value of a config as text."""
  found: Any = config
  for key in name.split("."):
    if not isinstance(found, Mapping) or key not in found:
      return ABSENT
    found = found[key]
  return repr(found)


def described(setting: declare.Setting) -> str:
  """What a setting may be, with its unit."""
  unit = f", in {setting.unit}" if setting.unit else ""
  absent = "; may be absent" if setting.absent else ""
  return f"{declare.expected(setting)}{unit}{absent}"


def page(pipelines: Mapping[str, declare.Settings]) -> str:
  """docs/settings.md, of the settings of each kind of config by its name.

  A section that stands in several places is shown at the first.
  """
  lines, shown = [PAGE], {}
  for pipeline, settings in pipelines.items():
    lines += [f"## Configs of {pipeline}", ""]
    alone = {
      name: one
      for name, one in settings.items()
      if isinstance(one, declare.Setting)
    }
    lines += _section("", alone, shown, [])
    for name, one in settings.items():
      if name not in alone:
        lines += _section(name, one, shown, list(changes(settings)))
  return "\n".join(lines).rstrip() + "\n"


def _section(name: str, section, shown, others) -> list[str]:
  """The heading and the table of a section, and those of what it holds."""
  lines = [f"### {name}", ""] if name else []
  if isinstance(section, declare.Changes):
    return [*lines, f"What is another there than in `{section.of}`.", ""]
  if id(section) in shown and name:
    other = shown[id(section)]
    return [*lines, "As above." if other == name else f"As `{other}`.", ""]
  shown[id(section)] = name
  rows = {
    key: one for key, one in section.items() if isinstance(one, declare.Setting)
  }
  if rows:
    lines += ["| setting | may be | sets |", "|---|---|---|"]
    lines += [_row(key, one) for key, one in rows.items()] + [""]
  for place, one in others:
    if one.of == name:
      lines += [f"Each may be another in `{place}`.", ""]
  for key, one in section.items():
    if key not in rows:
      key = SOME if key == declare.ANY else key
      lines += _section(declare.join(name, key), one, shown, others)
  return lines


def _row(key: str, one: declare.Setting) -> str:
  key = SOME if key == declare.ANY else key
  told = (key, described(one), one.says)
  return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in told)} |"
