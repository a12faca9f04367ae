"""Who writes y′: each opponent is one lane, or several with weights.

The lanes may change from step to step, as β does on a schedule; a set that
exists for one rollout alone, such as an interpolation, is made by `sets`.
"""

from collections.abc import Callable, Mapping, Sequence
import reprlib
from typing import Any, NamedTuple

import jax
import optax

from nashmd_jax import declare, mistakes, outside, sampling
from nashmd_jax.training import followers

Sets = Mapping[str, Any]
Step = int | jax.Array
Weighted = Sequence[tuple[float, sampling.Lane]]

LEARNER: sampling.Lane = {"policy": 1.0}
REFERENCE: sampling.Lane = {"reference": 1.0}


class Acceptance(NamedTuple):
  """Which of the responses in its lanes an opponent gives.

  Attributes:
    voters: n, fresh responses of the policy that each is compared with.
    probability: (f32[…, n], P(y′ ≻ voter)) -> f32[…], of being given.
  """

  voters: int
  probability: Callable[[jax.Array], jax.Array]


class Opponent(NamedTuple):
  """One opponent over the whole of a training run.

  Attributes:
    name: in the config.
    lanes: (step) -> the lanes that it writes in, with weights that sum to 1:
      what is learnt is the mean over them.
    sets: (sets, rng, step) -> the sets with those that exist for this rollout
      alone.
    follows: the followers of the policy that it reads, by name.
    accepts: where not all that its lanes write is its own, which is; see
      `rejection`.
  """

  name: str
  lanes: Callable[[Step], Weighted]
  sets: Callable[[Sets, jax.Array, Step], Sets]
  follows: frozenset[str]
  accepts: Acceptance | None = None


RIVAL = "rival"  # the opponent, and the set that it writes with
POPULATION = "population"  # the opponent, and how its sets begin
REJECTION = "rejection"
# By name, (β) -> a lane, or lanes with weights.
LANES = {
  "self": lambda mixture: LEARNER,
  "mixture": lambda mixture: {"policy": 1.0 - mixture, "reference": mixture},
  "moving_average": lambda mixture: {"ema": 1.0},
  "reference": lambda mixture: REFERENCE,
  "moving_average_mixture": lambda mixture: {
    "ema": 1.0 - mixture,
    "reference": mixture,
  },
  "interpolation": lambda mixture: {"interpolation": 1.0},
  "past": lambda mixture: {"past_policy": 1.0},
  "anchor": lambda mixture: {"anchor": 1.0},
  RIVAL: lambda mixture: {RIVAL: 1.0 - mixture, "reference": mixture},
}


def _interpolation(sets, rng, mixture):
  del rng
  return jax.tree.map(
    lambda policy, start: (1.0 - mixture) * policy + mixture * start,
    sets["policy"],
    sets["reference"],
  )


def _past_policy(sets, rng, mixture):
  del mixture
  return followers.draw(sets["past"], rng)


def _anchor(sets, rng, mixture):
  del rng, mixture
  return followers.iterate(sets["iterate"], 0)


# Sets made for one rollout, from the follower that each reads, if any.
MADE = {
  "interpolation": _interpolation,
  "past_policy": _past_policy,
  "anchor": _anchor,
}
FOLLOWS = {"ema": "ema", "past_policy": "past", "anchor": "iterate"}
KNOWN = {"policy", "reference", RIVAL, *FOLLOWS, *MADE}
DEPLOYED = {"last": LEARNER, "ema": {"ema": 1.0}, "mixture": None}
SETTINGS = {
  "opponent": declare.text(
    f"Who writes y′: one of {', '.join((*LANES, POPULATION, REJECTION))}, or "
    "your own as module:function."
  ),
  "mixture": declare.number(
    "β, the weight of a mixture on the reference.", least=0, most=1
  ),
  "mixture_end": declare.number(
    "β from step mixture_steps on, reached linearly.", least=0, most=1
  ),
  "mixture_steps": declare.whole(
    "Steps in which β goes from mixture to mixture_end; 0 keeps it at mixture.",
    least=0,
    unit="steps",
  ),
}
DEPLOY = declare.text(
  "What a trained run answers with: its last policy, the mixture that it "
  "played in the end, or the moving average.",
  one_of=tuple(DEPLOYED),
)


def make_opponent(
  *, opponent: str, mixture: float, mixture_end: float, mixture_steps: int
) -> Opponent:
  """An opponent by name.

  Args:
    opponent: "self" (self-play), "mixture" (Nash-MD-PG), "moving_average"
      (Nash-EMA-PG, over the set "ema"), "reference" (best response),
      "moving_average_mixture" (the mixture of θ̄ and μ), "interpolation"
      (parameters (1 − β) θ + β θ_0), "past" (fictitious play: each rollout
      against one of the stored policies of the set "past"), "anchor" (the
      last iterate, of the set "iterate") or "rival" (what another run
      deploys, frozen, over the set "rival"); or the user's own as
      module:function, (β) -> a lane over the names of `KNOWN`, or a list of
      (weight, lane) whose weights sum to 1.
    mixture: β in [0, 1], weight on the reference; read by the mixtures, the
      interpolation and the rival alone.
    mixture_end: β from step `mixture_steps` on, reached linearly.
    mixture_steps: 0 keeps β constant, a Python number, so that a set of
      weight 0 is never run.
  Raises: ValueError for an unknown opponent or a β that makes no sense.
  Source: Munos et al., ICML 2024, §7.
  """
  declare.check(
    SETTINGS,
    {
      "opponent": opponent,
      "mixture": mixture,
      "mixture_end": mixture_end,
      "mixture_steps": mixture_steps,
    },
    "nash",
  )
  write = outside.find(opponent, LANES, setting="nash.opponent")

  def weight(step):
    if mixture_steps == 0:
      return mixture
    return optax.linear_schedule(mixture, mixture_end, mixture_steps)(step)

  names = _names(opponent, _weighted(opponent, write(mixture)))

  def sets(given, rng, step):
    made = {
      name: make(given, rng, weight(step))
      for name, make in MADE.items()
      if name in names
    }
    return {**given, **made}

  return Opponent(
    name=opponent,
    lanes=lambda step: _weighted(opponent, write(weight(step))),
    sets=sets,
    follows=frozenset(FOLLOWS[name] for name in names if name in FOLLOWS),
  )


def make_population(weights: Sequence[float]) -> Opponent:
  """Several frozen policies, each of which writes a response of its own.

  What is learnt is the weighted mean of what each would teach alone.

  Args:
    weights: of the policies, up to a constant factor; the sets are named as
      `member` does.
  """
  total = sum(weights)
  lanes = [
    (weight / total, {member(number): 1.0})
    for number, weight in enumerate(weights)
  ]
  return Opponent(
    name=POPULATION,
    lanes=lambda step: lanes,
    sets=lambda sets, rng, step: dict(sets),
    follows=frozenset(),
  )


def member(number: int) -> str:
  """The set of one policy of a population."""
  return f"{POPULATION}_{number}"


def _weighted(opponent: str, found: sampling.Lane | Weighted) -> Weighted:
  """Lanes with weights of what an opponent wrote, which must be either."""
  if isinstance(found, Mapping):
    return [(1.0, found)]
  pairs = list(found) if isinstance(found, list | tuple) else []
  if not pairs or not all(
    isinstance(pair, list | tuple)
    and len(pair) == 2
    and isinstance(pair[1], Mapping)
    for pair in pairs
  ):
    raise mistakes.Mistake(
      f"nash.opponent: {opponent} gave {reprlib.repr(found)}, expected a lane, "
      "such as {'policy': 1.0}, or a list of (weight, lane)"
    )
  return pairs


def _names(opponent: str, lanes: Weighted) -> set[str]:
  """The sets of the lanes, which must be known, with weights that sum to 1."""
  names = {name for _, lane in lanes for name in lane}
  total = sum(weight for weight, _ in lanes)
  if not names <= KNOWN or abs(total - 1) > 1e-6:
    raise mistakes.Mistake(
      f"nash.opponent: {opponent} writes in the sets {sorted(names)} with "
      f"weights that sum to {total}, expected some of {sorted(KNOWN)} and 1"
    )
  return names


def deployed_lane(
  opponent: Opponent, *, deploy: str, steps: int
) -> sampling.Lane:
  """The lane in which a run against this opponent answers when it is trained.

  What solves the game at temperature τ / (1 − β) is the mixture that was
  played, not the last policy.

  Args:
    opponent: of the run.
    deploy: "last" (the policy), "mixture" (what the opponent played at the
      end, of the policy or its average with the reference) or "ema".
    steps: that the run was trained for, which say where a schedule of β ended.
  Raises: ValueError for a policy that is not one of these, or a mixture that
    this opponent never played.
  Source: Calandriello et al., ICML 2024, prop. 5.2.
  """
  declare.check({"deploy": DEPLOY}, {"deploy": deploy}, "nash")
  if deploy != "mixture":
    return DEPLOYED[deploy]
  lanes = opponent.lanes(steps)
  played = set(lanes[0][1]) if len(lanes) == 1 else set()
  if not (
    played <= {"policy", "ema", "reference"} and played & {"policy", "ema"}
  ):
    raise mistakes.Mistake(
      f"nash.deploy: got 'mixture' for the opponent {opponent.name!r}, which "
      "plays no mixture of the policy with the reference; set deploy to 'last' "
      "for this run"
    )
  weights = {name: float(weight) for name, weight in lanes[0][1].items()}
  return {name: weight for name, weight in weights.items() if weight}


def follows(lane: sampling.Lane) -> frozenset[str]:
  """The followers that a lane reads."""
  return frozenset(FOLLOWS[name] for name in lane if name in FOLLOWS)
