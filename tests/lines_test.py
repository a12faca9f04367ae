"""Files of others: read right, or one bounded sentence with file and line."""

import bz2
import gzip
import json
import lzma
import os
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import zstandard

from nashmd_jax import files, mistakes
from nashmd_jax.data import lines, records, tldr

GOOD = b'{"id": "1", "prompt": "p", "response": "r"}\n'
ROW = json.loads(GOOD)


def third(line: bytes) -> bytes:
  """A file whose line 3 is the one given."""
  return GOOD * 2 + line + b"\n" + GOOD


class LinesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, data: bytes, name="data.jsonl"):
    path = self.folder / name
    path.write_bytes(data)
    return path

  def read(self, path, schema="summary"):
    return [record for _, record in tldr.read_records(path, schema)]

  def sentence(self, path, schema="summary"):
    """The one sentence for a file, by either reader of records."""
    told = set()
    for read in (self.read, records.load_records):
      with self.assertRaises(mistakes.Mistake) as caught:
        read(path, schema)
      (sentence,) = caught.exception.sentences
      self.assertStartsWith(sentence, str(path))
      self.assertLess(len(sentence), len(str(path)) + 400)
      self.assertTrue(sentence.isprintable(), msg=repr(sentence))
      told.add(sentence.split("; expected ")[0])
    self.assertLen(told, 1)
    return told.pop()

  @parameterized.named_parameters(
    ("mark", b"\xef\xbb\xbf" + GOOD),
    ("two_files_with_marks_in_one", (b"\xef\xbb\xbf" + GOOD) * 2),
    ("crlf", GOOD.replace(b"\n", b"\r\n")),
    ("blank_lines", b"\n \r\n\t\n" + GOOD + b"\n\n"),
    ("no_last_newline", GOOD.strip()),
    ("not_a_number_beside", b'{"x": NaN, "y": -Infinity, ' + GOOD[1:]),
  )
  def test_read_as_the_plain_file(self, data):
    for name, pack in (
      ("a.jsonl", bytes),
      ("a.gz", gzip.compress),
      ("a.xz", lzma.compress),
      ("a.zst", zstandard.compress),
    ):
      found = self.read(self.write(pack(data), name))
      self.assertEqual(found, [ROW] * data.count(b'"id"'))

  def test_a_null_slot_is_none(self):
    path = self.write(b'{"slot": null, ' + GOOD[1:])
    self.assertEqual(self.read(path), [ROW | {"slot": None}])

  @parameterized.named_parameters(
    ("not_utf8", b'{"id": "\xff"}', "not UTF-8 (byte 0xff at byte 9 of"),
    ("latin", b'{"id": "\xe9"}', "not UTF-8 (byte 0xe9 at byte 9 of"),
    ("half", b'{"id": "1", "prompt": "a\\ud83d"', "read (not JSON, Expecting"),
    ("deep", b"[" * 100_000, "read (nested more than 100 deep)"),
    ("deep_keys", b'{"a":' * 100_000, "read (nested more than 100 deep)"),
    (
      "digits",
      b'{"x": ' + b"9" * 5000 + b"}",
      "cannot be read (Exceeds the limit (4300 digits) for integer "
      "string conversion: value has 5000 digits); mend",
    ),
    (
      "twice",
      b'{"id": "1", "prompt": "p", "prompt": "q", "response": "r"}',
      "cannot be read (the key 'prompt' stands there twice)",
    ),
    ("twice_inside", b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands there"),
    (
      "long_key_twice",
      b'{"%s": 1, "%s": 2}' % (b"k" * 5000, b"k" * 5000),
      "stands there twice",
    ),
    ("no_blank_of_json", b'{"id": "1"}\x0b', "not JSON, Extra data"),
    ("two_objects", b"{} {}", "not JSON, Extra data at column 4)"),
    ("null", b"null", "expected a JSON object, got None"),
    (
      "wide_list",
      json.dumps([[[[{"a" * 99: "b" * 99}] * 9] * 9] * 9] * 9).encode(),
      "expected a JSON object, got [",
    ),
    ("number", b'{"id": 7}', "a summary needs the text field 'id', got 7"),
    (
      "many_digits",
      b'{"id": ' + b"9" * 4000 + b"}",
      "a summary needs the text field 'id', got 999",
    ),
    (
      "no_text",
      b'{"id": "1", "prompt": null, "response": "r"}',
      "a summary needs the text field 'prompt', got None",
    ),
    (
      "not_a_number",
      b'{"id": "1", "prompt": "p", "response": NaN}',
      "a summary needs the text field 'response', got nan",
    ),
    (
      "messages",
      json.dumps(
        {"id": "1", "prompt": [{"role": "user", "content": "word " * 2000}] * 9}
      ).encode(),
      "a summary needs the text field 'prompt', got [{",
    ),
  )  # fmt: skip
  def test_bad_lines(self, line, message):
    path = self.write(third(line))
    found = self.sentence(path)
    self.assertStartsWith(found, f"{path}, line 3: ")
    self.assertIn(message, found)

  @parameterized.named_parameters(
    (
      "cut_gz",
      gzip.compress(GOOD * 999)[:-9],
      "a.gz",
      "line 99.",
      "ended before",
    ),
    (
      "cut_xz",
      lzma.compress(GOOD * 999)[:-9],
      "a.xz",
      "line 1000",
      "ended bef",
    ),
    (
      "cut_zst",
      zstandard.compress(GOOD * 999)[:-5],
      "a.zst",
      "line 1",
      "ended before",
    ),
    (
      "second_cut_zst",
      (one := zstandard.compress(GOOD)) + one[:-1],
      "a.zst",
      "line 2",
      "ended before",
    ),
    ("false_zst", GOOD, "a.zst", "line 1", "Unknown frame"),
    ("empty_xz", b"", "a.xz", "line 1", "ended before"),
    ("false_gz", GOOD, "a.gz", "line 1", "Not a gzipped file"),
    ("false_xz", GOOD, "a.xz", "line 1", "format not supported"),
    (
      "broken_gz",
      gzip.compress(GOOD)[:10] + b"\xff" * 9,
      "a.gz",
      "line 1",
      "Error -3 while decompressing",
    ),
    ("gz_unsaid", gzip.compress(GOOD), "a.jsonl", "line 1", "name of the file"),
    ("zip_unsaid", b"PK\x03\x04\xff", "a.jsonl", "line 1", "in .zip"),
    ("utf16", GOOD.decode().encode("utf-16"), "a.jsonl", "line 1", "UTF-16"),
    ("list", b'[{"id": "1"},\n{}]\n', "a.jsonl", "line 1", "not JSON"),
  )
  def test_bad_files(self, data, name, where, message):
    path = self.write(data, name)
    found = self.sentence(path)
    self.assertRegex(found.removeprefix(f"{path}, "), f"^{where}: ")
    self.assertIn(message, found)

  @parameterized.parameters(".bz2", ".zip")
  def test_packings_that_are_not_read(self, suffix):
    path = self.write(bz2.compress(GOOD), f"a.jsonl{suffix}")
    self.assertEqual(
      self.sentence(path),
      f"{path}: {suffix} is not read; pack it as .gz, .xz or .zst, or not at "
      "all",
    )

  def test_places_that_are_no_file(self):
    for name, message in (
      ("absent", ": no such file"),
      ("", ", line 1: cannot be read (Is a directory)"),
      ("a" * 300, ", line 1: cannot be read (File name too long)"),
    ):
      path = self.folder / name
      self.assertEqual(self.sentence(path), f"{path}{message}")

  def test_a_file_that_may_not_be_read_or_vanishes(self):
    path = self.write(GOOD)
    denied = PermissionError(13, os.strerror(13), str(path))
    with mock.patch.object(epath.Path(path).__class__, "open") as opened:
      opened.side_effect = denied
      self.assertIn("cannot be read (Permission denied)", self.sentence(path))
      opened.side_effect = FileNotFoundError(2, os.strerror(2), str(path))
      self.assertEqual(self.sentence(path), f"{path}: no such file")

  def test_bytes_of_a_file_that_is_not_there(self):
    for name, message in (("a", "No such file"), ("", "Is a directory")):
      path = self.folder / name
      with self.assertRaises(mistakes.Mistake) as caught:
        files.read_bytes(path)
      found = str(caught.exception)
      self.assertStartsWith(found, f"{path}: cannot be read ({message}")

  @parameterized.parameters(
    b"\xff", b"[" * 100_000, b"9" * 5000, b"{", b"\xef\xbb\xbf{}"
  )
  def test_json_files_too(self, data):
    path = self.write(data, "config.json")
    with self.assertRaises(mistakes.Mistake) as caught:
      files.load_json(path)
    self.assertStartsWith(str(caught.exception), f"{path}: cannot be read (")
    self.assertLess(len(str(caught.exception)), len(str(path)) + 250)


class FilesTest(parameterized.TestCase):
  def find(self, *names, split="train", folder="data"):
    self.folder = pathlib.Path(self.create_tempdir().full_path) / folder
    self.folder.mkdir()
    for name in names:
      (self.folder / name).write_bytes(GOOD)
    return [path.name for path in lines.find_files(self.folder, split)]

  @parameterized.parameters(
    ("train.jsonl",),
    ("train.jsonl.gz",),
    ("train.jsonl.zst",),
    ("train-0.jsonl.gz", "train-1.jsonl.xz", "train-10.jsonl"),
    ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl.gz"),
    ("train-0.jsonl", "train.jsonl.xz"),
  )
  def test_parts(self, *names):
    others = (
      "train.jsonl.bak", "train.jsonl~", ".train.jsonl.swp", "train.json",
      "train.jsonl.partial", ".train.jsonl", "#train.jsonl#", "train",
      "train.jsonl.tmp", "train-0.jsonl.gz.part", "my-train.jsonl", "train.csv",
      "validation.jsonl",
    )  # fmt: skip
    self.assertEqual(self.find(*names, *others), list(names))

  @parameterized.parameters("a[0]b", "two words", "*", "{x}?", "ü", "%s", "~")
  def test_any_folder(self, folder):
    self.assertEqual(
      self.find("t.jsonl", split="t", folder=folder), ["t.jsonl"]
    )

  @parameterized.parameters(
    "trainer.jsonl", "train_old.jsonl", "train-old.jsonl", "train0.jsonl",
    "train_0.jsonl.gz", "train (copy).jsonl", "train[1].jsonl.xz",
    "train.old.jsonl", "train_0.jsonl.zst", "train.jsonl.bz2",
    "train.jsonl.jsonl",
  )  # fmt: skip
  def test_names_that_are_no_part(self, name):
    with self.assertRaises(mistakes.Mistake) as caught:
      self.find("train.jsonl", name)
    self.assertStartsWith(
      str(caught.exception),
      f"{self.folder / name}: begins like train.jsonl and is no part of it",
    )

  @parameterized.parameters(
    ("train.jsonl", "train.jsonl.gz"),
    ("train-0.jsonl.gz", "train-0.jsonl.xz"),
  )
  def test_a_file_that_is_there_twice(self, *names):
    with self.assertRaisesRegex(
      mistakes.Mistake, f"{names[1]}: {names[0]} beside it is of the same name"
    ):
      self.find(*names)

  @parameterized.parameters(
    (("0-of-3", "2-of-3"), "train-0-of-3.jsonl: is one of 3 parts .* got 2;"),
    (("0-of-1", "0-of-2", "1"), "train-0-of-2.jsonl: is one of 2 parts"),
  )
  def test_an_absent_part(self, parts, message):
    with self.assertRaisesRegex(mistakes.Mistake, message):
      self.find(*(f"train-{part}.jsonl" for part in parts))

  def test_a_folder_that_is_none(self):
    self.assertEqual(lines.find_files("/nowhere/at/all", "train"), [])
    file = self.create_tempfile("data.jsonl").full_path
    with self.assertRaises(mistakes.Mistake) as caught:
      lines.find_files(file, "train")
    self.assertEqual(
      str(caught.exception),
      f"{file}: cannot be read (Not a directory); expected a folder of JSON "
      "lines",
    )


class QuoteTest(parameterized.TestCase):
  @parameterized.parameters(
    (7, "7"),
    ("a" * 99, f"'{'a' * 27}...{'a' * 28}'"),
  )
  def test_values(self, value, shown):
    self.assertEqual(mistakes.quote(value), shown)

  def test_a_number_that_python_does_not_write(self):
    self.assertEqual(mistakes.quote(10**5000), "an int too large to show")

  def test_errors(self):
    error = ValueError("a\nb \ud83d\x1b" + "c" * 500)
    found = mistakes.brief(error)
    self.assertStartsWith(found, "a b \\ud83d\\x1bccc")
    self.assertLen(found, mistakes.MOST_QUOTED)


if __name__ == "__main__":
  absltest.main()
