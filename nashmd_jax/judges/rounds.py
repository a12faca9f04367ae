"""The questions of one call: workers, retries, rate and budget."""

import asyncio
from collections.abc import Awaitable, Sequence
import dataclasses
import random
from typing import NamedTuple

import aiolimiter
import tenacity

from nashmd_jax import mistakes
from nashmd_jax.judges import (
  answer_cache,
  endpoint,
  questions,
  served_settings,
)

SECTION = served_settings.SECTION
BACK_OFF_SECONDS = 0.5  # after a first failure; doubled after each further one
MOST_BACK_OFF_SECONDS = 60.0
MOST_TEXT = 500  # characters of an answer that are kept


class BudgetSpent(mistakes.Mistake):
  """The budget is spent; what was answered is kept."""


class Halted(Exception):
  """A question that is left, since the judge stops."""


class Line(NamedTuple):
  """What questions go through, as long as the judge lives.

  Attributes:
    settings: of the judge.
    wording: of its questions.
    server: where they go.
    cache: where answers are kept.
    limiter: of requests a minute; None for no limit.
  """

  settings: served_settings.Settings
  wording: questions.Wording
  server: endpoint.Endpoint
  cache: answer_cache.Cache
  limiter: aiolimiter.AsyncLimiter | None


@dataclasses.dataclass
class Round:
  """What the workers of one call share.

  Attributes:
    answers: by the keys of their questions.
    failures: the last one of each question that was given up.
    most_lost: questions that may stay without a judgment.
    lost: those that do.
    halt: set once nothing more is to be sent.
    mistake: why.
    quiet_until: seconds of the loop's clock; a server asked for it.
  """

  answers: dict[str, answer_cache.Answer]
  failures: dict[str, endpoint.Failed]
  most_lost: float
  halt: asyncio.Event
  lost: int = 0
  mistake: mistakes.Mistake | None = None
  quiet_until: float = 0.0


async def ask_all(
  line: Line,
  asked: Sequence[questions.Question],
  most_lost: float,
) -> Round:
  """Asks all of them through the connections, unless too many are lost.

  Args:
    line: what they go through.
    asked: the questions.
    most_lost: how many of them may stay without a judgment.
  Raises: Mistake for what stopped that, once what was sent is answered.
  """
  shared = Round({}, {}, most_lost, asyncio.Event())
  waiting = iter(asked)  # one for all workers

  async def work(number):
    for question in waiting:
      try:
        answer = await _ask(line, number, question, shared)
        shared.answers[question.key] = answer
        shared.lost += answer.win_prob is None
      except endpoint.Failed as failed:
        shared.failures[question.key] = failed
        shared.lost += 1
      except mistakes.Mistake as mistake:
        shared.mistake = shared.mistake or mistake
        shared.halt.set()
      except Halted:
        return
      if shared.lost > shared.most_lost:
        shared.halt.set()

  async with asyncio.TaskGroup() as group:
    for number in range(min(line.settings.connections, len(asked))):
      group.create_task(work(number))
  if shared.mistake:
    raise shared.mistake
  return shared


async def _ask(
  line: Line,
  number: int,
  question: questions.Question,
  shared: Round,
) -> answer_cache.Answer:
  """Asks one question, again if need be; its answer is kept.

  Raises: Failed when it is given up; Mistake when all is to stop.
  """
  failures: list[endpoint.Failed] = []

  async def attempt():
    await _turn(line, shared)
    try:
      value = await endpoint.send(line.server, number, question)
      try:
        reply = questions.read_reply(value, line.wording)
      except ValueError as error:
        raise endpoint.Failed(f"an answer of another form: {error}") from None
    except endpoint.Failed as failed:
      failures.append(failed)
      until = asyncio.get_running_loop().time() + failed.wait
      shared.quiet_until = max(shared.quiet_until, until)
      raise
    return _keep(line, question.key, reply, calls=len(failures) + 1)

  retrying = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type(endpoint.Failed),
    stop=tenacity.stop_after_attempt(line.settings.retries + 1),
    wait=tenacity.wait_exponential_jitter(
      multiplier=BACK_OFF_SECONDS,
      max=MOST_BACK_OFF_SECONDS,
      jitter=BACK_OFF_SECONDS,
    ),
    sleep=lambda seconds: _or_halt(shared, asyncio.sleep(seconds)),
    reraise=True,
  )
  try:
    return await retrying(attempt)
  except endpoint.Failed as failed:
    if all(one.refused for one in failures):
      raise mistakes.Mistake(
        f"{SECTION}.url: no connection to {line.server.url} ({failed}); start "
        "the server, or set the address of one"
      ) from None
    raise


def _keep(
  line: Line, key: str, reply: questions.Reply, calls: int
) -> answer_cache.Answer:
  """Puts an answer on disk, before anything else is done with it."""
  text = line.server.hide(reply.text)[:MOST_TEXT]
  kept = line.cache.keep(
    key, answer_cache.Answer(reply.win_prob, text, calls, reply.tokens or 0)
  )
  if reply.tokens is None and line.settings.budget_tokens:
    raise mistakes.Mistake(
      f"{SECTION}.budget_tokens: {line.server.url} does not tell the tokens of "
      "its answers (usage.total_tokens); set 0, and budget_calls instead"
    )
  return kept


async def _turn(line: Line, shared: Round) -> None:
  """Waits until a request may be sent, and counts it.

  Raises: Halted, BudgetSpent.
  """
  await _quiet(shared)
  if line.limiter:
    await _or_halt(shared, line.limiter.acquire())
    await _quiet(shared)
  if shared.halt.is_set():
    raise Halted
  limits = (line.settings.budget_calls, line.settings.budget_tokens)
  if line.cache.take_call(*limits):
    return
  for name, spent, most in zip(
    ("calls", "tokens"), line.cache.spent(), limits, strict=True
  ):
    if most and spent >= most:
      raise BudgetSpent(
        f"{SECTION}.budget_{name}: {spent} of {most} {name} are spent; all "
        f"answers are kept, so raise {SECTION}.budget_{name} and start the "
        "same command again to go on"
      )


async def _quiet(shared: Round) -> None:
  """Waits as long as a server has asked to be left alone, and not in step."""
  clock = asyncio.get_running_loop().time
  while (wait := shared.quiet_until - clock()) > 0:
    if shared.halt.is_set():
      return
    wait += random.uniform(0, BACK_OFF_SECONDS)
    await _or_halt(shared, asyncio.sleep(wait))


async def _or_halt(shared: Round, waiting: Awaitable[None]) -> None:
  """Waits, but no longer than until all stops."""
  tasks = [asyncio.ensure_future(waiting)]
  tasks.append(asyncio.ensure_future(shared.halt.wait()))
  try:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
  finally:
    for task in tasks:
      task.cancel()
