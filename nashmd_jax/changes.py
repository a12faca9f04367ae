"""Changed settings that the user lets through.

A stage that was made of other settings is refused. `--allow_config_change`
names those of which it may have been made all the same: it stands as it is, or
goes on from its checkpoint, and its `key.json` says what it was made of before.
"""

from collections.abc import Mapping, Sequence
import pathlib

from nashmd_jax import files, mistakes
from nashmd_jax import workdir as workdir_lib


def allow(
  workdir: pathlib.Path,
  keys: Mapping[str, workdir_lib.Key],
  names: Sequence[str],
) -> list[str]:
  """Gives jobs their new keys where nothing but what is named has changed.

  Args:
    keys: of jobs in order, those that a job needs before it.
    names: of settings and facts, dotted; a section is all that is in it.
  Returns: a line for each job that is let through.
  Raises: Mistake for a name that no job depends on.
  """
  _check_names(keys, names)
  lines, passed = [], set()
  for job, key in keys.items():
    path = workdir / job / workdir_lib.KEY
    # What another workdir made is not ours to note anything in.
    if not path.exists() or (workdir / job).is_symlink():
      continue
    old = workdir_lib.load_key(path)
    changed = workdir_lib.changes(old, key)
    needs = old["needs"].keys() | key["needs"].keys()
    moved = {
      need for need in needs if old["needs"].get(need) != key["needs"].get(need)
    }
    if not changed and not moved:
      continue
    if moved <= passed and all(_is_named(one, names) for one in changed):
      passed.add(job)
      noted = [*old.get(workdir_lib.ALLOWED, []), changed]
      files.save_json(path, {**key, workdir_lib.ALLOWED: noted})
      told = workdir_lib.told(changed) or "what it needs has changed"
      lines.append(f"{job}: stands, although {told}")
  return lines


def _check_names(
  keys: Mapping[str, workdir_lib.Key], names: Sequence[str]
) -> None:
  known = [
    name
    for key in keys.values()
    for part in workdir_lib.OWN
    for name in key[part]
  ]
  odd = [
    name for name in names if not any(_is_named(one, [name]) for one in known)
  ]
  if odd:
    raise mistakes.Mistake(
      f"{workdir_lib.ALLOW}: no stage of this run depends on "
      f"{mistakes.some(odd)}; name "
      "settings as in the refusal, such as nash.kl_coef"
    )


def _is_named(name: str, names: Sequence[str]) -> bool:
  return any(name == one or name.startswith(f"{one}.") for one in names)
