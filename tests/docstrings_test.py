"""Documented code as real text: what is found, kept and in which split."""

import ast
import collections
import pathlib
import sys

from absl.testing import absltest, parameterized
import numpy as np
import tensorflow_datasets as tfds

from nashmd_jax.data import docstrings, sources

BODY = (
  "The arguments are read in order and the first that is a mapping is used as "
  "the base of the merged mapping that is returned to the caller of this."
)
NESTED = """
if 0:
  def one(): "said"
else:
  class two:
    "said"
    def deep(): "said"
try:
  def three(): "said"
except OSError:
  def four(): "said"
else:
  def five(): "said"
finally:
  async def six(): "said"
match 0:
  case 0:
    def seven(): "said"
with open("x"):
  for _ in ():
    while 0:
      def eight(): "said"
"""
SOURCE = f'''
class Merger:
  """Merge mappings in the order of the arguments.

  {BODY}
  """

  def plain(self, base, *, order):
    """Return the merged mapping to the caller.

    {BODY.replace("first", "last")}
    """

def undocumented():
  raise RuntimeError("parsed, never imported")

raise SystemExit
'''


class DocstringsTest(parameterized.TestCase):
  def test_signature_summary_and_body(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / "one.py").write_text(SOURCE)
    found = docstrings.find_records((root,), (), collections.Counter())
    last = BODY.replace("first", "last")
    self.assertEqual(
      [(module, one["prompt"], one["response"]) for module, one in found],
      [
        (
          "one",
          f"class Merger: {BODY}",
          "Merge mappings in the order of the arguments.",
        ),
        (
          "one",
          f"plain(base, order): {last}",
          "Return the merged mapping to the caller.",
        ),
      ],
    )

  def test_definitions_are_found_in_every_block_and_in_order(self):
    found = [node.name for node, _ in sources.definitions(NESTED)]
    walked = [
      node.name
      for node in ast.walk(ast.parse(NESTED))
      if isinstance(node, sources.Definition)
    ]
    self.assertLen(found, 9)
    self.assertEqual(found, walked)

  @parameterized.named_parameters(
    ("kept", BODY, "Merge mappings in the order of arguments.", None),
    ("short_body", "Too short.", "Merge mappings by order.", "short body"),
    ("short_summary", BODY, "Merge mappings.", "summary length"),
    ("long_summary", BODY, "mapping " * 26, "summary length"),
    (
      "foreign",
      "Les arguments sont lus dans cet ordre et le premier dictionnaire est "
      "repris tel quel comme base du dictionnaire rendu ensuite ici même.",
      "Rend le dictionnaire des arguments lus.",
      "not English",
    ),
    ("code", "x=[1,2]; " * 25, "Return x of the list.", "not English"),
    (
      "ungrounded",
      BODY,
      "Solve sparse linear systems quickly.",
      "little overlap",
    ),
  )
  def test_filter(self, body, summary, expected):
    self.assertEqual(docstrings.fault(body, body, summary), expected)

  def test_half_of_the_content_words_is_enough(self):
    self.assertEqual(docstrings.overlap(["merge", "order"], "the order"), 0.5)
    self.assertIsNone(
      docstrings.fault(BODY, BODY, "Quickly solve mapping of arguments.")
    )

  def test_find_drops_duplicates_tests_and_broken_files(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    for name, text in {
      "pkg/one.py": SOURCE,
      "pkg/two.py": SOURCE,
      "pkg/tests/three.py": SOURCE.replace("Merge", "Join"),
      "pkg/broken.py": "def (",
      "other/four.py": SOURCE.replace("order", "sequence"),
    }.items():
      (root / name).parent.mkdir(parents=True, exist_ok=True)
      (root / name).write_text(text)
    (root / "pkg/short.py").write_text(
      'def f():\n  """Sort the items of a list by key.\n\n  Fast."""\n'
    )
    left_out = collections.Counter()
    found = docstrings.find_records((root,), (), left_out)
    self.assertEqual(
      left_out,
      {"file that is no Python": 1, "seen before": 3, "short body": 1},
    )
    self.assertEqual(
      [module for module, _ in found], ["other.four"] * 2 + ["pkg.one"] * 1
    )
    only = docstrings.find_records((root,), ("pkg",), collections.Counter())
    self.assertEqual({module for module, _ in only}, {"pkg.one"})

  def test_builder_splits_by_module_and_hashes_its_content(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    where = {}
    for i in range(40):
      word = "abcdefghij"[i % 10] * 3 + "abcdefghij"[i // 10] * 3
      text = SOURCE.replace("mapping", f"{word} mapping")
      (root / f"module_{i}.py").write_text(text)
      where[f"module_{i}"] = sources.split_of(f"module_{i}")
    self.assertLen(set(where.values()), 3)
    infos = []
    for folder in ("a", "b"):
      builder = docstrings.Docstrings(
        roots=(root,), data_dir=self.create_tempdir(folder).full_path
      )
      builder.download_and_prepare(file_format="array_record")
      infos.append(tfds.builder_from_directory(builder.data_dir).info)
    found = docstrings.find_records((root,), (), collections.Counter())
    modules = {record["id"]: module for module, record in found}
    for split in ("train", "validation", "test"):
      source = builder.as_data_source(split)
      self.assertGreater(len(source), 0)
      for row in source:
        np.testing.assert_array_equal(row["slot"], [0, len(row["prompt"])])
        self.assertEqual(where[modules[row["id"].decode()]], split)
    self.assertLen(infos[0].metadata["content_hash"], 64)
    self.assertEqual(infos[0].metadata, infos[1].metadata)

  def test_the_standard_library_gives_about_a_thousand(self):
    found = docstrings.find_records(
      sources.source_roots()[:1], (), collections.Counter()
    )
    self.assertBetween(len(found), 500, 3000)

  def test_no_tensorflow(self):
    self.assertNotIn("tensorflow", sys.modules)


if __name__ == "__main__":
  absltest.main()
