"""The settings of a served judge, and what is wrong with them."""

from collections.abc import Iterator, Sequence
import math
import numbers
import os
import re
import reprlib
from typing import Any, NamedTuple
from urllib import parse

from nashmd_jax import mistakes
from nashmd_jax.judges import questions

SECTION = "judges.served"


class Settings(NamedTuple):
  """The section `judges.served`.

  Attributes:
    url: base address of the server, such as http://localhost:8000/v1.
    model: its name at the server.
    form: "chat", or "completion" for a model that only continues text.
    system: the system message of a chat, or None.
    prompt: text of a question, with {prompt}, {first} and {second} once each.
    answers: what the model is to write for the first text and for the second.
    top_logprobs: how many of the most probable tokens to ask for, whose
      probabilities are those of the answers; 0 to read the written one alone.
    max_tokens: of an answer.
    orders: "both" to ask about each pair in both orders and take the mean,
      "one" for one order, which the texts themselves decide.
    timeout_seconds: of one request, from connecting to its last byte.
    retries: of a request that fails.
    connections: requests at a time.
    per_minute: most requests a minute; 0 for no limit.
    budget_calls: most requests over the life of the cache; 0 for no limit.
    budget_tokens: the same of tokens, prompts included.
    most_failed: share of the pairs of a call that may stay without a judgment.
    key_variable: environment variable that holds the API key, if any.
  """

  url: str | None
  model: str | None
  form: str
  system: str | None
  prompt: str
  answers: Sequence[str]
  top_logprobs: int
  max_tokens: int
  orders: str
  timeout_seconds: float
  retries: int
  connections: int
  per_minute: float
  budget_calls: int
  budget_tokens: int
  most_failed: float
  key_variable: str | None


def check(**settings: Any) -> None:
  """Raises Mistake with a sentence for each setting that cannot be.

  Args:
    settings: see `Settings`.
  """
  given, findings = Settings(**settings), mistakes.Findings()
  for faults in (_url(given), _texts(given), _numbers(given), _key(given)):
    for name, told in faults:
      findings.sentences.append(f"{SECTION}.{name}: {told}")
  findings.tell()


def api_key(settings: Settings) -> str:
  """The API key, from the environment; empty if there is none."""
  return os.environ.get(settings.key_variable or "", "").strip()


def wording(settings: Settings) -> questions.Wording:
  """How questions are put."""
  chosen = {name: getattr(settings, name) for name in questions.Wording._fields}
  return questions.Wording(**chosen | {"answers": tuple(settings.answers)})


Faults = Iterator[tuple[str, str]]


def _url(given: Settings) -> Faults:
  example = "such as http://localhost:8000/v1"
  if given.url is None:
    yield "url", f"set it to the base address of a model server, {example}"
    return
  try:
    parts = parse.urlsplit(given.url)
    whole = parts.scheme in ("http", "https") and parts.hostname
    secret = parts.username is not None or parts.password is not None
    more = parts.query or parts.fragment or (parts.port == 0)
  except (ValueError, TypeError, AttributeError):
    whole = secret = more = False
  if secret:
    yield (
      "url",
      f"got one with a user or password, expected a plain one, {example}; the "
      f"key belongs into the environment variable of {SECTION}.key_variable",
    )
  elif not whole or more:
    yield "url", f"got {_shown(given.url)}, expected a base address, {example}"


def _texts(given: Settings) -> Faults:
  if not (isinstance(given.model, str) and given.model):
    yield (
      "model",
      f"got {_shown(given.model)}, set it to the name that the server has for "
      "the model",
    )
  for name, allowed in (
    ("form", tuple(questions.FORMS)),
    ("orders", ("both", "one")),
  ):
    value = getattr(given, name)
    if value not in allowed:
      yield name, f"got {_shown(value)}, expected one of {allowed}"
  if not (given.system is None or isinstance(given.system, str)):
    yield "system", f"got {_shown(given.system)}, expected a text or None"
  elif given.system is not None and given.form == "completion":
    yield (
      "system",
      f"a completion has no system message, put it into {SECTION}.prompt",
    )
  slots = questions.slots(given.prompt) if _is_text(given.prompt) else ()
  if sorted(slots) != sorted(questions.SLOTS):
    yield (
      "prompt",
      f"has {sorted(slots)} in braces, expected each of "
      f"{sorted(questions.SLOTS)} once",
    )
  if not _can_be_told_apart(given.answers):
    yield (
      "answers",
      f"got {_shown(given.answers)}, expected two texts without spaces around "
      "them of which neither names the other, such as ('1', '2')",
    )


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _can_be_told_apart(answers: Any) -> bool:
  whole = isinstance(answers, tuple | list) and len(answers) == 2
  if not whole or not all(map(_is_text, answers)):
    return False
  return all(
    one and one == one.strip() and questions.named_answers(one, answers) == [n]
    for n, one in enumerate(answers)
  )


def _numbers(given: Settings) -> Faults:
  for name, least in (
    ("top_logprobs", 0),
    ("max_tokens", 1),
    ("retries", 0),
    ("connections", 1),
    ("budget_calls", 0),
    ("budget_tokens", 0),
  ):
    value = getattr(given, name)
    if not (_is_number(value, numbers.Integral) and value >= least):
      yield (
        name,
        f"got {_shown(value)}, expected a whole number of {least} or more",
      )
  for name, holds, expected in (
    ("timeout_seconds", lambda x: 0 < x < math.inf, "seconds above 0"),
    ("per_minute", lambda x: 0 <= x < math.inf, "0 for no limit, or more"),
    ("most_failed", lambda x: 0 <= x <= 1, "a share from 0 to 1"),
  ):
    value = getattr(given, name)
    if not (_is_number(value, numbers.Real) and holds(value)):
      yield name, f"got {_shown(value)}, expected {expected}"


def _is_number(value: Any, kind: type) -> bool:
  return isinstance(value, kind) and not isinstance(value, bool)


def _key(given: Settings) -> Faults:
  """What is found here is never shown: it may be the key itself."""
  name = given.key_variable
  if name is None or name == "":
    return
  if not (_is_text(name) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)):
    yield (
      "key_variable",
      "expected the name of an environment variable, such as OPENAI_API_KEY, "
      "not what is in it",
    )
  elif not re.fullmatch(r"[!-~]*", api_key(given)):
    yield (
      "key_variable",
      f"what the environment variable {name} holds is no API key: it has "
      "spaces or characters other than ASCII in it",
    )


def _shown(value: Any) -> str:
  return reprlib.repr(value)
