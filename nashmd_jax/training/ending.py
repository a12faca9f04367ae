"""How a process ends: on a signal, after a failure, and never late.

The first SIGTERM or SIGINT asks for a save, the second ends the process at
once. A handler in Python runs only where Python does; a thread that reads the
signals as they come also sees those that meet a compilation, before which
there is nothing to save. Whatever else keeps a process from ending, such as a
thread that waits for another host, is not waited for.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

PREEMPTED, INTERRUPTED = 75, 130
STATUS = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}
SECONDS = 6.0  # that an end in order may take
AT_START = 4.0  # seconds of the same, where there is nothing to lose
AGAIN = 1.0  # seconds after which a signal is a second one
LAST = 1.0  # seconds for what is done last of all


class Preempted(BaseException):
  """A signal came and everything worth keeping is saved: start the run again.

  No `Exception`, so that no library takes it for a fault of its own.
  """


class _Asked:
  """What a signal asked for, and what is to be heeded.

  Attributes:
    number: of the signal that came, 0 for none.
    since: when it was heard first, by the monotonic clock.
    interrupts: whether it may interrupt what Python runs now.
    holds: whether there is anything to lose that a save would keep.
    told: end of the pipe that signals are written to.
    last: what is done before the process is gone.
  """

  number = 0
  since: float | None = None
  interrupts = False
  holds = False
  told: int | None = None
  last: list[Callable[[], None]] = []


def listen() -> None:
  """From here on signals ask for a save; see the top.

  In the main thread; again after something else may have taken the signals.
  What the process was started to ignore, as a shell has it ignore SIGINT in the
  background, it ignores.
  """
  for number in STATUS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _on_signal)
  if _Asked.told is None:
    heard, _Asked.told = os.pipe()
    os.set_blocking(_Asked.told, False)
    threading.Thread(target=_read, args=(heard,), daemon=True).start()
  signal.set_wakeup_fd(_Asked.told, warn_on_full_buffer=False)


def _read(heard: int) -> None:
  while True:
    for number in os.read(heard, 64):
      if number in STATUS:
        _hear(number)


def _hear(number: int) -> None:
  """Takes a signal, whatever the main thread is at."""
  now = time.monotonic()
  if _Asked.since is None:
    _Asked.since, _Asked.number = now, _Asked.number or number
    if not _Asked.holds:
      end_within(AT_START, status(), f"{said()}; start it again to go on")
    elif number == signal.SIGINT:
      tell("saves as soon as the state is whole; once more ends it at once")
  elif now - _Asked.since > AGAIN:
    leave(128 + number, f"a second {signal.Signals(number).name} ended it")


def _on_signal(number, frame) -> None:
  del frame
  _Asked.number = _Asked.number or number
  if _Asked.interrupts:
    _Asked.interrupts = False
    raise Preempted(said())


def asked() -> int:
  """The number of the signal that came to this process, 0 for none."""
  return _Asked.number


def said(number: int = 0) -> str:
  """What was asked for, in words; number is that of the signal if known."""
  number = number or _Asked.number or signal.SIGTERM
  return f"stopped on {signal.Signals(number).name}"


def status() -> int:
  """The exit status after a signal."""
  return STATUS.get(_Asked.number, PREEMPTED)


def agree(number: int) -> None:
  """Takes the signal that came to another process for one's own."""
  _Asked.number = number


@contextlib.contextmanager
def holding() -> Iterator[Callable[[], None]]:
  """Gives a function to call when there is something to lose.

  From then on, to the end of the block, a signal waits until it is asked for.
  """

  def hold():
    _Asked.holds = True

  try:
    yield hold
  finally:
    _Asked.holds = False


def interruptible(work: Callable[[], Any]) -> Any:
  """Does work that a signal may interrupt, which leaves files whole."""
  _Asked.interrupts = True
  try:
    if _Asked.number:
      raise Preempted(said())
    return work()
  finally:
    _Asked.interrupts = False


def tell(sentence: str) -> None:
  """Says a sentence to the user, whichever process this is."""
  print(f"nashmd_jax: {sentence}", file=sys.stderr, flush=True)


def at_last(work: Callable[[], None]) -> None:
  """Has work done also where the process ends by `leave`."""
  _Asked.last.append(work)


def end_within(seconds: float, code: int, sentence: str | None = None) -> None:
  """Ends the process unless it has ended by then; see `leave`."""
  timer = threading.Timer(seconds, leave, (code, sentence))
  timer.daemon = True
  timer.start()


@contextlib.contextmanager
def in_time() -> Iterator[None]:
  """Around all that a program does: no thread that hangs outlives it."""
  code = 1
  try:
    yield
    code = 0
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(bool(end.code))
    raise
  except KeyboardInterrupt:  # of before `listen`
    tell(said(signal.SIGINT))
    code = INTERRUPTED
    raise SystemExit(code) from None
  finally:
    end_within(SECONDS, code)


def leave(code: int, sentence: str | None = None) -> NoReturn:
  """Ends the process here and now, whatever its threads wait for."""

  def last():
    if sentence:
      tell(sentence)
    for work in _Asked.last:
      with contextlib.suppress(Exception):
        work()
    sys.stdout.flush()
    sys.stderr.flush()

  thread = threading.Thread(target=last, daemon=True)
  thread.start()
  thread.join(LAST)  # a disk or a pipe may never answer
  os._exit(code)
