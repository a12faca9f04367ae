"""The file of a judge's answers: whole, its own, and never silently another."""

import pathlib
import sqlite3
import threading

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.judges import answer_cache

Answer = answer_cache.Answer


class AnswerCacheTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / "below" / "answers.sqlite"

  def open(self) -> answer_cache.Cache:
    cache = answer_cache.open_cache(self.path)
    self.addCleanup(cache.close)
    return cache

  def assert_refused(self, expected: str):
    with self.assertRaisesRegex(mistakes.Mistake, expected) as raised:
      answer_cache.open_cache(self.path)
    self.assertNotIn("\n", str(raised.exception))
    self.assertStartsWith(str(raised.exception), f"{self.path}: ")

  def filled(self, count: int = 2000) -> None:
    cache = answer_cache.open_cache(self.path)
    for number in range(count):
      cache.keep(f"{number:064}", Answer(0.1 * number, "text", 1, 10))
    cache.close()

  def test_what_is_kept_is_found_again_and_only_that(self):
    said = {
      "a": Answer(1 / 3, "1 é", 1, 20),
      "b": Answer(None, "", 3, 0),
      "c": Answer(5e-324, "\x00", 1, 2**40),
    }
    cache = self.open()
    for key, answer in said.items():
      self.assertEqual(cache.keep(key, answer), answer)
    for one in (cache, self.open()):
      self.assertEqual(one.look_up([*said, "d"]), said)
    self.assertEqual(cache.look_up([]), {})
    keys = [f"{number}" for number in range(1201)] + ["a"]
    self.assertEqual(cache.look_up(keys), {"a": said["a"]})

  def test_the_first_answer_stays_and_both_are_paid(self):
    cache, other = self.open(), self.open()
    first = cache.keep("a", Answer(0.25, "1", 1, 20))
    self.assertEqual(other.keep("a", Answer(0.75, "2", 1, 30)), first)
    self.assertEqual(cache.look_up(["a"]), {"a": first})
    self.assertEqual(cache.spent(), (0, 50))

  def test_calls_are_taken_as_long_as_there_are(self):
    cache = self.open()
    self.assertEqual(
      [cache.take_call(3, 0) for _ in range(5)], [True] * 3 + [False] * 2
    )
    self.assertEqual(self.open().spent(), (3, 0))
    self.assertTrue(cache.take_call(0, 0))
    self.assertTrue(cache.take_call(0, 20))
    cache.keep("a", Answer(0.5, "", 1, 20))
    self.assertFalse(cache.take_call(0, 20))
    self.assertTrue(cache.take_call(9, 21))
    self.assertEqual(cache.spent(), (6, 20))

  def test_many_open_it_at_once(self):
    start, failed = threading.Barrier(8), []

    def begin(number):
      try:
        start.wait()
        cache = answer_cache.open_cache(self.path)
        for n in range(20):
          cache.take_call(0, 0)
          cache.keep(f"{number} {n}", Answer(0.5, "", 1, 1))
        cache.close()
      except BaseException as error:
        failed.append(error)

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    self.assertEqual(failed, [])
    self.assertEqual(self.open().spent(), (160, 160))

  def test_a_file_of_another_kind(self):
    self.path.parent.mkdir()
    self.path.write_text("judge: yes\n" * 100)
    self.assert_refused("not a database")
    self.assertStartsWith(self.path.read_text(), "judge: yes")
    self.path.unlink()
    with sqlite3.connect(self.path) as database:
      database.execute("CREATE TABLE answers (a)")
    database.close()
    before = self.path.read_bytes()
    self.assert_refused("not one of the judge's answers")
    self.assertEqual(self.path.read_bytes(), before)

  def test_a_file_of_another_version(self):
    self.filled(1)
    with sqlite3.connect(self.path) as database:
      database.execute("PRAGMA user_version = 7")
    database.close()
    self.assert_refused("answers in version 7 of the file, expected 2")

  def test_answers_of_the_first_version_are_taken_over(self):
    self.filled(2)
    with sqlite3.connect(self.path) as database:
      database.execute("ALTER TABLE answers DROP COLUMN crc")
      database.execute("PRAGMA user_version = 1")
    database.close()
    for _ in range(2):
      cache = self.open()
      self.assertLen(cache.look_up([f"{n:064}" for n in range(3)]), 2)
      cache.keep("c", Answer(0.5, "", 1, 1))
    self.assertEqual(cache.look_up(["c"])["c"].win_prob, 0.5)

  @parameterized.parameters(
    "win_prob = 0.75", "text = 'other'", "tokens = 9", "calls = 'x'"
  )
  def test_an_answer_that_is_another_than_was_kept(self, change):
    self.filled(2)
    with sqlite3.connect(self.path) as database:
      database.execute(f"UPDATE answers SET {change}")
    database.close()
    with self.assertRaisesRegex(mistakes.Mistake, "the answer 0.* is damaged"):
      self.open().look_up([f"{0:064}"])

  @parameterized.parameters(4096, 40_000, 0.5)
  def test_a_damaged_file(self, place):
    self.filled()
    size = self.path.stat().st_size
    with self.path.open("r+b") as file:
      if place < 1:
        file.truncate(int(size * place))
      else:
        file.seek(place)
        file.write(b"\xff\x00\xaa" * 300)
    self.assert_refused("cannot be kept there")

  def test_a_damaged_file_of_which_the_database_tells_in_no_text(self):
    self.filled()
    whole = self.path.read_bytes()
    self.path.write_bytes(whole.replace(b"NOT NULL)", b"NOT \xffULL)"))
    self.assert_refused("cannot be kept there")

  def test_a_place_that_cannot_be_written(self):
    self.path.parent.write_text("a file")
    self.assert_refused("cannot be kept there")

  def test_a_disk_that_fails_later_is_told_of_in_one_sentence(self):
    cache = self.open()
    with sqlite3.connect(self.path) as database:
      database.execute("DROP TABLE answers")
    database.close()
    for use in (
      lambda: cache.look_up(["a"]),
      lambda: cache.keep("a", Answer(0.5, "", 1, 1)),
    ):
      with self.assertRaisesRegex(mistakes.Mistake, "cannot be kept there"):
        use()
    self.assertEqual(cache.spent(), (0, 0))  # and nothing was half done


if __name__ == "__main__":
  absltest.main()
