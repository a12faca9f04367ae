"""The page of annotators under fire: 1,000 votes, killed five times.

As a program it serves the page of a workdir at a port of this machine:

  python -m figures.family_votes WORKDIR PORT
"""

from collections.abc import Callable, Iterator, Sequence
import http.client
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

from figures import rows as rows_lib
from nashmd_jax.annotators import asking, votes
from nashmd_jax.stages import annotate
from tests import browser, small_votes

VOTES, KILLS, NARROW = 1000, 5, 360
KEYS = {
  "ArrowLeft": asking.LEFT,
  "ArrowRight": asking.RIGHT,
  "ArrowDown": asking.TIE,
}
PATIENCE = 120.0  # seconds
ANNOTATOR = "ann"


class Served:
  """The stage as a process at one port, which is killed and started again."""

  def __init__(self, workdir: pathlib.Path):
    """Starts it."""
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      self._port = free.getsockname()[1]
    self._workdir, self.kills = workdir, 0
    self._lock = threading.Lock()
    self.link = f"http://127.0.0.1:{self._port}/"
    self._start()

  def _start(self) -> None:
    """Starts the process, and returns once it answers."""
    module = "figures.family_votes"
    self._run = subprocess.Popen(
      [sys.executable, "-m", module, str(self._workdir), str(self._port)],
      stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
      with socket.socket() as probe:
        if not probe.connect_ex(("127.0.0.1", self._port)):
          return
      time.sleep(0.05)
    raise TimeoutError("the page is not served")

  def crash(self) -> None:
    """Kills the process, and starts it again."""
    with self._lock:
      self.stop()
      self.kills += 1
      self._start()

  def stop(self) -> None:
    """Kills the process for good."""
    self._run.kill()
    self._run.wait()


def write(folder: pathlib.Path) -> pathlib.Path:
  """A workdir with as many questions as there are votes."""
  return small_votes.write(folder, count=1002, certain=120)


def config(port: int):
  """Of `write`: 800 pairs, a hundred of them twice, a hundred golden ones."""
  made = small_votes.config(pairs=800, repeats=0.125, golden=0.125, port=port)
  made.unlock().annotate.annotators = 2  # so that it does not end by itself
  return made.lock()


def by_client(served: Served, answered: Callable[[int], None]) -> list[str]:
  """1,000 votes over HTTP, each sent until it is answered."""
  rng, pressed, client = random.Random(0), [], None
  while True:
    try:
      client = client or small_votes.Client(served.link, ANNOTATOR)
      while not client.is_done():
        place = client.shown["place"]
        if place == len(pressed):
          pressed.append(rng.choice(list(KEYS.values())))
        client.vote(pressed[place], seconds=rng.uniform(1, 9))
        answered(place + 1)
      return pressed
    except (OSError, http.client.HTTPException):
      client = None
      time.sleep(0.05)


def by_keyboard(
  tab: browser.Browser, served: Served, answered: Callable[[int], None]
) -> tuple[list[str], int]:
  """1,000 votes by keys alone in a narrow window.

  Returns: what was chosen, and the px that overflowed at most.
  """
  rng, pressed, overflow = random.Random(1), [], 0
  tab.open(served.link, width=NARROW)
  tab.write(ANNOTATOR)
  tab.press("Enter")
  for place in range(VOTES):
    tab.wait(small_votes.is_shown(place + 1))
    answered(place)
    overflow = max(overflow, tab.evaluate(browser.OVERFLOW))
    key = rng.choice(list(KEYS))
    tab.press(key)
    pressed.append(KEYS[key])
    tab.events.clear()
  tab.wait("!document.getElementById('thanks').hidden")
  return pressed, overflow


def killed(served: Served, seed: int) -> Callable[[int], None]:
  """Called with each place, has the server killed between some of them.

  It is killed some milliseconds later, while further votes are under way, and
  started again.
  """
  rng = random.Random(seed)
  moments = set(rng.sample(range(50, VOTES - 50), KILLS))

  def strike():
    time.sleep(rng.uniform(0, 0.02))
    served.crash()

  def answered(place: int) -> None:
    if place in moments:
      moments.remove(place)
      threading.Thread(target=strike).start()

  return answered


def differences(path: pathlib.Path, pressed: Sequence[str]) -> dict[str, int]:
  """What of the log is not what was pressed."""
  log = votes.open_log(path)
  cast = log.load()
  log.close()
  keys = [vote.key for vote in cast]
  lost = {f"{ANNOTATOR} {place}" for place in range(VOTES)} - set(keys)
  other = 0
  for vote, choice in zip(cast, pressed, strict=False):
    sides = {
      asking.LEFT: vote.choice == vote.shown_left,
      asking.RIGHT: vote.choice not in (vote.shown_left, votes.TIE),
      asking.TIE: vote.choice == votes.TIE,
    }
    other += not sides[choice]
  return {
    "lost": len(lost),
    "doubled": len(keys) - len(set(keys)),
    "other than was pressed": other,
  }


def page_rows() -> Iterator[rows_lib.Row]:
  """What 1,000 votes leave, by a client and by the keyboard of a browser."""
  program = browser.find()
  for seed, name in enumerate(("a client", "the keyboard in Chromium")):
    overflow: int | None = None
    found: dict[str, int | None] = dict.fromkeys(
      ("lost", "doubled", "other than was pressed")
    )
    kills = None
    if not seed or program is not None:
      with tempfile.TemporaryDirectory() as folder:
        workdir = write(pathlib.Path(folder))
        served = Served(workdir)
        try:
          answered = killed(served, seed)
          if not seed:
            pressed = by_client(served, answered)
          else:
            with browser.start(program) as tab:
              pressed, overflow = by_keyboard(tab, served, answered)
        finally:
          served.stop()
        kills = served.kills
        path = workdir / annotate.NAME / annotate.VOTES
        found = differences(path, pressed)
    claim = f"{VOTES:,} votes by {name}"
    yield rows_lib.row(f"{claim}: kills, SIGKILL", kills, "=", KILLS)
    for what, count in found.items():
      yield rows_lib.row(f"{claim}, {what}", count, "=", 0)
    if seed:
      claim = f"{claim}, {NARROW} px wide: px that overflow"
      yield rows_lib.row(claim, overflow, "=", 0)


if __name__ == "__main__":
  annotate.run(
    config(int(sys.argv[2])), pathlib.Path(sys.argv[1]), annotate.NAME
  )
