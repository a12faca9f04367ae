"""Declared settings: which values are right, and what is said of the others."""

from absl.testing import absltest, parameterized
import ml_collections
import numpy as np

from nashmd_jax import declare, mistakes

NAN, INF = float("nan"), float("inf")
WHOLE = declare.whole("Steps.", least=1)
SHARE = declare.number("A share.", least=0, below=1)
RATE = declare.number("A rate.", above=0)
TEXT = declare.text("A name.")
FLAG = declare.flag("Whether.")
KIND = declare.text("A kind.", one_of=("soft", "hard"))
SIZES = declare.several(declare.whole("Sizes.", least=1), least=1)
PAIR = declare.several(declare.text("Answers."), least=2, most=2)
MAYBE = declare.number("A scale.", above=0, optional=True)
RIGHT = [
  (WHOLE, [1, np.int64(3), declare.LARGEST]),
  (SHARE, [0, 0.0, 0.5, np.float32(0.5), np.float64(0.0), np.int32(0)]),
  (RATE, [1e-30, 1, 1e30]),
  (TEXT, ["a", np.str_("b"), "é 中"]),
  (FLAG, [True, False, np.bool_(True)]),
  (KIND, ["soft", "hard"]),
  (SIZES, [(1,), [1, 2], (np.int64(4), 3)]),
  (PAIR, [("1", "2"), ["a", "b"]]),
  (MAYBE, [None, 2.0]),
  (declare.text("May be empty.", empty=True), [""]),
  (declare.several(RATE, repeats=True), [(), (0.5, 0.5)]),
]
WRONG = [
  (WHOLE, [0, -1, 1.0, True, "1", None, (1,), NAN, 10**20, {"a": 1}, [1, 2]],
   "a whole number"),
  (SHARE, [1, 1.0, -0.1, True, "0", None, NAN, INF, 10**400, (0.5,)],
   "a number of 0 or more and below 1"),
  # What devices, in float32, would take for 1 and for 0.
  (SHARE, [1 - 1e-12], "a number of 0 or more and below 1"),
  (RATE, [0, 0.0, -1, 1e-45, 1e-300, 1e39, INF], "a number above 0"),
  (TEXT, [1, True, None, ("a",), b"a"], "a text"),
  (TEXT, [""], "a text that is not empty"),
  (TEXT, ["a\0b", "\udcff"], "a text of whole characters, none of them NUL"),
  (FLAG, [0, 1, "True", None, (True,), np.int64(1)], "True or False"),
  (KIND, ["", "firm", None, 1, ("soft",)], "one of ('soft', 'hard')"),
  (SIZES, [(), 1, "12", (0,), (1, 1), (1.0,), None, {1, 2}, (True,)],
   "a tuple of whole numbers of 1 or more, 1 or more of them, each once"),
  (PAIR, [("1",), ("1", "2", "3"), ("1", "1"), ("1", 2), "12", None],
   "a tuple of texts, 2 of them, each once"),
  (MAYBE, [0, "None", NAN, ()], "a number above 0 or None"),
]  # fmt: skip
SECTION = {
  "rate": RATE,
  "train": {"steps": WHOLE, "kind": KIND._replace(absent=True)},
  "runs": {
    declare.ANY: declare.Changes("", {"rate": RATE, "train": {"steps": WHOLE}})
  },
}
GOOD = {"rate": 1, "train": {"steps": 3}, "runs": {"a": {}}}


class WrongTest(parameterized.TestCase):
  def test_right_values(self):
    for setting, values in RIGHT:
      for value in values:
        self.assertIsNone(declare.wrong(setting, value), msg=repr(value))

  def test_wrong_values(self):
    for setting, values, expected in WRONG:
      for value in values:
        told = declare.wrong(setting, value)
        self.assertIsNotNone(told, msg=f"{expected}: {value!r:.50}")
        self.assertStartsWith(told, "got ")
        self.assertIn(f", expected {expected}", told)
        self.assertLess(len(told), 300)

  def test_an_end_that_is_not_passed_is_not_told(self):
    told = declare.wrong(WHOLE, 0)
    self.assertEqual(told, "got 0, expected a whole number of 1 or more")
    told = declare.wrong(WHOLE, 10**20)
    self.assertEndsWith(told, "a whole number from 1 to 2147483647")
    told = declare.wrong(declare.number("τ", least=0, most=1e6), -1)
    self.assertEndsWith(told, "a number from 0 to 1000000")


class FaultsTest(parameterized.TestCase):
  def test_a_good_section(self):
    self.assertEmpty(declare.faults(SECTION, GOOD))
    config = ml_collections.ConfigDict(GOOD)
    self.assertEmpty(declare.faults(SECTION, config))
    more = GOOD | {"train": {"steps": 3, "kind": "soft"}}
    self.assertEmpty(declare.faults(SECTION, more))

  @parameterized.parameters(
    ({"rate": 0}, "x.rate: got 0"),
    ({"train": {"steps": 0}}, "x.train.steps: got 0"),
    ({"train": 3}, "x.train: got 3, expected a section with the keys"),
    ({"train": {}}, r"x.train: missing \['steps'\], unknown \[\]"),
    ({"train": {"steps": 1, "stpes": 1}}, r"unknown \['stpes'\]; expected"),
    ({"rates": 1}, r"x: missing \[\], unknown \['rates'\]"),
    ({"runs": {"a": {"rate": 0}}}, "x.runs.a.rate: got 0"),
    ({"runs": {"a": {"train": {"steps": 0}}}}, "x.runs.a.train.steps: got 0"),
    ({"runs": {"a": {"runs": {}}}}, r"x.runs.a: .* unknown \['runs'\]"),
    ({"runs": {"a/b": {}}}, "x.runs: 'a/b' is no name, expected let"),
    ({"runs": {"": {}}}, "x.runs: '' is no name"),
    ({"runs": {"a": None}}, "x.runs.a: got None, expected a section"),
    ({"runs": ()}, r"x.runs: got \(\), expected a section"),
  )
  def test_a_sentence_for_what_is_wrong(self, changes, message):
    (told,) = declare.faults(SECTION, GOOD | changes, "x")
    self.assertRegex(told, f"^x.*{message.removeprefix('x')}")

  def test_all_are_told_at_once(self):
    given = {"rate": "a", "train": {"steps": NAN}, "runs": {"a": {"rate": -1}}}
    with self.assertRaises(mistakes.Mistake) as caught:
      declare.check(SECTION, given, "")
    self.assertEqual(
      [told.split(":")[0] for told in caught.exception.sentences],
      ["rate", "train.steps", "runs.a.rate"],
    )

  def test_finds_what_is_declared(self):
    self.assertIs(declare.find(SECTION, "train.steps"), WHOLE)
    self.assertIs(declare.find(SECTION, "runs.any.train.steps"), WHOLE)
    self.assertIs(declare.find(SECTION, "train"), SECTION["train"])
    for name in ("steps", "rate.x", "runs.any.kind", "train.steps.x"):
      self.assertIsNone(declare.find(SECTION, name))


if __name__ == "__main__":
  absltest.main()
