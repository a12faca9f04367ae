"""RLHF where preference has cycles: its answer depends on whose pairs it saw.

The responses that all trials wrote to a prompt make a game, whose preference by
the exact raters is known. A Bradley-Terry reward is fitted to it under several
sampling policies, and where RLHF ends with it is held against the equilibrium
of the game: Munos et al., ICML 2024, theorem 2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy import special

from figures import paper_found, paper_tables
from nashmd_jax.evaluation import intervals
from nashmd_jax.games import equilibrium, payoffs, preference_game
from nashmd_jax.judges import raters

SIZE = 12  # responses of a game
# Log-odds have four times the slope of a probability at one half.
SLOPE = 4.0
ROUNDS = 20  # of fitting a reward to what the last one makes of RLHF
RAREST = 1e-6  # share with which any response is sampled
EVENLY, OWN, SOLVED = "evenly", "own", "solved"
Figure = tuple[float, float | None, float | None]


class Fits(NamedTuple):
  """Where RLHF ends, by the sampling policy of its pairs.

  Attributes:
    games: how many there are.
    cyclic: in how many three responses beat one another in a ring.
    few: prompts with fewer than `SIZE` different responses.
    gap: by sampling, gap_τ of RLHF's policy, mean and interval over games.
    cyclic_gap: the same of those with a ring.
    kl: by sampling, KL(π*_τ ‖ π), nats.
    won: by sampling, how often π*_τ is preferred to it.
  """

  games: int
  cyclic: int
  few: int
  gap: dict[str, Figure]
  cyclic_gap: dict[str, Figure]
  kl: dict[str, Figure]
  won: dict[str, Figure]


def fits(games: Sequence[np.ndarray | None], price: float) -> Fits | None:
  """Fits rewards to the game of every prompt; None if no prompt has one.

  Args:
    games: see `games_of`.
    price: τ.
  """
  known = np.array([one for one in games if one is not None])
  if not len(known):
    return None
  with jax.enable_x64(True):
    game = preference_game.make_game(
      preference=known, reference=np.full(SIZE, 1 / SIZE), kl_coef=price
    )
    best = np.asarray(jax.vmap(_solve)(game))
    told = {
      name: {
        key: np.asarray(value)
        for key, value in jax.vmap(_held)(
          game, best, np.array([rlhf(*one, price) for one in pairs])
        ).items()
      }
      for name, pairs in (
        (EVENLY, [(p, np.full(SIZE, 1 / SIZE)) for p in known]),
        (OWN, [(p, own_sampling(p, price)) for p in known]),
        (SOLVED, [(p, np.exp(q)) for p, q in zip(known, best, strict=True)]),
      )
    }
  ring = np.array([raters.has_ring(one) for one in known])
  return Fits(
    games=len(known),
    cyclic=int(ring.sum()),
    few=len(games) - len(known),
    cyclic_gap=_means(told, "gap", ring) if ring.any() else {},
    **{
      key: _means(told, key, np.full(len(ring), True))
      for key in ("gap", "kl", "won")
    },
  )


def _means(told, key: str, which: np.ndarray) -> dict[str, Figure]:
  return {
    name: intervals.mean_interval(values[key][which], paper_tables.CONFIDENCE)
    for name, values in told.items()
  }


def games_of(found: paper_found.Found) -> list[np.ndarray | None]:
  """Of each distinct prompt P(y ≻ y′) of its first `SIZE` responses.

  Returns: f64[SIZE, SIZE]; None where fewer are different.
  """
  population = raters.make_population(**found.game[paper_found.HELD_OUT])
  made: dict[str, np.ndarray | None] = {}
  for number, row in enumerate(found.prompts):
    if row["prompt"] in made:
      continue
    said = dict.fromkeys(
      texts[number] for seed in found.seeds for texts in seed.texts.values()
    )
    some = [text for text in said if text][:SIZE]
    made[row["prompt"]] = None
    if len(some) == SIZE:
      made[row["prompt"]] = raters.preference(population, row, some)
  return [*made.values()]


def rlhf(
  preference: np.ndarray, sampling: np.ndarray, kl_coef: float
) -> np.ndarray:
  """log π of RLHF, μ exp(r / (4 τ)) with an even μ, of pairs y, y′ ∼ sampling.

  Args:
    preference: f64[Y, Y].
    sampling: f64[Y], a distribution.
    kl_coef: τ of the game.
  Returns: f64[Y], normalised, nats.
  """
  share = np.maximum(sampling, RAREST)
  scores = payoffs.fit_scores(share[:, None] * share * preference)
  return special.log_softmax(scores / (SLOPE * kl_coef))


def own_sampling(preference: np.ndarray, kl_coef: float) -> np.ndarray:
  """What RLHF writes when its reward is fitted to what it wrote, and again."""
  share = np.full(len(preference), 1 / len(preference))
  for _ in range(ROUNDS):
    share = np.exp(rlhf(preference, share, kl_coef))
  return share


def _solve(game: preference_game.Game) -> jax.Array:
  solved = equilibrium.regularised_equilibrium(
    game, tolerance=1e-9, max_iterations=1000
  )
  return solved.log_policy


def _held(game, best: jax.Array, log_policy: jax.Array) -> dict[str, jax.Array]:
  """A policy against the game and its equilibrium."""
  return {
    "gap": preference_game.duality_gap(game, log_policy),
    "kl": preference_game.kl_divergence(best, log_policy),
    "won": preference_game.win_rate(game, best, log_policy),
  }
