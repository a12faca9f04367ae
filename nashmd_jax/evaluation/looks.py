"""When a cell of a tournament has been judged on enough prompts.

Prompts are judged in parts, each as large as all before it, in an order that
the seed draws. After each part the interval is looked at, at a level that holds
for all looks together; a cell whose interval is narrow enough is left. Whatever
looks decide, the interval that is told covers at its own level.
"""

from collections.abc import Sequence

import numpy as np

FIRST = 50  # prompts of the first look, at least


def parts(prompts: np.ndarray, width: float, seed: int) -> list[np.ndarray]:
  """The places of the records that are judged before each look.

  Args:
    prompts: int[N], what tells the prompts of records apart, from 0.
    width: that is narrow enough; 0 judges all prompts at once.
    seed: of the order of prompts.
  Returns: int arrays that together are all places from 0 to N − 1, those of a
    prompt in one of them; in order where there is one.
  """
  everything = np.arange(len(prompts))
  count = len(np.unique(prompts))
  if width == 0 or count < 2 * FIRST:
    return [everything]
  ends = [count]
  while ends[0] >= 2 * FIRST:
    ends.insert(0, ends[0] // 2)
  place = np.empty(count, int)
  place[np.random.default_rng(seed).permutation(count)] = np.arange(count)
  look = np.searchsorted(ends, place, side="right")[prompts]
  return [everything[look == number] for number in range(len(ends))]


def level(confidence: float, looks: Sequence[np.ndarray]) -> float:
  """The level of each interval so that all together hold at `confidence`.

  Bonferroni's over the looks.
  """
  return 1 - (1 - confidence) / len(looks)
