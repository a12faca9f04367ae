"""Folders of models that are made to contradict something."""

from collections.abc import Mapping
import json
import pathlib

from etils import epath
import numpy as np
import tokenizers

from nashmd_jax.hub import folders, safetensors, token_files
from nashmd_jax.stages import beside_weights

SPECIAL = ("<pad>", "</s>", "<s>")
OWN = '''
"""Self-play, as a function of one's own."""


def opponent(mixture):
  del mixture
  return [(1.0, {"policy": 1.0})]
'''


def write_tokenizer(path: pathlib.Path, *, special=SPECIAL, words=60, turn=0):
  """A tokenizer.json of words in order, turned round by some places."""
  names = [f"w{(number + turn) % words}" for number in range(words)]
  vocab = {name: i for i, name in enumerate((*special, *names))}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocab, unk_token=special[0])
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(list(special))
  path.parent.mkdir(parents=True, exist_ok=True)
  made.save(str(path))
  return path


def edit_json(path: pathlib.Path, **changes) -> None:
  found = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(found))


def rewrite(path: pathlib.Path, change) -> None:
  """Writes a file of tensors anew, changed."""
  tensors = safetensors.load_file(epath.Path(path))
  tensors = change({name: np.array(one) for name, one in tensors.items()})
  shapes = {name: (one.shape, one.dtype) for name, one in tensors.items()}
  safetensors.save_file(epath.Path(path), shapes, tensors.get)


def write_names(place: pathlib.Path, end: str) -> None:
  for name in (token_files.SETTINGS, token_files.NAMES):
    (place / name).write_text(json.dumps({"eos_token": end}))


def save_whole(folder, params, others: Mapping[str, bytes | None], *, start):
  folders.save_pretrained(
    folder,
    params,
    start.config,
    settings={"eos_token_id": [2, 1]},
    beside=start.folder,
    max_file_bytes=folders.MAX_FILE_BYTES,
    others=others,
  )


def card(place: pathlib.Path) -> str:
  return (place / beside_weights.CARD).read_text(encoding="utf-8")
