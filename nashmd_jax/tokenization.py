"""How text becomes tokens in a run: its tokenizer and its chat templates.

The config says it, or else the folder of a pretrained model does.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import pathlib

from etils import epath
import ml_collections

from nashmd_jax import declare, files, mistakes
from nashmd_jax.data import messages, records, templates
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained, token_files
from nashmd_jax.training import distributed

TEXTS = ("prompt", "response")
# Of `chat.template`: of the model's folder, or of it if it has one.
FROM_FOLDER = ("folder", "auto")
SETTINGS = {
  "file": declare.text(
    "A tokenizer.json; None: that of the folder of the model, or one that is "
    "trained.",
    optional=True,
  ),
  "vocab_size": declare.whole(
    "Tokens at most of a tokenizer that is trained; read by it alone.",
    least=0,
    unit="tokens",
  ),
  "eos_token": declare.text(
    "What a response is trained to end in; None: what the folder of the model "
    "says.",
    optional=True,
  ),
  "bos_token": declare.text(
    "What stands before every prompt; None: what the folder of the model says.",
    optional=True,
  ),
  "special_tokens": declare.several(
    declare.text("Further tokens of a tokenizer that is trained.")
  ),
}
CHAT = {
  "template": declare.text(
    "How conversations are read: a file of jinja, folder for the template of "
    "the folder of the model, auto for that if it has one; None: as text.",
    optional=True,
  ),
  "system": declare.text(
    "The system message before a prompt that is none itself.", optional=True
  ),
  "user": declare.text(
    "The user's message of such a prompt, with {prompt} in it once."
  ),
}


def load_tokenizer(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  splits: Mapping[str, Sequence[records.Record]],
) -> tuple[epath.Path, tokenizer_lib.Tokenizer]:
  """The tokenizer and its file: given, of the pretrained model, or trained.

  What the config does not say of its special tokens the model's folder does:
  BOS, and what ends a response, first of all what the chat template ends it
  with.

  Args:
    splits: summary records, of which the training split is trained on.
  Raises: Mistake for a file that cannot be read, or an end that nobody names.
  """
  settings = config.tokenizer
  folder = pretrained.given_folder(config, "model")
  if settings.file is not None:
    path = epath.Path(settings.file)
  elif folder is not None:
    path = folder / "tokenizer.json"
  else:
    trained_on = [row[name] for row in splits["train"] for name in TEXTS]
    name = files.digest([settings.to_dict(), trained_on])[:12]
    path = workdir / "data" / f"tokenizer-{name}" / "tokenizer.json"
    distributed.on_first(
      functools.partial(_train_tokenizer, path, settings, trained_on)
    )
  names, ends = {}, []
  if folder is not None:
    names, ends = token_files.names(folder), token_files.end_ids(folder)
    if not token_files.starts_with_bos(folder):
      names.pop("bos_token", None)
  eos_token = settings.eos_token or names.get("eos_token")
  if eos_token is None:
    raise mistakes.Mistake(
      "config.tokenizer.eos_token: not given, and no folder names what ends a "
      "response; name a token of the tokenizer"
    )
  loaded = tokenizer_lib.load_tokenizer(
    path,
    eos_token=eos_token,
    bos_token=settings.bos_token or names.get("bos_token"),
    ends=ends,
    embedded=pretrained.embedded(config),
  )
  return path, _ending_as_told(loaded, config)


def _ending_as_told(
  loaded: tokenizer_lib.Tokenizer, config: ml_collections.ConfigDict
) -> tokenizer_lib.Tokenizer:
  """With what the chat ends a response with first, unless one is set."""
  chat = load_chat(config, "model")
  if chat is None or config.tokenizer.eos_token is not None:
    return loaded
  told = messages.end_of_response(
    chat, loaded.encode_marked, loaded.special_ids
  )
  first = () if told is None else (told,)
  ends = tuple(dict.fromkeys((*first, *loaded.eos_ids)))
  return loaded._replace(eos_ids=ends)


def load_chat(
  config: ml_collections.ConfigDict, section: str
) -> messages.Chat | None:
  """How "model" or "judge_model" reads a conversation; None for text as it is.

  Raises: Mistake for a template that is missing or none.
  """
  found = _template(config, section)
  if found is None:
    return None
  folder = pretrained.given_folder(config, section)
  render = templates.make_render(
    found[0],
    tokens={} if folder is None else token_files.names(folder),
    where=found[1],
  )
  return messages.Chat(render, config.chat.system, config.chat.user)


def chat_text(config: ml_collections.ConfigDict, section: str) -> str | None:
  """The chat template of "model" or "judge_model"; None for text as it is."""
  found = _template(config, section)
  return found and found[0]


def _template(config, section) -> tuple[str, str] | None:
  """The chat template of a model, and where it is from."""
  asked, folder = config.chat.template, pretrained.given_folder(config, section)
  if asked is None:
    return None
  if asked not in FROM_FOLDER:
    try:
      return token_files.read_template(epath.Path(asked)), asked
    except mistakes.Mistake as mistake:
      raise mistakes.Mistake(f"chat.template: {mistake}") from None
  found = None if folder is None else token_files.chat_template(folder)
  if found is None and asked == "folder":
    raise mistakes.Mistake(
      f"chat.template: got 'folder', but {folder or 'no folder'} has one of "
      f"{section}; name a file of jinja, or set it to None for a base model"
    )
  return found


def check_trained(config: ml_collections.ConfigDict) -> None:
  """Raises Mistake for a tokenizer that is trained and cannot be.

  It is not without an end token, and holds each byte and its special tokens.
  """
  given, folder = config.tokenizer, pretrained.given_folder(config, "model")
  if given.file is not None or folder is not None:
    return
  if given.eos_token is None:
    raise mistakes.Mistake(
      "tokenizer.eos_token: got None for a tokenizer that is trained; name "
      "what is to end a response"
    )
  specials = {tokenizer_lib.PAD, given.eos_token, *given.special_tokens}
  least = tokenizer_lib.BYTES + len(specials)
  if given.vocab_size < least:
    raise mistakes.Mistake(
      f"tokenizer.vocab_size: got {given.vocab_size} for a tokenizer that is "
      f"trained, expected {least} or more: {tokenizer_lib.BYTES} bytes and "
      f"{len(specials)} special tokens"
    )


def check_chat(config: ml_collections.ConfigDict) -> None:
  """Raises Mistake for a section `chat` that cannot be."""
  if config.chat.user.count(messages.PLACE) != 1:
    raise mistakes.Mistake(
      f"chat.user: got {mistakes.quote(config.chat.user)}, expected text with "
      f"{messages.PLACE} in it once"
    )
  chats = [load_chat(config, section) for section in pretrained.SECTIONS]
  if config.chat.system is not None and chats[0] is None:
    raise mistakes.Mistake(
      f"chat.system: got {mistakes.quote(config.chat.system)}, which no "
      "template reads; set "
      "chat.template"
    )


def digest(
  config: ml_collections.ConfigDict,
  path: epath.Path,
  tokenizer: tokenizer_lib.Tokenizer,
) -> str:
  """A hash of how text is read: what the files hold, not where they are.

  Args:
    config: names the chat templates.
    path: of the tokenizer's file.
    tokenizer: the same, loaded.
  """
  templates = [chat_text(config, one) for one in pretrained.SECTIONS]
  ids = tokenizer.eos_ids, tokenizer.start_ids, tokenizer.close_ids
  told = files.digest([*ids, *templates]).encode()
  return hashlib.sha256(files.read_bytes(path) + told).hexdigest()


def check_folders(config: ml_collections.ConfigDict, path: epath.Path) -> None:
  """Checks that the models' own tokenizers read the run's token ids alike.

  A folder without a tokenizer.json is taken as it is, and so is a special
  token that one of the two has at an id where the other has nothing.

  Args:
    config: whose models may start in folders of the user's.
    path: the tokenizer.json of the run.
  Raises: Mistake that names both files and the first id that differs.
  """
  findings, known = mistakes.Findings(), {path}
  for section in pretrained.SECTIONS:
    folder = pretrained.given_folder(config, section)
    own = path if folder is None else folder / "tokenizer.json"
    if own not in known and own.exists():
      known.add(own)
      with findings.collect():
        tokenizer_lib.check_same_ids(
          path, own, setting=f"config.{section}.pretrained"
        )
  findings.tell()


def told_otherwise(
  config: ml_collections.ConfigDict, path: epath.Path
) -> list[str]:
  """What the folder of the policy says otherwise than the config, which holds.

  Args:
    config: of the run.
    path: the tokenizer.json of the run.
  """
  folder = pretrained.given_folder(config, "model")
  if folder is None:
    return []
  said, own = [], folder / "tokenizer.json"
  if own != path and own.exists() and not tokenizer_lib.same(path, own):
    said.append(
      f"text is read with {path} (tokenizer.file), which parts it otherwise "
      f"than {own}"
    )
  names = token_files.names(folder)
  for key in ("eos_token", "bos_token"):
    ours, theirs = config.tokenizer[key], names.get(key)
    if None not in (ours, theirs) and ours != theirs:
      said.append(
        f"tokenizer.{key} is {mistakes.quote(ours)}, and {folder} says "
        f"{mistakes.quote(theirs)}"
      )
  return said


def _train_tokenizer(path, settings, trained_on) -> None:
  if not path.exists():
    tokenizer_lib.train_tokenizer(
      trained_on,
      path,
      vocab_size=settings.vocab_size,
      eos_token=settings.eos_token,
      special_tokens=settings.special_tokens,
    )
