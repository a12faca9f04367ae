"""Where the shape of the paper's tables comes out: the written games, solved.

In the games of `paper_reward` a policy is a distribution over responses, and
every method is its expected mirror steps: Nash-MD of β, self-play as β = 0, the
best response to μ as β = 1. They learn from the exact preference, or from one
that is off as a judge is; who wins is told by the exact one. So price, length
of training and what a judge gets wrong are varied one by one.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
from jax import lax
import numpy as np
from scipy import special

from figures import paper_found, paper_reward, paper_tables
from nashmd_jax.evaluation import intervals
from nashmd_jax.games import preference_game, solvers

Game = preference_game.Game
GAMES = 200  # at most
PRICES = (0.4, 0.2, 0.1, 0.05, 0.025)  # τ
TIMES = (2.0, 8.0, 32.0, 128.0)  # η times the number of steps
NOISES = (1.0, 2.0)  # deviation of a judge's log-odds, at the longest time
BETAS = {
  paper_found.SELF_PLAY: 0.0,
  "md_125": 0.125,
  "md_625": 0.625,
  "best_response": 1.0,
}
PAIRS = (
  ("md_125", "best_response"),
  (paper_found.SELF_PLAY, "best_response"),
  (paper_found.SELF_PLAY, "md_625"),
  ("md_125", paper_found.SELF_PLAY),
)


class Setting(NamedTuple):
  """What is varied: τ, η times steps, and the deviation of the log-odds."""

  kl_coef: float
  time: float
  noise: float


Solved = dict[Setting, dict[tuple[str, str], paper_reward.Figure]]


def settings() -> list[Setting]:
  """All that are solved, a τ after the other."""
  return [
    Setting(kl_coef, time, noise)
    for kl_coef in PRICES
    for time, noise in (
      *((time, 0.0) for time in TIMES),
      *((TIMES[-1], noise) for noise in NOISES),
    )
  ]


def solve(games: Sequence[np.ndarray | None]) -> Solved:
  """By setting, how often the first of each pair is preferred, over games.

  Args:
    games: see `paper_reward.games_of`.
  """
  exact = [one for one in games if one is not None]
  if len(exact) < 2:
    return {}
  exact = np.array(exact[:GAMES])
  draws = np.random.default_rng(0).normal(size=exact.shape)
  off = (draws - np.swapaxes(draws, 1, 2)) / np.sqrt(2)
  with jax.enable_x64(True):
    return {one: _won(exact, off, one) for one in settings()}


def _won(exact: np.ndarray, off: np.ndarray, setting: Setting):
  """Win rates of `PAIRS` in the exact games after training in the judged."""
  judged = special.expit(special.logit(exact) + setting.noise * off)
  make = functools.partial(
    preference_game.make_game,
    reference=np.full(exact.shape[-1], 1 / exact.shape[-1]),
    kl_coef=setting.kl_coef,
  )
  # Self-play contracts at steps of 4 τ and less, whatever the game.
  step_size = min(0.5, 4 * setting.kl_coef)
  steps = round(setting.time / step_size)
  learned = {
    name: _train(make(preference=judged), beta, step_size, steps)
    for name, beta in BETAS.items()
  }
  won = jax.vmap(preference_game.win_rate)
  return {
    (one, other): intervals.mean_interval(
      np.asarray(won(make(preference=exact), learned[one], learned[other])),
      paper_tables.CONFIDENCE,
    )
    for one, other in PAIRS
  }


@functools.partial(jax.jit, static_argnames="beta")
def _train(games: Game, beta: float, step_size: float, steps: int) -> jax.Array:
  """Logits f64[X, Y] after mirror steps against the mixture of β."""
  step = solvers.fixed_mixture(beta)

  def train(game: Game) -> jax.Array:
    def advance(_, state: solvers.State) -> solvers.State:
      return step(None, state, game, step_size, solvers.exact_query)

    start = solvers.init_state(game.log_reference)
    return lax.fori_loop(0, steps, advance, start).logits

  return jax.vmap(train)(games)
