"""Parts of the training records, for runs that are to differ in their data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nashmd_jax import declare, mistakes
from nashmd_jax.data import records

SALT = 0x7004  # of the order in which records are dealt out
SETTINGS = {
  "parts": declare.whole(
    "Equal parts that the training records are dealt out to by the seed; 1 "
    "learns from all of them.",
    least=1,
    most=10_000,
  ),
  "part": declare.whole("Which of them a run learns from, from 0.", least=0),
  "overlap": declare.number(
    "Share of the next part that is learnt from besides.", least=0, most=1
  ),
}


def check(split: Mapping[str, Any], setting: str) -> None:
  """Raises Mistake for a part that there is not."""
  if split["part"] >= split["parts"]:
    raise mistakes.Mistake(
      f"{setting}.part: got {split['part']} of {split['parts']} parts, "
      f"expected 0 to {split['parts'] - 1}"
    )


def numbers(
  count: int, *, parts: int, part: int, overlap: float, seed: int
) -> np.ndarray:
  """Numbers of the records of one part, ascending, int[n].

  The records are shuffled by the seed and cut into parts whose sizes differ by
  one at most. A part is its own records and the first ⌊o n⌋ of the n of the
  part behind it, the first standing behind the last.

  Args:
    count: N, all records.
    parts: L ≥ 1.
    part: 0 to L − 1.
    overlap: o in [0, 1]; of one part there is no other.
    seed: the same for all parts of one run.
  """
  order = np.random.default_rng((seed, SALT)).permutation(count)
  cut = np.array_split(order, parts)
  behind = cut[(part + 1) % parts]
  more = behind[: int(overlap * len(behind))] if parts > 1 else behind[:0]
  return np.sort(np.concatenate([cut[part], more]))


def take(
  source: Sequence[records.Record],
  *,
  parts: int,
  part: int,
  overlap: float,
  seed: int,
) -> Sequence[records.Record]:
  """The records of one part; all of them, as they are, where there is but one.

  Args: see `numbers`.
  Raises: Mistake for fewer records than parts.
  """
  if parts == 1:
    return source
  if len(source) < parts:
    raise mistakes.Mistake(
      f"nash.split.parts: got {parts} parts of {len(source)} training records, "
      "expected one record or more in each"
    )
  own = numbers(len(source), parts=parts, part=part, overlap=overlap, seed=seed)
  return [source[number] for number in own]
