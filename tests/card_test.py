"""The data card: shares, doubles and overlaps, by hand."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest
import numpy as np

from nashmd_jax import texts
from nashmd_jax.data import card


def encode(row):
  """Prompts of more than 3 letters and responses of more than 1 are cut."""
  cut = {"prompts": [5], "prompts_cut": np.bool_(len(row["prompt"]) > 3)}
  for name in ("response", "response_a", "response_b"):
    if name in row:
      column = name.replace("response", "responses")
      cut[f"{column}_cut"] = np.bool_(len(row[name]) > 1)
  return cut


def row(key, prompt, response="r"):
  return {"id": key, "prompt": prompt, "response": response}


SPLITS = {
  "train": [
    row("1", "long prompt"),
    row("1", "p", "long"),
    row("2", "p"),
    row("1", "q", " "),
  ],
  "test": [row("1", "p"), row("3", "z")],
}


class CardTest(absltest.TestCase):
  def test_hand_values(self):
    found = card.describe(SPLITS, encode, {"train": 3}, {})
    self.assertEqual(
      found["train"],
      {
        "rows": 4,
        "left_out": 3,
        "empty_responses": 1,
        "looked_at": 4,
        "prompts_cut": 0.25,
        "responses_cut": 0.25,
        "duplicate_ids": 2,
        "prompts": 3,
        "shared_prompts": 2,
      },
    )
    self.assertEqual(found["test"]["shared_prompts"], 1)
    self.assertEqual(found["test"]["duplicate_ids"], 0)
    self.assertEqual(found["test"]["left_out"], 0)

  def test_a_comparison_counts_once(self):
    pair = {"id": "1", "prompt": "p", "response_a": "long"}
    rows = [pair | {"response_b": text} for text in ("long", "b")]
    rows.append(rows[1] | {"response_a": "a"})
    found = card.describe({"train": rows}, encode, {}, {})["train"]
    self.assertAlmostEqual(found["responses_cut"], 2 / 3)
    self.assertEqual(found["empty_responses"], 0)
    rows += [pair | {"response_a": a, "response_b": ""} for a in ("", "a")]
    found = card.describe({"train": rows}, encode, {}, {})["train"]
    self.assertEqual(found["empty_responses"], 2)

  def test_of_many_records_some_are_looked_at_all_over(self):
    rows = [row(str(i), "p" * (1 + 3 * (i >= 25_000))) for i in range(50_000)]
    seen = []

    def noted(one):
      seen.append(int(one["id"]))
      return encode(one)

    found = card.describe({"train": rows}, noted, {}, {})["train"]
    self.assertEqual(found["looked_at"], 2000)
    self.assertEqual(seen, list(range(0, 50_000, 25)))
    self.assertEqual(found["prompts_cut"], 0.5)
    self.assertEqual(found["rows"], 50_000)
    (line,) = card.lines({"train": found})
    self.assertIn("50.0% of the prompts are cut (of 2,000 looked at)", line)

  def test_an_empty_split(self):
    found = card.describe({"train": []}, encode, {}, {})["train"]
    self.assertEqual(set(found.values()), {0})

  def test_it_is_saved_and_only_what_is_amiss_is_told(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    splits = SPLITS | {"validation": [row("9", "y")]}
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
      found = texts.save_card(
        workdir,
        splits,
        encode,
        left_out=texts.LeftOut(
          {"train": 1200, "test": 0}, {"validation": {"not_json": 2}}
        ),
      )
    saved = json.loads((workdir / "data" / "card.json").read_text())
    self.assertEqual(saved, found)
    self.assertEqual(saved["validation"]["prompts"], 1)
    self.assertEqual(
      told.getvalue().splitlines(),
      [
        "data: train, 4 records: rows that gave no record: 1,200; empty "
        "responses: 1; 25.0% of the prompts are cut; 25.0% of the responses "
        "are cut; repeated ids: 2; repeated prompts: 1; prompts that are also "
        "in another split: 2",
        "data: test, 2 records: prompts that are also in another split: 1",
        "data: validation, 1 records: bad rows skipped, not json: 2",
      ],
    )


if __name__ == "__main__":
  absltest.main()
