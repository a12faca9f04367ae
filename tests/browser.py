"""Headless Chromium, driven over a pipe: a page as its reader has it."""

import base64
from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any
import unittest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
  "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
  "--disable-extensions", "--disable-background-networking",
  "--disable-dev-shm-usage",
  "--remote-debugging-pipe", "--hide-scrollbars", "about:blank",
)  # fmt: skip
PATIENCE = 60.0  # seconds
ABOVE = 20  # where the ends of its pipes are numbered from
KEYS = {
  "Tab": 9,
  "Enter": 13,
  "ArrowLeft": 37,
  "ArrowRight": 39,
  "ArrowDown": 40,
}
# The lowest contrast of any text with what it stands on, and that text. Every
# part that is folded is opened first.
CONTRAST = """
(() => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const parts = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    if (!text.startsWith("color(srgb")) return found;
    return found.map((x, i) => (i < 3 ? 255 * x : x));
  };
  const light = (text) => {
    const [r, g, b] = parts(text).map((x) => {
      const one = x / 255;
      return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const found = getComputedStyle(one).backgroundColor;
      const [, , , alpha = 1] = parts(found);
      if (alpha > 0) return found;
    }
    return "rgb(255, 255, 255)";
  };
  let lowest = [21, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const holder = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim();
    if (!text || !holder.getClientRects().length) continue;
    const look = getComputedStyle(holder);
    const ink = holder instanceof SVGElement ? look.fill : look.color;
    const both = [light(ink), light(ground(holder))].sort((a, b) => b - a);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, text.slice(0, 40)];
  }
  return lowest;
})()
"""
OVERFLOW = """
(() => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const page = document.documentElement;
  return page.scrollWidth - page.clientWidth;
})()
"""


def find() -> str | None:
  """The program, if there is one on the path."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One tab; see Chromium's DevTools protocol for the methods.

  Attributes:
    events: that it told of since the page was opened.
  """

  def __init__(self, read: int, write: int):
    self._read, self._write = read, write
    self._last, self._rest, self._session = 0, b"", {}
    self.events: list[dict[str, Any]] = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    opened = self.call("Target.attachToTarget", targetId=target, flatten=True)
    self._session = {"sessionId": opened["sessionId"]}
    for part in ("Page", "Runtime", "Log", "Network"):
      self.call(f"{part}.enable")

  def call(self, method: str, **params) -> dict[str, Any]:
    """What a method answers; raises RuntimeError for what it refuses."""
    self._last += 1
    asked = {"id": self._last, "method": method, "params": params}
    os.write(self._write, json.dumps(asked | self._session).encode() + b"\0")
    while True:
      told = self._next()
      if told.get("id") == self._last:
        if "error" in told:
          raise RuntimeError(f"{method}: {told['error']}")
        return told["result"]

  def open(
    self, page: pathlib.Path | str, *, width: int, dark: bool = False
  ) -> None:
    """Opens a file or an address in a window of some width, in a scheme."""
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width, height=800, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": "light"}
    scheme |= {"value": "dark"} if dark else {}
    self.call("Emulation.setEmulatedMedia", features=[scheme])
    self.events.clear()
    url = page if isinstance(page, str) else page.absolute().as_uri()
    self.call("Page.navigate", url=url)
    while not any(x["method"] == "Page.loadEventFired" for x in self.events):
      self._next()

  def wait(self, expression: str) -> None:
    """Returns once an expression of JavaScript holds."""
    until = time.monotonic() + PATIENCE
    while not self.evaluate(expression):
      if time.monotonic() > until:
        raise TimeoutError(expression)
      time.sleep(0.01)

  def evaluate(self, expression: str) -> Any:
    """The value of an expression of JavaScript."""
    found = self.call(
      "Runtime.evaluate", expression=expression, returnByValue=True
    )
    if "exceptionDetails" in found:
      raise RuntimeError(found["exceptionDetails"])
    return found["result"].get("value")

  def press(self, key: str) -> None:
    """A key of `KEYS`, down and up."""
    one = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
    down = {"type": "keyDown", "text": "\r"} if key == "Enter" else {}
    for kind in ({"type": "rawKeyDown"} | down, {"type": "keyUp"}):
      self.call("Input.dispatchKeyEvent", **kind, **one)

  def write(self, text: str) -> None:
    """Text into what has the focus."""
    self.call("Input.insertText", text=text)

  def shoot(self, path: pathlib.Path) -> None:
    """The whole page as a PNG."""
    size = self.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "scale": 1} | {
      name: size[name] for name in ("width", "height")
    }
    found = self.call(
      "Page.captureScreenshot", captureBeyondViewport=True, clip=clip
    )
    path.write_bytes(base64.b64decode(found["data"]))

  def errors(self) -> list[str]:
    """What stands in the console as an error, and exceptions."""
    found = []
    for event in self.events:
      params = event.get("params", {})
      kind = params.get("type", params.get("entry", {}).get("level"))
      if event["method"] == "Runtime.exceptionThrown" or kind == "error":
        found.append(json.dumps(params))
    return found

  def requests(self) -> list[str]:
    """What was asked for beside the page itself and what it holds."""
    asked = [
      event["params"]["request"]["url"]
      for event in self.events
      if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked[1:] if not url.startswith("data:")]

  def _next(self) -> dict[str, Any]:
    """The next message; an event is kept."""
    until = time.monotonic() + PATIENCE
    while b"\0" not in self._rest:
      left = max(0.0, until - time.monotonic())
      if not select.select([self._read], [], [], left)[0]:
        raise TimeoutError("the browser says nothing")
      got = os.read(self._read, 2**20)
      if not got:
        raise EOFError("the browser has gone")
      self._rest += got
    message, _, self._rest = self._rest.partition(b"\0")
    told = json.loads(message)
    if "method" in told:
      self.events.append(told)
    return told


@contextlib.contextmanager
def start(program: str) -> Iterator[Browser]:
  """A browser with a profile of its own, gone at the end of the block."""
  ends = [_moved(end) for _ in range(2) for end in os.pipe()]
  theirs, ours = (ends[0], ends[3]), (ends[2], ends[1])
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    process = subprocess.Popen(
      ["bash", "-c", f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}',
       program, f"--user-data-dir={profile}", *FLAGS],
      pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for end in theirs:
      os.close(end)
    try:
      yield Browser(*ours)
    finally:
      process.terminate()
      process.wait()
      for end in ours:
        os.close(end)


def open_for(case: type[unittest.TestCase]) -> Browser:
  """A browser for all tests of a class, which skips them where there is none.

  Raises: SkipTest.
  """
  program = find()
  if program is None:
    raise unittest.SkipTest(f"none of {NAMES} is on the path")
  return case.enterClassContext(start(program))


def _moved(end: int) -> int:
  """An end of a pipe under a number that no shell takes for its own."""
  moved = fcntl.fcntl(end, fcntl.F_DUPFD, ABOVE)
  os.close(end)
  return moved
