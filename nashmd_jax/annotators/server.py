"""The page of annotators over HTTP, on this machine unless told otherwise.

Three things are answered: the page, and what it posts as JSON, `next` for a
question and `vote`. On a loopback address the name that a browser asks for must
be of this machine too, so that no page of others can ask through it; on any
other address each request needs the token of the link.
"""

from collections.abc import Callable, Iterator
import contextlib
import hmac
from http import HTTPStatus
from http import server as http_server
import ipaddress
import json
import secrets
import socket
import socketserver
import sys
import threading
from typing import Any, NamedTuple
from urllib import parse

from nashmd_jax import files, mistakes
from nashmd_jax.annotators import asking, page

LOCAL = "localhost"
MOST_BODY = 4096  # bytes
GLANCE = 0.1  # seconds between looks whether to end
PATIENCE = 60.0  # seconds that a connection may say nothing
JSON, HTML = "application/json", "text/html; charset=utf-8"
HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": page.POLICY,
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}
VOTE = ("annotator", "place", "choice", "seconds")
REFUSALS = {
  HTTPStatus.BAD_REQUEST: "a vote is shorter",
  HTTPStatus.FORBIDDEN: "the link is no longer valid; ask for the new one",
  HTTPStatus.NOT_FOUND: "there is no such page",
  HTTPStatus.INTERNAL_SERVER_ERROR: "it could not be stored",
  HTTPStatus.SERVICE_UNAVAILABLE: "the program is about to end",
}


class Serving(NamedTuple):
  """A page that is served.

  Attributes:
    link: to open; with a token if one is needed.
    wait: () returns once the page has no more to do.
    Raises: what kept a vote from being stored.
  """

  link: str
  wait: Callable[[], None]


class _Server(http_server.ThreadingHTTPServer):
  """A thread for each connection."""

  daemon_threads = True

  def __init__(self, host: str, port: int, desk: asking.Desk, enough: int):
    self.desk, self.enough = desk, enough
    self.token = None if is_loopback(host) else secrets.token_urlsafe(16)
    self.over, self.fault, self.closing = threading.Event(), None, False
    if ":" in host:
      self.address_family = socket.AF_INET6
    super().__init__((host, port), _Handler)

  def server_bind(self) -> None:
    """Binds, and asks no network for the name of this machine."""
    socketserver.TCPServer.server_bind(self)

  def handle_error(self, request, client_address) -> None:
    """A browser that has gone is no fault."""
    if not isinstance(sys.exception(), ConnectionError):
      super().handle_error(request, client_address)


class _Handler(http_server.BaseHTTPRequestHandler):
  """One connection."""

  protocol_version = "HTTP/1.1"
  server_version, sys_version = "annotate", ""
  timeout = PATIENCE
  server: _Server

  def do_GET(self) -> None:
    """The page."""
    path, may = self._asked()
    if not may:
      self._refuse(HTTPStatus.FORBIDDEN)
    elif path != "/":
      self._refuse(HTTPStatus.NOT_FOUND)
    else:
      self._send(HTTPStatus.OK, HTML, page.HTML.encode())

  def do_POST(self) -> None:
    """The next question; of a vote, once it is stored."""
    size = self.headers.get("Content-Length", "")
    if not size.isdecimal() or len(size) > 9 or int(size) > MOST_BODY:
      self.close_connection = True  # what it sent is not read
      self._refuse(HTTPStatus.BAD_REQUEST)
      return
    body, (path, may) = self.rfile.read(int(size)), self._asked()
    # A form on a page of others cannot send this type.
    if not may or self.headers.get("Content-Type") != JSON:
      self._refuse(HTTPStatus.FORBIDDEN)
    elif path == "/next":
      self._answer(lambda desk: desk.ask(*_fields(body, "annotator")))
    elif path == "/vote":
      self._answer(lambda desk: desk.answer(*_fields(body, *VOTE)))
    else:
      self._refuse(HTTPStatus.NOT_FOUND)

  def _asked(self) -> tuple[str, bool]:
    """What is asked for, and whether it may be."""
    path, _, query = self.path.partition("?")
    token = dict(parse.parse_qsl(query)).get("token", "")
    mine = self.server.token
    if mine is not None:
      return path, hmac.compare_digest(token.encode(), mine.encode())
    return path, is_loopback(_name(self.headers.get("Host", "")))

  def _answer(self, work: Callable[[asking.Desk], asking.Shown]) -> None:
    if self.server.closing:
      self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
      return
    try:
      shown = work(self.server.desk)
    except asking.Refused as error:
      self._say(HTTPStatus.CONFLICT, {"error": str(error)})
      return
    except mistakes.Mistake as error:
      self.server.fault = error
      self.server.over.set()
      self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
      return
    self._say(HTTPStatus.OK, shown)
    if self.server.desk.finished() >= self.server.enough:
      self.server.over.set()

  def _refuse(self, status: HTTPStatus) -> None:
    self._say(status, {"error": REFUSALS[status]})

  def _say(self, status: HTTPStatus, told: Any) -> None:
    self._send(status, JSON, json.dumps(told).encode())

  def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
    self.send_response(status)
    headers = {"Content-Type": kind, "Content-Length": str(len(body))}
    for name, value in (headers | HEADERS).items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args) -> None:
    """Nothing: names and tokens stand in what is asked for."""


def is_loopback(host: str) -> bool:
  """Whether an address or a name is of this machine alone."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == LOCAL


@contextlib.contextmanager
def serve(
  desk: asking.Desk, *, host: str, port: int, enough: int
) -> Iterator[Serving]:
  """Serves the page for a block.

  Args:
    desk: whose questions are shown.
    host: address to listen at.
    port: 0 for any that is free.
    enough: of how many annotators all answers are waited for.
  Raises: Mistake for an address that cannot be listened at.
  """
  try:
    made = _Server(host, port, desk, enough)
  except (OSError, OverflowError, UnicodeError) as error:
    told = getattr(error, "strerror", None) or mistakes.brief(error)
    raise mistakes.Mistake(
      f"annotate: cannot listen at port {port} of {mistakes.quote(host)} "
      f"({told}); choose another annotate.port, or annotate.host"
    ) from None
  if desk.finished() >= enough:
    made.over.set()
  thread = threading.Thread(
    target=made.serve_forever, args=(GLANCE,), daemon=True
  )
  thread.start()

  def wait():
    made.over.wait()
    if made.fault is not None:
      raise made.fault

  try:
    yield Serving(_link(made), wait)
  finally:
    made.closing = True
    made.shutdown()
    made.server_close()


def _link(made: _Server) -> str:
  host, port = made.server_address[:2]
  if ipaddress.ip_address(host).is_unspecified:
    host = socket.gethostname()
  host = f"[{host}]" if ":" in host else host
  token = f"?token={made.token}" if made.token else ""
  return f"http://{host}:{port}/{token}"


def _name(host: str) -> str:
  """The name in a Host header, without its port."""
  if host.startswith("["):
    return host[1:].partition("]")[0]
  return host.partition(":")[0]


def _fields(body: bytes, *names: str) -> list[Any]:
  try:
    found = files.parse_json(body)
    return [found[name] for name in names]
  except files.UNFIT:
    raise asking.Refused(f"expected JSON of {', '.join(names)}") from None
