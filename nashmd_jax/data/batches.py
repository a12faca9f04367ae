"""From records to padded arrays: grain shuffles, shards and keeps its place.

A batch is a dict of arrays: tokens under a plural name, their mask under
`<name>_mask`, whether they are cut under `<name>_cut`; `example_ids`, the
global index of each row; `record_ids`, the place of its record in the source;
`real`, false for the copies that fill up a last batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from nashmd_jax import declare, mistakes
from nashmd_jax.data import conversations, cuts, messages, records
from nashmd_jax.data import tokenizer as tokenizer_lib

Batch = dict[str, np.ndarray]
Example = dict[str, Any]
# Rows of a stream; the number of batches of one row overflows in grain's own
# endless repeat.
ENDLESS = 2**48
# Columns as wide as the bucket.
PROMPTS = ("prompts", "questions")


def encode_record(
  record: records.Record,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  max_prompt: int,
  max_response: int,
  chat: messages.Chat | None = None,
  turns: conversations.Turns = conversations.ALONE,
) -> Example:
  """Token ids of one record of any kind.

  A response that is too long is cut and has no end token, on purpose: its
  author did not end it there.

  Args:
    record: of any kind; text may be UTF-8 bytes.
    max_prompt: P, tokens, BOS included; see `cuts` for longer prompts.
    max_response: R, tokens, EOS included; of several turns those of each.
    chat: how the policy reads a conversation; None for one that reads text.
    turns: how many turns a conversation may have; where they may be several,
      responses have the columns of `conversations.encode`.
  Returns: "prompts"; with a chat also "questions", the prompt's own text, which
    is what judges read; then "responses" or "responses_a" and "responses_b",
    lists of ids; for each of them whether it was cut, such as "prompts_cut";
    "prob_a" and "weight", or "label", as far as the record has them; the
    weight of a comparison is 1 unless it says otherwise.
  Raises: Mistake for a prompt whose fixed text does not fit.
  """

  example = _encode_prompt(record, tokenizer, max_prompt, chat)
  names = ["response", "response_a", "response_b"]
  if "response" in record:
    how = {"given": turns, "name": _name(record)}
    conversations.check_count(record, **how)
    if turns.most > 1:
      names.remove("response")
      example |= conversations.encode(
        record, tokenizer, chat=chat, max_response=max_response, **how
      )
  max_response = turns.width(max_response)
  for name in names:
    if name in record:
      ids = tokenizer.encode(_text(record, name)) + [tokenizer.eos_id]
      column = name.replace("response", "responses")
      example[column] = ids[:max_response]
      example[f"{column}_cut"] = np.bool_(len(ids) > max_response)
  for name in records.SHARES.values():
    if name in record:
      example[name] = np.float32(record[name])
  if records.SHARES["comparison"] in record:
    example["weight"] = np.float32(records.weight_of(record))
  return example


def _encode_prompt(record, tokenizer, max_prompt, chat) -> Example:
  """The columns of what stands before a response."""
  name = _name(record)
  start, close = tokenizer.start_ids, tokenizer.close_ids
  ids, cut = cuts.shorten(
    _text(record, "prompt"),
    records.slot_of(record),
    tokenizer.encode,
    room=max_prompt - (0 if chat else len(start) + len(close)),
    name=name,
  )
  example = {"prompts": [*start, *ids, *close]}
  if chat is not None:
    example["questions"] = ids
    example["prompts"], cut = messages.encode_prompt(
      record, chat, tokenizer, room=max_prompt, name=name
    )
  elif any(one["role"] == "system" for one in record.get("messages", ())):
    raise mistakes.Mistake(
      f"{name}: has a system message, which no template reads; set "
      "chat.template to 'folder' or to a file"
    )
  return example | {"prompts_cut": np.bool_(cut)}


def _name(record: records.Record) -> str:
  """A record, for errors."""
  if "id" not in record:
    return "a record"
  return f"record {mistakes.quote(_text(record, 'id'))}"


def _text(record: records.Record, name: str) -> str:
  value = record[name]
  return value.decode() if isinstance(value, bytes) else value


LAYOUT = {
  "prompt_buckets": declare.several(
    declare.whole(
      "Lengths that prompts are padded to, ascending; what is longer than the "
      "last is cut.",
      least=1,
      unit="tokens",
    ),
    least=1,
  ),
  "max_response": declare.whole(
    "Length that responses are padded and cut to, and at most written in; of "
    "conversations that of each turn.",
    least=1,
    unit="tokens",
  ),
}


def check_layout(layout: Mapping[str, Any]) -> None:
  """Raises Mistake unless the buckets ascend."""
  buckets = list(layout["prompt_buckets"])
  if buckets != sorted(buckets):
    raise mistakes.Mistake(
      f"layout.prompt_buckets: got {mistakes.quote(tuple(buckets))}, expected "
      "ascending lengths"
    )


def pad_batch(
  examples: Sequence[Example],
  *,
  prompt_buckets: Sequence[int],
  max_response: int,
) -> Batch:
  """Stacks examples; prompts to the smallest bucket that holds them all.

  Args:
    examples: as `encode_record` makes them, with or without "example_ids".
    prompt_buckets: allowed P, ascending; the last holds every prompt.
    max_response: R, the width of every response.
  """
  longest = max(
    len(example[name])
    for example in examples
    for name in PROMPTS
    if name in example
  )
  width = next(size for size in prompt_buckets if size >= longest)
  batch = {}
  for name, first in examples[0].items():
    column = [example[name] for example in examples]
    if isinstance(first, list):
      length = width if name in PROMPTS else max_response
      tokens = np.zeros((len(column), length), np.int32)
      for row, ids in zip(tokens, column, strict=True):
        row[: len(ids)] = ids
      sizes = np.array([len(ids) for ids in column])
      batch[name] = tokens
      batch[name + "_mask"] = np.arange(length)[None, :] < sizes[:, None]
    else:
      batch[name] = np.stack(column)
  return batch


def training_batches(
  source: Sequence[records.Record],
  encode: Callable[[records.Record], Example],
  pad: Callable[[Sequence[Example]], Batch],
  *,
  batch_size: int,
  seed: int,
) -> grain.DatasetIterator:
  """Endless shuffled batches; the iterator's state can be saved and set.

  Args:
    source: random-access records, a TFDS data source for one.
    encode: record -> example.
    pad: examples -> batch.
    batch_size: B, rows.
    seed: of the shuffle, which differs in every epoch.
  Raises: Mistake if the source is empty.
  """
  if not len(source):
    raise mistakes.Mistake("no training records: the data source is empty")

  def row(index, position):
    return encode(source[int(position)]) | {
      "example_ids": np.int32(index % 2**31),
      "record_ids": np.int32(position),
      "real": np.bool_(True),
    }

  dataset = (
    grain.MapDataset.range(len(source))
    .seed(seed)
    .shuffle()
    .repeat(ENDLESS // len(source) + 1)
    .map_with_index(row)
    .batch(batch_size, batch_fn=pad)
  )
  return iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
  )


def ordered_batches(
  source: Sequence[records.Record],
  encode: Callable[[records.Record], Example],
  pad: Callable[[Sequence[Example]], Batch],
  *,
  batch_size: int,
) -> Iterator[tuple[Batch, int]]:
  """Every record once, in order, in batches of one size.

  Yields: the batch and how many of its rows are real; the last batch is
    filled up with copies of its last record.
  """

  def row(position):
    index = min(position, len(source) - 1)
    return encode(source[index]) | {
      "example_ids": np.int32(index),
      "record_ids": np.int32(index),
      "real": np.bool_(position < len(source)),
    }

  for start in range(0, len(source), batch_size):
    examples = [row(start + i) for i in range(batch_size)]
    yield pad(examples), min(batch_size, len(source) - start)
