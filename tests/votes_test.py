"""The log of votes: each once, never another, and what is asked for it."""

import pathlib
import sqlite3
import threading

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.annotators import asking, design, outcome, votes
from nashmd_jax.data import records

VOTE = votes.Vote(
  key="ann 0",
  pair="3 sft nash_md",
  shown_left=votes.B,
  choice=votes.TIE,
  seconds=1 / 3,
  annotator="ann",
  is_repeat=False,
  is_golden=True,
  at=1.7e9,
)


def make_pairs(count: int, certain: int = 0) -> list[design.Pair]:
  """Pairs of texts, some of which a judge is certain of."""
  return [
    design.Pair(
      name=f"{i} a b",
      record={"id": str(i), "prompt": f"prompt {i}", "response": "r"},
      a="a",
      b="b",
      response_a=f"first {i}",
      response_b=f"second {i}",
      prob=0.97 if i < certain else 0.8,
    )
    for i in range(count)
  ]


class LogTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / "v.sqlite3"

  def open(self) -> votes.Log:
    log = votes.open_log(self.path)
    self.addCleanup(log.close)
    return log

  def change(self, *statements: str) -> None:
    with sqlite3.connect(self.path) as database:
      for statement in statements:
        database.execute(statement)
    database.close()

  def test_what_is_kept_is_there_again_in_order(self):
    log = self.open()
    cast = [VOTE._replace(key=f"ann {n}", seconds=n / 7) for n in range(50)]
    for vote in cast:
      self.assertEqual(log.keep(vote), vote)
    for one in (log, self.open()):
      self.assertEqual(one.load(), cast)

  def test_a_vote_that_is_sent_again_is_the_first_one(self):
    log = self.open()
    log.keep(VOTE)
    other = VOTE._replace(choice=votes.A, seconds=9.0)
    self.assertEqual(log.keep(other), VOTE)
    self.assertEqual(self.open().load(), [VOTE])

  def test_many_threads_and_files_lose_none(self):
    logs = [self.open(), self.open()]

    def work(part):
      for n in range(30):
        logs[part % 2].keep(VOTE._replace(key=f"{n + 15 * part}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    keys = [vote.key for vote in logs[0].load()]
    self.assertCountEqual(keys, [f"{n}" for n in range(75)])

  @parameterized.parameters(
    "UPDATE votes SET choice = 'a'", "DELETE FROM votes"
  )
  def test_nothing_is_changed_or_taken_away(self, statement):
    self.open().keep(VOTE)
    with self.assertRaisesRegex(sqlite3.DatabaseError, "are only added"):
      self.change(statement)
    self.assertEqual(self.open().load(), [VOTE])

  def test_a_vote_that_was_changed_is_refused(self):
    self.open().keep(VOTE)
    self.change("DROP TRIGGER no_update", "UPDATE votes SET choice = 'a'")
    with self.assertRaisesRegex(mistakes.Mistake, "the vote ann 0 is damaged"):
      self.open().load()

  def test_files_of_another_kind_and_version(self):
    self.path.write_text("votes: many\n" * 100)
    with self.assertRaisesRegex(mistakes.Mistake, "the votes cannot be kept"):
      votes.open_log(self.path)
    self.path.write_text("S")
    with self.assertRaisesRegex(mistakes.Mistake, "it is cut short"):
      votes.open_log(self.path)
    self.path.unlink()
    self.open().keep(VOTE)
    self.change("PRAGMA user_version = 2")
    with self.assertRaisesRegex(mistakes.Mistake, "votes in version 2 of the"):
      votes.open_log(self.path)

  def test_a_vote_that_is_gone_is_missed(self):
    log = self.open()
    for n in range(3):
      log.keep(VOTE._replace(key=f"ann {n}"))
    self.change("DROP TRIGGER no_delete", "DELETE FROM votes WHERE number = 2")
    with self.assertRaisesRegex(mistakes.Mistake, "2 votes of 3 are left"):
      self.open().load()

  def test_each_vote_waits_for_the_disk(self):
    self.assertEqual(votes.KIND.synchronous, "FULL")


class DesignTest(absltest.TestCase):
  def test_golden_are_the_most_certain_and_the_others_are_drawn(self):
    pairs = make_pairs(40, certain=5)
    settings = {"count": 20, "golden_share": 0.2, "certainty": 0.9}
    found = design.choose(pairs, **settings, seed=3)
    self.assertEqual(found, design.choose(pairs, **settings, seed=3))
    self.assertNotEqual(found, design.choose(pairs, **settings, seed=4))
    tests = [pair.name for pair in found if pair.is_golden]
    self.assertEqual(tests, ["0 a b", "1 a b", "2 a b", "3 a b"])
    self.assertLen(found, 24)
    self.assertLen({pair.name for pair in found}, 24)

  def test_golden_are_no_more_than_are_certain(self):
    found = design.choose(
      make_pairs(40, 4), count=10, golden_share=0.5, certainty=0.9, seed=0
    )
    self.assertEqual(sum(pair.is_golden for pair in found), 4)
    self.assertLen(found, 14)

  def test_each_pair_once_and_repeats_late(self):
    pairs = design.choose(
      make_pairs(90, 9), count=80, golden_share=0.1, certainty=0.9, seed=0
    )
    for name in ("ann", "bob"):
      asked = design.questions(pairs, repeats=0.25, seed=1, annotator=name)
      first = [one.pair.name for one in asked if not one.is_repeat]
      self.assertCountEqual(first, [pair.name for pair in pairs])
      again = [place for place, one in enumerate(asked) if one.is_repeat]
      self.assertBetween(len(again), 17, 20)
      for place in again:
        self.assertFalse(asked[place].pair.is_golden)
        before = [one.pair for one in asked].index(asked[place].pair)
        self.assertGreater(place - before, len(pairs) // 3 - 1)
      self.assertGreater(place - again[0], 10)  # and not in one block

  def test_order_and_sides_are_each_annotator_s_own(self):
    pairs = make_pairs(60)
    one, again, other = (
      design.questions(pairs, repeats=0.2, seed=1, annotator=name)
      for name in ("ann", "ann", "bob")
    )
    self.assertEqual(one, again)
    self.assertNotEqual(one, other)
    left = np.mean([x.shown_left == votes.A for x in one + other])
    self.assertBetween(left, 0.3, 0.7)


class DeskTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    path = pathlib.Path(self.create_tempdir().full_path) / "v.sqlite3"
    self.log = votes.open_log(path)
    self.addCleanup(self.log.close)
    self.pairs = make_pairs(12)
    self.desk = self.open()

  def open(self, seed: int = 0) -> asking.Desk:
    return asking.open_desk(self.log, self.pairs, repeats=0.25, seed=seed)

  def test_what_is_shown_tells_two_texts_and_no_more(self):
    shown = self.desk.ask("ann")
    self.assertEqual(
      set(shown), {"place", "of", "prompt", asking.LEFT, asking.RIGHT}
    )
    self.assertEqual((shown["place"], shown["of"]), (0, 15))

  def test_a_choice_is_of_the_response_wherever_it_stood(self):
    for place in range(15):
      shown = self.desk.ask("ann")
      first = shown[asking.LEFT].startswith("first")
      choice = asking.LEFT if first else asking.RIGHT
      self.desk.answer("ann", place, choice, 0.5)
    self.assertEqual({vote.choice for vote in self.log.load()}, {votes.A})
    self.assertEqual(
      {vote.shown_left for vote in self.log.load()}, {votes.A, votes.B}
    )
    self.assertEqual(self.desk.ask("ann"), {"place": 15, "of": 15})
    self.assertEqual(self.desk.finished(), 1)

  def test_a_vote_that_is_sent_again_is_stored_once(self):
    shown = self.desk.answer("ann", 0, asking.LEFT, 1)
    self.assertEqual(self.desk.answer("ann", 0, asking.RIGHT, 1), shown)
    self.assertLen(self.log.load(), 1)

  def test_it_goes_on_where_the_log_ends(self):
    for place, choice in enumerate((asking.LEFT, asking.TIE)):
      shown = self.desk.answer("ann", place, choice, 1)
    self.desk.answer("bob", 0, asking.RIGHT, 1)
    again = self.open()
    self.assertEqual(again.ask("ann"), shown)
    self.assertEqual(again.ask("bob")["place"], 1)
    with self.assertRaisesRegex(mistakes.Mistake, "'ann 0' is on another"):
      self.open(seed=1)

  def test_what_no_page_of_ours_sends(self):
    for arguments in (
      ("ann", 1, "left", 1), ("ann", -1, "left", 1), ("ann", True, "left", 1),
      ("ann", 0, "up", 1), ("ann", 0, ["left"], 1), ("ann", 0, "left", -1),
      ("ann", 0, "left", float("nan")), ("ann", 0, "left", 10**400),
      ("ann", 0, "left", "1"), ("", 0, "left", 1), ("a b", 0, "left", 1),
      (None, 0, "left", 1), ("a" * 41, 0, "left", 1), ("../a", 0, "left", 1),
    ):  # fmt: skip
      with self.subTest(arguments), self.assertRaises(asking.Refused):
        self.desk.answer(*arguments)
    self.assertEqual(self.log.load(), [])


class OutcomeTest(absltest.TestCase):
  def cast(self, efforts, count=600, seed=0):
    """Votes of annotators who prefer a with 0.8, golden ones with 0.97."""
    rng, cast, pairs = np.random.default_rng(seed), [], []
    pairs = design.choose(
      make_pairs(count + 60, 60),
      count=count, golden_share=0.1, certainty=0.9, seed=seed,
    )  # fmt: skip
    for name, effort in efforts.items():
      asked = design.questions(pairs, repeats=0.25, seed=0, annotator=name)
      for place, one in enumerate(asked):
        p = one.pair.prob if rng.random() < effort else 0.5
        cast.append(
          VOTE._replace(
            key=f"{name} {place}",
            pair=one.pair.name,
            shown_left=one.shown_left,
            choice=votes.A if rng.random() < p else votes.B,
            annotator=name,
            is_repeat=one.is_repeat,
            is_golden=one.pair.is_golden,
          )
        )
    return cast, pairs

  def test_annotators_are_told_apart(self):
    cast, pairs = self.cast({"good": 1.0, "poor": 0.1})
    found = outcome.describe(cast, pairs, confidence=0.99)
    good, poor = (found["annotators"][name] for name in ("good", "poor"))
    for by in (outcome.BY_REPEATS, outcome.BY_GOLDEN):
      self.assertBetween(1.0, good[by]["effort"][1], good[by]["effort"][2])
      self.assertGreater(good[by]["effort"][0], poor[by]["effort"][0] + 0.3)
    self.assertLess(good["golden"]["by_chance"], 1e-6)
    self.assertGreater(poor["golden"]["by_chance"], 1e-4)
    self.assertEqual(good["golden"]["asked"], 60)
    (cell,) = found["policies"]
    self.assertEqual(cell["prompts"], 600)
    # Each twice, and up to a quarter of them once more.
    self.assertBetween(cell["votes"], 1400, 1500)
    # Half of the votes at 0.8, half at ½ + 0.1 · 0.3.
    self.assertBetween(0.665, cell["share"][1], cell["share"][2])
    self.assertLen(list(outcome.lines(found)), 3)

  def test_records_are_comparisons_with_all_votes_of_a_pair(self):
    cast, pairs = self.cast({"one": 1.0, "two": 1.0}, count=30)
    cast[0] = cast[0]._replace(choice=votes.TIE, is_golden=False)
    found = outcome.comparisons(cast, pairs)
    for row in found:
      records.check_record(row, "comparison", "here")
    plain = [vote for vote in cast if not vote.is_golden]
    self.assertEqual(sum(row["votes"] for row in found), len(plain))
    self.assertEqual(sum(row["ties"] for row in found), 1)
    (tied,) = [row for row in found if row["ties"]]
    mine = [vote for vote in plain if vote.pair == tied["id"]]
    won = sum(outcome.VALUES[vote.choice] for vote in mine)
    self.assertAlmostEqual(tied["prob_a"], won / len(mine))

  def test_by_effort_a_poor_annotator_counts_less(self):
    cast, pairs = self.cast({"good": 1.0, "poor": 0.0}, count=600)
    found = outcome.describe(cast, pairs, confidence=0.95)
    effort = outcome.efforts(found, outcome.BY_GOLDEN)
    plain, weighted = (
      outcome.comparisons(cast, pairs, one) for one in (None, effort)
    )
    for row in weighted:
      records.check_record(row, "comparison", "here")
    means = [np.mean([r["prob_a"] for r in x]) for x in (plain, weighted)]
    self.assertAlmostEqual(means[0], 0.65, delta=0.03)
    self.assertAlmostEqual(means[1], 0.8, delta=0.04)

  def test_effort_of_whom_nothing_is_known_is_that_of_the_others(self):
    cast, pairs = self.cast({"good": 1.0, "new": 1.0})
    known = [x for x in cast if x.annotator == "good"]
    new = [x for x in cast if x.annotator == "new" and not x.is_golden]
    found = outcome.describe(known + new[:3], pairs, confidence=0.95)
    effort = outcome.efforts(found, outcome.BY_GOLDEN)
    self.assertEqual(effort["new"], effort["good"])
    found = outcome.describe(new[:3], pairs, confidence=0.95)
    self.assertIsNone(outcome.efforts(found, outcome.BY_GOLDEN))

  def test_a_prompt_is_in_one_split_alone(self):
    cast, pairs = self.cast({"one": 1.0}, count=50)
    found = outcome.split(outcome.comparisons(cast, pairs))
    prompts = {
      name: {r["prompt"] for r in rows} for name, rows in found.items()
    }
    self.assertLen(prompts["train"], 45)
    self.assertLen(prompts["validation"], 5)
    self.assertEmpty(prompts["train"] & prompts["validation"])


if __name__ == "__main__":
  absltest.main()
