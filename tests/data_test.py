"""The tokenizer, and batches that resume."""

import functools
import pathlib

from absl.testing import absltest, parameterized
import grain
import numpy as np
import tokenizers

from nashmd_jax import mistakes
from nashmd_jax.data import batches
from nashmd_jax.data import tokenizer as tokenizer_lib

BODY = (
  "The arguments are read in order and the first that is a mapping is used as "
  "the base of the merged mapping that is returned to the caller of this."
)


def encode_with(tokenizer):
  return functools.partial(
    batches.encode_record, tokenizer=tokenizer, max_prompt=8, max_response=4
  )


class TokenizerTest(parameterized.TestCase):
  def trained(self):
    path = pathlib.Path(self.create_tempdir().full_path) / "tokenizer.json"
    tokenizer_lib.train_tokenizer(
      [BODY] * 3,
      path,
      vocab_size=300,
      eos_token="</s>",
      special_tokens=("<answer>",),
    )
    return path

  @parameterized.parameters(BODY, "naïve ünïcode → ok", "x")
  def test_round_trip(self, text):
    tokenizer = tokenizer_lib.load_tokenizer(
      self.trained(), eos_token="</s>", bos_token=None
    )
    self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)

  def test_special_tokens_are_one_token(self):
    tokenizer = tokenizer_lib.load_tokenizer(
      self.trained(), eos_token="</s>", bos_token=None
    )
    self.assertLen(tokenizer.encode_marked("<answer>"), 1)
    self.assertGreater(len(tokenizer.encode("<answer>")), 1)
    self.assertLessEqual(tokenizer.vocab_size, 300)
    self.assertEqual(tokenizer.decode([tokenizer.eos_id]), "")

  def test_bos_stands_before_prompts_only(self):
    tokenizer = tokenizer_lib.load_tokenizer(
      self.trained(), eos_token="</s>", bos_token="<answer>"
    )
    (bos,) = tokenizer.encode_marked("<answer>")
    example = encode_with(tokenizer)({"prompt": BODY, "response": "x"})
    self.assertEqual(example["prompts"][0], bos)
    self.assertEqual(example["prompts"][1:], tokenizer.encode(BODY)[-7:])
    self.assertNotIn(bos, example["responses"])

  def test_truncation_and_padding_of_the_file_are_off(self):
    path = self.trained()
    saved = tokenizers.Tokenizer.from_file(str(path))
    plain = saved.encode(BODY).ids
    saved.enable_truncation(5)
    saved.enable_padding(length=200)
    saved.save(str(path))
    loaded = tokenizer_lib.load_tokenizer(
      path, eos_token="</s>", bos_token=None
    )
    self.assertGreater(len(plain), 5)
    self.assertEqual(loaded.encode(BODY), plain)

  def test_mistakes_are_one_sentence(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(ValueError, "No such file"):
      tokenizer_lib.load_tokenizer(
        folder / "absent.json", eos_token="</s>", bos_token=None
      )
    (folder / "broken.json").write_text("{")
    with self.assertRaisesRegex(ValueError, "not a tokenizer.json"):
      tokenizer_lib.load_tokenizer(
        folder / "broken.json", eos_token="</s>", bos_token=None
      )
    with self.assertRaisesRegex(ValueError, "has no token"):
      tokenizer_lib.load_tokenizer(
        self.trained(), eos_token="<end>", bos_token=None
      )


class BatchesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_lib.Tokenizer(
      encode=lambda text: [int(part) for part in text.split()],
      encode_marked=lambda text: [int(part) for part in text.split()],
      decode=lambda ids: " ".join(map(str, ids)),
      vocab_size=100,
      eos_ids=(1,),
      start_ids=(),
      close_ids=(),
      special_ids=(0, 1),
    )
    self.source = [
      {"prompt": " ".join(["7"] * (i % 9 + 1)), "response": f"{i + 10}"}
      for i in range(10)
    ]
    self.pad = functools.partial(
      batches.pad_batch, prompt_buckets=(4, 8), max_response=4
    )

  def iterator(self, batch_size=4):
    return batches.training_batches(
      self.source,
      encode_with(self.tokenizer),
      self.pad,
      batch_size=batch_size,
      seed=0,
    )

  def test_encode_cuts_and_ends(self):
    example = encode_with(self.tokenizer)(
      {"prompt": "9 " * 20, "response": b"5 6", "prob_a": 0.25}
    )
    self.assertLen(example["prompts"], 8)
    self.assertEqual(example["responses"], [5, 6, 1])
    self.assertEqual(example["prob_a"], 0.25)
    self.assertEqual(example["weight"], 1.0)
    long = encode_with(self.tokenizer)({"prompt": "9", "response": "5 " * 9})
    self.assertEqual(long["responses"], [5] * 4)
    self.assertNotIn("weight", long)
    weighed = encode_with(self.tokenizer)(
      {"prompt": "9", "prob_a": 1, "weight": 0.5, "votes": 3}
    )
    self.assertEqual(weighed["weight"], np.float32(0.5))
    self.assertEqual(weighed["weight"].dtype, np.float32)
    self.assertNotIn("votes", weighed)

  def test_smallest_bucket_that_fits(self):
    for length, width in ((3, 4), (4, 4), (5, 8)):
      batch = self.pad([{"prompts": [7] * length, "responses": [5, 1]}])
      self.assertEqual(batch["prompts"].shape, (1, width))
      self.assertEqual(batch["prompts_mask"].sum(), length)
      np.testing.assert_array_equal(batch["responses"], [[5, 1, 0, 0]])

  def test_every_epoch_holds_every_record_once_in_another_order(self):
    iterator = self.iterator(batch_size=5)
    epochs = [
      np.concatenate([next(iterator)["responses"][:, 0] for _ in range(2)])
      for _ in range(2)
    ]
    for epoch in epochs:
      np.testing.assert_array_equal(np.sort(epoch), np.arange(10) + 10)
    self.assertFalse((epochs[0] == epochs[1]).all())

  def test_example_ids_are_positions_in_the_stream(self):
    iterator = self.iterator()
    ids = [next(iterator)["example_ids"] for _ in range(6)]
    np.testing.assert_array_equal(np.concatenate(ids), np.arange(24))

  @parameterized.parameters(1, 4)
  def test_record_ids_lead_to_the_record_and_change_no_order(self, batch_size):
    encode = encode_with(self.tokenizer)

    def with_id(index, record):
      return encode(record) | {"example_ids": np.int32(index)}

    records_first = (
      grain.MapDataset.source(self.source)
      .seed(0)
      .shuffle()
      .repeat()
      .map_with_index(with_id)
    )
    iterator = self.iterator(batch_size)
    for start in range(0, 24, batch_size):
      batch = next(iterator)
      rows = range(start, start + batch_size)
      expected = self.pad([records_first[i] for i in rows])
      for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values)
      self.assertEqual(batch["record_ids"].dtype, np.int32)
      self.assertTrue(batch["real"].all())
      looked_up = [encode(self.source[i]) for i in batch["record_ids"]]
      np.testing.assert_array_equal(
        self.pad(looked_up)["prompts"], batch["prompts"]
      )

  def test_a_mistake_in_a_record_comes_through(self):
    self.source = [
      {"id": "a7", "prompt": "7 " * 20, "slot": (38, 40), "response": "5"}
    ]
    with self.assertRaisesRegex(mistakes.Mistake, "record 'a7'"):
      next(self.iterator())

  def test_restored_state_goes_on_with_the_same_batches(self):
    iterator = self.iterator()
    for _ in range(3):
      next(iterator)
    state = iterator.get_state()
    rest = [next(iterator) for _ in range(4)]
    again = self.iterator()
    again.set_state(state)
    for batch in rest:
      for name, values in next(again).items():
        np.testing.assert_array_equal(values, batch[name])

  def test_ordered_batches_fill_up_the_last(self):
    out = list(
      batches.ordered_batches(
        self.source, encode_with(self.tokenizer), self.pad, batch_size=4
      )
    )
    self.assertEqual([real for _, real in out], [4, 4, 2])
    seen = [batch["responses"][:real, 0] for batch, real in out]
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(10) + 10)
    last = out[-1][0]
    self.assertLen(last["responses"], 4)
    np.testing.assert_array_equal(last["record_ids"], [8, 9, 9, 9])
    np.testing.assert_array_equal(last["example_ids"], [8, 9, 9, 9])
    np.testing.assert_array_equal(last["real"], [True, True, False, False])

  def test_empty_source(self):
    self.source = []
    with self.assertRaisesRegex(ValueError, "no training records"):
      self.iterator()


if __name__ == "__main__":
  absltest.main()
