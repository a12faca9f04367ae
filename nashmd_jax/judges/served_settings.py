"""The settings of a served judge, and what is wrong with them."""

from collections.abc import Sequence
import os
import re
from typing import Any, NamedTuple
from urllib import parse

from nashmd_jax import declare, mistakes
from nashmd_jax.judges import questions

SECTION = "judges.served"


LONGEST = 86_400  # seconds that a request may take
LARGEST = 2**63 - 1  # what the cache counts to
SETTINGS = {
  "url": declare.text(
    "Base address of the server, such as http://localhost:8000/v1.",
    optional=True,
  ),
  "model": declare.text("Name of the model at the server.", optional=True),
  "form": declare.text(
    "Whether a question is a chat, or a text that the model continues.",
    one_of=tuple(questions.FORMS),
  ),
  "system": declare.text("The system message of a chat.", optional=True),
  "prompt": declare.text(
    "A question, with {prompt}, {first} and {second} in it once each."
  ),
  "answers": declare.several(
    declare.text(
      "What the model is to write for the first text and for the second."
    ),
    least=2,
    most=2,
  ),
  "top_logprobs": declare.whole(
    "Most probable tokens to ask for, whose probabilities are those of the "
    "answers; 0 reads the written one alone.",
    least=0,
    unit="tokens",
  ),
  "max_tokens": declare.whole("Length of an answer.", least=1, unit="tokens"),
  "orders": declare.text(
    "Whether each pair is asked about in both orders, whose mean is taken, or "
    "in one, which the texts themselves decide.",
    one_of=("both", "one"),
  ),
  "timeout_seconds": declare.number(
    "Time for one request, from connecting to its last byte.",
    above=0,
    most=LONGEST,
    unit="seconds",
  ),
  "retries": declare.whole(
    "Times that a request that fails is tried again.", least=0
  ),
  "connections": declare.whole("Requests at a time.", least=1),
  "per_minute": declare.number(
    "Most requests a minute; 0 for no limit.", least=0, unit="requests"
  ),
  "budget_calls": declare.whole(
    "Most requests over the life of the cache; 0 for no limit.",
    least=0,
    most=LARGEST,
    unit="requests",
  ),
  "budget_tokens": declare.whole(
    "Most tokens over the life of the cache, prompts included; 0 for no limit.",
    least=0,
    most=LARGEST,
    unit="tokens",
  ),
  "most_failed": declare.number(
    "Share of the pairs of a call that may stay without a judgment.",
    least=0,
    most=1,
  ),
  "key_variable": declare.text(
    "Environment variable that holds the API key, if there is one.",
    optional=True,
    empty=True,
  ),
}


class Settings(NamedTuple):
  """The section `judges.served` but for its cache; see `SETTINGS`."""

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
  """Raises Mistake with a sentence for each setting that a judge cannot have.

  Args:
    settings: see `SETTINGS`.
  """
  findings = mistakes.Findings()
  findings.sentences += declare.faults(SETTINGS, settings, SECTION)
  given = Settings(**settings)
  for name, find in {
    "url": _url,
    "model": _model,
    "system": _system,
    "prompt": _prompt,
    "answers": _answers,
    "key_variable": _key,
  }.items():
    if declare.wrong(SETTINGS[name], settings[name]) is None:
      told = find(given)
      findings.sentences += [f"{SECTION}.{name}: {told}"] if told else []
  findings.tell()


def api_key(settings: Settings) -> str:
  """The API key, from the environment; empty if there is none."""
  return os.environ.get(settings.key_variable or "", "").strip()


def wording(settings: Settings) -> questions.Wording:
  """How questions are put."""
  chosen = {name: getattr(settings, name) for name in questions.Wording._fields}
  return questions.Wording(**chosen | {"answers": tuple(settings.answers)})


def _url(given: Settings) -> str | None:
  example = "such as http://localhost:8000/v1"
  if given.url is None:
    return f"set it to the base address of a model server, {example}"
  try:
    parts = parse.urlsplit(given.url)
    whole = parts.scheme in ("http", "https") and parts.hostname
    secret = parts.username is not None or parts.password is not None
    more = parts.query or parts.fragment or (parts.port == 0)
  except ValueError:
    whole = secret = more = False
  if secret:
    return (
      f"got one with a user or password, expected a plain one, {example}; the "
      f"key belongs into the environment variable of {SECTION}.key_variable"
    )
  if not whole or more:
    return (
      f"got {mistakes.quote(given.url)}, expected a base address, {example}"
    )
  return None


def _model(given: Settings) -> str | None:
  if given.model is None:
    return "set it to the name that the server has for the model"
  return None


def _system(given: Settings) -> str | None:
  if given.system is not None and given.form == "completion":
    return f"a completion has no system message, put it into {SECTION}.prompt"
  return None


def _prompt(given: Settings) -> str | None:
  slots = questions.slots(given.prompt)
  if sorted(slots) != sorted(questions.SLOTS):
    return (
      f"has {sorted(slots)} in braces, expected each of "
      f"{sorted(questions.SLOTS)} once"
    )
  return None


def _answers(given: Settings) -> str | None:
  """What is wrong unless neither of the answers names the other."""
  answers = tuple(given.answers)
  if all(
    one == one.strip() and questions.named_answers(one, answers) == [n]
    for n, one in enumerate(answers)
  ):
    return None
  return (
    f"got {mistakes.quote(answers)}, expected two texts without spaces around "
    "them of which neither names the other, such as ('1', '2')"
  )


def _key(given: Settings) -> str | None:
  """What is found here is never shown: it may be the key itself."""
  name = given.key_variable
  if not name:
    return None
  if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
    return (
      "expected the name of an environment variable, such as OPENAI_API_KEY, "
      "not what is in it"
    )
  if not re.fullmatch(r"[!-~]*", api_key(given)):
    return (
      f"what the environment variable {name} holds is no API key: it has "
      "spaces or characters other than ASCII in it"
    )
  return None
