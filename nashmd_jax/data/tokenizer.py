"""Text to token ids and back, through a `tokenizer.json` of any origin."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
import contextlib
import functools
import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

from etils import epath
import tokenizers

from nashmd_jax import files, mistakes

PAD = "<pad>"
BYTES = 256
MOST_IDS = 2**24
# A letter of cuneiform: no text that a tokenizer was made for has it.
UNHEARD_OF = "\U00012000"
HIDDEN = "\ue000"  # before the name of a piece that no text is to match


class Tokenizer(NamedTuple):
  """A loaded tokenizer.

  Attributes:
    encode: text -> token ids; the name of a special token in it is text too.
    encode_marked: text that we wrote -> token ids; the names of special tokens
      are those tokens.
    decode: token ids -> text that encodes to the same ids, special tokens left
      out.
    vocab_size: V, one more than the largest id that a text may have.
    eos_ids: tokens that end a response; those that are trained end in the
      first of them.
    start_ids: what stands before every prompt: BOS, or nothing.
    close_ids: what stands behind every prompt: T5's </s>, or nothing.
    special_ids: tokens that are no text; a response may not contain them.
  """

  encode: Callable[[str], list[int]]
  encode_marked: Callable[[str], list[int]]
  decode: Callable[[Sequence[int]], str]
  vocab_size: int
  eos_ids: tuple[int, ...]
  start_ids: tuple[int, ...]
  close_ids: tuple[int, ...]
  special_ids: tuple[int, ...]

  @property
  def eos_id(self) -> int:
    """The token that a response is trained to end in."""
    return self.eos_ids[0]


def train_tokenizer(
  texts: Iterable[str],
  path: pathlib.Path,
  *,
  vocab_size: int,
  eos_token: str,
  special_tokens: Sequence[str],
) -> None:
  """Trains a byte-level BPE and writes it as `tokenizer.json`.

  Every text can be encoded: all 256 bytes are in the vocabulary.

  Args:
    texts: of the training split only.
    path: file to write; it appears whole or not at all.
    vocab_size: V, an upper limit, at least 256 + the special tokens.
    eos_token: ends a response.
    special_tokens: further tokens that text itself can name in full.
  """
  byte_level = tokenizers.pre_tokenizers.ByteLevel
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
  tokenizer.pre_tokenizer = byte_level(add_prefix_space=True)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[PAD, eos_token, *special_tokens],
    initial_alphabet=byte_level.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  files.save_text(path, tokenizer.to_str(pretty=True))


def load_tokenizer(
  path: epath.PathLike,
  *,
  eos_token: str,
  bos_token: str | None,
  ends: Sequence[int] = (),
  embedded: int | None = None,
) -> Tokenizer:
  """Loads a `tokenizer.json`.

  What the file does not say of itself is held against what it does: the end
  token is special whatever its mark, and a file that would lose text, or break
  it into pieces, is refused.

  Args:
    path: local or remote.
    eos_token: what a response is trained to end in.
    bos_token: stands before every prompt, as Llama and Gemma expect; None for
      what the file's own post-processor puts there.
    ends: ids of tokens that end a response too.
    embedded: ids from this one on are of no token that the model knows, such
      as the place of an image; special tokens among them are plain text here.
      None: it knows all.
  Raises: Mistake if the file is missing, broken, gives an id twice, or lacks
    one of them, a decoder, or a piece for what it does not know.
  """
  loaded = _load(epath.Path(path))
  special = [eos_token] if bos_token is None else [eos_token, bos_token]
  with _told(path):
    return _prepared(loaded, path, special, ends, embedded)


def _prepared(
  loaded: tokenizers.Tokenizer,
  path: epath.PathLike,
  special: Sequence[str],
  ends: Sequence[int],
  embedded: int | None,
) -> Tokenizer:
  """The fields of a Tokenizer, once the file is held against what it does."""
  _check_known(loaded, special, embedded, path)
  if embedded is not None:
    loaded = _below(loaded, embedded)
  # A file keeps what its last user had switched on.
  loaded.no_truncation()
  loaded.no_padding()
  if getattr(loaded.model, "dropout", None):
    loaded.model.dropout = None
  known = [i for i in ends if loaded.id_to_token(i) is not None]
  loaded.add_special_tokens([*special, *map(loaded.id_to_token, known)])
  _check_pieces(loaded, path)
  eos_id, *given = map(loaded.token_to_id, special)
  special_ids = _special_ids(loaded)
  start_ids, close_ids = _around(loaded, special_ids)
  plain = _without_marks(loaded, special_ids)

  def encode(text):
    return plain.encode(text, add_special_tokens=False).ids

  return Tokenizer(
    encode=encode,
    encode_marked=lambda text: (
      loaded.encode(text, add_special_tokens=False).ids
    ),
    decode=functools.partial(_decode, loaded, encode("a") == encode(" a")),
    vocab_size=max(loaded.get_vocab().values()) + 1,
    eos_ids=tuple(dict.fromkeys([eos_id, *known])),
    start_ids=tuple(given) or start_ids,
    close_ids=close_ids,
    special_ids=special_ids,
  )


def _decode(
  loaded: tokenizers.Tokenizer, spaced: bool, ids: Sequence[int]
) -> str:
  """Text of ids, without the space that encoding puts before a word."""
  text = loaded.decode(list(ids))
  added = spaced and text[:1] == " " and not text[1:2].isspace()
  return text[1:] if added else text


def _around(
  loaded: tokenizers.Tokenizer, special_ids: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """The special tokens that the file's post-processor puts around a text."""
  alone, whole = (
    loaded.encode("a", add_special_tokens=added).ids for added in (False, True)
  )
  for start in range(len(whole) - len(alone) + 1):
    stop = start + len(alone)
    if whole[start:stop] == alone and {*whole[:start], *whole[stop:]} <= {
      *special_ids
    }:
      return tuple(whole[:start]), tuple(whole[stop:])
  return (), ()


def _without_marks(
  loaded: tokenizers.Tokenizer, special_ids: Sequence[int]
) -> tokenizers.Tokenizer:
  """The same for text in which no name stands for a special token."""
  if isinstance(loaded.model, tokenizers.models.BPE):
    plain = tokenizers.Tokenizer.from_str(loaded.to_str())
    plain.encode_special_tokens = True
    return plain
  # Other models find the name among their own pieces.
  settings = _settings_without(loaded, {*special_ids})
  model = settings["model"]
  kept = {model.get("unk_token")}
  settings["post_processor"] = None

  def hidden(name, i):
    return HIDDEN + name if i in special_ids and name not in kept else name

  if isinstance(model["vocab"], list):
    model["vocab"] = [
      [hidden(name, i), score] for i, (name, score) in enumerate(model["vocab"])
    ]
  else:
    model["vocab"] = {hidden(name, i): i for name, i in model["vocab"].items()}
  return tokenizers.Tokenizer.from_str(json.dumps(settings))


def _check_known(loaded, special, embedded, path) -> None:
  """Raises Mistake for a token that file or model does not know."""
  for token in special:
    i = loaded.token_to_id(token)
    if i is None:
      raise mistakes.Mistake(f"{path}: has no token {mistakes.quote(token)}")
    if embedded is not None and i >= embedded:
      raise mistakes.Mistake(
        f"{path}: {mistakes.quote(token)} is id {i}, and the model has ids "
        f"below {embedded}"
      )


def same(path: epath.PathLike, other: epath.PathLike) -> bool:
  """Whether two files part text alike; how they cut it is not looked at."""
  found = [_load(epath.Path(one)) for one in (path, other)]
  for one in found:
    one.no_truncation()
    one.no_padding()
  return found[0].to_str() == found[1].to_str()


def names_of(path: epath.PathLike, ids: Sequence[int]) -> list[str]:
  """The names of ids in a tokenizer.json."""
  return [str(name) for name in map(_load(epath.Path(path)).id_to_token, ids)]


def check_same_ids(
  path: epath.PathLike, other: epath.PathLike, *, setting: str
) -> None:
  """Checks that what one tokenizer writes another reads as the same tokens.

  A token that the other has beyond those of the first is never written; a
  special token that it lacks is no text.

  Args:
    path: tokenizer.json that writes the ids.
    other: tokenizer.json of who reads them.
    setting: dotted name of what named the other, for the error.
  Raises: Mistake that names both files and the first id that differs.
  """
  written, read = _load(epath.Path(path)), _load(epath.Path(other))
  special = _special_ids(written)
  for token, i in sorted(written.get_vocab().items(), key=lambda one: one[1]):
    there = read.id_to_token(i)
    if there != token and not (there is None and i in special):
      raise mistakes.Mistake(
        f"{setting}: {other} has another vocabulary than {path}, which the run "
        f"reads text with: id {i} is {mistakes.quote(there)} there and "
        f"{mistakes.quote(token)} here; "
        "choose a model of the same tokenizer"
      )


def _check_pieces(loaded: tokenizers.Tokenizer, path: epath.PathLike) -> None:
  """Refuses a file that loses or confuses pieces, or does not join them."""
  tokens: dict[int, str] = {}
  for token, i in loaded.get_vocab(with_added_tokens=False).items():
    if tokens.setdefault(i, token) != token:
      both = mistakes.some(sorted((token, tokens[i])), between=" and ")
      raise mistakes.Mistake(
        f"{path}: gives id {i} to two tokens, {both}; take the file that its "
        "model was released with"
      )
  whole_words = isinstance(loaded.model, tokenizers.models.WordLevel)
  if loaded.decoder is None and not whole_words:
    raise mistakes.Mistake(
      f"{path}: has no decoder, so that text would come back as single pieces; "
      "take the file that its model was released with"
    )
  kept, reason = loaded.normalizer, "it leaves them out"
  try:
    once, twice = (
      loaded.encode(UNHEARD_OF * times, add_special_tokens=False).ids
      for times in (1, 2)
    )
    # An unknown token may stand for several characters at once.
    unnamed = getattr(loaded.model, "unk_token", None) is None
    bytes_or_nothing = isinstance(loaded.model, tokenizers.models.BPE)
    lost = once == twice and unnamed and bytes_or_nothing
  except Exception as error:  # the library raises bare Exception
    lost, reason = True, mistakes.brief(error)
  if lost and (kept is None or kept.normalize_str(UNHEARD_OF)):
    raise mistakes.Mistake(
      f"{path}: has no piece for characters that it does not know ({reason}); "
      "name an unknown token in its model"
    )


def _below(loaded: tokenizers.Tokenizer, embedded: int) -> tokenizers.Tokenizer:
  """Without the special tokens of ids from `embedded` on."""
  unknown = {i for i in _special_ids(loaded) if i >= embedded}
  settings = _settings_without(loaded, unknown)
  return tokenizers.Tokenizer.from_str(json.dumps(settings))


def _special_ids(loaded: tokenizers.Tokenizer) -> tuple[int, ...]:
  added = loaded.get_added_tokens_decoder()
  return tuple(i for i, token in added.items() if token.special)


def _settings_without(
  loaded: tokenizers.Tokenizer, ids: Set[int]
) -> dict[str, Any]:
  """What a tokenizer.json holds, without the added tokens of these ids."""
  settings = json.loads(loaded.to_str())
  added = settings["added_tokens"]
  settings["added_tokens"] = [one for one in added if one["id"] not in ids]
  return settings


def _load(path: epath.Path) -> tokenizers.Tokenizer:
  data = files.read_bytes(path)
  with files.readable(path, "it is not a tokenizer.json"):
    # Of two values of one key the library takes one.
    _check_ids(files.parse_json(data))
  with _told(path), _hushed():
    return tokenizers.Tokenizer.from_str(data.decode())


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
  """Lets nothing through of what the library writes when it panics."""
  sys.stderr.flush()
  kept = os.dup(2)
  try:
    with open(os.devnull, "wb") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)


def _check_ids(settings: Any) -> None:
  """Refuses ids that the library would count up to."""
  vocab = settings["model"].get("vocab", {})
  ids = list(vocab.values()) if isinstance(vocab, dict) else []
  ids += [one["id"] for one in settings.get("added_tokens") or ()]
  odd = [i for i in ids if type(i) is not int or not 0 <= i < MOST_IDS]
  if odd:
    raise ValueError(f"a token has the id {mistakes.quote(odd[0])}")


@contextlib.contextmanager
def _told(path: epath.PathLike) -> Iterator[None]:
  """Turns what the library raises, bare Exception or a panic, to a Mistake."""
  try:
    yield
  except mistakes.Mistake:
    raise
  except BaseException as error:
    panics = type(error).__name__ == "PanicException"
    if not (panics or isinstance(error, Exception)):
      raise
    raise mistakes.Mistake(
      f"{path}: not a tokenizer.json ({mistakes.brief(error)})"
    ) from None
