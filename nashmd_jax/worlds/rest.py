"""Where a loss comes to rest against a mixture of the learner and μ.

The learner's pairs, or its opponent's answers, are of the token-wise mixture
m(π) of weight β; at rest m is its own and the expected gradient is zero.
"""

from typing import Any

from nashmd_jax import games, mistakes
from nashmd_jax.nash import opponents

# By loss. All of these rest where π ∝ μ exp(P m(π) / τ).
FIXED_POINTS = {
  "policy_gradient": games.mixture_fixed_point,
  "policy_gradient_sequence_kl": games.mixture_fixed_point,
  "policy_gradient_exact_kl": games.mixture_fixed_point,
  "ipo": games.mixture_fixed_point,
}


def fixed_point(loss: str) -> Any:
  """The solver of a loss; raises Mistake where it is not known."""
  if loss not in FIXED_POINTS:
    raise mistakes.Mistake(
      f"nash.loss: got {loss!r}, whose point of rest is not known; expected "
      f"one of {sorted(FIXED_POINTS)}"
    )
  return FIXED_POINTS[loss]


def weight_on_reference(opponent: opponents.Opponent, steps: int) -> float:
  """β that an opponent ends with, after `steps` steps.

  Raises: Mistake for an opponent that is no mixture of the learner, or of a
    moving average that follows it, with μ: its point of rest is not known.
  """
  lanes = opponent.lanes(steps)
  lane = {name: float(weight) for name, weight in lanes[0][1].items()}
  known = {"policy", "ema", "reference"}
  beta = lane.get("reference", 0.0)
  sums = abs(sum(lane.values()) - 1) <= 1e-6
  if len(lanes) > 1 or set(lane) - known or not (sums and 0 <= beta <= 1):
    raise mistakes.Mistake(
      f"nash.opponent: no exact answer is known for {opponent.name!r}, which "
      f"writes in {[dict(one) for _, one in lanes]}; choose self, mixture, "
      "reference, or a moving average"
    )
  return beta
