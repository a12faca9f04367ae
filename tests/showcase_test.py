"""What make showcase reads and keeps, without the run."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from figures import showcase
from nashmd_jax.data import records


class ShowcaseTest(parameterized.TestCase):
  @parameterized.parameters(
    ("One two. Three four! Five?", "One two. Three four! Five?"),
    ("a " * 30 + "b. c d. e", "a " * 30 + "b."),
    ("a " * 31 + "b. c d.", "a " * 31 + "b."),
    ("a " * 32 + "b. c d.", ""),
    ("At 0.5 it holds. " + "a " * 40, "At 0.5 it holds."),
  )
  def test_as_many_first_sentences_as_fit(self, text, expected):
    self.assertEqual(showcase.shortened(text), expected)

  def test_what_is_kept_holds_no_prompt_and_is_judged_again(self):
    place = pathlib.Path(self.create_tempdir().full_path)
    row = {"prompt": "Trees grow by the river.", "response": "Trees grow."}
    said = {
      "sft": "A long walk in quite another town.",
      "nash_md": "Trees grow.",
    }
    for name, text in said.items():
      path = place / "nash_md" / "tournament" / "responses" / f"{name}.jsonl"
      rows = [{**row, "id": str(i), "response": text} for i in range(3)]
      records.save_records(path, rows)
    known = [{**row, "id": str(i)} for i in range(3)]
    with (
      mock.patch.object(showcase, "WORK", place),
      mock.patch.object(showcase, "FOUND", place / "found"),
      mock.patch.object(showcase, "summaries", lambda split: known),
    ):
      showcase.keep("nash_md", {"seed": 0})
      kept = showcase.texts("nash_md")
      ours = showcase.win_probs("nash_md", "sft")
      theirs = showcase.win_probs("sft", "nash_md")
    self.assertNotIn("river", json.dumps(kept))
    self.assertEqual([one["id"] for one in kept], ["0", "1", "2"])
    self.assertGreater(ours.min(), 0.8)
    self.assertAlmostEqual(float((ours + theirs).max()), 1.0)


if __name__ == "__main__":
  absltest.main()
