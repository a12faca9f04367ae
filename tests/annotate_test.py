"""The page of annotators: who may ask, what is stored, what a browser sees."""

import http.client
import json
import pathlib
import socket
import time
from unittest import mock
from urllib import parse

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes, pipeline
from nashmd_jax.annotators import asking, server, votes
from nashmd_jax.data import records
from nashmd_jax.judges import recorded
from nashmd_jax.stages import annotate, report, text
from tests import browser, small_votes

OK, FORBIDDEN, NOT_FOUND, BAD, CONFLICT, FAILED = 200, 403, 404, 400, 409, 500
BEGIN = {"annotator": "ann"}


class DeskStub:
  """Shows one question, and fails as it is told to."""

  def __init__(self, error: Exception | None = None):
    self.error, self.asked = error, []

  def ask(self, annotator):
    if self.error:
      raise self.error
    self.asked.append(annotator)
    return {"place": 0, "of": 1, "prompt": small_votes.HOSTILE}

  def answer(self, *fields):
    return self.ask(fields)

  def finished(self):
    return 0


class ServerTest(parameterized.TestCase):
  def serve(self, desk=None, host="127.0.0.1") -> server.Serving:
    made = server.serve(desk or DeskStub(), host=host, port=0, enough=1)
    serving = self.enter_context(made)
    self.url = parse.urlsplit(serving.link)
    return serving

  def ask(self, path="/next", body=None, method="POST", **headers):
    """Status and body of an answer."""
    port = self.url.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    self.addCleanup(connection.close)
    sent = {"Content-Type": server.JSON}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(BEGIN) if body is None else body
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())

  def test_on_this_machine_no_token_is_asked_for(self):
    self.serve()
    self.assertEqual(self.url.query, "")
    status, body, _ = self.ask()
    self.assertEqual(status, OK)
    self.assertEqual(json.loads(body)["prompt"], small_votes.HOSTILE)

  @parameterized.parameters(
    "evil.test", "evil.test:80", "10.0.0.1", "", "[::2]"
  )
  def test_pages_of_others_do_not_ask_through_it(self, host):
    self.serve()
    for method, path in (("POST", "/next"), ("GET", "/")):
      self.assertEqual(self.ask(path, method=method, Host=host)[0], FORBIDDEN)
    for host in ("localhost:9000", "127.0.0.1", "[::1]:9000"):  # a tunnel's
      self.assertEqual(self.ask(Host=host)[0], OK)
    kind = "text/plain"  # which any page may post
    self.assertEqual(self.ask(Content_Type=kind)[0], FORBIDDEN)

  def test_elsewhere_each_request_has_the_token(self):
    desk = DeskStub()
    self.serve(desk, host="0.0.0.0")
    token = parse.parse_qs(self.url.query)["token"][0]
    self.assertGreater(len(token), 20)
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for query in ("", "?token=", f"?token={wrong}", "?token=%C3%A9"):
      self.assertEqual(self.ask(f"/next{query}")[0], FORBIDDEN)
      self.assertEqual(self.ask(f"/{query}", method="GET")[0], FORBIDDEN)
    self.assertEqual(desk.asked, [])
    self.assertEqual(self.ask(f"/next?token={token}", Host="any.test")[0], OK)
    self.assertEqual(self.ask(f"/?token={token}", method="GET")[0], OK)
    with server.serve(desk, host="0.0.0.0", port=0, enough=1) as other:
      self.assertNotIn(token, other.link)

  def test_the_page_asks_nobody_else(self):
    self.serve()
    status, body, headers = self.ask("/", method="GET")
    self.assertEqual(status, OK)
    self.assertNotIn(b"http", body.replace(b"http-equiv", b""))
    policy = headers["Content-Security-Policy"]
    self.assertIn("default-src 'none'", policy)
    self.assertIn("connect-src 'self'", policy)
    self.assertEqual(headers["Referrer-Policy"], "no-referrer")

  @parameterized.parameters(
    ("/other", {}, NOT_FOUND),
    ("//[/next", {}, NOT_FOUND),
    ("/next", {"body": "{"}, CONFLICT),
    ("/next", {"body": "[]"}, CONFLICT),
    ("/next", {"body": "{}"}, CONFLICT),
    ("/next", {"body": "[" * 4000}, CONFLICT),
    ("/next", {"body": b"\xff"}, CONFLICT),
    ("/vote", {}, CONFLICT),
    ("/next", {"body": "a" * 5000}, BAD),
    ("/next", {"Content_Length": "-1"}, BAD),
    ("/next", {"Content_Length": "9" * 5000}, BAD),
    ("/next", {"method": "PUT"}, 501),
  )
  def test_what_no_page_of_ours_sends(self, path, how, status):
    desk = DeskStub()
    self.serve(desk)
    self.assertEqual(self.ask(path, **how)[0], status)
    self.assertEqual(desk.asked, [])
    self.assertEqual(self.ask()[0], OK)

  def test_a_vote_that_cannot_be_stored_ends_it(self):
    serving = self.serve(DeskStub(mistakes.Mistake("the disk is full")))
    self.assertEqual(self.ask()[0], FAILED)
    with self.assertRaisesRegex(mistakes.Mistake, "the disk is full"):
      serving.wait()

  def test_a_port_that_is_taken_and_an_address_of_others(self):
    with socket.socket() as taken:
      taken.bind(("127.0.0.1", 0))
      taken.listen()
      port = taken.getsockname()[1]
      places = {"127.0.0.1": port, "192.0.2.1": 0, "a..b": 0}
      for host, number in places.items():
        with self.assertRaisesRegex(
          mistakes.Mistake, f"cannot listen at port {number} of '{host}'"
        ):
          self.enter_context(
            server.serve(DeskStub(), host=host, port=number, enough=1)
          )


class StageTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = small_votes.write(folder)
    self.folder = folder / annotate.NAME

  def finish(self, config, *annotators, choose=small_votes.by_text):
    with small_votes.running(config, self.workdir) as (link, wait):
      for name in annotators:
        client = small_votes.Client(link, name)
        while not client.is_done():
          client.vote(choose(client.shown))
        client.close()
      return wait()

  def test_votes_become_a_judge_and_a_training_set(self):
    config = small_votes.config(pairs=16, annotators=2)
    self.assertEqual(self.finish(config, "ann", "bob"), {"votes": 2 * 23})
    rows = records.load_records(self.folder / "comparisons.jsonl", "comparison")
    self.assertLen(rows, 16)
    self.assertEqual(sum(row["votes"] for row in rows), 2 * 19)
    self.assertEqual({row["ties"] for row in rows}, {0})
    for row in rows:
      winner = row["response_a" if row["prob_a"] == 1.0 else "response_b"]
      self.assertStartsWith(winner, "nash_md")
    judge = recorded.make_judge(rows)
    said = judge(
      rows, [r["response_a"] for r in rows], [r["response_b"] for r in rows]
    )
    self.assertEqual(said.tolist(), [row["prob_a"] for row in rows])
    results = json.loads((self.folder / "results.json").read_text())
    (cell,) = results["policies"]
    self.assertEqual((cell["a"], cell["b"]), small_votes.POLICIES)
    self.assertEqual(cell["share"][0], 0.0)
    for one in results["annotators"].values():
      self.assertEqual(one["repeats"]["effort"][0], 1.0)
      self.assertEqual(one["golden"]["asked"], 4)
      self.assertEqual(one["golden"]["agreed"], 3)
    for name in annotate.FOLDERS:
      parts = [
        records.load_records(
          self.folder / name / f"{split}.jsonl", "comparison"
        )
        for split in ("train", "validation")
      ]
      self.assertLen(parts[0] + parts[1], 16)

  def test_the_comparisons_are_taken_by_a_run(self):
    self.finish(small_votes.config(pairs=16), "ann")
    config = small_votes.config()
    with config.unlocked():
      config.data.records = str(self.workdir)
      config.data.comparisons = str(self.folder / "comparisons")
      config.judges.recorded.file = str(self.folder / "comparisons.jsonl")
      config.nash.watch = ("recorded",)
    rows = records.load_records(
      self.workdir / "tournament" / "responses" / "written.jsonl", "summary"
    )
    for split in ("train", "validation", "test"):
      records.save_records(self.workdir / f"{split}.jsonl", rows)
    pipeline.check(text.PIPELINE, config)

  def test_it_waits_for_as_many_as_are_asked_for_and_goes_on(self):
    config = small_votes.config(pairs=4, annotators=2)
    with small_votes.running(config, self.workdir) as (link, _):
      client = small_votes.Client(link, "ann")
      for _ in range(3):
        client.vote(asking.TIE)
      client.close()
    # That one was left as a process that is killed leaves it.
    self.assertEqual(self.finish(config, "ann", "bob"), {"votes": 12})

  def test_the_page_of_the_run_tells_of_them_once_there_is_one(self):
    config, made = small_votes.config(pairs=4), []
    path = self.workdir / report.NAME / report.PAGE
    with mock.patch.object(report, "run", lambda *where: made.append(where[1])):
      self.finish(config, "ann")
      self.assertEqual(made, [])
      path.parent.mkdir()
      path.write_text("")
      self.finish(config)
    self.assertEqual(made, [self.workdir])

  def test_nobody_is_asked_twice_who_is_done(self):
    config = small_votes.config(pairs=4)
    self.finish(config, "ann")
    self.assertEqual(self.finish(config), {"votes": 6})

  def test_questions_depend_on_the_seed_and_the_workdir(self):
    config = small_votes.config(pairs=9)
    names = [pair.name for pair in annotate.choose(config, self.workdir)]
    self.assertEqual(
      names, [pair.name for pair in annotate.choose(config, self.workdir)]
    )
    config.unlock().seed = 1
    self.assertNotEqual(
      names, [pair.name for pair in annotate.choose(config, self.workdir)]
    )

  def test_equal_responses_are_no_question(self):
    config = small_votes.config(pairs=1000, golden=0.0)
    pairs = annotate.choose(config, self.workdir)
    self.assertLen(pairs, 22)
    with config.unlocked():
      config.annotate.policies = ("sft", "written")
    found = annotate.choose(config, self.workdir)
    self.assertLen(found, 24)
    self.assertEqual({str(pair.prob) for pair in found}, {"nan"})

  def test_who_is_compared_and_by_whom_is_checked(self):
    for section, sentence in (
      ({"policies": ("sft",)}, "annotate.policies: got ['sft'], expected two"),
      ({"policies": ("sft", "me")}, "two or more of sft, rlhf, nash_md, writt"),
      ({"judge": "reward"}, "annotate.judge: got 'reward', expected one of"),
    ):
      findings = mistakes.Findings()
      annotate.check(small_votes.config(**section), findings)
      self.assertLen(findings.sentences, 1)
      self.assertIn(sentence, findings.sentences[0])
    findings = mistakes.Findings()
    annotate.check(small_votes.config(policies=(), judge="me"), findings)
    self.assertEqual(findings.sentences, [])


class BrowserTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.tab = browser.open_for(cls)

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = small_votes.write(folder)
    self.path = folder / annotate.NAME / annotate.VOTES

  def test_all_of_it_by_keyboard(self):
    config = small_votes.config(pairs=6)
    keys = ("ArrowLeft", "ArrowRight", "ArrowDown")
    with small_votes.running(config, self.workdir) as (link, wait):
      self.tab.open(link, width=360)
      self.tab.write("ann")  # what has the focus is the field of the name
      self.tab.press("Enter")
      began = time.monotonic()
      for number in range(9):
        if number == 4:  # who loads the page again goes on
          here = self.tab.evaluate("location.href")
          self.tab.open(here, width=360)
        self.tab.wait(small_votes.is_shown(number + 1))
        self.assertEqual(self.tab.evaluate(browser.OVERFLOW), 0)
        self.tab.press(keys[number % 3])
      self.tab.wait("!document.getElementById('thanks').hidden")
      took = time.monotonic() - began
      self.assertEqual(wait(), {"votes": 9})
    self.assertEmpty(self.tab.errors())
    cast = votes.open_log(self.path).load()
    ties = [vote.choice == votes.TIE for vote in cast]
    self.assertEqual(ties, [number % 3 == 2 for number in range(9)])
    left = [vote.choice == vote.shown_left for vote in cast]
    self.assertEqual(left, [number % 3 == 0 for number in range(9)])
    seconds = [vote.seconds for vote in cast]
    self.assertGreater(min(seconds), 0)
    self.assertLess(sum(seconds), took)

  def test_a_vote_that_gets_no_answer_is_sent_again_and_stored_once(self):
    config, real = small_votes.config(pairs=4, golden=0.0), server._Handler._say
    drop = []

    def say(handler, status, told):
      if drop and told["place"] == drop[0]:  # it is stored all the same
        drop.pop()
        status, told = server.HTTPStatus.BAD_GATEWAY, {"error": "a proxy's"}
      real(handler, status, told)

    with (
      mock.patch.object(server._Handler, "_say", say),
      small_votes.running(config, self.workdir) as (link, wait),
    ):
      self.tab.open(f"{link}?annotator=ann", width=360)
      for number in range(5):
        self.tab.wait(small_votes.is_shown(number + 1))
        drop += [3] if number == 2 else []
        self.tab.press("ArrowLeft")
      self.tab.wait("!document.getElementById('thanks').hidden")
      self.assertEqual(wait(), {"votes": 5})
    self.assertEqual(drop, [])

  def test_what_models_say_is_text_and_can_be_read(self):
    config = small_votes.config(pairs=24, golden=0.0)
    shown = "document.getElementById('prompt').textContent"
    with small_votes.running(config, self.workdir) as (link, _):
      client = small_votes.Client(link, "ann")
      while client.shown["prompt"] != small_votes.HOSTILE:
        client.vote(asking.TIE)
      for dark in (False, True):
        self.tab.open(f"{link}?annotator=ann", width=1280, dark=dark)
        self.tab.wait(f"{shown} !== ''")
        self.assertEqual(self.tab.evaluate(shown), small_votes.HOSTILE)
        both = self.tab.evaluate("document.getElementById('both').textContent")
        self.assertEqual(both.count(small_votes.HOSTILE), 2)
        lowest, where = self.tab.evaluate(browser.CONTRAST)
        self.assertGreaterEqual(lowest, 4.5, where)
        self.assertEmpty(self.tab.errors())
        asked = {parse.urlsplit(x).path for x in self.tab.requests()}
        self.assertEqual(asked, {"/next"})
      client.close()


if __name__ == "__main__":
  absltest.main()
