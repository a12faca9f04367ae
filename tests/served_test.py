"""A served judge before a server that misbehaves: no label wrong, none lost."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.judges import answer_cache, rounds, served
from tests import judge_client, judge_server, processes

Act = judge_server.Act
SECRET = "sk-secret-of-the-test"
ONE_SENTENCE = r"\Ajudges\.served\.\w+: [^\n]+\Z"
WHOLE = {"choices": [{"message": {"content": "1"}}]}
PASSING = {
  "429": Act("status", status=429, body="slow down"),
  "409": Act("status", status=409, body="the first is still at it"),
  "500": Act("status", status=500, body="{}"),
  "503": Act("status", status=503, body="busy"),
  "no JSON": Act("raw", body="<html>a proxy</html>"),
  "half of a JSON": Act("raw", body='{"choices": [{"message"'),
  "deep JSON": Act("raw", body="[" * 100_000),
  "other JSON": Act("raw", body='{"error": {"message": "overloaded"}}'),
  "too long": Act("raw", body=json.dumps(WHOLE) + " " * 1_500_000),
  "half a body": Act("half"),
  "closed": Act("close"),
  "hangs": Act("hang"),
}


def first_only(act: Act):
  """A script: that for the first request of each key, then an answer."""
  return lambda asked: act if asked.number == 0 else Act()


class ServedCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.cache = self.folder / "answers.sqlite"
    self.enter_context(mock.patch.object(rounds, "BACK_OFF_SECONDS", 0.01))
    self.enter_context(mock.patch.dict(os.environ))
    os.environ.pop("JUDGE_KEY", None)
    os.environ["NO_PROXY"] = "*"

  def serve(self, script=lambda asked: Act(), **how) -> judge_server.Server:
    return self.enter_context(judge_server.serve(script, **how))

  def make(self, server: judge_server.Server, **changes) -> served.Served:
    return judge_client.make(server.url, self.cache, **changes)

  def assert_right(self, said, pairs, **changes):
    expected = judge_client.expected(*pairs[1:], **changes)
    np.testing.assert_allclose(said, expected, rtol=1e-12)

  def assert_mistake(self, judge, pairs, kind=mistakes.Mistake) -> str:
    with self.assertRaises(kind) as raised:
      judge(*pairs)
    self.assertLen(raised.exception.sentences, 1)
    self.assertRegex(str(raised.exception), ONE_SENTENCE)
    self.assertLess(len(str(raised.exception)), 500)
    return str(raised.exception)


class LabelsTest(ServedCase):
  @parameterized.product(
    form=("chat", "completion"), top_logprobs=(0, 5), orders=("one", "both")
  )
  def test_each_pair_has_its_own_label(self, **changes):
    server = self.serve()
    judge, pairs = self.make(server, **changes), judge_client.pairs(40)
    self.assert_right(judge(*pairs), pairs, **changes)
    self.assertGreater(len(set(judge(*pairs))), 1)

  @parameterized.product(top_logprobs=(0, 5), orders=("one", "both"))
  def test_the_two_ways_round_add_up_to_just_one(self, **changes):
    server = self.serve()
    judge = self.make(server, **changes)
    rows, ys, others = judge_client.pairs(60)
    total = judge(rows, ys, others) + judge(rows, others, ys)
    np.testing.assert_array_equal(total, 1.0)
    self.assertLen(server.requests, 120 if changes["orders"] == "both" else 60)
    again = self.make(server, **changes)
    total = judge(rows, ys, others) + again(rows, others, ys)
    np.testing.assert_array_equal(total, 1.0)

  def test_equal_texts_and_questions_are_not_asked_twice(self):
    server = self.serve()
    judge = self.make(server, orders="both")
    row = {"prompt": "p"}
    said = judge([row] * 4, ["a", "a", "a", "b"], ["a", "b", "b", "a"])
    self.assertEqual(said[0], 0.5)
    self.assertEqual(said[1], said[2])
    self.assertEqual(said[3], 1 - said[1])
    self.assertLen(server.requests, 2)
    costs = judge.costs([row] * 2, ["a", "b"], ["a", "a"])
    np.testing.assert_array_equal(costs["judge_calls"], [0, 2])
    np.testing.assert_array_equal(costs["judge_tokens"], [0, 42])
    self.assertEqual(judge([], [], []).shape, (0,))

  def test_it_may_be_called_from_many_threads(self):
    server = self.serve()
    judge, pairs = self.make(server), judge_client.pairs(40)
    said = {}

    def some(number):
      said[number] = judge(*(part[number::4] for part in pairs))

    threads = [threading.Thread(target=some, args=(n,)) for n in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    for number in range(4):
      self.assert_right(said[number], [part[number::4] for part in pairs])

  def test_no_more_connections_and_no_faster_than_allowed(self):
    came = []

    def script(asked):
      came.append(time.monotonic())
      return Act(delay=0.05)

    server = self.serve(script)
    self.make(server, connections=3)(*judge_client.pairs(12))
    for early, late in zip(came, came[3:], strict=False):
      self.assertGreater(late - early, 0.045)
    came.clear()
    rows, ys, others = judge_client.pairs(10)
    began = time.monotonic()
    self.make(server, per_minute=1200)(rows, others, [f"{y}!" for y in ys])
    self.assertGreater(came[-1] - began, 9 * 0.05 - 0.03)


class FailuresTest(ServedCase):
  @parameterized.parameters(*PASSING)
  def test_what_passes_is_asked_again(self, name):
    server = self.serve(first_only(PASSING[name]))
    judge, pairs = self.make(server, timeout_seconds=3.0), judge_client.pairs(8)
    began = time.monotonic()
    self.assert_right(judge(*pairs), pairs)
    self.assertLess(time.monotonic() - began, judge_server.HANG_SECONDS / 2)
    counts = server.counts
    self.assertEqual({*counts.delivered.values()}, {1})
    self.assertEqual({*counts.billed.values()}, {1})
    self.assertLen(server.requests, 16)
    costs = judge.costs(*pairs)
    np.testing.assert_array_equal(costs["judge_calls"], 2.0)
    np.testing.assert_array_equal(costs["judge_tokens"], 21.0)

  def test_a_server_is_left_alone_as_long_as_it_asks(self):
    wait = Act("status", status=429, body="", headers=(("Retry-After", "1"),))
    came = []

    def script(asked):
      came.append(time.monotonic())
      return wait if asked.count < 2 else Act(delay=0.1)

    server = self.serve(script)
    judge, pairs = self.make(server, connections=2), judge_client.pairs(6)
    self.assert_right(judge(*pairs), pairs)
    self.assertGreaterEqual(came[2] - came[1], 0.99)

  @parameterized.parameters("500", "half a body", "closed", "hangs", "no JSON")
  def test_what_is_given_up_is_no_label_and_is_asked_anew(self, name):
    ill = {"on": True}

    def script(asked):
      bad = "prompt 3\n" in asked.body["messages"][-1]["content"]
      return PASSING[name] if bad and ill["on"] else Act()

    server = self.serve(script)
    changes = {"retries": 1, "most_failed": 0.2, "timeout_seconds": 3.0}
    judge, pairs = self.make(server, **changes), judge_client.pairs(8)
    said = judge(*pairs)
    np.testing.assert_array_equal(np.isnan(said), np.arange(8) == 3)
    self.assertLen(server.requests, 9)
    costs = judge.costs(*pairs)["judge_calls"]
    np.testing.assert_array_equal(costs, np.arange(8) != 3)
    ill["on"] = False
    self.assert_right(judge(*pairs), pairs)
    self.assertLen(server.requests, 10)

  @parameterized.parameters("I cannot say", "1 or 2", "12", "", "answer: 1.5")
  def test_nonsense_is_no_label_and_is_paid_once(self, text):
    server = self.serve(lambda asked: Act(body=text))
    changes = {"most_failed": 1.0, "top_logprobs": 0}
    judge, pairs = self.make(server, **changes), judge_client.pairs(4)
    for _ in range(2):
      np.testing.assert_array_equal(judge(*pairs), [math.nan] * 4)
    self.assertLen(server.requests, 4)
    np.testing.assert_array_equal(judge.costs(*pairs)["judge_tokens"], 21.0)
    self.assertIn(
      "4 answers", self.assert_mistake(self.make(server, top_logprobs=0), pairs)
    )

  def test_too_many_without_a_judgment_stop_it_and_the_others_are_kept(self):
    def script(asked):
      bad = asked.body["messages"][-1]["content"].startswith("Text: prompt 1")
      return PASSING["500"] if bad else Act()

    server = self.serve(script)  # 1, 10 and 11 of 12
    judge = self.make(server, retries=0, most_failed=0.24)
    told = self.assert_mistake(judge, judge_client.pairs(12))
    self.assertIn("3 of 12 pairs", told)
    self.assertIn("status 500", told)
    judge = self.make(server, retries=0, most_failed=0.25)
    self.assertEqual(np.isnan(judge(*judge_client.pairs(12))).sum(), 3)
    self.assertLen(server.requests, 15)

  @parameterized.parameters(300, 302, 400, 401, 403, 404, 405, 413, 422)
  def test_what_does_not_pass_is_one_sentence(self, status):
    os.environ["JUDGE_KEY"] = SECRET
    body = json.dumps({"error": {"message": f"no\n{SECRET} " + "long " * 99}})
    away = (("Location", "http://127.0.0.1:9/v1"),)
    server = self.serve(
      lambda asked: Act("status", status=status, body=body, headers=away)
    )
    judge = self.make(server, connections=4)
    told = self.assert_mistake(judge, judge_client.pairs(20))
    self.assertIn(f"{server.url}/chat/completions answers with", told)
    self.assertIn(f"status {status}, 'no *** long", told)
    self.assertNotIn(SECRET, told)
    self.assertLessEqual(len(server.requests), 4)

  def test_no_server_at_all_is_one_sentence(self):
    with judge_server.serve() as server:
      pass
    judge = self.make(server, most_failed=1.0)
    told = self.assert_mistake(judge, judge_client.pairs(20))
    self.assertIn(f"no connection to {server.url}", told)

  def test_a_server_that_starts_late_is_found(self):
    with judge_server.serve() as server:
      port = int(server.url.split(":")[2].split("/")[0])
    judge = self.make(server, retries=9)
    pairs, began = judge_client.pairs(4), threading.Event()

    def late():
      began.wait()
      time.sleep(0.1)
      self.serve(port=port)

    thread = threading.Thread(target=late)
    thread.start()
    began.set()
    self.assert_right(judge(*pairs), pairs)
    thread.join()


class KeptTest(ServedCase):
  def start(self, server, count):
    return subprocess.Popen(
      [sys.executable, "-m", "tests.judge_client", server.url,
       str(self.cache), str(count)],
      cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True,
    )  # fmt: skip

  def ended(self, client):
    out, err = client.communicate(timeout=60)
    self.assertEqual((client.returncode, err), (0, ""))
    said, costs = json.loads(out)
    return np.array(said), costs

  def test_nothing_is_paid_twice_after_kill_9(self):
    server = self.serve(lambda asked: Act(delay=0.03))
    client = self.start(server, 160)
    while sum(server.counts.delivered.values()) < 60:
      self.assertIsNone(client.poll())
      time.sleep(0.002)
    client.kill()
    client.communicate()
    keys = [*server.counts.asked]
    cache = answer_cache.open_cache(self.cache)
    kept = cache.look_up(keys)
    cache.close()
    # What was at the server when it was killed, and what it had sent just so.
    self.assertBetween(len(keys) - len(kept), 1, 8)
    said, costs = self.ended(self.start(server, 160))
    pairs = judge_client.pairs(160)
    self.assert_right(said, pairs)
    asked, billed, delivered = server.counts
    self.assertLen(billed, 160)
    self.assertEqual({*billed.values()}, {1})
    self.assertEqual({asked[key] for key in kept}, {1})
    self.assertEqual({delivered[key] for key in kept}, {1})
    self.assertEqual({asked[key] for key in {*keys} - {*kept}}, {2})
    self.assertEqual({*costs["judge_calls"]}, {1.0})
    self.assertEqual({*costs["judge_tokens"]}, {21.0})

  def test_several_processes_share_a_file(self):
    server = self.serve(lambda asked: Act(delay=0.01))
    clients = [self.start(server, 60) for _ in range(2)]
    ends = [self.ended(client) for client in clients]
    for said, costs in ends:
      self.assert_right(said, judge_client.pairs(60))
      self.assertEqual(costs, ends[0][1])
    self.assertEqual({*server.counts.billed.values()}, {1})

  def test_an_interrupt_loses_nothing(self):
    def script(asked):
      if asked.count == 10:
        signal.raise_signal(signal.SIGINT)
      return Act(delay=0.01)

    server = self.serve(script)
    judge, pairs = self.make(server, connections=2), judge_client.pairs(30)
    with self.assertRaises(KeyboardInterrupt):
      judge(*pairs)
    self.assertLess(len(server.requests), 15)
    self.assert_right(judge(*pairs), pairs)
    self.assertEqual({*server.counts.billed.values()}, {1})
    self.assertLessEqual(len(server.requests), 32)

  def test_costs_are_those_of_then_whoever_asks_and_without_a_server(self):
    flaky = {0: PASSING["500"], 1: PASSING["429"]}

    def script(asked):
      return flaky.get(asked.number - asked.count % 2, Act())

    with judge_server.serve(script) as server:
      judge, pairs = self.make(server, orders="both"), judge_client.pairs(20)
      said, costs = judge(*pairs), judge.costs(*pairs)
    self.assertGreater(len({*costs["judge_calls"]}), 1)
    again = self.make(server, orders="both")
    np.testing.assert_array_equal(again(*pairs), said)
    found = again.costs(*pairs)
    self.assertEqual({*found}, {"judge_calls", "judge_tokens"})
    for name, numbers in found.items():
      self.assertEqual(numbers.dtype, np.float64)
      np.testing.assert_array_equal(numbers, costs[name])

  def test_the_key_is_sent_and_nowhere_else(self):
    os.environ["JUDGE_KEY"] = SECRET
    server = self.serve(lambda asked: Act(body=f"1 {SECRET}"))
    judge = self.make(server)
    judge(*judge_client.pairs(4))
    sent = {asked.headers["authorization"] for asked in server.requests}
    self.assertEqual(sent, {f"Bearer {SECRET}"})
    stored = b"".join(p.read_bytes() for p in self.folder.iterdir())
    self.assertIn(b"1 ***", stored)
    self.assertNotIn(SECRET.encode(), stored)
    self.assertNotIn(SECRET, repr(judge))
    del os.environ["JUDGE_KEY"]
    server.requests.clear()
    self.make(server, max_tokens=5)(*judge_client.pairs(4))
    self.assertNotIn("authorization", server.requests[0].headers)


class BudgetTest(ServedCase):
  def test_calls_stop_it_and_more_of_them_go_on(self):
    server, pairs = self.serve(), judge_client.pairs(20)
    judge = self.make(server, budget_calls=12)
    for _ in range(2):
      told = self.assert_mistake(judge, pairs, served.BudgetSpent)
      self.assertIn("judges.served.budget_calls: 12 of 12 calls", told)
      self.assertLen(server.requests, 12)
    self.assert_right(self.make(server, budget_calls=20)(*pairs), pairs)
    self.assertEqual({*server.counts.asked.values()}, {1})
    judge = self.make(server, budget_calls=1)  # what is known is free
    self.assert_right(judge(*pairs), pairs)

  def test_retries_are_calls(self):
    server = self.serve(first_only(PASSING["500"]))
    judge = self.make(server, budget_calls=11)
    self.assert_mistake(judge, judge_client.pairs(20), served.BudgetSpent)
    self.assertLen(server.requests, 11)

  def test_tokens_stop_it_once_they_are_reached(self):
    server = self.serve(lambda asked: Act(delay=0.02))
    judge = self.make(server, budget_tokens=105, connections=2)
    told = self.assert_mistake(
      judge, judge_client.pairs(20), served.BudgetSpent
    )
    self.assertRegex(told, r"budget_tokens: (105|126) of 105 tokens")
    self.assertBetween(len(server.requests), 5, 6)

  def test_a_server_that_does_not_count_has_no_budget_of_tokens(self):
    server = self.serve(lambda asked: Act("raw", body=json.dumps(WHOLE)))
    judge = self.make(server, budget_tokens=100)
    told = self.assert_mistake(judge, judge_client.pairs(20))
    self.assertIn("does not tell the tokens", told)
    self.make(server)(*judge_client.pairs(20))


if __name__ == "__main__":
  absltest.main()
