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

from nashmd_jax import mistakes, sampling
from nashmd_jax.nash import opponents, pairs, recorded, scores

Named = scores.Named
Asked = scores.Asked
WROTE = "behaviour_log_prob"
# Of the second turn, each with "follower_" before it.
READ = ("log_prob", "ref_log_prob", "mask")
ANCHOR: sampling.Lane = {"anchor": 1.0}


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
    turns: 2 where the other responses are answers to the own; see
      `second_turn`.
    halves: whether a step is one of two from the last iterate, which writes
      the own responses and at which the gradient is taken; see
      `training.half_steps`.
  """

  gives: str | None
  lanes: Callable[[opponents.Weighted, int], Lanes]
  asks: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]
  scores: Callable[[jax.Array, jax.Array, jax.Array], Named]
  names: tuple[str, ...]
  ratios: Callable[[jax.Array, jax.Array], Named] = lambda ratio, tokens: {}
  kind: str | None = None
  recorded: Callable[[Named], Named] | None = None
  turns: int = 1
  halves: bool = False


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


def _in_turn(lanes, samples) -> Lanes:
  if list(lanes) != [(1.0, opponents.LEARNER)]:
    raise mistakes.Mistake(
      "nash.opponent: the loss stackelberg has the policy answer itself in a "
      "second turn; choose the opponent 'self'"
    )
  own = [opponents.LEARNER] * samples
  return Lanes(own, own, [1 / samples] * samples)


def _in_halves(lanes, samples) -> Lanes:
  if list(lanes) != [(1.0, opponents.LEARNER)]:
    raise mistakes.Mistake(
      "nash.opponent: the loss egpo holds the responses of the last iterate "
      "against the policy's; choose the opponent 'self'"
    )
  return Lanes([ANCHOR] * (2 * samples), *_spread(lanes, samples))


def _nobody_writes(lanes, samples) -> Lanes:
  del lanes, samples
  return Lanes([], [], [])


def _of_pairs(ratio, tokens) -> Named:
  mean = ratio / jnp.maximum(tokens, 1)
  return {"log_ratio": ratio, "mean_log_ratio": mean}


def _of_own(ratio, tokens) -> Named:
  del tokens
  return {"log_ratio": ratio[:, 0]}


def _of_own_and_next(ratio, tokens) -> Named:
  del tokens
  return {"log_ratio": ratio[:, 0], "mismatched_log_ratio": ratio[:, 1]}


VERSUS = Way(
  "win_prob", _versus, pairs.all_pairs, scores.win_probs, ("win_prob", WROTE)
)
ALONE = Way(
  "reward", _alone, pairs.each, scores.rewards, ("reward", "baseline", WROTE)
)
PAIRED = Way(
  "win_prob",
  _paired,
  pairs.each_pair,
  scores.pair_win_probs,
  ("log_ratio", "mean_log_ratio", "win_prob", "judged", WROTE),
  _of_pairs,
)
COMPARED = PAIRED._replace(
  gives=None,
  lanes=_nobody_writes,
  scores=scores.stated_win_probs,
  kind="comparison",
  recorded=recorded.both,
)
GROUPED = Way(
  "reward",
  _grouped,
  pairs.each,
  scores.group_rewards,
  ("reward", "group_mean", "group_spread", WROTE),
)
IN_TURN = Way(
  "win_prob",
  _in_turn,
  pairs.own_answers,
  scores.answered_win_probs,
  ("win_prob", *(f"follower_{name}" for name in READ)),
  turns=2,
)
IN_HALVES = Way(
  "win_prob",
  _in_halves,
  pairs.all_pairs,
  scores.wins,
  ("wins", "wins_known", "log_ratio", "mean_log_ratio"),
  _of_pairs,
  halves=True,
)
LABELLED = Way(
  None,
  _nobody_writes,
  pairs.nobody,
  scores.none,
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
  "follower_log_prob": IN_TURN,
  "wins": IN_HALVES,
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
    "circular": VERSUS._replace(asks=pairs.ring_across),
    "group": VERSUS._replace(
      lanes=_group, asks=pairs.each_pair, scores=scores.group_win_probs
    ),
    "group_circular": VERSUS._replace(
      lanes=_group, asks=pairs.ring, scores=scores.group_win_probs
    ),
  },
  PAIRED: {
    "all": PAIRED,
    "circular": PAIRED._replace(asks=pairs.ring),
    RECORDS: COMPARED,
  },
  ALONE: {"all": ALONE},
  GROUPED: {"all": GROUPED},
  IN_TURN: {"all": IN_TURN},
  IN_HALVES: {"all": IN_HALVES},
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
