"""The gradient certificate: every algorithm, opponent and KL form, as cases.

Each case is the relative error of an estimator's expectation against the
exact gradient: CASES of the losses, STEPS of whole steps of play, ADAPTERS with
adapters, TURNS on conversations, ELSEWHERE of the forms of others. In float64.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays, losses
from nashmd_jax.nash import opponents
from tests import (
  adapters_oracle,
  half_steps_oracle,
  rejection_oracle,
  stackelberg_oracle,
  turns_oracle,
  whole_step,
)
from tests import gradient_oracle as oracle

BAR = 1e-9


class Case(NamedTuple):
  """One line of the certificate.

  Attributes:
    algorithm: its name in the table.
    opponent: who writes y′; "–" where nobody does.
    form: of the KL.
    measure: (world) -> relative error.
  """

  algorithm: str
  opponent: str
  form: str
  measure: Callable[[oracle.World], float]


def line(case: Case) -> str:
  """A line of the table of docs/certificate.md, without its figure."""
  return f"| {case.algorithm} | {case.opponent} | {case.form} |"


IPO_NAMES = {"mixture": "IPO-MD"}
TO_GO, WHOLE, FULL = "to go", "sequence", "exact per token"


def nash(opponent: str, loss, world: oracle.World, **changes) -> float:
  """Error of a loss of sampled log-probs against ∇ P_τ(π_θ ≻ opponent)."""
  scores = {"win_prob": world.win} | changes.pop("scores", {})
  found = oracle.pg_estimate(
    world, loss, oracle.played(world, opponent), **changes, **scores
  )
  return oracle.error(found, oracle.exact_nash(world, opponent))


def nash_exact_kl(opponent: str, world: oracle.World) -> float:
  found = oracle.exact_kl_estimate(
    world,
    losses.nash_pg_exact_kl_loss,
    oracle.played(world, opponent),
    win_prob=world.win,
  )
  return oracle.error(found, oracle.exact_nash(world, opponent))


def off_policy(opponent: str, loss, world: oracle.World) -> float:
  """Error with y from a policy that θ has moved away from."""
  behaviour = world.sets["behaviour"]
  log_prob = oracle.token_log_probs(world, behaviour)[:, :, None]
  spread = (*world.win.shape, world.length)
  return nash(
    opponent,
    loss,
    world,
    writer=jnp.exp(oracle.log_policy(world, behaviour)),
    scores={"behaviour_log_prob": jnp.broadcast_to(log_prob, spread)},
  )


def rlhf_scores(world: oracle.World) -> dict:
  """The reward of y, and that of a second response as baseline."""
  shape = world.win.shape
  return {
    "reward": jnp.broadcast_to(world.reward[:, :, None], shape),
    "baseline": jnp.broadcast_to(world.reward[:, None, :], shape),
  }


def rlhf(estimate, loss, world: oracle.World) -> float:
  found = estimate(
    world, loss, oracle.played(world, "self"), **rlhf_scores(world)
  )
  return oracle.error(found, oracle.exact_rlhf(world))


def leave_one_out(world: oracle.World) -> float:
  found = oracle.leave_one_out_estimate(world)
  return oracle.error(found, oracle.exact_rlhf(world))


def ipo(opponent: str, world: oracle.World) -> float:
  """The expected ascent is 4/τ times the exact one, PAPER's normalisation."""
  found = oracle.pairwise_estimate(world, losses.ipo_loss, opponent)
  exact = oracle.exact_ipo(world, opponent)
  return oracle.error(found * oracle.KL_COEF / 4, exact)


def ipo_is_self_play(world: oracle.World) -> float:
  found = oracle.pairwise_estimate(world, losses.ipo_loss, "self")
  exact = oracle.exact_nash(world, "self")
  return oracle.error(found * oracle.KL_COEF / 4, exact)


def dpo(opponent: str, world: oracle.World) -> float:
  found = oracle.pairwise_estimate(world, losses.online_dpo_loss, opponent)
  return oracle.error(found, oracle.exact_dpo(world, opponent))


def _cases() -> list[Case]:
  case, part = Case, functools.partial
  rows = []
  unclipped = part(
    losses.nash_pg_off_policy_loss, clip=jnp.inf, ratio="product"
  )
  for name in opponents.LANES:
    rows += [
      case("Nash-PG", name, TO_GO, part(nash, name, losses.nash_pg_loss)),
      case(
        "Nash-PG",
        name,
        WHOLE,
        part(nash, name, losses.nash_pg_sequence_kl_loss),
      ),
      case("Nash-PG", name, FULL, part(nash_exact_kl, name)),
      case(
        "Nash-PG off-policy", name, TO_GO, part(off_policy, name, unclipped)
      ),
      case(IPO_NAMES.get(name, "online IPO"), name, WHOLE, part(ipo, name)),
      case("online DPO", name, WHOLE, part(dpo, name)),
    ]
  rows.append(case("online IPO = self-play", "self", WHOLE, ipo_is_self_play))
  sampled, whole = losses.rlhf_pg_loss, losses.rlhf_pg_sequence_kl_loss
  full = losses.rlhf_pg_exact_kl_loss
  pg, exact_kl = oracle.pg_estimate, oracle.exact_kl_estimate
  return rows + [
    case("RLHF", "–", TO_GO, part(rlhf, pg, sampled)),
    case("RLHF", "–", WHOLE, part(rlhf, pg, whole)),
    case("RLHF", "–", FULL, part(rlhf, exact_kl, full)),
    case("RLHF leave-one-out", "–", TO_GO, leave_one_out),
  ]


def _short(measure, longest: int, **settings):
  """The measure in a world whose responses are no longer than that."""

  def shorter(world: oracle.World) -> float:
    length = min(world.length, longest)
    return measure(oracle.make_world(length), **settings)

  return shorter


def _steps() -> list[Case]:
  """Whole steps: what is sampled, asked, read and learnt."""
  case, part, step = Case, functools.partial, whole_step
  name, mixed = "whole step, Nash-PG", "mixture"
  rows = [
    case(name, opponent, TO_GO, part(step.nash, opponent=opponent))
    for opponent in opponents.LANES
  ]
  for form, loss in ((WHOLE, "sequence"), (FULL, "exact")):
    settings = dict(opponent=mixed, loss=f"policy_gradient_{loss}_kl")
    rows.append(case(name, mixed, form, part(step.nash, **settings)))
  pair = dict(opponent=mixed, samples=2)
  weights = {mixed: 0.25, "reference": 0.75}
  return rows + [
    case(f"{name}, K = 2", mixed, TO_GO, _short(step.nash, 2, **pair)),
    case(
      f"{name}, two lanes",
      "¼ mixture, ¾ reference",
      TO_GO,
      _short(step.several, 3, weights=weights),
    ),
    case(
      f"{name} off-policy",
      mixed,
      TO_GO,
      part(step.nash, opponent=mixed, updates=2),
    ),
    *_designs(name, mixed),
    *_rejections(name),
    case(
      "whole step, Stackelberg",
      "its own answer",
      TO_GO,
      stackelberg_oracle.measure,
    ),
    case(
      "whole step, EGPO, second half",
      "where the first led",
      WHOLE,
      half_steps_oracle.measure,
    ),
    case("whole step, IPO-MD", mixed, WHOLE, part(step.ipo, opponent=mixed)),
    case(
      "whole step, online IPO", "past", WHOLE, part(step.ipo, opponent="past")
    ),
    case(
      "whole step, online DPO", mixed, WHOLE, part(step.dpo, opponent=mixed)
    ),
    case("whole step, RLHF", "–", TO_GO, step.rlhf),
    case(
      "whole step, RLHF leave-one-out", "–", TO_GO, part(step.rlhf, samples=2)
    ),
  ]


def _designs(name: str, mixed: str) -> list[Case]:
  """Other choices of the pairs that the judge is asked about."""
  case, step = Case, whole_step
  four = dict(samples=2, opponent=mixed, design="circular")
  group = dict(samples=3, opponent="self")
  return [
    case(
      f"{name}, both orders",
      mixed,
      TO_GO,
      functools.partial(step.nash, opponent=mixed, orders="both"),
    ),
    case(
      f"{name}, circular, K = 2", mixed, TO_GO, _short(step.nash, 2, **four)
    ),
    case(
      f"{name}, group, K = 3",
      "self",
      TO_GO,
      _short(step.nash, 2, **group, design="group"),
    ),
    case(
      f"{name}, circular group, K = 3",
      "self",
      TO_GO,
      _short(step.nash, 2, **group, design="group_circular"),
    ),
    case(
      "whole step, IPO-MD, circular, K = 2",
      mixed,
      WHOLE,
      _short(step.ipo, 2, **four),
    ),
  ]


def _rejections(name: str) -> list[Case]:
  """The best response, of one token, against the duality gap and its law."""
  warm, few = rejection_oracle.of_gap, rejection_oracle.of_several
  tau = f"τ = {rejection_oracle.WARM:g}"
  two = f"{name}, two proposals of two voters"
  return [
    Case(f"{name}, of the duality gap, {tau}", "rejection", TO_GO, warm),
    Case(two, "rejection", TO_GO, few),
  ]


def _adapters() -> list[Case]:
  """Adapters of query and value, rank 2, responses of up to 2 tokens."""

  def case(family, opponent, form, loss):
    def measure(world: oracle.World) -> float:
      del world
      return adapters_oracle.measure(family, opponent, loss)

    return Case(f"adapters of {family}, Nash-PG", opponent, form, measure)

  pg = "policy_gradient"
  return [
    case("qwen2", "mixture", TO_GO, pg),
    case("qwen2", "self", FULL, f"{pg}_exact_kl"),
    case("t5", "mixture", TO_GO, pg),
    case("t5", "reference", WHOLE, f"{pg}_sequence_kl"),
  ]


def _ascended(gain, mask):
  """A loss whose descent is the ascent of a gain [B, R]."""
  nats = -arrays.masked_sum(gain, mask)
  return arrays.mean_over(nats, jnp.any(mask, axis=1)), {}


def same_token_kl_loss(*, log_prob, ref_log_prob, win_prob, mask, kl_coef):
  """Each token pays its own log-ratio alone."""
  ratio = jnp.where(mask, log_prob - ref_log_prob, 0)
  bracket = lax.stop_gradient(win_prob[:, None] - 0.5 - kl_coef * ratio)
  return _ascended(log_prob * bracket, mask)


def unstopped_loss(*, log_prob, ref_log_prob, win_prob, mask, kl_coef):
  """Gradient also flows through the log-ratio of the bracket."""
  kl_to_go = arrays.sum_to_go(log_prob - ref_log_prob, mask)
  bracket = win_prob[:, None] - 0.5 - kl_coef * kl_to_go
  return _ascended(log_prob * bracket, mask)


def no_ratio_loss(*, behaviour_log_prob, **rest):
  """Further updates on one rollout as if it were fresh."""
  del behaviour_log_prob
  return losses.nash_pg_loss(**rest)


def uncentred_ipo_md(world: oracle.World) -> float:
  """Policy gradient with y, y′ ~ mixture, against IPO-MD's direction."""
  draws = oracle.played(world, "mixture")
  found = oracle.pg_estimate(
    world,
    losses.nash_pg_sequence_kl_loss,
    draws,
    writer=draws[0],
    win_prob=world.win,
  )
  return oracle.error(found, oracle.exact_ipo(world, "mixture"))


def sampled_cooler(world: oracle.World) -> float:
  """Sampled at 0.9 of the temperature that is scored, as 0.9 against 1."""
  cooler = oracle.TEMPERATURE * 0.9
  policy = world.sets["policy"]["logits"]
  return nash(
    "self",
    losses.nash_pg_loss,
    world,
    writer=jnp.exp(oracle.sequences(world, policy, cooler)),
  )


def _turns() -> list[Case]:
  """Whole steps on conversations, in worlds of their own; see the oracle."""

  def case(opponent, most, form, loss):
    def measure(world):
      del world
      return turns_oracle.error(most, opponent, loss=loss)

    words = f"two turns of up to {most} token{'s' if most > 1 else ''}"
    return Case(f"{words}, Nash-PG", opponent, form, measure)

  sampled = "policy_gradient"
  return [
    case("mixture", 2, TO_GO, sampled),
    case("self", 2, TO_GO, sampled),
    case("moving_average", 2, TO_GO, sampled),
    case("mixture", 1, WHOLE, f"{sampled}_sequence_kl"),
    case("mixture", 1, FULL, f"{sampled}_exact_kl"),
  ]


CASES = _cases()
STEPS = _steps()
ADAPTERS = _adapters()
TURNS = _turns()
ALL = CASES + STEPS + ADAPTERS + TURNS
ELSEWHERE = [
  Case(
    "Nash-PG",
    "mixture",
    "of the same token only",
    functools.partial(nash, "mixture", same_token_kl_loss),
  ),
  Case(
    "Nash-PG",
    "mixture",
    "gradient through the log-ratio",
    functools.partial(nash, "mixture", unstopped_loss),
  ),
  Case(
    "Nash-PG",
    "self",
    "to go; sampled at temperature 0.9, scored at 1",
    sampled_cooler,
  ),
  Case(
    "Nash-PG off-policy",
    "mixture",
    "to go; no ratio",
    functools.partial(off_policy, "mixture", no_ratio_loss),
  ),
  Case(
    "IPO-MD",
    "mixture",
    "sequence; log-ratio not centred",
    uncentred_ipo_md,
  ),
]
