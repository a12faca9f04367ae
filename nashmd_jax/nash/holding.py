"""What the policy is held to: μ, its last iterates, or its moving average.

Each is paid for by its KL, and one KL stands for all of them: see
`losses.hold`. What a loss reads as μ's log-probs are then those of the lane.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nashmd_jax import declare, losses, sampling
from nashmd_jax.training import followers

REFERENCE, ANCHOR, FOLLOWER = "reference", "anchor", "iterate"
LAST, AVERAGE = "last", "ema"
SETTINGS = {
  **followers.ITERATES,
  "coef": declare.number(
    "κ, the price of a nat of KL to the anchors, beside τ; 0 holds the policy "
    "to the reference alone.",
    least=0,
    most=1e6,
  ),
  "anchor": declare.text(
    "What the anchors are: the last iterates, or the moving average.",
    one_of=(LAST, AVERAGE),
  ),
}


class Held(NamedTuple):
  """What the policy is held to, and at what price.

  Attributes:
    lane: weights of the sets by name, which sum to 1.
    kl_coef: η = τ + κ, the price of a nat.
    follows: the followers of the policy that it reads.
  """

  lane: sampling.Lane
  kl_coef: float
  follows: frozenset[str]


def make_held(
  *,
  kl_coef: float,
  every: int,
  weights: Sequence[float],
  coef: float,
  anchor: str,
) -> Held:
  """What a policy is held to; see `SETTINGS`.

  Args:
    kl_coef: τ ≥ 0.
    every: steps of an iteration, of the follower.
    weights: w of the anchors, the newest first, up to a constant factor; of
      the moving average their sum counts.
    coef: κ ≥ 0.
    anchor: "last" or "ema".
  Raises: ValueError for a value that cannot be.
  """
  given = {"every": every, "weights": weights, "coef": coef, "anchor": anchor}
  declare.check(SETTINGS, given, FOLLOWER)
  if not coef:
    return Held({REFERENCE: 1.0}, kl_coef, frozenset())
  price, on_reference, shares = losses.hold(
    kl_coef=kl_coef, anchor_coef=coef, anchor_weights=weights
  )
  names = [anchor_name(age) for age in range(len(shares))]
  found, follows = dict(zip(names, shares, strict=True)), FOLLOWER
  if anchor == AVERAGE:
    found, follows = {AVERAGE: sum(shares)}, AVERAGE
  if on_reference:
    found = {REFERENCE: on_reference, **found}
  return Held(found, price, frozenset([follows]))


def anchor_name(age: int) -> str:
  """The set of the iterate that is so many iterations older than the last."""
  return f"{ANCHOR}_{age}" if age else ANCHOR


def anchors(lane: sampling.Lane, sets: Mapping[str, Any]) -> dict[str, Any]:
  """The sets of the iterates that a lane names, for one rollout."""
  ages = range(len(lane))
  return {
    anchor_name(age): followers.iterate(sets[FOLLOWER], age)
    for age in ages
    if anchor_name(age) in lane
  }
