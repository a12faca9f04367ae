"""Which responses to a prompt are held against which; see `ways.Way.asks`.

Each takes the numbers of own and of other responses, own ones first, and gives
the numbers (i, j) of the pairs, or (i, None) of those that stand alone.
"""

import numpy as np


def all_pairs(own: int, other: int):
  i, j = np.divmod(np.arange(own * other), max(other, 1))
  return i, own + j


def each_pair(own: int, other: int):
  del other
  return np.triu_indices(own, 1)


def ring(own: int, other: int):
  """Each with the next: once shown first and once second."""
  del other
  return np.arange(own), np.roll(np.arange(own), -1)


def ring_across(own: int, other: int):
  """own 0, other 0, own 1, other 1, …: each with the next, in every lane."""
  each = other // own
  k, lane = np.divmod(np.arange(other), each)
  theirs = own + k * each + lane
  if own == 1:
    return k, theirs
  return np.append(k, theirs), np.append(theirs, (k + 1) % own)


def each(own: int, other: int):
  return np.arange(own + other), None


def nobody(own: int, other: int):
  del own, other
  return np.arange(0), None


def own_answers(own: int, other: int):
  """Each with the answer to it, of which there are as many."""
  del other
  return np.arange(own), own + np.arange(own)
