"""The opponent that is the best response to the policy: Nash-RS.

    BR_τ(π)(y) ∝ μ(y) exp(P(y ≻ π) / τ)

drawn by rejection: μ proposes, and a proposal is accepted with probability
exp((P(y ≻ π) − 1) / τ). P(y ≻ π) is an expectation that nobody knows; fresh
responses of the policy, the voters of a proposal, stand for it without bias.
"""

from collections.abc import Mapping
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import declare, mistakes
from nashmd_jax.nash import opponents

NAME = opponents.REJECTION
SETTINGS = {
  "proposals": declare.whole(
    "Responses of the reference that are proposed to each response of the "
    "learner; a prompt of which none is accepted is left out of the step.",
    least=1,
    most=10_000,
  ),
}
# Below, one proposal in exp(1/τ) may be accepted: 22,026 at this τ.
LEAST_KL_COEF = 0.1
# Of the series of exp(p/τ), relative: what the terms behind the last voter add.
LEFT_OVER = 1e-3


def make_opponent(*, kl_coef: float, proposals: int) -> opponents.Opponent:
  """The best response to the policy, by rejection from μ.

  Of so many proposals all that are accepted are its responses: independent
  draws of BR_τ(π). What the policy descends is then the duality gap, since
  P_τ(π ≻ BR_τ(π)) = ½ − gap_τ(π), whose minimum is π*_τ. A prompt without one
  is left out of the step: what is learnt of a prompt is exact, and one whose
  proposals are seldom accepted is learnt of less often.

  Args:
    kl_coef: τ ≥ 0.1.
    proposals: M ≥ 1, to each response of the learner.
  Raises: Mistake for a τ at which next to nothing would be accepted.
  """
  declare.check(SETTINGS, {"proposals": proposals}, f"nash.{NAME}")
  if kl_coef < LEAST_KL_COEF:
    raise mistakes.Mistake(
      f"nash.kl_coef: got {kl_coef:g} for the opponent {NAME!r}, expected "
      f"{LEAST_KL_COEF:g} or more: as few as exp(-1/τ) of its proposals are "
      "accepted"
    )
  lanes = [(1 / proposals, opponents.REFERENCE)] * proposals
  return opponents.Opponent(
    name=NAME,
    lanes=lambda step: lanes,
    sets=lambda sets, rng, step: dict(sets),
    follows=frozenset(),
    accepts=opponents.Acceptance(
      voters=voters(kl_coef),
      probability=functools.partial(probability, kl_coef=kl_coef),
    ),
  )


def voters(kl_coef: float) -> int:
  """Voters of a proposal: the fewest that leave `LEFT_OVER` or less.

  Args:
    kl_coef: τ > 0.
  """
  mean, count = 1 / kl_coef, 0
  term = behind = math.exp(-mean)
  while 1 - behind > LEFT_OVER:
    count += 1
    term *= mean / count
    behind += term
  return count


def probability(win_prob: jax.Array, *, kl_coef: float) -> jax.Array:
  """With which probability a proposal y is accepted, by its voters y_1 … y_n.

    e^{−1/τ} Σ_{k ≤ n} τ^{−k}/k! Π_{i ≤ k} P(y ≻ y_i)

  Over independent voters of π its mean is e^{(P(y ≻ π) − 1)/τ}, but for the
  terms behind the n-th: the mean of a product of k of them is P(y ≻ π)^k.

  Args:
    win_prob: f32[…, n] P(y ≻ y_i), or votes of 0 and 1.
    kl_coef: τ > 0.
  Returns: f32[…], from 0 to 1.
  """
  count = win_prob.shape[-1]
  steps = 1 / (kl_coef * np.arange(1, count + 1))
  terms = np.exp(-1 / kl_coef) * np.cumprod(np.append(1.0, steps))
  products = jnp.cumprod(win_prob, axis=-1)
  terms = jnp.asarray(terms, products.dtype)
  return terms[0] + products @ terms[1:]


def taken(keys: jax.Array, chance: jax.Array) -> jax.Array:
  """Which proposals are accepted, each with its probability.

  Args:
    keys: key[B, M].
    chance: f32[B, M].
  Returns: bool[B, M].
  """
  draw = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key)))
  return draw(keys) < chance


def told(accepted: jax.Array) -> Mapping[str, jax.Array]:
  """What is told of a step's proposals.

  Args:
    accepted: bool[B, M].
  Returns: "accepted", the share of each prompt's that were, and
    "none_accepted", 1 where none was, f32[B] each.
  """
  share = accepted.astype(jnp.float32)
  return {
    "accepted": jnp.mean(share, axis=1),
    "none_accepted": 1 - jnp.max(share, axis=1),
  }
