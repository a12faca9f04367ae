"""Every fault of a served judge's settings, in one go and before anything."""

import inspect
import os
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.judges import served, served_settings, table
from tests import judge_client

GOOD = judge_client.SETTINGS | {"url": "https://judge.example:8000/v1"}
BAD = {
  "url": [None, "", "localhost:8000", "ftp://a/v1", "http:///v1", 7,
          "http://a/v1?key=1", "http://a/v1#b", "http://a:99999/v1"],
  "model": [None, "", 3],
  "form": ["chats", None],
  "system": [3],
  "prompt": [None, "", "{prompt} {first}", "{prompt}{first}{second}{first}"],
  "answers": [None, (), ("1",), ("1", "2", "3"), ("1", "1"), ("1", ""),
              ("1", 2), (" 1", "2"), ("A", "A better"), "12"],
  "top_logprobs": [-1, 1.5, True, None],
  "max_tokens": [0, "4"],
  "orders": ["two", True],
  "timeout_seconds": [0, -1, float("inf"), float("nan"), None],
  "retries": [-1, 0.5],
  "connections": [0, None],
  "per_minute": [-1, "60"],
  "budget_calls": [-1, 1e3],
  "budget_tokens": [-1],
  "most_failed": [-0.1, 1.1, float("nan"), "0.1"],
  "key_variable": ["sk-1234", "A B", 7],
}  # fmt: skip


class CheckTest(parameterized.TestCase):
  def told(self, **changes) -> list[str]:
    try:
      served.check(**GOOD | changes)
    except mistakes.Mistake as mistake:
      return list(mistake.sentences)
    return []

  def test_good_settings(self):
    for changes in (
      {}, {"system": "You judge."}, {"form": "completion"},
      {"answers": ["A", "B"]}, {"key_variable": None}, {"key_variable": ""},
      {"most_failed": 1}, {"url": "http://[::1]:8000/v1/"},
      {"timeout_seconds": 0.5}, {"per_minute": 0.5},
    ):  # fmt: skip
      self.assertEqual(self.told(**changes), [])

  @parameterized.parameters(*BAD)
  def test_a_bad_one_is_named(self, name):
    for value in BAD[name]:
      (told,) = self.told(**{name: value})
      self.assertStartsWith(told, f"judges.served.{name}: ")
      self.assertNotIn("\n", told)

  def test_all_are_told_at_once(self):
    told = self.told(**{name: values[0] for name, values in BAD.items()})
    self.assertCountEqual(
      [sentence.split(":")[0] for sentence in told],
      [f"judges.served.{name}" for name in BAD],
    )

  def test_a_completion_has_no_system_message(self):
    (told,) = self.told(form="completion", system="You judge.")
    self.assertStartsWith(told, "judges.served.system: a completion has no")

  def test_no_secret_is_shown(self):
    for changes in (
      {"url": "http://me:sk-secret@a/v1"},
      {"key_variable": "sk-secret"},
    ):
      (told,) = self.told(**changes)
      self.assertNotIn("secret", told)
    with mock.patch.dict(os.environ, JUDGE_KEY="sk-secret with space"):
      (told,) = self.told()
    self.assertIn("JUDGE_KEY", told)
    self.assertNotIn("secret", told)

  def test_a_judge_is_made_of_just_these_and_only_of_good_ones(self):
    names = served_settings.Settings._fields
    self.assertEqual(set(names), set(served_settings.SETTINGS))
    made = inspect.signature(served.make_judge).parameters
    self.assertEqual(set(made), {*names, "cache"})
    self.assertEqual(set(made), set(table.SETTINGS["served"]))
    cache = pathlib.Path(self.create_tempdir().full_path) / "a.sqlite"
    with self.assertRaises(mistakes.Mistake):
      served.make_judge(cache=cache, **GOOD | {"url": None})
    self.assertFalse(cache.exists())


if __name__ == "__main__":
  absltest.main()
