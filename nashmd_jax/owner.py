"""One run at a time in a workdir, known by a file that it keeps fresh.

`owner.json` says which process of which machine is at work, and is touched
every `BEAT` seconds. It outlives a process that is killed: on the same machine
the next one sees that the process is gone, elsewhere that nothing has touched
the file for `LIMIT` seconds, by the clock of the file system. The processes of
one run share its token. A file that is gone or another's ends the run: so the
others learn that one has failed, and a run that was taken for dead, that it
was. One that a signal ended leaves that behind for them instead.
"""

from collections.abc import Callable
import contextlib
import errno
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any, BinaryIO
import uuid

from nashmd_jax import mistakes

NAME = "owner.json"
BEAT = 2.0  # seconds
LIMIT = 60.0  # seconds
NO_FILE = {errno.EISDIR, errno.ELOOP}
MOST_PID, MOST_BEGAN = 2**31, 2.0**40  # a number; seconds
Lost = Callable[[str, int], None]
STOPPED = "another process of this run was stopped; start it again to go on"
OVER = (
  f"its {NAME} is gone: another process of this run has failed, or the workdir "
  "was removed"
)
# To be the one that takes over, for longer than `LIMIT`; seconds in between.
TRIES, PAUSE = 1500, 0.05
NUMBERS = range(65)  # of signals, and 0


class Ownership:
  """A run's share in a workdir, from `take` or `join` to `leave`."""

  def __init__(
    self,
    folder: pathlib.Path,
    token: str,
    *,
    beats: bool,
    lost: Lost,
  ):
    """Starts to look after the file.

    Args:
      folder: the workdir.
      token: of the run.
      beats: whether this process touches it.
      lost: called once, in another thread, when the file is gone, another's or
        left by a signal: with a sentence, and the signal's number or 0.
    """
    self.token = token
    self._path, self._beats, self._lost = folder / NAME, beats, lost
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._look, daemon=True)
    self._thread.start()

  def _look(self) -> None:
    missing = 0
    while not self._over.wait(BEAT):
      try:
        found = _load(self._path)
        if self._beats and found.get("token") == self.token:
          os.utime(self._path)
      except FileNotFoundError:
        missing += 1
        if missing == 2:  # not the moment in which a file is exchanged
          self._lost(f"{self._path.parent}: {OVER}", 0)
          return
        continue
      except OSError:
        continue  # a file system that does not answer now may do so soon
      missing = 0
      if found.get("token") not in (self.token, None):
        self._lost(f"{self._path}: {_who(found)} has taken over", 0)
        return
      if number := found.get("stopped", 0):
        self._lost(STOPPED, number)
        return

  def is_over(self) -> bool:
    """Whether the file is gone or another's."""
    try:
      return _load(self._path).get("token") != self.token
    except FileNotFoundError:
      return True
    except OSError:
      return False

  def stopped(self) -> int:
    """The number of the signal that ended another process of the run, or 0."""
    with contextlib.suppress(OSError):
      found = _load(self._path)
      if found.get("token") == self.token:
        return found.get("stopped", 0)
    return 0

  def leave(self, stopped: int = 0) -> None:
    """Removes the file, if it is still this run's; may be called twice.

    Args:
      stopped: number of the signal that ends this process, for the others of
        the run to read in the file, which then stays; 0 for none.
    """
    self._over.set()
    with contextlib.suppress(OSError):
      found = _load(self._path)
      if found.get("token") != self.token:
        return
      if not stopped:
        self._path.unlink()
      elif "stopped" not in found:
        partial = self._path.with_name(f".{NAME}-{uuid.uuid4().hex}")
        partial.write_text(json.dumps({**found, "stopped": stopped}))
        os.replace(partial, self._path)


def take(
  folder: pathlib.Path,
  *,
  lost: Lost,
  waits: Callable[[str], None],
) -> Ownership:
  """Makes this process the owner of a workdir.

  Args:
    folder: exists.
    lost: see `Ownership`.
    waits: called with a sentence before it waits to see whether another run
      is alive.
  Raises: Mistake if one is.
  """
  token, path = uuid.uuid4().hex, folder / NAME
  mine = json.dumps({"token": token, **_myself(folder)})
  for _ in range(TRIES):
    if _create(path, mine):
      return Ownership(folder, token, beats=True, lost=lost)
    try:
      found = _load(path)
      alive = _is_alive(folder, found, waits)
    except FileNotFoundError:
      continue
    except OSError as error:
      if error.errno not in NO_FILE:
        raise
      raise mistakes.Mistake(
        f"{path}: cannot be read ({error.strerror}); see that no run is at "
        "work here, and remove it"
      ) from None
    if alive:
      raise mistakes.Mistake(
        f"{folder}: {_who(found)} is at work here, since "
        f"{span(time.time() - found.get('began', time.time()))}; wait until "
        "it has ended, stop it, or choose another --workdir"
      )
    if _replace(path, found, mine):
      return Ownership(folder, token, beats=True, lost=lost)
  raise mistakes.Mistake(f"{path}: could not be taken over; remove it by hand")


def at_work(folder: pathlib.Path) -> str | None:
  """Which process is at work in a workdir, in words; None if none is.

  Of one on another machine it says when it gave a sign of life.
  """
  path = folder / NAME
  try:
    found, touched = _load(path), _touched(path)
  except OSError:
    return None
  alive = _seen_alive(folder, found)
  if alive is None:
    return f"{_who(found)} was at work {span(time.time() - touched)} ago"
  since = span(time.time() - found.get("began", time.time()))
  return f"{_who(found)} is at work, since {since}" if alive else None


def join(folder: pathlib.Path, token: str, *, lost: Lost) -> Ownership:
  """Makes this process one of those of the run that owns a workdir."""
  return Ownership(folder, token, beats=False, lost=lost)


def _create(path: pathlib.Path, text: str) -> bool:
  """Writes a file unless there is one; one process of all succeeds."""
  try:
    number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
  except FileExistsError:
    return False
  with os.fdopen(number, "w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(number)
  return True


def _opened(path: pathlib.Path) -> BinaryIO:
  """The file, open; a pipe in its place is empty and not waited for."""
  return open(path, "rb", opener=lambda x, how: os.open(x, how | os.O_NONBLOCK))


def _load(path: pathlib.Path) -> dict[str, Any]:
  """What the file says; nothing if it is not whole."""
  try:
    with _opened(path) as file:
      found = json.loads(file.read().decode())
  except (ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) and _is_whole(found) else {}


def _is_whole(found: dict[str, Any]) -> bool:
  """Whether what is said of a process can be so."""
  pid, began = found.get("pid", 1), found.get("began", 0.0)
  known = type(pid) is int and type(began) in (int, float)
  known = known and isinstance(found.get("host", ""), str)
  known = known and found.get("stopped", 0) in NUMBERS
  return known and 0 < pid < MOST_PID and abs(began) < MOST_BEGAN


def _myself(folder: pathlib.Path) -> dict[str, Any]:
  """What tells this process, its machine and its workdir from others."""
  place = folder.stat()
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "began": time.time(),
    "machine": _machine(),
    "start": _start(os.getpid()),
    "folder": [place.st_dev, place.st_ino],
  }


def _machine() -> str:
  """The machine, and the part of it that numbers processes as we do."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    numbers = os.stat("/proc/self/ns/pid").st_ino
  except OSError:
    return socket.gethostname()
  return f"{socket.gethostname()} {boot} {numbers}"


def _start(pid: int) -> str | None:
  """When a process of this machine began; None if it is no more."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
  except FileNotFoundError:
    if pathlib.Path("/proc/self/stat").exists():
      return None
    try:
      os.kill(pid, 0)
    except ProcessLookupError:
      return None
    except PermissionError:
      pass
    return ""
  fields = text.rpartition(")")[2].split()
  return None if fields[0] in "ZX" else fields[19]


def _is_alive(
  folder: pathlib.Path, found: dict[str, Any], waits: Callable[[str], None]
) -> bool:
  """Whether the run that a file is of goes on.

  Raises: FileNotFoundError if the file goes meanwhile.
  """
  seen = _seen_alive(folder, found)
  if seen is not None:
    return seen
  path = folder / NAME
  first = _touched(path)
  if _now(folder) - first > LIMIT:
    return False
  waits(f"{folder}: waits up to {LIMIT:.0f} s to see if {_who(found)} is alive")
  until = time.monotonic() + LIMIT
  while time.monotonic() < until:
    time.sleep(BEAT / 2)
    if _touched(path) != first:
      return True
  return False


def _seen_alive(folder: pathlib.Path, found: dict[str, Any]) -> bool | None:
  """`_is_alive`, or None for what this machine cannot see."""
  if "stopped" in found:
    return False
  me = _myself(folder)
  if found.get("machine") != me["machine"]:
    return None
  # A copy of a workdir has the file, and not its owner.
  same = found.get("folder") == me["folder"]
  return same and _start(found.get("pid", -1)) == found.get("start")


def _touched(path: pathlib.Path) -> float:
  """When a file was touched last; opened, so that a network is asked."""
  with _opened(path) as file:
    return os.fstat(file.fileno()).st_mtime


def _now(folder: pathlib.Path) -> float:
  """The time by the clock of a file system."""
  mark = folder / f".{NAME}-{uuid.uuid4().hex}"
  mark.touch()
  try:
    return mark.stat().st_mtime
  finally:
    mark.unlink()


def _replace(path: pathlib.Path, dead: dict[str, Any], text: str) -> bool:
  """Puts a file in the place of a dead run's; one process of all succeeds.

  It does so under a second file, which one process at a time can make, so that
  what it has seen of the first is still so.
  """
  guard = path.with_name(f".{NAME}-taken")
  if not _create(guard, text):
    with contextlib.suppress(OSError):
      if _now(path.parent) - _touched(guard) > LIMIT:  # its maker was killed
        guard.unlink()
    time.sleep(PAUSE)
    return False
  with contextlib.suppress(FileNotFoundError):
    if _load(path) == dead:
      os.replace(guard, path)
      return True
  guard.unlink(missing_ok=True)
  return False


def _who(found: dict[str, Any]) -> str:
  if not found:
    return "a process that has not said its name yet"
  host = mistakes.some([found.get("host")])
  return f"process {found.get('pid')} on {host}"


def span(seconds: float) -> str:
  """A time in its largest unit: "5 s", "3 min", "2 h", "4 days"."""
  for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
    if seconds >= 2 * size:
      return f"{seconds / size:.0f} {unit}"
  return f"{max(seconds, 0):.0f} s"
