"""Who writes y′: each opponent is a lane, and what it makes of the sets.

The lane may change from step to step, as β does on a schedule; a set that
exists for one rollout alone, such as an interpolation, is made by `sets`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from nashmd_jax import sampling
from nashmd_jax.training import followers

Sets = Mapping[str, Any]
Step = int | jax.Array

LEARNER: sampling.Lane = {"policy": 1.0}


class Opponent(NamedTuple):
  """One opponent over the whole of a training run.

  Attributes:
    lane: (step) -> the lane that it writes in.
    sets: (params_by_name, rng, step) -> params_by_name with the sets that
      exist for this rollout alone.
  """

  lane: Callable[[Step], sampling.Lane]
  sets: Callable[[Sets, jax.Array, Step], Sets]


LANES = {
  "self": lambda mixture: LEARNER,
  "mixture": lambda mixture: {"policy": 1.0 - mixture, "reference": mixture},
  "moving_average": lambda mixture: {"ema": 1.0},
  "reference": lambda mixture: {"reference": 1.0},
  "moving_average_mixture": lambda mixture: {
    "ema": 1.0 - mixture,
    "reference": mixture,
  },
  "interpolation": lambda mixture: {"interpolation": 1.0},
  "past": lambda mixture: {"past_policy": 1.0},
}

# What can be deployed of a trained run, at the β that its training ended with.
DEPLOYED = {
  "last": LANES["self"],
  "mixture": LANES["mixture"],
  "ema": LANES["moving_average"],
}


def _interpolation(sets, rng, mixture):
  del rng
  between = jax.tree.map(
    lambda policy, start: (1.0 - mixture) * policy + mixture * start,
    sets["policy"],
    sets["reference"],
  )
  return {"interpolation": between}


def _past_policy(sets, rng, mixture):
  del mixture
  return {"past_policy": followers.draw(sets["past"], rng)}


MADE = {"interpolation": _interpolation, "past": _past_policy}


def make_opponent(
  *, opponent: str, mixture: float, mixture_end: float, mixture_steps: int
) -> Opponent:
  """An opponent by name.

  Args:
    opponent: "self" (self-play), "mixture" (Nash-MD-PG), "moving_average"
      (Nash-EMA-PG, over the set "ema"), "reference" (best response),
      "moving_average_mixture" (the mixture of θ̄ and μ), "interpolation"
      (parameters (1 − β) θ + β θ_0) or "past" (fictitious play: each rollout
      against one of the stored policies of the set "past").
    mixture: β in [0, 1], weight on the reference; read by the mixtures and
      by the interpolation alone.
    mixture_end: β from step `mixture_steps` on, reached linearly.
    mixture_steps: 0 keeps β constant, a Python number, so that a set of
      weight 0 is never run.
  Raises: ValueError for an unknown opponent or a β that makes no sense.
  Source: Munos et al., ICML 2024, §7.
  """
  if opponent not in LANES:
    raise ValueError(
      f"nash.opponent: got {opponent!r}, expected one of {sorted(LANES)}"
    )
  for key, value in (("mixture", mixture), ("mixture_end", mixture_end)):
    if not 0 <= value <= 1:
      raise ValueError(
        f"nash.{key}: got {value}, expected a weight on the reference between "
        "0 (self-play) and 1 (best response)"
      )
  if mixture_steps < 0:
    raise ValueError(
      f"nash.mixture_steps: got {mixture_steps}, expected 0 (constant) or more"
    )

  def weight(step):
    if mixture_steps == 0:
      return mixture
    return optax.linear_schedule(mixture, mixture_end, mixture_steps)(step)

  def sets(given, rng, step):
    make = MADE.get(opponent, lambda sets, rng, mixture: {})
    return {**given, **make(given, rng, weight(step))}

  return Opponent(lane=lambda step: LANES[opponent](weight(step)), sets=sets)


def make_deployed(
  *, deploy: str, mixture: float, mixture_end: float, mixture_steps: int
) -> sampling.Lane:
  """The lane in which a trained run answers.

  What solves the game at temperature τ / (1 − β) is the mixture that was
  played, not the last policy.

  Args:
    deploy: "last" (the policy), "mixture" or "ema".
    mixture, mixture_end, mixture_steps: as `make_opponent`.
  Raises: ValueError for a policy that is not one of these.
  Source: Calandriello et al., ICML 2024, prop. 5.2.
  """
  if deploy not in DEPLOYED:
    raise ValueError(
      f"nash.deploy: got {deploy!r}, expected one of {sorted(DEPLOYED)}"
    )
  lane = DEPLOYED[deploy](mixture_end if mixture_steps else mixture)
  return {name: weight for name, weight in lane.items() if weight}
