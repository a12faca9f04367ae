"""Who writes y′: each opponent is a choice of lane, nothing more."""

from nashmd_jax import sampling

LEARNER: sampling.Lane = {"policy": 1.0}

OPPONENTS = {
  "self": lambda mixture: LEARNER,
  "mixture": lambda mixture: {"policy": 1.0 - mixture, "reference": mixture},
  "moving_average": lambda mixture: {"ema": 1.0},
  "reference": lambda mixture: {"reference": 1.0},
}


def make_lanes(*, opponent: str, mixture: float) -> list[sampling.Lane]:
  """The learner's lane and the opponent's.

  Args:
    opponent: "self" (self-play), "mixture" (Nash-MD-PG), "moving_average"
      (Nash-EMA-PG, over the parameter set "ema") or "reference" (best
      response).
    mixture: β in [0, 1], weight on the reference; read by "mixture" alone.
  Raises: ValueError for an unknown opponent or β outside [0, 1].
  Source: Munos et al., ICML 2024, §7.
  """
  if opponent not in OPPONENTS:
    raise ValueError(
      f"nash.opponent: got {opponent!r}, expected one of {sorted(OPPONENTS)}"
    )
  if not 0 <= mixture <= 1:
    raise ValueError(
      f"nash.mixture: got {mixture}, expected a weight on the reference "
      "between 0 (self-play) and 1 (best response)"
    )
  return [LEARNER, OPPONENTS[opponent](mixture)]
