"""Who is asked what next: annotators, their questions and the log of votes.

What an annotator is shown of a question is two texts and no more: neither who
wrote them nor whether it is a repeat or a golden one.
"""

from collections.abc import Callable, Sequence
import threading
import time
from typing import Any, NamedTuple

from nashmd_jax import declare, mistakes
from nashmd_jax.annotators import design, votes

LEFT, RIGHT, TIE = "left", "right", "tie"
LONGEST_NAME = 40  # characters
MOST_ANNOTATORS = 1000  # whose questions are kept in memory
MOST_SECONDS = 1e6
Shown = dict[str, Any]


class Refused(ValueError):
  """What a page asked for and cannot have, in one sentence."""


class Desk(NamedTuple):
  """Where annotators get questions and leave votes, from any thread.

  Attributes:
    ask: (annotator) -> the question to show next: "place", "of", "prompt",
      "left" and "right"; of one who has answered all, "place" and "of" alone.
    answer: (annotator, place, choice, seconds) -> the next question. A place
      that is answered stays as it is.
    finished: () -> how many have answered all of their questions.
  Both raise Refused for what no page of ours sends.
  """

  ask: Callable[[Any], Shown]
  answer: Callable[[Any, Any, Any, Any], Shown]
  finished: Callable[[], int]


class _Annotator:
  """An annotator's questions, and how many of them are answered."""

  def __init__(self, questions: Sequence[design.Question]):
    self.questions, self.answered = questions, 0


def open_desk(
  log: votes.Log,
  pairs: Sequence[design.Pair],
  *,
  repeats: float,
  seed: int,
) -> Desk:
  """A desk that goes on where the log ends.

  Args:
    log: open.
    pairs: that are asked about, see `design.choose`.
    repeats, seed: see `design.questions`.
  Raises: Mistake for votes on other questions than these.
  """
  lock, known = threading.Lock(), {}

  def find(name: str) -> _Annotator:
    if name not in known:
      if len(known) >= MOST_ANNOTATORS:
        raise Refused(f"there are {MOST_ANNOTATORS} annotators already")
      known[name] = _Annotator(
        design.questions(pairs, repeats=repeats, seed=seed, annotator=name)
      )
    return known[name]

  for vote in log.load():
    one = find(vote.annotator)
    if not _is_of(vote, one):
      raise mistakes.Mistake(
        f"annotate: the vote {mistakes.quote(vote.key)} is on another question "
        "than is asked now; the votes or the tournament were changed"
      )
    one.answered += 1

  def ask(name):
    _check_name(name)
    with lock:
      return _show(find(name))

  def answer(name, place, choice, seconds):
    _check_name(name)
    with lock:
      one = find(name)
      _check_answer(place, choice, seconds, one.answered)
      if place == one.answered:
        if place == len(one.questions):
          raise Refused("all questions are answered")
        log.keep(_vote(one.questions[place], name, place, choice, seconds))
        one.answered += 1
      return _show(one)

  def finished():
    with lock:
      return sum(x.answered == len(x.questions) for x in known.values())

  return Desk(ask, answer, finished)


def _show(one: _Annotator) -> Shown:
  told = {"place": one.answered, "of": len(one.questions)}
  if one.answered == len(one.questions):
    return told
  asked = one.questions[one.answered]
  left, right = asked.pair.response_a, asked.pair.response_b
  if asked.shown_left == votes.B:
    left, right = right, left
  prompt = asked.pair.record["prompt"]
  return told | {"prompt": prompt, LEFT: left, RIGHT: right}


def _vote(asked: design.Question, name, place, choice, seconds) -> votes.Vote:
  other = {votes.A: votes.B, votes.B: votes.A}[asked.shown_left]
  sides = {LEFT: asked.shown_left, RIGHT: other, TIE: votes.TIE}
  return votes.Vote(
    key=_key(name, place),
    pair=asked.pair.name,
    shown_left=asked.shown_left,
    choice=sides[choice],
    seconds=float(seconds),
    annotator=name,
    is_repeat=asked.is_repeat,
    is_golden=asked.pair.is_golden,
    at=time.time(),
  )


def _key(name: str, place: int) -> str:
  return f"{name} {place}"


def _is_of(vote: votes.Vote, one: _Annotator) -> bool:
  """Whether a vote answers the next question of an annotator."""
  if one.answered == len(one.questions):
    return False
  asked = one.questions[one.answered]
  return vote.key == _key(vote.annotator, one.answered) and (
    vote.pair,
    vote.shown_left,
    vote.is_repeat,
  ) == (asked.pair.name, asked.shown_left, asked.is_repeat)


def _check_name(name: Any) -> None:
  fine = isinstance(name, str) and len(name) <= LONGEST_NAME
  if not (fine and declare.NAME.fullmatch(name)):
    raise Refused(
      f"a name is of letters, digits, _ and -, {LONGEST_NAME} at most"
    )


def _check_answer(place: Any, choice: Any, seconds: Any, answered: int) -> None:
  if type(place) is not int or not 0 <= place <= answered:
    raise Refused("this question was not asked yet")
  if choice not in (LEFT, RIGHT, TIE):
    raise Refused(f"an answer is {LEFT}, {RIGHT} or {TIE}")
  if type(seconds) not in (int, float) or not 0 <= seconds <= MOST_SECONDS:
    raise Refused("the time of an answer is in seconds")
