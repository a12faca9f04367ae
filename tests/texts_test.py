"""The user's own files: what is read of them, and all that is wrong at once."""

import contextlib
import io
import json
import pathlib
import sys

from absl.testing import absltest, parameterized
import ml_collections

from nashmd_jax import mistakes, texts

OWN = '''
def rows(row):
  """One question and answer of a row."""
  return {"id": row["n"], "prompt": row["q"], "response": row["a"]}


def labels(row):
  return [rows(row) | {"label": vote} for vote in row["votes"]]


def pairs(row):
  return [{"id": row["n"], "prompt": row["q"], "response_a": row["a"],
           "response_b": "none", "prob_a": 0.75, "slot": [0, 1]}]


def mixed(row):
  return labels(row) if row["n"] == "1" else rows(row)


def wrong(row):
  return row["n"]
'''


def data_config(**data):
  absent = {
    "records": None, "comparisons": None, "packages": (), "target": "summary",
  }  # fmt: skip
  absent["bad_rows"] = "error"
  schemas = {"schema": "summary", "comparisons_schema": "comparison"}
  return ml_collections.ConfigDict({"data": absent | schemas | data})


class TextsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    (self.folder / "own_rows.py").write_text(OWN)
    sys.path.insert(0, str(self.folder))
    self.addCleanup(sys.path.remove, str(self.folder))
    self.addCleanup(sys.modules.pop, "own_rows", None)

  def write(self, name="data", **splits):
    folder = self.folder / name
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
      lines = (json.dumps(row) + "\n" for row in rows)
      (folder / f"{split}.jsonl").write_text("".join(lines))
    return str(folder)

  def write_questions(self):
    rows = [
      {"n": str(i), "q": f"q{i}", "a": f"a{i}", "votes": [1, 0.5]}
      for i in (1, 2)
    ]
    return self.write(train=rows, validation=rows, test=rows)

  def sentences(self, **data):
    told = io.StringIO()
    with self.assertRaises(mistakes.Mistake) as caught:
      with contextlib.redirect_stderr(told):
        texts.check(data_config(**data))
    return caught.exception.sentences

  def load(self, load, **data):
    config = data_config(**data)
    texts.check(config)
    with contextlib.redirect_stdout(io.StringIO()):
      return load(config, self.folder / "run")

  def test_all_that_is_wrong_is_told_at_once(self):
    good = {"id": "1", "prompt": "p", "response": "r"}
    bad = self.write(
      train=[good, {"id": 2}, {"id": 3}],
      validation=[good | {"slot": [0, 2]}],
      test=[],
    )
    found = self.sentences(records=bad, comparisons=str(self.folder / "absent"))
    self.assertLen(found, 4)
    self.assertStartsWith(found[0], f"{bad}/train.jsonl, line 2: a summary")
    self.assertIn("validation.jsonl, line 1: slot must be", found[1])
    self.assertIn("test.jsonl: no records in it", found[2])
    self.assertIn(
      "absent/train.jsonl: no such file, nor validation.jsonl;", found[3]
    )

  def test_files_of_each_split_are_told_of_at_once(self):
    good = {"id": "1", "prompt": "p", "response": "r"}
    folder = self.write("a[0] b", train=[good], validation=[good], test=[good])
    texts.check(data_config(records=folder))
    self.write("a[0] b", train_old=[good], testing=[good])
    found = self.sentences(records=folder)
    self.assertLen(found, 2)
    self.assertStartsWith(found[0], f"{folder}/train_old.jsonl: begins like")
    self.assertStartsWith(found[1], f"{folder}/testing.jsonl: begins like")
    (found,) = self.sentences(records=f"{folder}/train.jsonl")
    self.assertStartsWith(found, f"{folder}/train.jsonl: cannot be read (Not")

  def test_a_part_beside_the_others_is_read(self):
    rows = [{"id": i, "prompt": "p", "response": "r"} for i in "123"]
    folder = self.write(train=rows[:1], validation=rows, test=rows)
    self.write(**{"train-1": rows[1:]})
    (self.folder / "data" / "train.jsonl.bak").write_text("nothing")
    splits = self.load(texts.load_summaries, records=folder)
    self.assertCountEqual(splits["train"], rows)

  @parameterized.parameters(
    ("records", "comparison", "schema", "for a summary or a unary"),
    ("comparisons", "summary", "comparisons_schema", "for a comparison"),
    ("comparisons", "reddit", "comparisons_schema", "got 'reddit'"),
  )
  def test_schemas_of_another_kind(self, data, schema, setting, message):
    (found,) = self.sentences(**{data: "anywhere", setting: schema})
    self.assertStartsWith(found, f"data.{setting}: got ")
    self.assertIn(message, found)

  @parameterized.parameters(
    ("pairs", "line 1: own_rows:pairs gave a comparison, expected a summary"),
    ("mixed", "line 2: a unary needs label between 0 and 1, got None"),
    ("wrong", "line 1: own_rows:wrong gave '1', expected a record, a dict"),
    ("labels", "line 1: data.schema: own_rows:labels: KeyError: 'votes'"),
  )
  def test_own_schemas_that_do_not_fit(self, function, message):
    folder = self.write_questions()
    if function == "labels":
      self.write(test=[{"n": "1", "q": "q", "a": "a"}])
    found = self.sentences(records=folder, schema=f"own_rows:{function}")
    self.assertIn(message, found[-1])

  def test_own_summaries(self):
    folder = self.write_questions()
    splits = self.load(
      texts.load_summaries, records=folder, schema="own_rows:rows"
    )
    self.assertCountEqual(
      splits["test"],
      [{"id": f"{i}", "prompt": f"q{i}", "response": f"a{i}"} for i in (1, 2)],
    )

  def test_own_labels_and_comparisons_of_one_workdir(self):
    folder = self.write_questions()
    splits = self.load(
      texts.load_summaries, records=folder, schema="own_rows:labels"
    )
    self.assertCountEqual(
      [(row["id"], float(row["label"])) for row in splits["train"]],
      [("1", 1.0), ("1", 0.5), ("2", 1.0), ("2", 0.5)],
    )
    compared = self.load(
      texts.load_comparisons,
      comparisons=folder,
      comparisons_schema="own_rows:pairs",
    )
    self.assertEqual(set(compared), {"train", "validation"})
    self.assertCountEqual(
      [path.name for path in (self.folder / "run/data").glob("*/tldr/*")],
      ["own_rows.labels.unary", "own_rows.pairs.comparison"],
    )
    for row in compared["train"]:
      self.assertEqual(row["slot"], (0, 1))
      self.assertEqual(float(row["prob_a"]), 0.75)

  def test_rows_that_gave_no_record_are_counted(self):
    one = {"id": "1", "text": "t", "summaries": ["s", "u"]}
    none = one | {"summaries": []}
    folder = self.write(train=[one, none, none], validation=[one], test=[one])
    given = {"records": folder, "schema": "scitldr"}
    splits = self.load(texts.load_summaries, **given)
    self.assertLen(splits["train"], 2)
    self.assertEqual(
      self.load(texts.count_left_out, **given),
      (
        (
          {"train": 2, "validation": 0, "test": 0},
          {"train": {}, "validation": {}, "test": {}},
        ),
        ({}, {}),
      ),
    )
    (found,) = self.sentences(
      records=self.write(train=[none]), schema="scitldr"
    )
    self.assertIn("train.jsonl: no records in it", found)

  def test_bad_rows_are_refused_or_skipped_and_counted_by_cause(self):
    good = {"id": "1", "prompt": "p", "response": "r"}
    folder = self.write(train=[good], validation=[good], test=[good])
    with (self.folder / "data" / "train.jsonl").open("ab") as file:
      file.write(b'{\n\xff\n[1]\n{"id": "2"}\n{"id": "1", "id": "2"}\n')
      file.write(json.dumps(good | {"messages": 7}).encode() + b"\n")
      file.write(json.dumps(good | {"id": "3"}).encode() + b"\n")
    (found,) = self.sentences(records=folder)
    self.assertIn("train.jsonl, line 2: cannot be read (not JSON", found)
    given = {"records": folder, "bad_rows": "skip"}
    texts.check(data_config(**given))
    splits = self.load(texts.load_summaries, **given)
    self.assertEqual({row["id"] for row in splits["train"]}, {"1", "3"})
    of_records, _ = self.load(texts.count_left_out, **given)
    self.assertEqual(of_records.none["train"], 0)
    self.assertEqual(
      of_records.skipped,
      {
        "train": {"not_json": 4, "bad_field": 1, "not_of_the_schema": 1},
        "validation": {},
        "test": {},
      },
    )

  def test_a_file_of_bad_rows_alone_has_no_records(self):
    folder = self.write(train=[{}], validation=[{}], test=[{}])
    for sentence in self.sentences(records=folder, bad_rows="skip"):
      self.assertIn("no records in it", sentence)

  def test_other_files_are_other_data(self):
    def rows(response):
      return [{"id": "1", "prompt": "p", "response": response}]

    facts = []
    for response in ("wrong", "right", "right"):
      made = rows(response)
      folder = self.write(train=made, validation=made, test=made)
      splits = self.load(texts.load_summaries, records=folder)
      self.assertEqual(splits["train"][0]["response"], response)
      facts.append(texts.facts(splits, None))
    self.assertNotEqual(facts[0]["records"], facts[1]["records"])
    self.assertEqual(facts[1], facts[2])
    prepared = list((self.folder / "run" / "data").glob("*/tldr/*"))
    self.assertLen(prepared, 2)

  def test_slots_come_back_and_none_stays_none(self):
    rows = [{"id": str(i), "prompt": "pqr", "response": "r"} for i in range(2)]
    rows[1]["slot"] = [1, 3]
    folder = self.write(train=rows, validation=rows, test=rows)
    splits = self.load(texts.load_summaries, records=folder)
    rows[1]["slot"] = (1, 3)
    self.assertCountEqual(splits["validation"], rows)
    json.dumps(splits)

  def test_unary_records_of_ours(self):
    rows = [{"id": "1", "prompt": "p", "response": "r", "label": 0.25}]
    folder = self.write(train=rows, validation=rows, test=rows)
    splits = self.load(texts.load_summaries, records=folder, schema="unary")
    self.assertEqual(splits["train"], rows)


if __name__ == "__main__":
  absltest.main()
