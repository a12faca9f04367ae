"""A small model server over the OpenAI HTTP API, around a model of ours.

Chat and completions, greedy, with log-probabilities of the most probable
tokens, as vLLM serves them.
"""

from collections.abc import Callable, Iterator
import contextlib
from http import server
import json
import pathlib
import threading
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers

from nashmd_jax import models

PROMPT, RESPONSE = 256, 8  # most tokens


class Speaker(NamedTuple):
  """A model and its tokens as text.

  Attributes:
    encode: text -> token ids.
    decode: token ids -> text, with its spaces.
    log_probs: (prompt ids, response ids) -> f64[V] of the next token.
  """

  encode: Callable[[str], list[int]]
  decode: Callable[[list[int]], str]
  log_probs: Callable[[list[int], list[int]], np.ndarray]


def make_speaker(
  model: models.LanguageModel, params: Any, path: pathlib.Path
) -> Speaker:
  """A model with the tokenizer.json at a path."""
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  lock = threading.Lock()

  def padded(ids, length):
    if len(ids) > length:
      raise ValueError(f"{len(ids)} tokens, expected at most {length}")
    return np.pad(np.array(ids, np.int32), (0, length - len(ids)))[None]

  def log_probs(prompt, response):
    mask = np.arange(PROMPT)[None] < len(prompt)
    args = padded(prompt, PROMPT), mask, padded(response, RESPONSE)
    with lock:
      logits = model.next_logits(params, *args, np.array([len(response)]))
    return np.asarray(jax.nn.log_softmax(logits[0]), np.float64)

  return Speaker(
    encode=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
    decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
    log_probs=log_probs,
  )


def chat_text(messages: list[dict[str, str]]) -> str:
  """The prompt of a chat."""
  return "\n".join(f"{one['role']}: {one['content']}" for one in messages)


def answer(speaker: Speaker, body: dict[str, Any]) -> dict[str, Any]:
  """What the model says to a request."""
  chat = "messages" in body
  prompt = speaker.encode(
    chat_text(body["messages"]) if chat else body["prompt"]
  )
  written, places = [], []
  count = (body.get("top_logprobs") if chat else body.get("logprobs")) or 0
  for _ in range(body["max_tokens"]):
    log_probs = speaker.log_probs(prompt, written)
    top = np.argsort(-log_probs)[: max(count, 1)]
    written.append(int(top[0]))
    places.append([(speaker.decode([int(i)]), log_probs[i]) for i in top])
  tokens = [speaker.decode([one]) for one in written]
  text = speaker.decode(written)
  if chat:
    content = [
      {"token": token, "logprob": place[0][1], "top_logprobs": [
        {"token": t, "logprob": p} for t, p in place]}
      for token, place in zip(tokens, places, strict=True)
    ]  # fmt: skip
    logprobs = {"content": content}
    choice = {"message": {"role": "assistant", "content": text}}
  else:
    # Tokens of equal text are one entry, as in the API.
    logprobs = {"tokens": tokens, "top_logprobs": [dict(p) for p in places]}
    choice = {"text": text}
  usage = {"total_tokens": len(prompt) + len(written)}
  choice |= {"index": 0, "logprobs": logprobs if count else None}
  return {"choices": [choice], "usage": usage}


@contextlib.contextmanager
def serve(speaker: Speaker) -> Iterator[str]:
  """A server in a thread; its url."""

  class Handler(server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
      body = self.rfile.read(int(self.headers["Content-Length"]))
      said = json.dumps(answer(speaker, json.loads(body))).encode()
      self.send_response(200)
      self.send_header("Content-Length", str(len(said)))
      self.end_headers()
      self.wfile.write(said)

    def log_message(self, *args):
      del args

  listening = server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
  thread.start()
  try:
    yield f"http://127.0.0.1:{listening.server_port}/v1"
  finally:
    listening.shutdown()
    thread.join()
    listening.server_close()
