"""Prompts and responses that are too long, by hand: what stays of them."""

import functools

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.data import batches, cuts, tldr
from nashmd_jax.data import tokenizer as tokenizer_lib

BOS, EOS = 2, 1
LETTERS = tokenizer_lib.Tokenizer(
  encode=lambda text: [ord(letter) for letter in text],
  encode_marked=lambda text: [ord(letter) for letter in text],
  decode=lambda ids: "".join(map(chr, ids)),
  vocab_size=200,
  eos_ids=(EOS,),
  start_ids=(BOS,),
  close_ids=(),
  special_ids=(BOS, EOS),
)
# Two equal letters side by side are one token, as in BPE.
PAIRS = {"aa": 300, "bb": 301}


def pairs(text: str) -> list[int]:
  ids = []
  while text:
    size = 2 if text[:2] in PAIRS else 1
    ids.append(PAIRS.get(text[:size], ord(text[0])))
    text = text[size:]
  return ids


def encode(max_prompt, **record):
  return batches.encode_record(
    record, LETTERS, max_prompt=max_prompt, max_response=4
  )


class PromptTest(parameterized.TestCase):
  # "T:" + "abcdef" + "!?" has 10 letters; with BOS 11 tokens.
  @parameterized.named_parameters(
    ("nothing", 11, (2, 8), "T:abcdef!?", False),
    ("end_of_slot", 8, (2, 8), "T:abc!?", True),
    ("whole_slot", 5, (2, 8), "T:!?", True),
    ("end", 5, (0, 10), "T:ab", True),
    ("end_after_a_head", 5, (2, 10), "T:ab", True),
    ("start_without_a_slot", 5, None, "ef!?", True),
    ("start_for_no_slot_of_tfds", 5, np.zeros(2, np.int32), "ef!?", True),
    ("slot_of_tfds", 8, np.array([2, 8], np.int32), "T:abc!?", True),
    ("slot_of_json", 8, [2, 8], "T:abc!?", True),
    ("only_bos", 1, None, "", True),
  )
  def test_what_stays(self, max_prompt, slot, expected, cut):
    example = encode(max_prompt, id="1", prompt="T:abcdef!?", slot=slot)
    self.assertEqual(example["prompts"][0], BOS)
    self.assertEqual(LETTERS.decode(example["prompts"][1:]), expected)
    self.assertIs(type(example["prompts_cut"]), np.bool_)
    self.assertEqual(example["prompts_cut"], cut)

  def test_a_record_without_the_field_has_no_slot(self):
    example = encode(5, prompt=b"T:abcdef!?")
    self.assertEqual(LETTERS.decode(example["prompts"][1:]), "ef!?")

  def test_what_may_not_be_cut_must_fit(self):
    with self.assertRaisesRegex(
      mistakes.Mistake,
      "record 'x7': .* outside of the slot takes 4 tokens, and 3 fit",
    ):
      encode(4, id="x7", prompt="T:abcdef!?", slot=(2, 8))
    with self.assertRaisesRegex(mistakes.Mistake, "takes 2 tokens, and 1 fit"):
      encode(2, prompt="T:abcdef", slot=(2, 8))

  def test_tokens_across_the_edges_of_the_slot(self):
    # a aa|bb·bbb|b: as one text ["aa", "a", "bb", "bb", "bb"]; three tokens
    # hold "aaa" + "b" + "b", whose last two are one.
    ids, cut = cuts.shorten("aaabbbbbb", (3, 8), pairs, room=5, name="r")
    self.assertEqual((ids, cut), ([300, 97, 301, 301, 301], False))
    ids, cut = cuts.shorten("aaabbbbbb", (3, 8), pairs, room=3, name="r")
    self.assertEqual((ids, cut), ([300, 97, 301], True))

  @parameterized.parameters(*range(3, 60, 7))
  def test_the_longest_slot_that_fits(self, room):
    prompt = "<" + "aab" * 30 + ">"
    ids, _ = cuts.shorten(prompt, (1, 91), pairs, room=room, name="r")
    fitting = [
      found
      for length in range(91)
      if len(found := pairs(prompt[: 1 + length] + ">")) <= room
    ]
    self.assertEqual(ids, fitting[-1])

  def test_few_encodings_of_a_long_text(self):
    sizes = []

    def counted(text):
      sizes.append(len(text))
      return LETTERS.encode(text)

    prompt = "x" * 100_000 + "!"
    ids, _ = cuts.shorten(prompt, (0, 100_000), counted, room=500, name="r")
    self.assertLen(ids, 500)
    self.assertLess(len(sizes), 20)
    self.assertLess(sum(sizes), 3 * 100_000)

  def test_posts_keep_their_instruction(self):
    post = {"subreddit": "x", "title": "t", "post": "word " * 90}
    record = {"id": "1", **tldr.post_prompt(post), "response": "r"}
    text = LETTERS.decode(encode(80, **record)["prompts"][1:])
    self.assertLen(text, 79)
    self.assertStartsWith(text, "SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: word ")
    self.assertEndsWith(text, "\n\nTL;DR:")


class ResponseTest(parameterized.TestCase):
  @parameterized.parameters(
    ("abc", [97, 98, 99, EOS], False),
    ("abcd", [97, 98, 99, 100], True),
    ("abcdefg", [97, 98, 99, 100], True),
  )
  def test_a_cut_response_has_no_end(self, response, expected, cut):
    example = encode(9, prompt="p", response=response)
    self.assertEqual(example["responses"], expected)
    self.assertIs(type(example["responses_cut"]), np.bool_)
    self.assertEqual(example["responses_cut"], cut)

  def test_columns_of_a_batch(self):
    rows = [
      {"prompt": "p" * n, "response_a": "a", "response_b": "b" * n}
      for n in (2, 8)
    ]
    batch = batches.pad_batch(
      [encode(4, **row) for row in rows], prompt_buckets=(4,), max_response=4
    )
    for name, expected in {
      "prompts_cut": [False, True],
      "responses_a_cut": [False, False],
      "responses_b_cut": [False, True],
    }.items():
      self.assertEqual(batch[name].dtype, np.bool_)
      np.testing.assert_array_equal(batch[name], expected)

  def test_a_label_is_a_number(self):
    example = encode(4, prompt="p", response="r", label=1)
    self.assertIs(type(example["label"]), np.float32)
    self.assertEqual(example["label"], 1.0)
    pad = functools.partial(
      batches.pad_batch, prompt_buckets=(4,), max_response=4
    )
    np.testing.assert_array_equal(pad([example] * 2)["label"], [1.0, 1.0])


if __name__ == "__main__":
  absltest.main()
