"""A served judge before a server that misbehaves; about two minutes."""

from collections.abc import Iterator
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np

from figures import rows
from nashmd_jax import mistakes
from nashmd_jax.judges import rounds
from tests import judge_client, judge_server, served_test

PAIRS, CONNECTIONS = 5000, 32
DELAY_SECONDS = 0.5  # of an answer: about what a large model takes
ILL_PAIRS = 600
KILLED_PAIRS = 800
KILLS = 4
Act = judge_server.Act


@contextlib.contextmanager
def _place() -> Iterator[pathlib.Path]:
  """Where answers are kept, for a judge that does not wait for long."""
  with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch.object(rounds, "BACK_OFF_SECONDS", 0.01),
  ):
    yield pathlib.Path(folder) / "answers.sqlite"


def _labels(said, pairs) -> tuple[int, int]:
  """How many labels are wrong, and how many are lost."""
  expected = np.array(judge_client.expected(*pairs[1:]))
  lost = np.isnan(said)
  return int(np.sum(np.abs(said - expected)[~lost] > 1e-12)), int(np.sum(lost))


def _share_of_rate() -> tuple[float, int, int]:
  """Of what a server that only waits can answer; wrong and lost labels."""
  with _place() as cache, judge_server.spawn(DELAY_SECONDS) as url:
    judge = judge_client.make(url, cache, connections=CONNECTIONS)
    pairs = judge_client.pairs(PAIRS)
    began = time.monotonic()
    said = judge(*pairs)
    seconds = time.monotonic() - began
  own = CONNECTIONS / DELAY_SECONDS
  return PAIRS / seconds / own, *_labels(said, pairs)


def _labels_of_the_ill() -> tuple[int, int]:
  """Of a server that fails in every way there is, at two of three questions."""
  acts = list(served_test.PASSING.values())

  def script(asked):
    number = int(asked.key[:8], 16)
    ill = number % 3 > asked.number
    return acts[(number + asked.number) % len(acts)] if ill else Act()

  with _place() as cache, judge_server.serve(script) as server:
    judge = judge_client.make(server.url, cache, timeout_seconds=1.0)
    pairs = judge_client.pairs(ILL_PAIRS)
    return _labels(judge(*pairs), pairs)


def _paid_twice() -> tuple[int, int]:
  """Pairs billed twice, and lost, of a client that is killed repeatedly."""
  with _place() as cache, judge_server.serve(lambda _: Act(delay=0.02)) as one:
    command = [sys.executable, "-m", "tests.judge_client", one.url, str(cache)]
    command.append(str(KILLED_PAIRS))
    for kill in range(1, KILLS + 1):
      client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
      goal = KILLED_PAIRS * kill // (KILLS + 1)
      while len(one.counts.delivered) < goal and client.poll() is None:
        time.sleep(0.002)
      client.kill()
      client.wait()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    billed = one.counts.billed
  return sum(n > 1 for n in billed.values()), KILLED_PAIRS - len(billed)


def _endings() -> dict[str, tuple[Act | None, dict, str | None]]:
  """What a server does for ever -> how that ends: a sentence, or no label."""
  given_up = {
    name: (act, {"most_failed": 1.0}, None)
    for name, act in served_test.PASSING.items()
  }
  too_many = {
    f"{name}, too often": (act, {"most_failed": 0.5}, "most_failed: ")
    for name, act in served_test.PASSING.items()
  }
  refused = {
    f"status {status}": (Act("status", status=status, body="no"), {}, told)
    for status, told in (
      (302, "url: "), (400, "url: "), (401, "key_variable: "),
      (403, "key_variable: "), (404, "url: "), (422, "url: "),
    )
  }  # fmt: skip
  return (
    given_up
    | too_many
    | refused
    | {
      "nonsense": (Act(body="perhaps"), {"most_failed": 1.0}, None),
      "no server": (None, {"most_failed": 1.0}, "url: no connection to "),
      "budget": (Act(), {"budget_calls": 3}, "budget_calls: 3 of 3 calls"),
    }
  )


def _ends_as_said(act: Act | None, changes: dict, expected: str | None) -> bool:
  how = {"retries": 1, "timeout_seconds": 0.3, "top_logprobs": 0} | changes
  with _place() as cache, contextlib.ExitStack() as running:
    server = running.enter_context(judge_server.serve(lambda asked: act))
    if act is None:
      running.close()
    judge = judge_client.make(server.url, cache, **how)
    try:
      said = judge(*judge_client.pairs(10))
    except mistakes.Mistake as mistake:
      (sentence,) = mistake.sentences
      start = f"judges.served.{expected}"
      return expected is not None and sentence.startswith(start)
    return expected is None and bool(np.isnan(said).all())


def served_rows() -> list[rows.Row]:
  """What a served judge is held to."""
  share, *labels = _share_of_rate()
  twice, unpaid = _paid_twice()
  wrong, lost = np.array([labels, _labels_of_the_ill()]).sum(0).tolist()
  endings = _endings()
  otherwise = [
    name for name, ending in endings.items() if not _ends_as_said(*ending)
  ]
  print("\n".join(otherwise))
  return [
    rows.row(
      f"{PAIRS} pairs through {CONNECTIONS} connections, share of the rate of "
      f"a server that answers in {DELAY_SECONDS:g} s",
      share, "≥", 0.9,
    ),
    rows.row(
      f"of {PAIRS + ILL_PAIRS} labels, {ILL_PAIRS} from a server that fails in "
      f"{len(served_test.PASSING)} ways, those that are wrong",
      wrong, "=", 0,
    ),
    rows.row("those that are lost", lost, "=", 0),
    rows.row(
      f"of {KILLED_PAIRS} pairs, the client killed {KILLS} times, those that "
      "are paid twice",
      twice, "=", 0,
    ),
    rows.row("those that were never asked", unpaid, "=", 0),
    rows.row(
      f"of {len(endings)} failures without end, those that end otherwise than "
      "in no label, or in the one sentence that is said",
      len(otherwise), "=", 0,
    ),
  ]  # fmt: skip


if __name__ == "__main__":
  sys.exit(rows.report(pathlib.Path("out/judges_served.json"), served_rows()))
