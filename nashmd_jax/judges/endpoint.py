"""One request to a model server: sent, waited for, and told apart.

What may pass by itself is `Failed`, for who asks to try again; what does not
is a Mistake. Neither ever shows the API key.
"""

import asyncio
from collections.abc import Callable
import datetime
import email.utils
import json
import logging
from typing import Any, NamedTuple

import httpx2

from nashmd_jax import mistakes
from nashmd_jax.judges import questions, served_settings

SECTION = served_settings.SECTION
MOST_BYTES = 1_000_000  # of an answer
MOST_QUOTED = 200  # characters of what a server says
MOST_WAIT_SECONDS = 600.0  # that a server can ask for
# Beside 5xx: the server gave up waiting, is still at the same question (of a
# run that was killed, say), or is asked too often.
PASSING = {408, 409, 429}


class Failed(Exception):
  """A request that may be sent again.

  Attributes:
    wait: seconds that the server asks for.
    refused: whether there was no connection at all.
  """

  def __init__(self, reason: str, *, wait: float = 0.0, refused: bool = False):
    """Takes the reason, for a reader."""
    super().__init__(reason)
    self.wait = wait
    self.refused = refused


class Endpoint(NamedTuple):
  """Where requests go.

  Attributes:
    clients: each with one connection; a pool of many would look through all of
      them at every request.
    url: of requests.
    timeout_seconds: of one.
    key_variable: environment variable of the key.
    hide: (text) -> the text without the key.
  """

  clients: tuple[httpx2.AsyncClient, ...]
  url: httpx2.URL
  timeout_seconds: float
  key_variable: str
  hide: Callable[[str], str]


def make_endpoint(settings: served_settings.Settings) -> Endpoint:
  """Reads the key from the environment; nothing is sent."""
  # It would report each request.
  logging.getLogger("httpx2").setLevel(logging.WARNING)
  key = served_settings.api_key(settings)
  headers = {"Content-Type": "application/json"}
  if key:
    headers["Authorization"] = f"Bearer {key}"
  trusted = httpx2.create_ssl_context()
  clients = tuple(
    httpx2.AsyncClient(
      headers=headers,
      verify=trusted,
      follow_redirects=False,
      timeout=None,  # the request as a whole has one
      limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
    )
    for _ in range(settings.connections)
  )
  return Endpoint(
    clients,
    httpx2.URL(f"{settings.url.rstrip('/')}/{questions.FORMS[settings.form]}"),
    settings.timeout_seconds,
    settings.key_variable or "OPENAI_API_KEY",
    lambda text: text.replace(key, "***") if key else text,
  )


async def send(
  endpoint: Endpoint, number: int, question: questions.Question
) -> Any:
  """Sends a question once.

  Its key goes with it, so that a server that knows such keys does the work
  once, however often it is sent.

  Args:
    endpoint: where to.
    number: of the connection, which nothing else uses meanwhile.
    question: that is sent.
  Returns: the JSON of the answer.
  Raises: Failed for what may pass; Mistake for what will not.
  """
  try:
    async with asyncio.timeout(endpoint.timeout_seconds):
      async with endpoint.clients[number].stream(
        "POST",
        endpoint.url,
        content=question.body,
        headers={"Idempotency-Key": question.key},
      ) as response:
        body = await _body(response)
  except TimeoutError:
    raise Failed(f"no answer in {endpoint.timeout_seconds:g} seconds") from None
  except httpx2.RequestError as error:
    told = _quoted(endpoint, f"{type(error).__name__} {error}")
    refused = isinstance(error, httpx2.ConnectError)
    raise Failed(told, refused=refused) from None
  if not response.is_success:
    _refuse(endpoint, response, body)
  try:
    return json.loads(body)
  except (ValueError, RecursionError):
    raise Failed("an answer that is no JSON") from None


async def _body(response: httpx2.Response) -> bytes:
  body = bytearray()
  async for chunk in response.aiter_bytes():
    body += chunk
    if len(body) > MOST_BYTES:
      raise Failed(f"an answer of more than {MOST_BYTES} bytes")
  return bytes(body)


def _refuse(endpoint: Endpoint, response: httpx2.Response, body: bytes):
  """Raises what a status other than of success is."""
  status = response.status_code
  told = f"status {status}"
  said = _message(endpoint, body)
  if said:
    told += f", {said!r}"
  if status >= 500 or status in PASSING:
    raise Failed(told, wait=retry_after(response.headers.get("Retry-After")))
  name, advice = {
    401: (
      "key_variable",
      "put the server's API key into the environment variable "
      f"{endpoint.key_variable}",
    ),
    403: (
      "key_variable",
      "see whether the API key in the environment variable "
      f"{endpoint.key_variable} may use that model",
    ),
    404: (
      "url",
      f"see whether the server is there, /v1 included, and has {SECTION}.model",
    ),
  }.get(status, ("url", f"see whether the server can do what {SECTION} asks"))
  if 300 <= status < 400:
    name, advice = "url", "set it to where the server really is"
  raise mistakes.Mistake(
    f"{SECTION}.{name}: {endpoint.url} answers with {told}; {advice}"
  )


def retry_after(header: str | None) -> float:
  """The seconds that a server asks to be left alone, at most ten minutes.

  Args:
    header: seconds, or a date; what is neither counts for nothing.
  """
  try:
    seconds = float(header or 0)
  except ValueError:
    try:
      until = email.utils.parsedate_to_datetime(header)
      now = datetime.datetime.now(until.tzinfo or datetime.UTC)
      until = until.replace(tzinfo=now.tzinfo)
      seconds = (until - now).total_seconds()
    except (ValueError, OverflowError):
      seconds = 0.0
  return min(seconds, MOST_WAIT_SECONDS) if seconds > 0 else 0.0


def _message(endpoint: Endpoint, body: bytes) -> str:
  """What a server says is wrong: the message in its JSON, or its text."""
  text = body.decode("utf-8", "replace")
  try:
    text = json.loads(text)["error"]["message"]
  except (ValueError, LookupError, TypeError, RecursionError):
    pass
  return _quoted(endpoint, str(text))


def _quoted(endpoint: Endpoint, text: str) -> str:
  return " ".join(endpoint.hide(text).split())[:MOST_QUOTED]


async def close(endpoint: Endpoint) -> None:
  """Closes the connections."""
  for client in endpoint.clients:
    await client.aclose()
