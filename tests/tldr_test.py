"""Others' schemas as our records, from plain, packed and real files."""

import collections
import gzip
import json
import pathlib
import unittest

from absl.testing import absltest, parameterized
import tensorflow_datasets as tfds

from nashmd_jax import mistakes
from nashmd_jax.data import batches, records, tldr
from tests import real_data

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
REAL = real_data.FOLDER


def read(path: pathlib.Path, schema: str) -> list[records.Record]:
  return [record for _, record in tldr.read_records(path, schema)]


class SchemaTest(parameterized.TestCase):
  def test_posts_have_the_prompt_of_the_paper(self):
    first, second = read(FIXTURES / "tldr_posts.jsonl", "tldr_posts")
    self.assertEqual(
      second["prompt"],
      "SUBREDDIT: r/cycling\n\nTITLE: Wheel makes a noise\n\nPOST: My rear "
      "wheel clicks once a turn, but only uphill. I tightened every spoke.\n\n"
      "TL;DR:",
    )
    self.assertStartsWith(first["response"], "Tomatoes are still green")
    self.assertEqual(
      second["prompt"][slice(*second["slot"])],
      "My rear wheel clicks once a turn, but only uphill. I tightened every "
      "spoke.",
    )

  def test_choice_0_prefers_the_first_summary(self):
    rows = read(FIXTURES / "openai_comparisons.jsonl", "openai_comparisons")
    self.assertEqual([row["prob_a"] for row in rows], [1.0, 0.0, 1.0])
    self.assertEqual([row["rater"] for row in rows], ["w1", "w2", "w1"])
    self.assertEqual(rows[1]["response_b"], " Tomatoes stay green.")
    self.assertStartsWith(rows[0]["prompt"], "SUBREDDIT: r/gardening\n\nTITLE")
    self.assertStartsWith(rows[2]["prompt"], "The bridge over the river")
    self.assertEqual(rows[2]["slot"], (0, len(rows[2]["prompt"])))
    start, stop = rows[0]["slot"]
    self.assertEndsWith(rows[0]["prompt"][:start], "POST: ")
    self.assertEqual(rows[0]["prompt"][stop:], "\n\nTL;DR:")

  @parameterized.parameters(
    ("xsum", "A village library", "Volunteers have"),
    ("cnn_dailymail", "The ferry was late", "Fog delays ferry"),
  )
  def test_articles(self, schema, prompt, response):
    (row,) = read(FIXTURES / f"{schema}.jsonl", schema)
    self.assertStartsWith(row["prompt"], prompt)
    self.assertStartsWith(row["response"], response)
    self.assertEqual(row["slot"], (0, len(row["prompt"])))

  def test_ties_are_half_a_vote(self):
    row = {"id": "1", "title": "t", "text1": "a", "text2": "b"}
    row["votes"] = [[1, 1], [2, 0], [3, 2], [4, 1]]
    path = pathlib.Path(self.create_tempdir()) / "votes.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    (row,) = read(path, "ukp_votes")
    self.assertEqual(row["prob_a"], 2.5 / 4)
    self.assertEqual((row["votes"], row["ties"]), (4, 1))

  @parameterized.parameters(*records.TEXT_FIELDS)
  def test_our_own_records_pass_as_they_are(self, kind):
    record = dict.fromkeys(records.TEXT_FIELDS[kind], "text")
    if kind in records.SHARES:
      record[records.SHARES[kind]] = 0.25
    if kind == "conversation":
      record["turns"] = [{"role": "assistant", "content": "text"}]
    path = pathlib.Path(self.create_tempdir()) / "ours.jsonl"
    records.save_records(path, [record])
    self.assertEqual(read(path, kind), [record])

  @parameterized.parameters(
    ('{"info": {"id": "1"}}', r"line 2: not a row .*KeyError: 'summaries'"),
    ('{"id": ', "line 2: cannot be read .not JSON"),
    ('{"info": {"id": 5, "article": "t"}, "worker": "w", "choice": 0, '
     '"summaries": [{"text": "a"}, {"text": "b"}]}',
     "line 2: a comparison needs the text field 'id', got 5"),
    ('{"info": {"id": "1", "article": "t"}, "worker": "w", "choice": 2, '
     '"summaries": [{"text": "a"}, {"text": "b"}]}',
     "line 2: not a row .*KeyError: 2"),
  )  # fmt: skip
  def test_bad_rows_are_named(self, line, message):
    good = (FIXTURES / "openai_comparisons.jsonl").read_text().splitlines()[0]
    path = pathlib.Path(self.create_tempdir()) / "bad.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with self.assertRaisesRegex(ValueError, f"bad.jsonl, {message}"):
      read(path, "openai_comparisons")

  @parameterized.parameters(
    ("scitldr", "id", None, "TypeError: 'id' is None, expected text"),
    ("scitldr", "text", 5, "TypeError: 'text' is 5, expected text"),
    ("scitldr", "summaries", "one", "'summaries' is 'one', not a list"),
    ("scitldr", "summaries", None, "'summaries' is None, not a list"),
    ("tldr_posts", "title", None, "'title' is None, expected text"),
    ("tldr_posts", "post", 1.5, "'post' is 1.5, expected text"),
    ("tldr_posts", "subreddit", [], "'subreddit' is [], expected text"),
    ("xsum", "document", None, "'document' is None, expected text"),
    ("ukp_votes", "votes", [], "ZeroDivisionError"),
    ("ukp_votes", "votes", [["w", "z" * 5000]], "KeyError: 'zzz"),
    ("ukp_votes", "votes", 3, "TypeError"),
    ("openai_comparisons", "info", "text", "AttributeError"),
    ("openai_comparisons", "choice", None, "KeyError: None"),
    ("openai_comparisons", "summaries", [], "ValueError: not enough"),
  )
  def test_fields_of_another_type(self, schema, name, value, message):
    posted = {"subreddit": "s", "title": "t", "post": "p"}
    row = {
      "id": "1", **posted, "summary": "s", "text": "t", "summaries": ["s"],
      "document": "d", "text1": "a", "text2": "b", "votes": [["w", 1]],
    }  # fmt: skip
    if schema == "openai_comparisons":
      row |= {"info": row, "worker": "w", "choice": 0}
      row["info"], row["summaries"] = {"id": "1", **posted}, [{"text": "a"}] * 2
    path = pathlib.Path(self.create_tempdir()) / "typed.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | {name: value})}\n")
    with self.assertRaises(mistakes.Mistake) as caught:
      read(path, schema)
    found = str(caught.exception)
    self.assertStartsWith(found, f"{path}, line 2: not a row of {schema} (")
    self.assertIn(message, found)
    self.assertLess(len(found), len(str(path)) + 300)

  def test_fields_that_are_none_of_ours_are_passed_over(self):
    record = dict.fromkeys(records.TEXT_FIELDS["summary"], "text")
    path = pathlib.Path(self.create_tempdir()) / "ours.jsonl"
    records.save_records(path, [record | {"source": "x", "label": [1]}])
    self.assertEqual(read(path, "summary"), [record])

  def test_unknown_schema_and_file(self):
    with self.assertRaisesRegex(ValueError, "data.schema: got 'reddit'"):
      read(FIXTURES / "xsum.jsonl", "reddit")
    with self.assertRaisesRegex(ValueError, "no such file"):
      read(FIXTURES / "absent.jsonl", "xsum")


class BuilderTest(absltest.TestCase):
  def build(self, folder, schema="openai_comparisons"):
    files = {split: [str(FIXTURES / f"{schema}.jsonl")] for split in "ab"}
    builder = tldr.Tldr(schema=schema, files=files, data_dir=folder)
    builder.download_and_prepare(file_format="array_record")
    return builder

  def test_records_come_back_and_the_hash_is_of_the_content(self):
    builders = [
      self.build(self.create_tempdir(name).full_path) for name in "xy"
    ]
    hashes = {b.info.metadata["content_hash"] for b in builders}
    self.assertLen(hashes, 1)
    source = tfds.builder_from_directory(builders[0].data_dir)
    rows = source.as_data_source("a")
    got = collections.Counter(
      (
        row["response_a"].decode(),
        row["rater"].decode(),
        float(row["prob_a"]),
        tuple(row["slot"]),
      )
      for row in rows
    )
    expected = collections.Counter(
      (row["response_a"], row["rater"], row["prob_a"], row["slot"])
      for row in read(
        FIXTURES / "openai_comparisons.jsonl", "openai_comparisons"
      )
    )
    self.assertEqual(got, expected)

  def test_votes_and_weights_come_back_and_absent_ones_are_one(self):
    row = dict.fromkeys(records.TEXT_FIELDS["comparison"], "text")
    folder = self.create_tempdir()
    path = pathlib.Path(folder.full_path) / "ours.jsonl"
    records.save_records(path, [
      row | {"prob_a": 0.5},
      row | {"prob_a": 0.75, "votes": 4, "ties": 2, "weight": 0.25},
    ])  # fmt: skip
    builder = tldr.Tldr(
      schema="comparison",
      files={"a": [str(path)]},
      data_dir=f"{folder.full_path}/tfds",
    )
    builder.download_and_prepare(file_format="array_record")
    rows = sorted(builder.as_data_source("a"), key=lambda row: row["prob_a"])
    self.assertEqual(
      [(records.votes_of(row), records.weight_of(row)) for row in rows],
      [((1, 0), 1.0), ((4, 2), 0.25)],
    )


@unittest.skipUnless(REAL.is_dir(), real_data.ABSENT)
class RealDataTest(absltest.TestCase):
  def test_scitldr(self):
    rows = read(REAL / "scitldr_dev.jsonl.xz", "scitldr")
    self.assertGreaterEqual(len(rows), 619)
    self.assertLen({row["id"] for row in rows}, len(rows))
    self.assertEqual(rows[0]["slot"], (0, len(rows[0]["prompt"])))

  def test_votes_load_into_batches(self):
    rows = read(REAL / "ukpconvarg1.jsonl.xz", "ukp_votes")
    self.assertLen(rows, 16_927)
    mean = sum(row["prob_a"] for row in rows) / len(rows)
    self.assertBetween(mean, 0.4, 0.6)

    class Words:
      encode = staticmethod(lambda text: [len(word) for word in text.split()])
      eos_id = 1
      start_ids = close_ids = ()

    example = batches.encode_record(
      rows[0], Words, max_prompt=9, max_response=5
    )
    self.assertLen(example["responses_a"], 5)
    self.assertEqual(example["prob_a"].dtype, "float32")


if __name__ == "__main__":
  absltest.main()
