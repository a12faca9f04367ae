"""What a folder says of tokens beside its tokenizer.json.

Names of special tokens, ids that end a response, the chat template: each may
stand in one of several files.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from nashmd_jax import declare, files, mistakes
from nashmd_jax.hub import config_json, folders

SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
TEMPLATE, TEMPLATES = "chat_template.jinja", "chat_template.json"


def names(folder: epath.PathLike) -> dict[str, str]:
  """Special tokens by what they are, such as "eos_token".

  Raises: Mistake for a file that cannot be read.
  """
  found = {}
  for file in (NAMES, SETTINGS):
    for key, value in load(folder, file).items():
      name = value.get("content") if isinstance(value, Mapping) else value
      if key.endswith("_token") and isinstance(name, str):
        found[key] = name
  return found


def starts_with_bos(folder: epath.PathLike) -> bool:
  """Whether the folder asks for BOS before a text."""
  return load(folder, SETTINGS).get("add_bos_token") is True


def end_ids(folder: epath.PathLike) -> list[int]:
  """Ids of the tokens that end a response, as generation takes them.

  Raises: Mistake for a file that cannot be read, or ids that are none.
  """
  folder = epath.Path(folder)
  for file in (folders.GENERATION, folders.CONFIG):
    settings = load(folder, file)
    if file == folders.CONFIG:
      with files.told_of(folder):
        settings = config_json.text_settings(settings)
    found = settings.get("eos_token_id")
    if found is None:
      continue
    ids = found if isinstance(found, list) else [found]
    if not all(type(i) is int and 0 <= i <= declare.LARGEST for i in ids):
      raise mistakes.Mistake(
        f"{folder / file}: eos_token_id is {mistakes.quote(found)}, expected "
        "an id or a list of ids"
      )
    return ids
  return []


def chat_template(folder: epath.PathLike) -> tuple[str, str] | None:
  """The chat template and the file that holds it; None without one.

  Raises: Mistake for a file that cannot be read, or that names no default
    among several templates.
  """
  folder = epath.Path(folder)
  if (folder / TEMPLATE).exists():
    return read_template(folder / TEMPLATE), str(folder / TEMPLATE)
  for file in (TEMPLATES, SETTINGS):
    found = load(folder, file).get("chat_template")
    if isinstance(found, list):
      with files.readable(folder / file, "each template needs name and text"):
        found = {one["name"]: one["template"] for one in found}.get("default")
    if isinstance(found, str):
      return found, str(folder / file)
    if found is not None:
      raise mistakes.Mistake(
        f"{folder / file}: chat_template is {mistakes.quote(found)}, expected "
        "text"
      )
  return None


def read_template(path: epath.PathLike) -> str:
  """The text of a file of jinja.

  Raises: Mistake for a file that cannot be read, or is not UTF-8.
  """
  with files.readable(path):
    return files.read_bytes(path).decode()


def load(folder: epath.PathLike, file: str) -> dict[str, Any]:
  """What one of a folder's files says; nothing if it is not there.

  Raises: Mistake for a file that cannot be read.
  """
  path = epath.Path(folder) / file
  if not path.exists():
    return {}
  return files.load_object(path)
