"""A served language model as a judge of text, over the OpenAI HTTP API.

Who asks what when lives here: workers, retries, rate, budget. The questions are
in `questions`, one request is in `endpoint`, the answers in `answer_cache`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
import dataclasses
import pathlib
import random
import threading
from typing import NamedTuple
import weakref

import aiolimiter
import numpy as np
import tenacity

from nashmd_jax import mistakes
from nashmd_jax.data import records as records_lib
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

# What an answer depends on; the other settings say how it is come by.
ANSWERED = questions.Wording._fields
Settings = served_settings.Settings
check = served_settings.check
Texts = Sequence[str]
Records = Sequence[records_lib.Record]


class BudgetSpent(mistakes.Mistake):
  """The budget is spent; what was answered is kept."""


class Halted(Exception):
  """A question that is left, since the judge stops."""


class Served(NamedTuple):
  """A text judge that also tells what its answers cost.

  Attributes:
    judge: (records, responses, opponents) -> P(y ≻ y′ | x), f64[N]; NaN where
      it could not be judged. Raises Mistake, and BudgetSpent.
    costs: (records, responses, opponents) -> "judge_calls" and "judge_tokens",
      f64[N] each: what the answers about each pair cost when they were asked.
      A pair without an answer cost nothing; equal pairs share theirs.
  """

  judge: Callable[[Records, Texts, Texts], np.ndarray]
  costs: Callable[[Records, Texts, Texts], dict[str, np.ndarray]]

  def __call__(
    self, records: Records, responses: Texts, opponents: Texts
  ) -> np.ndarray:
    """Judges; see `judge`."""
    return self.judge(records, responses, opponents)


class _Line(NamedTuple):
  """What questions go through, as long as the judge lives.

  Attributes:
    settings: of the judge.
    server: where they go.
    cache: where answers are kept.
    limiter: of requests a minute; None for no limit.
  """

  settings: Settings
  server: endpoint.Endpoint
  cache: answer_cache.Cache
  limiter: aiolimiter.AsyncLimiter | None


@dataclasses.dataclass
class _Round:
  """What the workers of one call share.

  Attributes:
    answers: by the keys of their questions.
    failures: the last one of each question that was given up.
    halt: set once nothing more is to be sent.
    mistake: why.
    quiet_until: seconds of the loop's clock; a server asked for it.
  """

  answers: dict[str, answer_cache.Answer]
  failures: dict[str, endpoint.Failed]
  halt: asyncio.Event
  mistake: mistakes.Mistake | None = None
  quiet_until: float = 0.0


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
  limiter = aiolimiter.AsyncLimiter(1, 60 / per_minute) if per_minute else None
  server = endpoint.make_endpoint(settings)
  return _make_served(
    _Line(settings, server, answer_cache.open_cache(cache), limiter),
    served_settings.wording(settings),
  )


def _make_served(line: _Line, wording: questions.Wording) -> Served:
  # One loop for all calls keeps their connections; it runs during calls alone.
  runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
  lock = threading.Lock()

  def plan(records, responses, opponents):
    rows = zip(records, responses, opponents, strict=True)
    return [questions.ask(wording, r["prompt"], y, o) for r, y, o in rows]

  def judge(records, responses, opponents):
    pairs = plan(records, responses, opponents)
    wanted = {q.key: q for pair in pairs for q in pair.questions}
    failures = {}
    with lock:
      known = line.cache.look_up(wanted)
      missing = [q for key, q in wanted.items() if key not in known]
      if missing:
        done = runner.run(_ask_all(line, wording, missing))
        known, failures = known | done.answers, done.failures
    said = np.array([_win_prob(pair, known) for pair in pairs], np.float64)
    _check_failed(said, known, failures, line.settings.most_failed)
    return said

  def costs(records, responses, opponents):
    pairs = plan(records, responses, opponents)
    with lock:
      known = line.cache.look_up({q.key for p in pairs for q in p.questions})
    return _costs(pairs, known)

  weakref.finalize(judge, _close, runner, line)
  return Served(judge, costs)


def _close(runner: asyncio.Runner, line: _Line) -> None:
  """Closes what a judge had, wherever the collector comes upon it."""

  def close():
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
  answered = [
    [known[q.key] for q in pair.questions if q.key in known] for pair in pairs
  ]
  calls = [sum(one.calls for one in answers) for answers in answered]
  tokens = [sum(one.tokens for one in answers) for answers in answered]
  return {
    "judge_calls": np.array(calls, np.float64),
    "judge_tokens": np.array(tokens, np.float64),
  }


def _check_failed(said, known, failures, most_failed: float) -> None:
  """Raises Mistake if too many of the pairs could not be judged."""
  failed = int(np.sum(np.isnan(said)))
  if failed <= most_failed * len(said):
    return
  empty = sum(one.win_prob is None for one in known.values())
  why = f"{empty} answers name neither or both of {SECTION}.answers"
  if failures:
    *_, last = failures.values()
    why += f" and {len(failures)} questions have none, the last one for: {last}"
  raise mistakes.Mistake(
    f"{SECTION}.most_failed: {failed} of {len(said)} pairs could not be "
    f"judged, more than the share {most_failed:g} ({why}); all answers are kept"
  )


async def _ask_all(
  line: _Line,
  wording: questions.Wording,
  asked: Sequence[questions.Question],
) -> _Round:
  """Asks all of them through the connections.

  Raises: Mistake for what stopped that, once what was sent is answered.
  """
  shared = _Round({}, {}, asyncio.Event())
  waiting = iter(asked)  # one for all workers

  async def work(number):
    for question in waiting:
      try:
        answer = await _ask(line, number, wording, question, shared)
        shared.answers[question.key] = answer
      except endpoint.Failed as failed:
        shared.failures[question.key] = failed
      except mistakes.Mistake as mistake:
        shared.mistake = shared.mistake or mistake
        shared.halt.set()
      except Halted:
        return

  async with asyncio.TaskGroup() as group:
    for number in range(min(line.settings.connections, len(asked))):
      group.create_task(work(number))
  if shared.mistake:
    raise shared.mistake
  return shared


async def _ask(
  line: _Line,
  number: int,
  wording: questions.Wording,
  question: questions.Question,
  shared: _Round,
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
        reply = questions.read_reply(value, wording)
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
        f"{SECTION}.url: no server at {line.server.url} ({failed}); start it, "
        "or set the address of one"
      ) from None
    raise


def _keep(
  line: _Line, key: str, reply: questions.Reply, calls: int
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


async def _turn(line: _Line, shared: _Round) -> None:
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


async def _quiet(shared: _Round) -> None:
  """Waits as long as a server has asked to be left alone, and not in step."""
  clock = asyncio.get_running_loop().time
  while (wait := shared.quiet_until - clock()) > 0:
    if shared.halt.is_set():
      return
    wait += random.uniform(0, BACK_OFF_SECONDS)
    await _or_halt(shared, asyncio.sleep(wait))


async def _or_halt(shared: _Round, waiting: Awaitable[None]) -> None:
  """Waits, but no longer than until all stops."""
  tasks = [asyncio.ensure_future(waiting)]
  tasks.append(asyncio.ensure_future(shared.halt.wait()))
  try:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
  finally:
    for task in tasks:
      task.cancel()
