"""Ways of playing: who writes, which pairs are asked about, what is learnt of.

The names that a loss asks for decide on the way, see `algorithms`; a design
says which of its pairs are asked about, and in which orders. Nothing here
knows a model or a loss.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses, mistakes, sampling
from nashmd_jax.nash import opponents, recorded

Named = dict[str, jax.Array]
WROTE = "behaviour_log_prob"


class Lanes(NamedTuple):
  """The lanes of a rollout.

  Attributes:
    own: of the responses that the loss is of.
    other: of those that they are only scored against.
    weights: of the latter, which sum to 1.
    voters: of those that decide which of the latter count; see `rejection`.
  """

  own: list[sampling.Lane]
  other: list[sampling.Lane]
  weights: list[float]
  voters: Sequence[sampling.Lane] = ()

  @property
  def all(self) -> list[sampling.Lane]:
    """All that are written, in this order."""
    return [*self.own, *self.other, *self.voters]


class Way(NamedTuple):
  """A way of playing.

  Attributes:
    gives: what a judge has to give: "win_prob", "reward", or None for nothing.
    lanes: (the opponent's lanes with weights, K) -> the lanes of a rollout.
    asks: (own, other) -> numbers (i, j) of the responses to be compared, i
      shown first, or (i, None) of those to be scored, own ones first.
    scores: (answers f32[B, N], judged bool[B, N], weights f32[B, other], Asked)
      -> what the loss reads of them by name, and "counted", bool[rows].
    names: what a loss may ask for that is played so, besides `EVERY`.
    ratios: (log-ratios f32[B, own], tokens int[B, own]) -> what of them the
      loss may ask for, by name.
    kind: of the records that hold the responses; None where policies write.
    recorded: (batch) -> rows of their responses, see `recorded`; None where
      the batch has them as they are.
  """

  gives: str | None
  lanes: Callable[[opponents.Weighted, int], Lanes]
  asks: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]
  scores: Callable[[jax.Array, jax.Array, jax.Array], Named]
  names: tuple[str, ...]
  ratios: Callable[[jax.Array, jax.Array], Named] = lambda ratio, tokens: {}
  kind: str | None = None
  recorded: Callable[[Named], Named] | None = None


class Asked(NamedTuple):
  """What was asked of L responses to each prompt.

  Attributes:
    own: how many of the responses the loss is of; they come first.
    i, j: see `Way.asks`.
  """

  own: int
  i: np.ndarray
  j: np.ndarray | None


def _spread(lanes: opponents.Weighted, samples: int):
  """K of each lane, and their weights."""
  each = [(lane, weight / samples) for weight, lane in lanes] * samples
  return [lane for lane, _ in each], [weight for _, weight in each]


def _versus(lanes, samples) -> Lanes:
  return Lanes([opponents.LEARNER] * samples, *_spread(lanes, samples))


def _alone(lanes, samples) -> Lanes:
  """A single response needs another as baseline."""
  other = _spread(lanes, 1) if samples == 1 else ([], [])
  return Lanes([opponents.LEARNER] * samples, *other)


def _grouped(lanes, samples) -> Lanes:
  del lanes
  if samples < 2:
    raise mistakes.Mistake(
      f"nash.samples: got {samples} for a loss that compares the rewards of a "
      "group, expected 2 responses or more"
    )
  return Lanes([opponents.LEARNER] * samples, [], [])


def _paired(lanes, samples) -> Lanes:
  if len(lanes) > 1:
    raise mistakes.Mistake(
      "nash.opponent: has several lanes, but this loss compares the responses "
      "of one opponent with one another; choose an opponent of one lane"
    )
  return Lanes([lanes[0][1]] * (2 * samples), [], [])


def _group(lanes, samples) -> Lanes:
  if list(lanes) != [(1.0, opponents.LEARNER)]:
    raise mistakes.Mistake(
      "nash.design: a group compares the learner's responses with one another, "
      "which is the opponent 'self'; got another opponent"
    )
  if samples < 2:
    raise mistakes.Mistake(
      f"nash.samples: got {samples}, expected 2 responses or more to be "
      "compared in a group"
    )
  return Lanes([opponents.LEARNER] * samples, [], [])


def _nobody_writes(lanes, samples) -> Lanes:
  del lanes, samples
  return Lanes([], [], [])


def _all_pairs(own: int, other: int):
  i, j = np.divmod(np.arange(own * other), max(other, 1))
  return i, own + j


def _each_pair(own: int, other: int):
  del other
  return np.triu_indices(own, 1)


def _ring(own: int, other: int):
  """Each with the next: once shown first and once second."""
  del other
  return np.arange(own), np.roll(np.arange(own), -1)


def _ring_across(own: int, other: int):
  """own 0, other 0, own 1, other 1, …: each with the next, in every lane."""
  each = other // own
  k, lane = np.divmod(np.arange(other), each)
  theirs = own + k * each + lane
  if own == 1:
    return k, theirs
  return np.append(k, theirs), np.append(theirs, (k + 1) % own)


def _each(own: int, other: int):
  return np.arange(own + other), None


def _nobody(own: int, other: int):
  del own, other
  return np.arange(0), None


def _table(answers, judged, size: int, asked: Asked):
  """P(y_i ≻ y_j) of all pairs, and which are known, each [B, L, L].

  A pair that was asked in both orders is the mean of the two, and known if
  both answers are.
  """
  number = np.full((size, size), -1)
  number[asked.i, asked.j] = np.arange(len(asked.i))
  was, swapped = (number >= 0)[None], (number.T >= 0)[None]
  times = np.maximum(was.astype(np.int32) + swapped, 1)
  there, back = answers[:, number], answers[:, number.T]
  won = jnp.where(was, there, 0) + jnp.where(swapped, 1 - back, 0)
  won = won / jnp.asarray(times, won.dtype)
  known = (judged[:, number] | ~was) & (judged[:, number.T] | ~swapped)
  asked_at_all = was | swapped
  return jnp.where(asked_at_all, won, 0.5), known & asked_at_all


def _win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" f32[B·K]: the weighted mean over the opponent's responses."""
  own, others = asked.own, weights.shape[1]
  table, known = _table(answers, judged, own + others, asked)
  weight = weights[:, None, :] * known[:, :own, own:]
  return _mean_win(table[:, :own, own:], weight)


def _group_win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" f32[B·K]: the mean over the learner's other responses."""
  del weights
  table, known = _table(answers, judged, asked.own, asked)
  return _mean_win(table, known.astype(table.dtype))


def _mean_win(table, weight) -> Named:
  total = jnp.sum(weight, axis=2)
  won = jnp.sum(weight * table, axis=2)
  return {
    "win_prob": _rows(won / jnp.where(total > 0, total, 1)),
    "counted": _rows(total > 0),
  }


def _rewards(answers, judged, weights, asked) -> Named:
  """ "reward" and "baseline" f32[B·K]: of the others, or of the K − 1."""
  own, others = asked.own, weights.shape[1]
  reward, known = answers[:, :own], judged[:, :own]
  if others:
    weight = weights * judged[:, own:]
    total = jnp.sum(weight, axis=1, keepdims=True)
    mean = jnp.sum(weight * answers[:, own:], axis=1, keepdims=True)
    mean = mean / jnp.where(total > 0, total, 1)
    baseline = jnp.broadcast_to(mean, reward.shape)
    known = known & (total > 0)
  else:
    baseline = losses.leave_one_out(reward, known)
    known = known & (jnp.sum(known, axis=1, keepdims=True) > 1)
  return {
    "reward": _rows(reward),
    "baseline": _rows(baseline),
    "counted": _rows(known),
  }


def _group_rewards(answers, judged, weights, asked) -> Named:
  """ "reward" f32[B·K]; its mean and deviation in the group, each [B·K]."""
  del weights
  reward, known = answers[:, : asked.own], judged[:, : asked.own]
  count = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)
  mean = jnp.sum(jnp.where(known, reward, 0), axis=1, keepdims=True) / count
  apart = jnp.where(known, reward - mean, 0)
  spread = jnp.sqrt(jnp.sum(apart**2, axis=1, keepdims=True) / count)
  return {
    "reward": _rows(reward),
    "group_mean": _rows(jnp.broadcast_to(mean, reward.shape)),
    "group_spread": _rows(jnp.broadcast_to(spread, reward.shape)),
    "counted": _rows(known),
  }


def _pair_win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" and "judged" [B, L, L]."""
  del weights
  table, known = _table(answers, judged, asked.own, asked)
  counted = jnp.ones(len(answers) * asked.own, bool)
  return {"win_prob": table, "judged": known, "counted": counted}


def _stated_win_probs(answers, judged, weights, asked) -> Named:
  """The same of comparisons, "judged" being what each counts."""
  found = _pair_win_probs(answers, judged, weights, asked)
  counts = weights[:, :, None] * found["judged"]
  return found | {"judged": counts}


def _no_scores(answers, judged, weights, asked) -> Named:
  del judged, weights
  return {"counted": jnp.ones(len(answers) * asked.own, bool)}


def _of_pairs(ratio, tokens) -> Named:
  mean = ratio / jnp.maximum(tokens, 1)
  return {"log_ratio": ratio, "mean_log_ratio": mean}


def _of_own(ratio, tokens) -> Named:
  del tokens
  return {"log_ratio": ratio[:, 0]}


def _of_own_and_next(ratio, tokens) -> Named:
  del tokens
  return {"log_ratio": ratio[:, 0], "mismatched_log_ratio": ratio[:, 1]}


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1)


VERSUS = Way("win_prob", _versus, _all_pairs, _win_probs, ("win_prob", WROTE))
ALONE = Way("reward", _alone, _each, _rewards, ("reward", "baseline", WROTE))
PAIRED = Way(
  "win_prob",
  _paired,
  _each_pair,
  _pair_win_probs,
  ("log_ratio", "mean_log_ratio", "win_prob", "judged", WROTE),
  _of_pairs,
)
COMPARED = PAIRED._replace(
  gives=None,
  lanes=_nobody_writes,
  scores=_stated_win_probs,
  kind="comparison",
  recorded=recorded.both,
)
GROUPED = Way(
  "reward",
  _grouped,
  _each,
  _group_rewards,
  ("reward", "group_mean", "group_spread", WROTE),
)
LABELLED = Way(
  None,
  _nobody_writes,
  _nobody,
  _no_scores,
  ("label", "log_ratio"),
  _of_own,
  "unary",
)
MISMATCHED = LABELLED._replace(
  names=("label", "log_ratio", "mismatched_log_ratio"),
  ratios=_of_own_and_next,
  recorded=recorded.own_and_next,
)
# By what a loss asks for: the first that it does.
BY_NAME = {
  "mismatched_log_ratio": MISMATCHED,
  "label": LABELLED,
  "log_ratio": PAIRED,
  "mean_log_ratio": PAIRED,
  "group_mean": GROUPED,
  "group_spread": GROUPED,
  "reward": ALONE,
}
RECORDS = "records"
# Which pairs are asked about, by the way of playing and the name of the design.
DESIGNS = {
  VERSUS: {
    "all": VERSUS,
    "circular": VERSUS._replace(asks=_ring_across),
    "group": VERSUS._replace(
      lanes=_group, asks=_each_pair, scores=_group_win_probs
    ),
    "group_circular": VERSUS._replace(
      lanes=_group, asks=_ring, scores=_group_win_probs
    ),
  },
  PAIRED: {
    "all": PAIRED,
    "circular": PAIRED._replace(asks=_ring),
    RECORDS: COMPARED,
  },
  ALONE: {"all": ALONE},
  GROUPED: {"all": GROUPED},
  LABELLED: {"all": LABELLED},
  MISMATCHED: {"all": MISMATCHED},
}
NAMED = tuple(
  dict.fromkeys(name for named in DESIGNS.values() for name in named)
)
ORDERS = ("one", "both")


def designed(way: Way, design: str, orders: str, *, loss: str) -> Way:
  """A way of playing with another choice of pairs; see `make_algorithm`."""
  if design not in DESIGNS[way]:
    raise mistakes.Mistake(
      f"nash.design: got {mistakes.quote(design)} for the loss "
      f"{mistakes.quote(loss)}, expected one of "
      f"{sorted(DESIGNS[way])}"
    )
  made = DESIGNS[way][design]
  if orders not in ORDERS or (orders == "both" and made.gives != "win_prob"):
    expected = ORDERS if made.gives == "win_prob" else ORDERS[:1]
    raise mistakes.Mistake(
      f"nash.orders: got {mistakes.quote(orders)} for the loss "
      f"{mistakes.quote(loss)}, expected one of "
      f"{expected}"
    )
  if orders == "one":
    return made

  def both(own, other):
    i, j = made.asks(own, other)
    return np.append(i, j), np.append(j, i)

  return made._replace(asks=both)
