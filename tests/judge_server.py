"""A model server that is told how to behave, and counts what it answers.

It speaks the OpenAI HTTP API, chat and completions, and knows its own mind:
`prob` is what it thinks of two texts. In a thread of the test, or, so that it
does not take the client's time, as a program that ends with its input:

  python -m tests.judge_server DELAY_SECONDS
"""

import asyncio
import collections
from collections.abc import Callable, Iterator
import contextlib
import hashlib
import json
import math
import re
import subprocess
import sys
import threading
from typing import Any, NamedTuple
from urllib import request as requests

from tests import processes

PROMPT = "Text: {prompt}\n<1>{first}</1>\n<2>{second}</2>\nThe better one:"
HANG_SECONDS = 20.0


class Act(NamedTuple):
  """What the server does with a request.

  Attributes:
    kind: "answer"; "status" and "raw" to send `body` as it is, "half" to send
      the half of an answer, "hang", or "close" to say nothing.
    delay: seconds before it does.
    status: of "status".
    headers: further ones.
    body: of "status" and "raw"; of "answer" the text that is written.
  """

  kind: str = "answer"
  delay: float = 0.0
  status: int = 200
  headers: tuple[tuple[str, str], ...] = ()
  body: str | None = None


class Asked(NamedTuple):
  """A request.

  Attributes:
    key: its Idempotency-Key.
    number: 0 for the first one with that key.
    count: of requests before it, of any key.
    path: of the address.
    headers: by their names in lower case.
    body: the JSON in it.
  """

  key: str
  number: int
  count: int
  path: str
  headers: dict[str, str]
  body: dict[str, Any]


class Counts(NamedTuple):
  """By Idempotency-Key.

  Attributes:
    asked: requests that came.
    billed: answers that were worked out.
    delivered: whole answers that were sent.
  """

  asked: collections.Counter
  billed: collections.Counter
  delivered: collections.Counter


class Server(NamedTuple):
  """A running one: its address, counts, and all requests that came."""

  url: str
  counts: Counts
  requests: list[Asked]


Script = Callable[[Asked], Act]


def prob(first: str, second: str) -> float:
  """P(first) in this order; the other order is another question."""
  digest = hashlib.sha256(f"{first}|{second}".encode()).digest()
  return 0.02 + 0.96 * digest[0] / 255


def shown(body: dict[str, Any]) -> tuple[str, str]:
  """The two texts in a request."""
  text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
  found = re.search(r"<1>(.*?)</1>\n<2>(.*?)</2>", text, re.DOTALL)
  return found.groups() if found else ("", "")


def answer(body: dict[str, Any], said: str | None = None) -> dict[str, Any]:
  """What the server says of a request, or a text that it is to say."""
  p = prob(*shown(body))
  text = f" {1 if p > 0.5 else 2}" if said is None else said
  # Each answer is spelt by two tokens, and something else is probable too.
  masses = {
    "1": 0.3 * p,
    " 1": 0.5 * p,
    "2": 0.6 * (1 - p),
    " 2": 0.2 * (1 - p),
  }
  masses["The"] = 0.2
  top = {token: math.log(mass) for token, mass in masses.items()}
  logprobs = None
  if "messages" in body:
    if body.get("logprobs"):
      places = [{"token": t, "logprob": p} for t, p in top.items()]
      content = [{"token": text, "logprob": 0.0, "top_logprobs": places}]
      logprobs = {"content": content}
    message = {"role": "assistant", "content": text}
    choice = {"message": message, "logprobs": logprobs}
  else:
    if body.get("logprobs"):
      logprobs = {"tokens": [text], "top_logprobs": [top]}
    choice = {"text": text, "logprobs": logprobs}
  usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
  return {"choices": [{"index": 0, **choice}], "usage": usage}


@contextlib.contextmanager
def serve(
  script: Script = lambda asked: Act(), *, port: int = 0, remembers: bool = True
) -> Iterator[Server]:
  """A server in a thread.

  Args:
    script: what it does with each request.
    port: of this machine; 0 for any.
    remembers: whether it answers a key that it knows without billing it again.
  """
  loop = asyncio.new_event_loop()
  found, listening = [], threading.Event()

  async def run():
    counts = Counts(*(collections.Counter() for _ in Counts._fields))
    asked, handle = _handler(script, counts, remembers)
    server = await asyncio.start_server(handle, "127.0.0.1", port, backlog=512)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    found.append((Server(address, counts, asked), asyncio.Event()))
    listening.set()
    await found[0][1].wait()
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
      task.cancel()
      with contextlib.suppress(asyncio.CancelledError):
        await task

  thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
  thread.start()
  listening.wait()
  try:
    yield found[0][0]
  finally:
    loop.call_soon_threadsafe(found[0][1].set)
    thread.join()
    loop.close()


def _handler(script: Script, counts: Counts, remembers: bool):
  """The requests that come, and what handles a connection."""
  asked: list[Asked] = []
  known: dict[str, bytes] = {}

  async def one(reader, writer) -> bool:
    """Handles a request; returns whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    if head[0].startswith("GET"):
      told = [dict(one) for one in counts]
      await _write(writer, 200, json.dumps(told).encode())
      return True
    key = headers.get("idempotency-key", "")
    now = Asked(
      key, counts.asked[key], len(asked), head[0].split()[1],
      headers, json.loads(body),
    )  # fmt: skip
    asked.append(now)
    counts.asked[key] += 1
    act = script(now)
    await asyncio.sleep(act.delay)
    if act.kind in ("hang", "close"):
      await asyncio.sleep(HANG_SECONDS if act.kind == "hang" else 0)
      return False
    if act.kind in ("status", "raw"):
      await _write(writer, act.status, act.body.encode(), act.headers)
      return True
    if key not in known or not remembers:
      known[key] = json.dumps(answer(now.body, act.body)).encode()
      counts.billed[key] += 1
    if act.kind == "half":
      await _write(writer, 200, known[key], upto=len(known[key]) // 2)
      return False
    await _write(writer, 200, known[key], act.headers)
    counts.delivered[key] += 1
    return True

  async def handle(reader, writer):
    # Cancelled when the server ends, which asyncio would else report.
    ended = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
    with contextlib.suppress(*ended):
      while await one(reader, writer):
        pass
    writer.close()

  return asked, handle


async def _write(writer, status: int, body: bytes, headers=(), upto=None):
  lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
  lines += [f"{name}: {value}" for name, value in headers]
  head = "\r\n".join([*lines, "Content-Type: application/json", "", ""])
  writer.write(head.encode() + body[:upto])
  await writer.drain()


@contextlib.contextmanager
def spawn(delay: float) -> Iterator[str]:
  """A server in a process of its own that answers after a delay; its url."""
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.judge_server", str(delay)],
    cwd=processes.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    yield server.stdout.readline().strip()
  finally:
    server.communicate()


def counted(url: str) -> Counts:
  """The counts of a server in another process."""
  with requests.urlopen(url) as response:
    return Counts(*map(collections.Counter, json.load(response)))


if __name__ == "__main__":
  seconds = float(sys.argv[1])
  with serve(lambda asked: Act(delay=seconds)) as served:
    print(served.url, flush=True)
    sys.stdin.read()
