"""What a data set is like before anything learns from it: the data card.

It counts what training would not notice: rows that gave no record, texts that
are cut or empty, records and prompts that stand twice, and prompts that are
held out and trained on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nashmd_jax.data import records

LOOKED_AT = 2000
SKIPPED = "skipped_"
LOST = {
  "left_out": "rows that gave no record",
  "empty_responses": "empty responses",
}
REPEATED = {
  "duplicate_ids": "repeated ids",
  "prompts_again": "repeated prompts",
  "shared_prompts": "prompts that are also in another split",
}
Example = Mapping[str, Any]
Card = dict[str, int | float]


def describe(
  splits: Mapping[str, Sequence[records.Record]],
  encode: Callable[[records.Record], Example],
  left_out: Mapping[str, int],
  skipped: Mapping[str, Mapping[str, int]],
) -> dict[str, Card]:
  """Counts of every split.

  Args:
    splits: records of any kind by split.
    encode: record -> token ids, and whether they are cut; see
      `batches.encode_record`.
    left_out: rows of the files that gave no record, by split; a split that is
      not named has none.
    skipped: bad rows that were passed over, by split and cause.
  Returns: by split "rows"; "left_out"; "skipped_CAUSE" of each cause there is;
    "empty_responses", rows with a response of no text, a comparison counting
    once; "looked_at", the rows, evenly spread, that the shares are of;
    "prompts_cut" and "responses_cut", shares of these rows in [0, 1], a
    comparison counting if either response is cut; "duplicate_ids", rows whose
    id an earlier one has; "prompts", how many differ; "shared_prompts", rows
    whose prompt is also in another split.
  """
  prompts = {
    split: [row["prompt"] for row in rows] for split, rows in splits.items()
  }
  distinct = {split: set(texts) for split, texts in prompts.items()}
  card = {}
  for split, rows in splits.items():
    elsewhere = set().union(
      *(texts for name, texts in distinct.items() if name != split)
    )
    card[split] = {
      "rows": len(rows),
      "left_out": left_out.get(split, 0),
      **{f"{SKIPPED}{why}": n for why, n in skipped.get(split, {}).items()},
      "empty_responses": sum(map(_is_empty, rows)),
      **_cuts(rows, encode),
      "duplicate_ids": len(rows) - len({row["id"] for row in rows}),
      "prompts": len(distinct[split]),
      "shared_prompts": sum(text in elsewhere for text in prompts[split]),
    }
  return card


def _is_empty(row: records.Record) -> bool:
  names = (name for name in row if name.startswith("response"))
  return any(not row[name].strip() for name in names)


def _cuts(rows, encode) -> Card:
  count = min(len(rows), LOOKED_AT)
  prompts = responses = 0
  for i in range(count):
    example = encode(rows[i * len(rows) // count])
    prompts += bool(example["prompts_cut"])
    responses += any(
      bool(cut)
      for name, cut in example.items()
      if name.startswith("responses") and name.endswith("_cut")
    )
  return {
    "looked_at": count,
    "prompts_cut": prompts / max(1, count),
    "responses_cut": responses / max(1, count),
  }


def lines(card: Mapping[str, Card]) -> Iterator[str]:
  """A sentence for each split of a card in which something is amiss."""
  for split, counts in card.items():
    cuts = [
      f"{counts[f'{text}_cut']:.1%} of the {text} are cut"
      for text in ("prompts", "responses")
      if counts[f"{text}_cut"]
    ]
    if cuts and counts["looked_at"] < counts["rows"]:
      cuts[-1] += f" (of {counts['looked_at']:,} looked at)"
    again = {"prompts_again": counts["rows"] - counts["prompts"]}
    lost = _told(counts, LOST)
    lost += [
      f"bad rows skipped, {name.removeprefix(SKIPPED).replace('_', ' ')}: {n:,}"
      for name, n in counts.items()
      if name.startswith(SKIPPED)
    ]
    found = lost + cuts + _told(counts | again, REPEATED)
    if found:
      yield f"{split}, {counts['rows']:,} records: {'; '.join(found)}"


def _told(counts: Card, sentences: Mapping[str, str]) -> list[str]:
  return [
    f"{told}: {counts[name]:,}"
    for name, told in sentences.items()
    if counts[name]
  ]
