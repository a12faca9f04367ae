"""Text to token ids and back, through a `tokenizer.json` of any origin."""

from collections.abc import Callable, Iterable, Sequence
import pathlib
from typing import NamedTuple

import tokenizers

PAD, EOS = "<pad>", "</s>"


class Tokenizer(NamedTuple):
  """A loaded tokenizer.

  Attributes:
    encode: text -> token ids, without special tokens of its own.
    decode: token ids -> text, special tokens left out, spaces trimmed.
    vocab_size: V, one more than the largest id.
    eos_id: the token that ends a response.
  """

  encode: Callable[[str], list[int]]
  decode: Callable[[Sequence[int]], str]
  vocab_size: int
  eos_id: int


def train_tokenizer(
  texts: Iterable[str],
  path: pathlib.Path,
  *,
  vocab_size: int,
  special_tokens: Sequence[str],
) -> None:
  """Trains a byte-level BPE and writes it as `tokenizer.json`.

  Every text can be encoded: all 256 bytes are in the vocabulary.

  Args:
    texts: of the training split only.
    path: file to write; it appears whole or not at all.
    vocab_size: V, an upper limit, at least 256 + the special tokens.
    special_tokens: further tokens that text itself can name in full.
  """
  byte_level = tokenizers.pre_tokenizers.ByteLevel
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = byte_level(add_prefix_space=True)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[PAD, EOS, *special_tokens],
    initial_alphabet=byte_level.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  tokenizer.save(str(partial))
  partial.replace(path)


def load_tokenizer(path: pathlib.Path, eos_token: str = EOS) -> Tokenizer:
  """Loads a `tokenizer.json`.

  Raises: ValueError if the file is missing, broken or has no `eos_token`.
  """
  if not path.is_file():
    raise ValueError(f"{path}: no such tokenizer file")
  try:
    loaded = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:  # the library raises bare Exception
    raise ValueError(f"{path}: not a tokenizer.json ({error})") from None
  eos_id = loaded.token_to_id(eos_token)
  if eos_id is None:
    raise ValueError(f"{path}: has no end token {eos_token!r}")
  return Tokenizer(
    encode=lambda text: loaded.encode(text, add_special_tokens=False).ids,
    decode=lambda ids: loaded.decode(list(ids)).strip(),
    vocab_size=max(loaded.get_vocab().values()) + 1,
    eos_id=eos_id,
  )
