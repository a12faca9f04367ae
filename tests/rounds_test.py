"""When a served judge stops, waits and goes on, within one call."""

import time
from unittest import mock

from absl.testing import absltest
import numpy as np

from nashmd_jax.judges import rounds
from tests import judge_client, judge_server, served_test

Act = judge_server.Act
BAD = Act("status", status=400, body="no")


class RoundsTest(served_test.ServedCase):
  def test_it_stops_as_soon_as_too_many_are_surely_lost(self):
    pairs = judge_client.pairs(200)
    for act, orders, asked in (
      # More than a tenth of the pairs, of one question each, or of two.
      (Act("status", status=500, body=""), "one", 21),
      (Act("status", status=500, body=""), "both", 41),
      (Act(body="perhaps"), "one", 21),
      (Act(body="perhaps"), "both", 41),
    ):
      with judge_server.serve(lambda asked, act=act: act) as server:
        judge = self.make(
          server, orders=orders, retries=0, most_failed=0.1, connections=4,
          max_tokens=asked + (act.kind == "status"), top_logprobs=0,
        )  # fmt: skip
        told = self.assert_mistake(judge, pairs)
        self.assertRegex(told, r" (2\d|3\d|4\d) of 200 pairs")
        self.assertBetween(len(server.requests), asked, asked + 4)

  def test_what_is_known_to_be_lost_counts(self):
    server = self.serve(lambda asked: Act(body="perhaps"))
    pairs = judge_client.pairs(100)
    changes = {"top_logprobs": 0, "connections": 4}
    some = [part[:30] for part in pairs]
    self.make(server, most_failed=1.0, **changes)(*some)
    self.assertLen(server.requests, 30)
    judge = self.make(server, most_failed=0.35, **changes)
    self.assert_mistake(judge, pairs)
    self.assertBetween(len(server.requests), 36, 40)

  def test_what_is_under_way_when_it_stops_is_kept(self):
    def script(asked):
      return BAD if asked.count == 3 else Act(delay=0.2)

    server = self.serve(script)
    judge, pairs = self.make(server, connections=4), judge_client.pairs(20)
    self.assert_mistake(judge, pairs)
    self.assertLen(server.requests, 4)
    self.assert_right(judge(*pairs), pairs)
    self.assertLen(server.requests, 21)
    self.assertEqual({*server.counts.billed.values()}, {1})

  def test_connections_that_a_server_has_closed_cost_nothing(self):
    with judge_server.serve() as server:
      judge, pairs = self.make(server), judge_client.pairs(40)
      judge(*(part[:20] for part in pairs))
    port = int(server.url.split(":")[2].split("/")[0])
    server = self.serve(port=port)
    self.assert_right(judge(*pairs), pairs)
    np.testing.assert_array_equal(judge.costs(*pairs)["judge_calls"], 1.0)

  def test_nobody_waits_for_what_is_not_to_be_sent(self):
    # The first is to be asked again in ten minutes, the second ends it all.
    wait = Act("status", 0.0, 429, (("Retry-After", "600"),), "")

    def script(asked):
      return wait if asked.count == 0 else BAD._replace(delay=0.3)

    server = self.serve(script)
    judge = self.make(server, connections=8)
    began = time.monotonic()
    with mock.patch.object(rounds, "BACK_OFF_SECONDS", 60.0):
      self.assert_mistake(judge, judge_client.pairs(20))
    self.assertLess(time.monotonic() - began, 10)
    # Seven wait for their minute when the first answer ends it.
    server = self.serve(lambda asked: BAD)
    judge = self.make(server, connections=8, per_minute=1)
    self.assert_mistake(judge, judge_client.pairs(20))
    self.assertLen(server.requests, 1)
    self.assertLess(time.monotonic() - began, 10)


if __name__ == "__main__":
  absltest.main()
