"""Which questions annotators are asked, in which order, on which sides.

All of it is drawn from the seed: what is asked of the pairs that there are, and
the order and sides of each annotator from their name as well. Nothing that is
shown tells a repeat or a golden question from another.
"""

from collections.abc import Sequence
import hashlib
from typing import NamedTuple

import numpy as np

from nashmd_jax.annotators import golden, votes
from nashmd_jax.data import records

PARTS = 3  # a repeat is of the first part of the questions, and in the last


class Pair(NamedTuple):
  """Two responses of a prompt.

  Attributes:
    name: of the pair: number of the record and the two policies.
    record: with the prompt.
    a, b: the policies that wrote them.
    response_a, response_b: the texts.
    prob: P(a ≻ b) by a judge; NaN where it said nothing.
    is_golden: whether annotators are tested by it.
  """

  name: str
  record: records.Record
  a: str
  b: str
  response_a: str
  response_b: str
  prob: float
  is_golden: bool = False


class Question(NamedTuple):
  """A pair as it is shown to one annotator.

  Attributes:
    pair: that is asked about.
    shown_left: which response of it, `votes.A` or `votes.B`.
    is_repeat: whether this annotator was asked about it before.
  """

  pair: Pair
  shown_left: str
  is_repeat: bool


def choose(
  pairs: Sequence[Pair],
  *,
  count: int,
  golden_share: float,
  certainty: float,
  seed: int,
) -> list[Pair]:
  """The pairs that are asked about, golden ones among them.

  Golden are those of which the judge is most certain; the others are drawn at
  random from all that remain.

  Args:
    pairs: all there are.
    count: of pairs that are not golden, at most.
    golden_share: golden ones beside them, as a share of count, as far as the
      judge is certain.
    certainty: least probability, by the judge, of the answer to a golden one.
    seed: of the draw.
  """
  certain = golden.most_certain(
    np.array([pair.prob for pair in pairs]), certainty
  )
  wanted = round(golden_share * min(count, len(pairs)))
  tests = {int(place) for place in certain[:wanted]}
  rest = np.array([i for i in range(len(pairs)) if i not in tests], int)
  order = np.random.default_rng(seed).permutation(rest)[:count]
  return [
    *(pairs[place] for place in order),
    *(pairs[place]._replace(is_golden=True) for place in sorted(tests)),
  ]


def questions(
  pairs: Sequence[Pair], *, repeats: float, seed: int, annotator: str
) -> list[Question]:
  """All questions of an annotator, in order.

  A repeat is a pair from the first third that is no golden one, once more in
  the last third, with its sides drawn anew.

  Args:
    pairs: that are asked about, see `choose`.
    repeats: as a share of those that are not golden; as many as the first third
      has at most.
    seed: of the run.
    annotator: their name.
  """
  digest = hashlib.sha256(annotator.encode()).digest()
  rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
  order = [pairs[place] for place in rng.permutation(len(pairs))]
  part = len(order) // PARTS
  plain = [pair for pair in order[:part] if not pair.is_golden]
  wanted = round(repeats * sum(not pair.is_golden for pair in pairs))
  again = rng.permutation(len(plain))[:wanted]
  asked = [(pair, False) for pair in order]
  for pair in (plain[place] for place in again):
    place = rng.integers(len(asked) - part, len(asked) + 1)
    asked.insert(int(place), (pair, True))
  sides = rng.integers(2, size=len(asked))
  return [
    Question(pair, (votes.A, votes.B)[side], is_repeat)
    for (pair, is_repeat), side in zip(asked, sides, strict=True)
  ]
