"""What make showcase reads and keeps, without the run."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from figures import showcase, showcase_picture
from nashmd_jax import files
from nashmd_jax.data import records
from tests import real_data


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

  def test_the_readme_tells_what_was_found(self):
    readme = " ".join(pathlib.Path("README.md").read_text().split())
    told = files.load_json(showcase.FOUND / "nash_md.json")
    # Its interval is of then, and wider: the wins behind it were not kept.
    said = [f"| {told['by_training_judge'][0]:.3f} |"]
    said.append(f"Commit {told['commit']}")
    start, trained = (told["ended"][name] for name in ("sft", "nash_md"))
    said.append(f"| {start:.0%} | {trained:.0%} |")
    texts = [showcase.texts(name) for name in ("sft", "nash_md")]
    words = [
      np.mean([len(one["response"].split()) for one in some]) for some in texts
    ]
    said.append("| {:.0f} | {:.0f} |".format(*words))
    if real_data.FOLDER.exists():
      rate, low, high = showcase.compare("nash_md", "sft")
      said.append(f"{rate:.3f} ({low:.3f} to {high:.3f})")
    for one in said:
      self.assertIn(one, readme)

  @absltest.skipUnless(real_data.FOLDER.exists(), real_data.ABSENT)
  def test_the_picture_is_of_what_was_found(self):
    # `python -m figures.showcase_picture` draws it anew.
    self.assertEqual(
      showcase_picture.PICTURE.read_text(), showcase_picture.picture()
    )


if __name__ == "__main__":
  absltest.main()
