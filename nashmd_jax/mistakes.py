"""What a user got wrong, as a type of its own, and all of it at once.

Raised where input is read: flags, configs, files, folders. The program answers
a Mistake with its sentence and exit status 2. What a disk or another machine
failed to do is a Fault: a sentence too, and status 1. Any other error is the
program's own and keeps its traceback.
"""

from collections.abc import Iterator, Sequence
import contextlib
import reprlib
from typing import Any

MOST_QUOTED = 200  # characters
MOST_NAMES, LONGEST_NAME = 3, 100  # told of a kind, characters of each
LONGEST_PATH = 300  # characters

REPR = reprlib.Repr()
REPR.maxstring = 60


class Mistake(ValueError):
  """A user's mistake: what was got, where, and what to do, in one sentence.

  Attributes:
    sentences: one for each mistake that was found.
  """

  def __init__(self, *sentences: str):
    """Takes one sentence for each mistake."""
    super().__init__("\n".join(sentences))
    self.sentences = sentences


class Fault(RuntimeError):
  """What failed outside of the program, such as a full disk, in one sentence.

  The same command goes on once its cause is gone.
  """


def quote(value: Any, most: int = MOST_QUOTED) -> str:
  """A value as a sentence shows it: its repr, of so many characters at most."""
  try:
    return bounded(REPR.repr(value), most)
  except ValueError:  # more digits than Python writes
    return "an int too large to show"


def brief(error: BaseException) -> str:
  """What an error says, in one line of at most `MOST_QUOTED` characters."""
  return bounded(plain(str(error)[: 2 * MOST_QUOTED]))


def plain(text: str) -> str:
  """A text in one line, in which nothing steers a terminal."""
  text = " ".join(text.split())
  return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def some(
  names: Sequence[Any], most: int = MOST_NAMES, between: str = ", "
) -> str:
  """The first of some names that were found, and how many more there are."""
  told = between.join(_shown(str(name)) for name in names[:most])
  more = len(names) - most
  return f"{told} and {more} more" if more > 0 else told


def _shown(name: str) -> str:
  """A name as it is, or in quotes if it is not printable."""
  return bounded(name if name.isprintable() else quote(name), LONGEST_NAME)


def bounded(text: str, most: int = MOST_QUOTED) -> str:
  """A text, or its beginning, of so many characters at most."""
  return text if len(text) <= most else f"{text[: most - 1]}…"


class Findings:
  """Mistakes that are collected, so that all are told in one go."""

  def __init__(self):
    """Starts with none."""
    self.sentences: list[str] = []

  @contextlib.contextmanager
  def collect(self, where: str = "", between: str = ": ") -> Iterator[None]:
    """Keeps the sentence of a ValueError that the block raises.

    Args:
      where: put in front of it, such as "sft".
      between: what stands between the two.
    """
    try:
      yield
    except ValueError as error:
      found = error.sentences if isinstance(error, Mistake) else (str(error),)
      prefix = f"{where}{between}" if where else ""
      self.sentences += [f"{prefix}{sentence}" for sentence in found]

  def tell(self) -> None:
    """Raises Mistake if anything was found, each sentence once."""
    if self.sentences:
      raise Mistake(*dict.fromkeys(self.sentences))
