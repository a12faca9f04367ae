"""A tokenizer.json that lacks a piece: the right text, or a sentence."""

import json
import pathlib

from absl.testing import absltest, parameterized
import tokenizers

from nashmd_jax import mistakes
from nashmd_jax.data import tokenizer as tokenizer_lib

SPECIAL = ["<pad>", "</s>", "<unk>"]
TEXT = "river lamp stone"
pre = tokenizers.pre_tokenizers


def byte_level() -> tokenizers.Tokenizer:
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = pre.ByteLevel()
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=[*SPECIAL, "<s>"],
    initial_alphabet=pre.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator([TEXT], trainer)
  return made


def unigram() -> tokenizers.Tokenizer:
  made = tokenizers.Tokenizer(tokenizers.models.Unigram())
  made.pre_tokenizer = pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace()])
  made.decoder = tokenizers.decoders.Metaspace()
  trainer = tokenizers.trainers.UnigramTrainer(
    vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>",
    show_progress=False,
  )  # fmt: skip
  made.train_from_iterator([TEXT] * 9, trainer)
  return made


def word_level(**kwargs) -> tokenizers.Tokenizer:
  words = {word: i for i, word in enumerate([*SPECIAL, *TEXT.split()])}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, **kwargs))
  made.pre_tokenizer = pre.Whitespace()
  made.add_special_tokens(SPECIAL)
  return made


def plain_bpe() -> tokenizers.Tokenizer:
  """No bytes and no unknown token: what it does not know is left out."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = pre.Metaspace()
  made.decoder = tokenizers.decoders.Metaspace()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=60, special_tokens=SPECIAL, show_progress=False
  )
  made.train_from_iterator([TEXT], trainer)
  return made


class PiecesTest(parameterized.TestCase):
  def load(self, made, change=lambda made: None, **tokens):
    content = json.loads(made.to_str())
    change(content)
    self.path = pathlib.Path(self.create_tempdir().full_path) / "t.json"
    self.path.write_text(json.dumps(content))
    tokens = {"eos_token": "</s>", "bos_token": None} | tokens
    return tokenizer_lib.load_tokenizer(self.path, **tokens)

  def sentence(self, *args, begins="has no "):
    with self.assertRaises(mistakes.Mistake) as caught:
      self.load(*args)
    found = str(caught.exception)
    self.assertStartsWith(found, f"{self.path}: {begins}")
    return found

  def test_end_and_start_are_special_whatever_their_mark(self):
    def unmark(content):
      for token in content["added_tokens"]:
        token["special"] = token["content"] not in ("</s>", "<s>")

    def remove(content):
      content["added_tokens"] = [
        token for token in content["added_tokens"]
        if token["content"] not in ("</s>", "<s>")
      ]  # fmt: skip

    right = self.load(byte_level(), bos_token="<s>")
    for change in (unmark, remove):
      found = self.load(byte_level(), change, bos_token="<s>")
      self.assertEqual(found.special_ids, right.special_ids)
      self.assertEqual(found.vocab_size, right.vocab_size)
      ids = [*found.start_ids, *found.encode(TEXT), found.eos_id]
      self.assertEqual(ids, [*right.start_ids, *right.encode(TEXT), 1])
      self.assertEqual(found.decode(ids), TEXT)

  def test_no_unknown_piece(self):
    def no_unknown(content):
      content["model"]["unk_id"] = None

    self.assertLen(self.load(unigram()).encode("é"), 2)
    self.assertIn(
      "no piece for characters that it does not know (Encountered an unknown",
      self.sentence(unigram(), no_unknown),
    )
    self.assertIn("(it leaves them out)", self.sentence(plain_bpe()))
    self.assertIn("[UNK]", self.sentence(word_level(unk_token="?")))

  def test_what_the_normalizer_leaves_out_is_not_lost(self):
    made = plain_bpe()
    known = tokenizers.Regex("[^a-z ]")
    made.normalizer = tokenizers.normalizers.Replace(known, "")
    loaded = self.load(made)
    self.assertEqual(loaded.decode(loaded.encode("rivér")), "rivr")

  def test_an_id_of_two_tokens(self):
    def confused(content):
      vocab = content["model"]["vocab"]
      vocab["b"] = vocab["a"]

    sentence = self.sentence(byte_level(), confused, begins="gives id ")
    self.assertIn("to two tokens, a and b; take the file", sentence)

  def test_no_decoder(self):
    def no_decoder(content):
      content["decoder"] = None

    for made in (byte_level(), unigram()):
      self.assertEqual(
        self.load(made).decode(self.load(made).encode(TEXT)), TEXT
      )
      self.assertIn("has no decoder", self.sentence(made, no_decoder))
    words = self.load(word_level(unk_token="<unk>"))
    self.assertEqual(words.decode(words.encode(TEXT)), TEXT)


if __name__ == "__main__":
  absltest.main()
