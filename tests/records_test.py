"""JSON lines of records: what is read, and the sentence for what is not."""

import json
import pathlib

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.data import records

COMPARED = (
  '{"id": "1", "prompt": "x", "response_a": "y", "response_b": "z", '
  '"prob_a": 0.75, %s}'
)


class RecordsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("broken", "summary", '{"id": "1", ', "line 2: cannot be read \\(not JSON"),
    ("list", "summary", "[1]", "line 2: expected a JSON object"),
    (
      "field",
      "summary",
      '{"id": "1", "prompt": "x"}',
      "line 2: a summary needs the text field 'response'",
    ),
    (
      "prob",
      "comparison",
      '{"id": "1", "prompt": "x", "response_a": "y", "response_b": "z", '
      '"prob_a": 1.5}',
      "line 2: a comparison needs prob_a between 0 and 1, got 1.5",
    ),
    (
      "label",
      "unary",
      '{"id": "1", "prompt": "x", "response": "y", "label": true}',
      "line 2: a unary needs label between 0 and 1, got True",
    ),
    (
      "half_a_character",
      "prompt",
      r'{"id": "1", "prompt": "a\ud83d"}',
      "line 2: a prompt needs the text field 'prompt' in whole characters",
    ),
    (
      "rater",
      "comparison",
      '{"id": "1", "prompt": "x", "response_a": "y", "response_b": "z", '
      '"prob_a": 1, "rater": 5}',
      "line 2: a comparison may have the text field 'rater', got 5",
    ),
    *(
      (f"{name}_{i}", "comparison", COMPARED % f'"{name}": {value}', message)
      for name, values, message in (
        (
          "votes",
          ("0", "2.0", "true", "null", '"5"', "9" * 12),
          r"line 2: votes must be a whole number of raters from 1 to",
        ),
        (
          "ties",
          ("-1", "2", "0.5", "null"),
          r"line 2: ties must be a whole number from 0 to the votes, 1",
        ),
        (
          "weight",
          ("-0.5", "NaN", "Infinity", "true", "null", "1e39", "1" + "0" * 400),
          r"line 2: weight must be a finite number of 0 or more",
        ),
      )
      for i, value in enumerate(values)
    ),
    (
      "too_many_ties",
      "comparison",
      COMPARED % '"votes": 4, "ties": 3',
      "prob_a of 0.75 cannot be with 3 of 4 votes ties",
    ),
    ("deep", "prompt", "[" * 100_000, "line 2: cannot be read"),
    ("digits", "prompt", "9" * 5000, "line 2: cannot be read"),
    *(
      (
        f"slot_{i}",
        "prompt",
        f'{{"id": "1", "prompt": "xyz", "slot": {slot}}}',
        r"line 2: slot must be \[start, stop\] in the 3 characters",
      )
      for i, slot in enumerate(("[0, 4]", "[2, 1]", "[1]", "[0, 1.0]", "3"))
    ),
  )
  def test_bad_line_is_named(self, kind, line, message):
    good = {
      "id": "0", "prompt": "x", "response": "y", "response_a": "y",
      "response_b": "z", "prob_a": 1, "label": 0, "slot": [0, 1],
    }  # fmt: skip
    path = pathlib.Path(self.create_tempdir().full_path) / "data.jsonl"
    path.write_text(json.dumps(good) + "\n" + line + "\n")
    with self.assertRaisesRegex(mistakes.Mistake, message):
      records.load_records(path, kind)

  @parameterized.parameters(
    ({}, (1, 0), 1.0),
    ({"votes": 4, "ties": 2, "weight": 0}, (4, 2), 0.0),
    ({"votes": 2, "weight": 2.5}, (2, 0), 2.5),
  )
  def test_votes_and_weights(self, fields, votes, weight):
    record = json.loads(COMPARED % '"rater": "w"') | fields
    records.check_record(record, "comparison", "here")
    self.assertEqual(records.votes_of(record), votes)
    self.assertEqual(records.weight_of(record), weight)

  @parameterized.parameters(
    ({"prompt": "x"}, "prompt"),
    ({"prompt": "x", "response": "y"}, "summary"),
    ({"prompt": "x", "response": "y", "label": 1}, "unary"),
    ({"prompt": "x", "response_a": "y", "label": 1}, "comparison"),
  )
  def test_kind_by_the_fields(self, record, kind):
    self.assertEqual(records.kind_of(record), kind)

  def test_round_trip_and_missing_or_empty_file(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "a" / "data.jsonl"
    with self.assertRaisesRegex(ValueError, "no such file"):
      records.load_records(path, "prompt")
    rows = [{"id": "1", "prompt": "é\n"}]
    records.save_records(path, rows)
    self.assertEqual(records.load_records(path, "prompt"), rows)
    records.save_records(path, [])
    with self.assertRaisesRegex(ValueError, "no records"):
      records.load_records(path, "prompt")


if __name__ == "__main__":
  absltest.main()
