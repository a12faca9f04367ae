"""What a served language model is asked about a pair, and what it answers.

Pure functions between texts, request bodies and probabilities; nothing is sent
from here.
"""

from collections.abc import Mapping, Sequence
import hashlib
import json
import math
import re
from typing import Any, NamedTuple

SLOTS = ("prompt", "first", "second")
FORMS = {"chat": "chat/completions", "completion": "completions"}
_SLOT = re.compile(r"\{(" + "|".join(SLOTS) + r")\}")


class Wording(NamedTuple):
  """How questions are put.

  Attributes:
    model: name of it at the server.
    form: a key of `FORMS`.
    system: the system message of a chat; None for none.
    prompt: template in which each of `SLOTS` stands once, in braces.
    answers: what is to be written for the first text and for the second.
    max_tokens: of an answer.
    top_logprobs: most probable tokens to ask for at each place; 0 for none.
    orders: "both", or "one".
  """

  model: str
  form: str
  system: str | None
  prompt: str
  answers: tuple[str, str]
  max_tokens: int
  top_logprobs: int
  orders: str


class Question(NamedTuple):
  """One pair in one order.

  Attributes:
    key: SHA-256 of all that its answer depends on.
    body: of the request, JSON.
  """

  key: str
  body: bytes


class Pair(NamedTuple):
  """What is asked about a pair.

  Attributes:
    swapped: whether its opponent is the first text of the first question.
    questions: of one order, or of both; none for equal texts.
  """

  swapped: bool
  questions: tuple[Question, ...]


class Reply(NamedTuple):
  """What a server's answer says.

  Attributes:
    win_prob: of the first text; None if it names neither, or both.
    text: that was written.
    tokens: that the server counted, prompt included; None if it did not.
  """

  win_prob: float | None
  text: str
  tokens: int | None


def filled(template: str, values: Mapping[str, str]) -> str:
  """A template with its slots filled; braces in the values are only text."""
  return _SLOT.sub(lambda found: values[found[1]], template)


def slots(template: str) -> list[str]:
  """The names of the slots of a template, in their order."""
  return _SLOT.findall(template)


def ask(wording: Wording, prompt: str, response: str, opponent: str) -> Pair:
  """The questions about a pair; the same ones whichever text comes first."""
  if response == opponent:
    return Pair(False, ())
  # By a hash: longer or lower texts must not always be the first ones.
  first, second = sorted((response, opponent), key=_digest)
  orders = [(first, second), (second, first)]
  count = 2 if wording.orders == "both" else 1
  return Pair(
    swapped=first != response,
    questions=tuple(_question(wording, prompt, *o) for o in orders[:count]),
  )


def win_prob(pair: Pair, probs: Sequence[float | None]) -> float:
  """P(y ≻ y′ | x), such that P(y ≻ y′ | x) + P(y′ ≻ y | x) is just 1.

  ½ (P(first | y, y′) + 1 − P(first | y′, y)) of both orders.

  Args:
    pair: the questions.
    probs: of the first text of each; None for no answer.
  Returns: NaN if one of the answers is missing.
  """
  if not pair.questions:
    return 0.5
  if None in probs:
    return math.nan
  prob = probs[0] if len(probs) == 1 else 0.5 * (probs[0] + 1 - probs[1])
  return 1 - prob if pair.swapped else prob


def _digest(text: str) -> bytes:
  return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _question(wording: Wording, prompt, first, second) -> Question:
  asked = filled(
    wording.prompt, {"prompt": prompt, "first": first, "second": second}
  )
  body = {
    "model": wording.model,
    "max_tokens": wording.max_tokens,
    "temperature": 0,
  }
  if wording.form == "chat":
    system = [{"role": "system", "content": wording.system}]
    said = system if wording.system is not None else []
    body["messages"] = [*said, {"role": "user", "content": asked}]
    if wording.top_logprobs:
      body |= {"logprobs": True, "top_logprobs": wording.top_logprobs}
  else:
    body["prompt"] = asked
    if wording.top_logprobs:
      body["logprobs"] = wording.top_logprobs
  content = {"form": wording.form, "answers": [*wording.answers], "body": body}
  canonical = json.dumps(content, sort_keys=True).encode()
  return Question(hashlib.sha256(canonical).hexdigest(), _json(body))


def _json(body: Any) -> bytes:
  return json.dumps(body).encode()


def read_reply(value: Any, wording: Wording) -> Reply:
  """Reads a server's answer.

  The text decides what is meant: a text that names both answers is none. If
  it names one, the probabilities are those at the token where that is
  written; if it names none, those at its first token, if both answers are
  among them. Without probabilities the text that is named has all of it.

  Args:
    value: the JSON of the answer.
    wording: of the question.
  Raises: ValueError for one that is of another form than those of `FORMS`.
  """
  try:
    choice = value["choices"][0]
    message = choice["message"] if "message" in choice else choice
    text = message.get("text" if message is choice else "content")
  except (LookupError, TypeError, AttributeError):
    raise ValueError("it has no choices") from None
  text = "" if text is None else text
  if not isinstance(text, str):
    raise ValueError("its text is none")
  named = named_answers(text, wording.answers)
  tops = _tops(choice.get("logprobs")) if wording.top_logprobs else []
  prob = _prob(named, tops, wording.answers)
  # A half of a surrogate pair is nothing that a file could hold.
  written = text.encode("utf-8", "replace").decode()
  return Reply(prob, written, _tokens(value))


def named_answers(text: str, answers: Sequence[str]) -> list[int]:
  """Which of the answers stand alone in a text: 1 in "1." but not in "12"."""
  return [
    number
    for number, answer in enumerate(answers)
    if re.search(
      rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w)(?![.,]\d)", text
    )
  ]


def _prob(named, tops, answers) -> float | None:
  """The probability of the first answer; see `read_reply`."""
  if len(named) > 1:
    return None
  if not named:
    masses = _masses(tops[0][1], answers) if tops else (0.0, 0.0)
    return _share(*masses) if min(masses) > 0 else None
  answer = answers[named[0]]
  for token, top in tops:
    masses = _masses(top, answers)
    if token.strip() == answer and sum(masses) > 0:
      return _share(*masses)
  return 1.0 - named[0]


def _share(first: float, second: float) -> float:
  return first / (first + second)


def _masses(top: Sequence[tuple[str, float]], answers) -> tuple[float, float]:
  """Of each answer, over the tokens that spell it but for spaces."""
  first, second = (
    math.fsum(math.exp(p) for token, p in top if token.strip() == answer)
    for answer in answers
  )
  return first, second


def _tops(logprobs: Any) -> list[tuple[str, list[tuple[str, float]]]]:
  """Each written token with the probable ones there, in either form."""
  try:
    if logprobs.get("content") is not None:
      return [
        (place["token"], _pairs(_both(place["top_logprobs"])))
        for place in logprobs["content"]
      ]
    written = zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)
    return [(str(token), _pairs(top.items())) for token, top in written]
  except (LookupError, TypeError, AttributeError, ValueError):
    return []


def _both(top: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
  return [(one["token"], one["logprob"]) for one in top]


def _pairs(top: Any) -> list[tuple[str, float]]:
  """Those of them that are log-probabilities."""
  return [
    (token, float(p))
    for token, p in top
    if isinstance(token, str) and isinstance(p, int | float) and -1e9 < p < 1e-3
  ]


def _tokens(value: Mapping[str, Any]) -> int | None:
  """The tokens of an answer as its server counts them."""
  usage = value.get("usage")
  count = usage.get("total_tokens") if isinstance(usage, Mapping) else None
  known = type(count) is int and 0 <= count < 2**53
  return count if known else None
