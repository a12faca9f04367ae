"""A model whose folder numbers the words otherwise than the run is refused."""

import pathlib

from absl.testing import absltest, parameterized
import tokenizers

from nashmd_jax import mistakes, tokenization
from nashmd_jax.stages import text
from tests import extending_page as page
from tests import small_records

SPECIAL = ("<pad>", "</s>", "<1>")
WORDS = ("river", "lamp", "stone")


def write(folder: pathlib.Path, words, special=SPECIAL, added=()):
  """A folder with a tokenizer.json in which words have ids in order."""
  folder.mkdir(parents=True, exist_ok=True)
  vocab = {word: i for i, word in enumerate((*special, *words))}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocab, unk_token="<pad>")
  )
  made.add_special_tokens(list(special))
  made.add_special_tokens(list(added))
  made.save(str(folder / "tokenizer.json"))
  return folder


class JudgeFolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.own = write(self.folder / "own", WORDS) / "tokenizer.json"

  def check(self, judge, model=None):
    config = page.tiny_config(self.folder, {})
    with config.unlocked():
      config.judge_model.pretrained = judge and str(judge)
      config.model.pretrained = model and str(model)
    tokenization.check_folders(config, self.own)

  @parameterized.named_parameters(
    ("the_same", dict(words=WORDS)),
    ("more_words_behind", dict(words=(*WORDS, "bridge"))),
    ("more_special_tokens", dict(words=WORDS, added=("<image>",))),
  )
  def test_ids_that_are_read_alike(self, given):
    self.check(write(self.folder / "judge", **given))

  @parameterized.named_parameters(
    (
      "as_many_in_another_order",
      dict(words=("river", "stone", "lamp")),
      "id 4 is 'stone' there and 'lamp' here",
    ),
    (
      "a_special_token_before",
      dict(words=WORDS, special=(*SPECIAL, "<2>")),
      "id 3 is '<2>' there and 'river' here",
    ),
    (
      "a_word_less",
      dict(words=WORDS[:2]),
      "id 5 is None there and 'stone' here",
    ),
  )
  def test_ids_that_are_other_words(self, given, message):
    judge = write(self.folder / "judge", **given)
    for setting, folders in (
      ("judge_model", {"judge": judge}),
      ("model", {"judge": None, "model": judge}),
      ("model", {"judge": judge, "model": judge}),  # told once
    ):
      with self.assertRaises(mistakes.Mistake) as caught:
        self.check(**folders)
      (sentence,) = caught.exception.sentences
      self.assertStartsWith(
        sentence, f"config.{setting}.pretrained: {judge}/tokenizer.json has"
      )
      self.assertIn(f"than {self.own},", sentence)
      self.assertIn(message, sentence)

  def test_a_special_token_of_the_run_alone_is_no_word(self):
    judge = write(self.folder / "judge", WORDS)
    self.own = write(self.folder / "own", WORDS, added=("<2>",))
    self.own = self.own / "tokenizer.json"
    self.check(judge)

  def test_folders_without_a_tokenizer_are_taken(self):
    (self.folder / "judge").mkdir()
    self.check(self.folder / "judge")
    self.check("random", "random")
    self.check(None)

  def test_it_is_told_before_anything_is_trained(self):
    records = small_records.write(self.folder / "records")
    page.write_comparisons(self.folder / "comparisons")
    judge = write(self.folder / "judge", WORDS)
    config = page.tiny_config(records, {})
    with config.unlocked():
      config.judge_model.pretrained = str(judge)
      config.preference.start_from_sft = False
    with self.assertRaisesRegex(mistakes.Mistake, "has another vocabulary tha"):
      text.prepare(config, self.folder / "run")


if __name__ == "__main__":
  absltest.main()
