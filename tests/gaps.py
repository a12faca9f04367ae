"""Games whose gap is listed, and samples of them: an oracle in NumPy alone."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from nashmd_jax.evaluation import exploitability

PROMPTS, RESPONSES = 12, 40
DRAWN, SAMPLES, REPLIES = 60, 24, 12


class Game(NamedTuple):
  """A game for each of X prompts.

  Attributes:
    preference: f64[X, Y, Y], P(y ≻ y′|x).
    reference: f64[X, Y], μ.
    policy: f64[X, Y], π.
  """

  preference: np.ndarray
  reference: np.ndarray
  policy: np.ndarray


def make_game(*, prompts: int, responses: int, seed: int) -> Game:
  """A random one, with cycles."""
  rng = np.random.default_rng(seed)
  shape = (prompts, responses)
  logit = rng.normal(size=(*shape, responses))
  return Game(
    preference=special.expit(logit - logit.swapaxes(1, 2)),
    reference=rng.dirichlet(np.ones(responses), prompts),
    policy=rng.dirichlet(np.full(responses, 0.7), prompts),
  )


def against(game: Game) -> np.ndarray:
  """P(y ≻ π|x), f64[X, Y]."""
  return np.einsum("xij,xj->xi", game.preference, game.policy)


def exact_gap(game: Game, kl_coef: float) -> np.ndarray:
  """gap_τ(π), f64[X]."""
  best = special.logsumexp(against(game) / kl_coef, b=game.reference, axis=-1)
  kl = special.rel_entr(game.policy, game.reference).sum(-1)
  return kl_coef * (best + kl) - 0.5


def gain(game: Game, other: np.ndarray, kl_coef: float) -> np.ndarray:
  """P_τ(π′ ≻ π) − ½ of a policy f64[X, Y], f64[X]."""
  kl = [
    special.rel_entr(policy, game.reference).sum(-1)
    for policy in (other, game.policy)
  ]
  won = np.sum(other * against(game), axis=-1)
  return won - 0.5 - kl_coef * (kl[0] - kl[1])


def coverage(kl_coef: float, *, draws: int) -> tuple[float, float]:
  """How often the interval of `sampled_gap` holds the gap, and the gap."""
  game = make_game(prompts=PROMPTS, responses=RESPONSES, seed=0)
  gap = float(exact_gap(game, kl_coef).mean())
  rng = np.random.default_rng(1)
  held = 0
  for _ in range(draws):
    x = rng.integers(PROMPTS, size=DRAWN)
    i = _draw(game.reference[x], SAMPLES, rng)
    j = _draw(game.policy[x], REPLIES, rng)
    win_prob = game.preference[x[:, None, None], i[:, :, None], j[:, None]]
    ratio = np.log(
      np.take_along_axis(game.policy[x], j, axis=1)
      / np.take_along_axis(game.reference[x], j, axis=1)
    )
    value = exploitability.sampled_gap(win_prob, ratio, kl_coef).value
    out = stats.t.ppf(0.975, DRAWN - 1) * stats.sem(value)
    held += abs(value.mean() - gap) <= out
  return held / draws, gap


def _draw(policy: np.ndarray, count: int, rng) -> np.ndarray:
  """Draws of each row of policies, int[N, count]."""
  cdf = np.cumsum(policy, axis=1)
  uniform = rng.random((len(policy), count)) * cdf[:, -1:]
  return (cdf[:, None] < uniform[..., None]).sum(-1)
