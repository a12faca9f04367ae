"""Stage `games`: how fast each algorithm reaches equilibrium, in small games.

Writes `results.json`, a table of iterations and preference queries to a given
KL as `table.md`, and the figures of `game_plots`. Everything is in float64
with exact preferences, from π_0 = μ.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from nashmd_jax import declare, files, games, mistakes
from nashmd_jax.evaluation import game_plots

DICE = ((2, 4, 9), (1, 6, 8), (3, 5, 7))
MATRICES = {
  "three_raters": lambda: games.three_raters(0.1),
  "rock_paper_scissors": lambda: games.ROCK_SCISSORS_PAPER,
  "dice": lambda: games.from_dice(DICE),
}
# Most constant steps settle early; the whole horizon is for those that do not.
FIRST_LOOK = 40
# It has no step size to choose.
STEPLESS = "fictitious_play"
COLUMNS = ("iterations", "queries")
Row = dict[str, Any]


SETTINGS = {
  "references": {
    declare.ANY: declare.several(
      declare.number(
        f"μ of a game that is played, one of {', '.join(MATRICES)}; a "
        "probability for each of its responses.",
        above=0,
        most=1,
      ),
      least=2,
      repeats=True,
    )
  },
  "kl_coef": declare.number("τ of every game.", above=0, most=1e6),
  "target_kl": declare.number(
    "KL to the equilibrium that is to be reached.",
    above=0,
    most=1000,
    unit="nats",
  ),
  "horizon": declare.whole(
    "Iterations after which a run is given up.",
    least=FIRST_LOOK,
    unit="iterations",
  ),
  "ema_decay": declare.number(
    "Decay of the opponent of Nash-EMA.", least=0, most=1
  ),
  "step_sizes": {
    "smallest": declare.number(
      "The smallest of the constant steps tried.", above=0, most=1e6
    ),
    "largest": declare.number(
      "The largest of them, above smallest.", above=0, most=1e6
    ),
    "count": declare.whole("Constant steps tried.", least=1, most=10_000),
  },
}


def check(section: Mapping[str, Any], findings: mistakes.Findings) -> None:
  """Collects what of a section `games` does not go together."""
  with findings.collect():
    check_references(section["references"], section["kl_coef"])
  with findings.collect():
    check_step_sizes(section["step_sizes"])


def check_references(
  references: Mapping[str, Sequence[float]], kl_coef: float
) -> None:
  """Raises Mistake for games that there are not, or a μ that is not of them."""
  if not references or not set(references) <= set(MATRICES):
    raise mistakes.Mistake(
      f"games.references: got {sorted(references)}, expected some of "
      f"{sorted(MATRICES)}"
    )
  for name, reference in references.items():
    try:
      _game(name, reference, kl_coef)
    except ValueError as error:
      raise mistakes.Mistake(f"games.references.{name}: {error}") from None


def check_step_sizes(step_sizes: Mapping[str, float]) -> None:
  """Raises Mistake unless the step sizes grow."""
  if not step_sizes["smallest"] < step_sizes["largest"]:
    raise mistakes.Mistake(
      f"games.step_sizes: got {dict(step_sizes)}, expected smallest < largest"
    )


def algorithms(
  game: games.Game, ema_decay: float
) -> dict[str, games.Algorithm]:
  """All iterative algorithms of the theory, those that need numbers included.

  Args:
    game: one context; RLHF fits its scores to pairs drawn from μ.
    ema_decay: of Nash-EMA.
  """
  reference = np.exp(game.log_reference)
  pairs = np.outer(reference, reference) * np.asarray(game.preference)
  rewards = jnp.asarray(games.fit_scores(pairs))
  respond = games.best_response_to_reference
  return games.ALGORITHMS | {
    f"nash_ema({ema_decay:g})": games.Algorithm(
      games.nash_ema(ema_decay), 1, True, "logits"
    ),
    "best_response": games.Algorithm(respond, 1, True, "logits"),
    "rlhf": games.Algorithm(games.rlhf(rewards), 0, True, "logits"),
  }


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, int]:
  """Runs the study and returns the iterations at the best constant steps."""
  settings = config.games.to_dict()
  folder = workdir / "games"
  with jax.enable_x64(True):
    rows = list(study(**settings))
    played = {
      name: _game(name, reference, config.games.kl_coef)
      for name, reference in settings["references"].items()
    }
    game_plots.save(played, rows, folder)
  files.save_json(folder / "results.json", rows)
  files.save_text(folder / "table.md", table(rows, config.games.target_kl))
  return {
    f"{row['game']}/{row['algorithm']}": row["iterations"]
    for row in rows
    if row["steps"] == "best constant" and row["iterations"] is not None
  }


def _game(name: str, reference: Sequence[float], kl_coef: float) -> games.Game:
  return games.make_game(
    preference=MATRICES[name](), reference=reference, kl_coef=kl_coef
  )


def study(
  *,
  references: Mapping[str, tuple[float, ...]],
  kl_coef: float,
  target_kl: float,
  horizon: int,
  ema_decay: float,
  step_sizes: Mapping[str, float],
) -> Iterator[Row]:
  """Yields a row for every game, algorithm and choice of step sizes.

  Args: see `SETTINGS`. Call it in float64.
  Returns: rows of game, algorithm, kl_coef (0 where the algorithm solves the
    game without regularisation), steps, step_size (the first, where it falls),
    iterations and queries until KL stays at target_kl (None: not within the
    horizon), last_kl.
  """
  sizes = jnp.geomspace(
    step_sizes["smallest"], step_sizes["largest"], step_sizes["count"]
  )
  for name, reference in references.items():
    game = _game(name, reference, kl_coef)
    targets = equilibria(game)
    for algorithm, facts in algorithms(game, ema_decay).items():
      settle = functools.partial(
        _settle,
        game,
        targets[facts.regularised],
        facts=facts,
        target_kl=target_kl,
      )
      row = {
        "game": name,
        "algorithm": algorithm,
        "kl_coef": kl_coef if facts.regularised else 0.0,
      }
      if games.theory_steps(algorithm, game, iterations=horizon) is not None:
        found = settle(None, name=algorithm, horizon=horizon)
        steps = {"steps": "theory"}
        yield row | steps | _counts(*found, horizon, facts.queries)
      steps = {"steps": "none" if algorithm == STEPLESS else "best constant"}
      for length in (horizon // FIRST_LOOK, horizon):
        found = settle(sizes, name=algorithm, horizon=length)
        if found[1] <= length:
          break
      yield row | steps | _counts(*found, horizon, facts.queries)


def equilibria(game: games.Game) -> dict[bool, jax.Array]:
  """Logits of π*_τ (True) and of the Nash policy of τ = 0 (False)."""
  regularised = games.regularised_equilibrium(
    game, tolerance=1e-12, max_iterations=10_000
  )
  nash = games.nash_equilibrium(
    np.asarray(game.preference), reference=np.exp(game.log_reference)
  )
  return {True: regularised.log_policy, False: jnp.log(nash.policy)}


@functools.partial(
  jax.jit, static_argnames=("name", "facts", "target_kl", "horizon")
)
def _settle(game, target, sizes, *, name, facts, target_kl, horizon):
  """Step size, iterations and last KL; at theory's steps if sizes is None."""
  common = {
    "step": facts.step,
    "judged": facts.judged,
    "target": target,
    "target_kl": target_kl,
    "horizon": horizon,
  }
  if sizes is not None:
    return games.best_constant_step(game, step_sizes=sizes, **common)
  schedule = games.theory_steps(name, game, iterations=horizon)
  found = games.settling_time(game, step_size=schedule, **common)
  return schedule(jnp.zeros(())), *found


def _counts(step_size, time, last_kl, horizon: int, queries: int) -> Row:
  iterations = int(time) if time <= horizon else None
  return {
    "step_size": float(step_size),
    "iterations": iterations,
    "queries": None if iterations is None else iterations * queries,
    "last_kl": float(last_kl),
  }


def table(rows: Sequence[Row], target_kl: float) -> str:
  """The rows as a Markdown table."""
  lines = [
    f"Iterations and preference queries, from μ, until KL(target, π) stays at "
    f"most {target_kl:g} nats. The target is π*_τ, where τ is 0 the Nash "
    "policy. – stands where that is not reached, with the KL at the end. "
    "Theory's steps fall for nash_md and omd: η is the first.",
    "",
    "| game | algorithm | τ | steps | η | iterations | queries | KL at the end "
    "|",
    "|---|---|---|---|---|---|---|---|",
  ]
  for row in rows:
    reached = row["iterations"] is not None
    cells = [
      row["game"],
      row["algorithm"],
      f"{row['kl_coef']:g}",
      row["steps"],
      "" if row["steps"] == "none" else f"{row['step_size']:.3g}",
      *(f"{row[name]:,}" if reached else "–" for name in COLUMNS),
      "" if reached else f"{row['last_kl']:.2g}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"
