"""A served language model as a judge of text, over the OpenAI HTTP API.

What is asked, and what it comes to, lives here. How questions are put is in
`questions`, who asks them when in `rounds`, one request in `endpoint`, and the
answers in `answer_cache`.
"""

import asyncio
from collections.abc import Callable, Sequence
import pathlib
import threading
from typing import NamedTuple
import weakref

import aiolimiter
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.data import records as records_lib
from nashmd_jax.judges import (
  answer_cache,
  endpoint,
  questions,
  rounds,
  served_settings,
)

SECTION = served_settings.SECTION
# What an answer depends on; the other settings say how it is come by.
ANSWERED = questions.Wording._fields
Settings = served_settings.Settings
check = served_settings.check
BudgetSpent = rounds.BudgetSpent
Texts = Sequence[str]
Records = Sequence[records_lib.Record]


class Served(NamedTuple):
  """A text judge that also tells what its answers cost.

  Attributes:
    judge: (records, responses, opponents) -> P(y ≻ y′ | x), f64[N]; NaN where
      it could not be judged. Raises Mistake, and BudgetSpent.
    costs: (records, responses, opponents) -> "judge_calls" and "judge_tokens",
      f64[N] each: what the answers about each pair cost when they were asked.
      A pair without an answer cost nothing, nor does a question once it was
      counted for an earlier pair.
  """

  judge: Callable[[Records, Texts, Texts], np.ndarray]
  costs: Callable[[Records, Texts, Texts], dict[str, np.ndarray]]

  def __call__(
    self, records: Records, responses: Texts, opponents: Texts
  ) -> np.ndarray:
    """Judges; see `judge`."""
    return self.judge(records, responses, opponents)


def make_judge(
  *,
  cache: pathlib.Path,
  url: str | None,
  model: str | None,
  form: str,
  system: str | None,
  prompt: str,
  answers: Sequence[str],
  top_logprobs: int,
  max_tokens: int,
  orders: str,
  timeout_seconds: float,
  retries: int,
  connections: int,
  per_minute: float,
  budget_calls: int,
  budget_tokens: int,
  most_failed: float,
  key_variable: str | None,
) -> Served:
  """A judge that asks a server, and keeps every answer.

  It may be called from any thread; calls wait for one another.

  Args:
    cache: file of the answers.
    url, ...: see `served_settings.Settings`.
  Raises: Mistake for settings that `check` refuses, and for a bad file.
  """
  settings = Settings(
    url=url, model=model, form=form, system=system, prompt=prompt,
    answers=answers, top_logprobs=top_logprobs, max_tokens=max_tokens,
    orders=orders, timeout_seconds=timeout_seconds, retries=retries,
    connections=connections, per_minute=per_minute, budget_calls=budget_calls,
    budget_tokens=budget_tokens, most_failed=most_failed,
    key_variable=key_variable,
  )  # fmt: skip
  check(**settings._asdict())
  return _make_served(
    rounds.Line(
      settings,
      served_settings.wording(settings),
      endpoint.make_endpoint(settings),
      answer_cache.open_cache(cache),
      aiolimiter.AsyncLimiter(1, 60 / per_minute) if per_minute else None,
    )
  )


def _make_served(line: rounds.Line) -> Served:
  # One loop for all calls keeps their connections; it runs during calls alone.
  runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
  lock = threading.Lock()

  def plan(records, responses, opponents):
    rows = zip(records, responses, opponents, strict=True)
    return [
      questions.ask(line.wording, row["prompt"], response, opponent)
      for row, response, opponent in rows
    ]

  def judge(records, responses, opponents):
    pairs = plan(records, responses, opponents)
    wanted = {q.key: q for pair in pairs for q in pair.questions}
    failures = {}
    with lock:
      known = line.cache.look_up(wanted)
      missing = [q for key, q in wanted.items() if key not in known]
      if missing:
        most = _most_lost(pairs, line.settings.most_failed)
        most -= len(_empty(known))
        done = runner.run(rounds.ask_all(line, missing, most))
        known, failures = known | done.answers, done.failures
    _check_failed(pairs, known, failures, line.settings.most_failed)
    return np.array([_win_prob(pair, known) for pair in pairs], np.float64)

  def costs(records, responses, opponents):
    pairs = plan(records, responses, opponents)
    with lock:
      known = line.cache.look_up({q.key for p in pairs for q in p.questions})
    return _costs(pairs, known)

  weakref.finalize(judge, _close, runner, line)
  return Served(judge, costs)


def _close(runner: asyncio.Runner, line: rounds.Line) -> None:
  """Closes what a judge had, wherever the collector comes upon it."""

  def close():
    if runner.get_loop().is_running():
      return  # the program ends in the middle of a call
    try:
      runner.run(endpoint.close(line.server))
    finally:
      runner.close()
      line.cache.close()

  try:
    asyncio.get_running_loop()
  except RuntimeError:
    close()
    return
  # In the middle of another judge's call; a thread runs one loop at a time.
  thread = threading.Thread(target=close)
  thread.start()
  thread.join()


def _win_prob(pair: questions.Pair, known) -> float:
  answers = [known.get(question.key) for question in pair.questions]
  return questions.win_prob(pair, [a and a.win_prob for a in answers])


def _costs(pairs: Sequence[questions.Pair], known) -> dict[str, np.ndarray]:
  left, answered = dict(known), []
  for pair in pairs:
    told = (left.pop(question.key, None) for question in pair.questions)
    answered.append([answer for answer in told if answer is not None])
  calls = [sum(one.calls for one in answers) for answers in answered]
  tokens = [sum(one.tokens for one in answers) for answers in answered]
  return {
    "judge_calls": np.array(calls, np.float64),
    "judge_tokens": np.array(tokens, np.float64),
  }


def _empty(known) -> set[str]:
  """The keys of the answers that say nothing."""
  return {key for key, answer in known.items() if answer.win_prob is None}


def _most_lost(pairs: Sequence[questions.Pair], most_failed: float) -> float:
  """Lost questions that are surely not too many lost pairs, of any."""
  each = max(len(pair.questions) for pair in pairs)
  return each * most_failed * len(pairs)


def _check_failed(pairs, known, failures, most_failed: float) -> None:
  """Raises Mistake if too many of the pairs could not be judged."""
  empty = _empty(known)
  lost = empty | failures.keys()
  failed = sum(any(q.key in lost for q in pair.questions) for pair in pairs)
  if failed <= most_failed * len(pairs):
    return
  why = f"{len(empty)} answers name neither or both of {SECTION}.answers"
  if failures:
    *_, last = failures.values()
    why += f" and {len(failures)} questions have none, the last one for: {last}"
  raise mistakes.Mistake(
    f"{SECTION}.most_failed: {failed} of {len(pairs)} pairs could not be "
    f"judged, more than the share {most_failed:g} ({why}); all answers are kept"
  )
