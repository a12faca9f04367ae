"""Where a loss comes to rest against a mixture of the learner and μ.

The learner's pairs, or its opponent's answers, are of the token-wise mixture
m(π) of weight β; at rest m is its own and the expected gradient is zero.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from nashmd_jax import games, mistakes
from nashmd_jax.games import sequences
from nashmd_jax.nash import opponents

STACKELBERG = "stackelberg"  # the loss, whose two players rest together
# The slope of σ is at most this.
STEEPEST = 0.25


def fitted_fixed_point(
  space: games.Space,
  game: games.Game,
  *,
  mixture: float | jax.Array,
  tolerance: float,
  max_iterations: int,
  start: jax.Array,
) -> games.FixedPoint:
  """Where online DPO rests: τ log(π/μ) is the Bradley-Terry fit under m(π).

    Σ_y′ m(y′) (P(y ≻ y′) − σ(τ h(y) − τ h(y′))) = 0 for every y, h = log π/μ

  which is what makes E_{y,y′~m}[(P − σ(τ(h − h′))) (∇log π(y) − ∇log π(y′))]
  vanish. Newton's method on the left side G; a step that does not halve the
  smallest residual so far is replaced by the damped step of log π by α 4 G/τ,
  α = t²/(t² + L²), t = τ/4, L = max |P − ½|: σ is at most a quarter as steep
  as the margin, so that near h = 0 this is the game at temperature τ/4. No
  theorem says that there is one such point, or that this finds it: what was
  found is certified by its residual alone.

  Args: as `games.mixture_fixed_point`.
  Returns: the policy of the smallest residual seen, which is the largest
    |G| / (τ Σ_y′ m σ(1 − σ)), how far h is from the fit, nats.
  Source: the moment identity of Munos et al., ICML 2024, prop. 2.
  """
  size, cool = len(space.tokens), STEEPEST * game.kl_coef
  largest = jnp.max(jnp.abs(game.preference - 0.5))
  damping = cool**2 / (cool**2 + largest**2)
  flat = jnp.full((size, size), 1 / size)  # along which log π is no policy

  excess = functools.partial(_excess, space, game, mixture)

  def measured(logits, iterations) -> games.FixedPoint:
    policy = jax.nn.log_softmax(logits)
    left, slope = excess(policy)
    mixed = games.token_mixture(space, policy, game.log_reference, mixture)
    residual = jnp.max(jnp.abs(left) / (game.kl_coef * slope))
    return games.FixedPoint(policy, mixed, residual, iterations)

  def steps(logits):
    left = excess(logits)[0]
    jacobian = jax.jacfwd(lambda logits: excess(logits)[0])(logits)
    newton = jnp.linalg.solve(jacobian + flat, left)
    return logits - newton, logits + damping * left / cool

  return sequences.settle(
    measured,
    steps,
    start,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )


def _excess(space, game, mixture, logits) -> tuple[jax.Array, jax.Array]:
  """G, see `fitted_fixed_point`, and its slope against τ h(y), f[Y] each."""
  mixed = games.token_mixture(space, logits, game.log_reference, mixture)
  weight = jnp.exp(mixed)
  scores = game.kl_coef * (logits - game.log_reference)
  fit = jax.nn.sigmoid(scores[:, None] - scores[None, :])
  return (game.preference - fit) @ weight, (fit * (1 - fit)) @ weight


def leader_fixed_point(
  game: games.Game, log_follower: jax.Array, *, follower_kl_coef: float
) -> tuple[jax.Array, jax.Array]:
  """Where the players of a Stackelberg game rest, in closed form.

    ω*(y′|y) ∝ ω_0(y′|y) exp(P(y′ ≻ y) / τ_F)
    π*(y) ∝ μ(y) exp(V(y) / τ_L),
      V(y) = −τ_F log Σ_y′ ω_0(y′|y) exp(−P(y ≻ y′) / τ_F)

  Args:
    log_follower: f[Y, Y] log ω_0(y′|y), nats.
    follower_kl_coef: τ_F > 0; that of the game is τ_L.
  Returns: log π* f[Y], and log ω* f[Y, Y].
  """
  scaled = log_follower - game.preference / follower_kl_coef
  lost = jax.nn.logsumexp(scaled, axis=1, keepdims=True)
  value = -follower_kl_coef * lost[:, 0]
  leader = jax.nn.log_softmax(game.log_reference + value / game.kl_coef)
  return leader, scaled - lost


# By loss. All but "dpo" rest where π ∝ μ exp(P m(π) / τ), "sppo" and "egpo"
# where m = π.
FIXED_POINTS = {
  "policy_gradient": games.mixture_fixed_point,
  "policy_gradient_sequence_kl": games.mixture_fixed_point,
  "policy_gradient_exact_kl": games.mixture_fixed_point,
  "ipo": games.mixture_fixed_point,
  "dpo": fitted_fixed_point,
  "inpo": games.mixture_fixed_point,
  "mnpo": games.mixture_fixed_point,
  "sppo": games.mixture_fixed_point,
  "egpo": games.mixture_fixed_point,
}


def fixed_point(loss: str) -> Callable[..., games.FixedPoint]:
  """The solver of a loss; raises Mistake where it is not known."""
  if loss not in FIXED_POINTS:
    raise mistakes.Mistake(
      f"nash.loss: got {mistakes.quote(loss)}, whose point of rest is not "
      f"known; expected one of {sorted([*FIXED_POINTS, STACKELBERG])}"
    )
  return FIXED_POINTS[loss]


def weight_on_reference(opponent: opponents.Opponent, steps: int) -> float:
  """β that an opponent ends with, after `steps` steps.

  Raises: Mistake for an opponent that is no mixture of the learner, or of a
    moving average or an iterate that follows it, with μ: its point of rest is
    not known. Against the best response the policy rests where it is its
    own, at π*_τ, as in self-play.
  """
  if opponent.name == opponents.REJECTION:
    return 0.0
  lanes = opponent.lanes(steps)
  lane = {name: float(weight) for name, weight in lanes[0][1].items()}
  known = {"policy", "ema", "anchor", "reference"}
  beta = lane.get("reference", 0.0)
  sums = abs(sum(lane.values()) - 1) <= 1e-6
  if len(lanes) > 1 or set(lane) - known or not (sums and 0 <= beta <= 1):
    raise mistakes.Mistake(
      "nash.opponent: no exact answer is known for "
      f"{mistakes.quote(opponent.name)}, which "
      f"writes in {[dict(one) for _, one in lanes]}; choose self, mixture, "
      "reference, anchor, rejection, or a moving average"
    )
  return beta
