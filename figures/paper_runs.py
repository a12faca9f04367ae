"""How the paper's runs went: curves, distance, length and cost, over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from figures import paper_found, paper_tables
from nashmd_jax.evaluation import crossed, intervals, length

NATS = 4.0  # of KL at the end of training, of which τ is chosen
PARTS = (0.25, 0.5, 0.75, 1.0)  # of training, at which curves are told


class Curve(NamedTuple):
  """How a run went, as means over its seeds.

  Attributes:
    judge: that it learns from.
    steps, kl, learned, exact: f64[K], at `PARTS` of its training; win rates
      against SFT by the judge and by the exact raters.
    overrated: learned − exact at the end, interval over seeds.
    late: exact at the end − exact half way, the same.
    seeds: how many.
  """

  judge: str
  steps: np.ndarray
  kl: np.ndarray
  learned: np.ndarray
  exact: np.ndarray
  overrated: tuple[float, float | None, float | None]
  late: tuple[float, float | None, float | None]
  seeds: int


def curves(found: paper_found.Found) -> dict[str, Curve]:
  """Of each run the judge that it learns from beside the exact raters."""
  paths: dict[str, list[dict[str, Any]]] = {}
  for seed in found.seeds:
    of_run: dict[str, list[paper_found.Row]] = {}
    for row in seed.curves:
      if paper_found.EXACT in row["won"] and row["kl"] is not None:
        of_run.setdefault(row["policy"], []).append(row)
    for name, rows in of_run.items():
      paths.setdefault(name, []).append(_path(rows))
  return {name: _curve(some) for name, some in paths.items()}


def _path(rows: Sequence[paper_found.Row]) -> dict[str, Any]:
  """A run of a seed at `PARTS` of its training."""
  last = rows[-1]["step"]
  some = [
    min(rows, key=lambda row: abs(row["step"] - part * last)) for part in PARTS
  ]
  judge = rows[-1]["judge"]
  return {
    "judge": judge,
    "steps": [row["step"] for row in some],
    "kl": [row["kl"] for row in some],
    "learned": [row["won"][judge] for row in some],
    "exact": [row["won"][paper_found.EXACT] for row in some],
  }


def _curve(paths: Sequence[Mapping[str, Any]]) -> Curve:
  every = {
    name: np.array([path[name] for path in paths])
    for name in ("steps", "kl", "learned", "exact")
  }
  gap = every["learned"] - every["exact"]
  late = every["exact"][:, -1] - every["exact"][:, PARTS.index(0.5)]
  return Curve(
    paths[0]["judge"],
    **{name: values.mean(0) for name, values in every.items()},
    overrated=intervals.mean_interval(gap[:, -1], paper_tables.CONFIDENCE),
    late=intervals.mean_interval(late, paper_tables.CONFIDENCE),
    seeds=len(paths),
  )


def of_policies(found: paper_found.Found) -> dict[str, dict[str, Any]]:
  """KL, length and cost of each policy that every seed has.

  Returns: by policy "kl" in nats and "words" as `Figure`s, "kl" None where it
    is not known; "ended", "learned" (the win rate against SFT by the judge
    that was learnt), "seconds" and "cpu_seconds" as means over seeds, None
    where a seed does not know.
  """
  told = {}
  for name in paper_tables.common(found.seeds):
    words = [length.count_words(seed.texts[name]) for seed in found.seeds]
    ratios = None
    if all(name in seed.log_ratios for seed in found.seeds):
      ratios = paper_tables.log_ratios(found, [name])
    rows = [seed.rows[name] for seed in found.seeds]
    learned = [row["learned"] and row["learned"][0] for row in rows]
    told[name] = {
      "kl": None if ratios is None else _figure(ratios),
      "words": _figure(
        paper_tables.by_prompt(found, np.array(words))[..., None]
      ),
      "learned": _mean(learned),
      **{
        what: _mean([row[what] for row in rows])
        for what in ("ended", "seconds", "cpu_seconds")
      },
    }
  return told


def within(found: paper_found.Found) -> dict[str, float | None]:
  """The smallest τ of the sweep at which runs stay within `NATS` of SFT.

  Returns: "rlhf" and "nash", of all runs that are not RLHF; None where none
    stays within.
  """
  furthest: dict[str, dict[float, float]] = {"rlhf": {}, "nash": {}}
  for row in found.tau:
    whose = "rlhf" if row["policy"] == paper_found.RLHF else "nash"
    of = furthest[whose]
    of[row["kl_coef"]] = max(row["kl"], of.get(row["kl_coef"], 0.0))
  return {
    whose: min((tau for tau, kl in of.items() if kl <= NATS), default=None)
    for whose, of in furthest.items()
  }


def prices(found: paper_found.Found) -> dict[str, float | None]:
  """The τ that the tables were made with, "nash" and "rlhf"."""
  own = {seed.rows[paper_found.RLHF]["sets"].get("kl_coef")
         for seed in found.seeds if paper_found.RLHF in seed.rows}  # fmt: skip
  return {
    "nash": found.game.get("kl_coef"),
    "rlhf": own.pop() if len(own) == 1 else None,
  }


class Gaps(NamedTuple):
  """What could be gained on a policy, as means over seeds.

  Attributes:
    gap: gap_τ in the game of the exact raters, interval over seeds.
    solves: τ of the game that it solves in theory; None of what is no mixture.
    solved: gap at that τ, the same.
    distance: solved / τ, nats: KL(π ‖ π*_τ) is no more, as the gap is
      τ KL(π ‖ best response) and P_τ(π*_τ ≻ π) − ½ = τ KL(π ‖ π*_τ) no more.
  """

  gap: tuple[float, float | None, float | None]
  solves: float | None
  solved: tuple[float, float | None, float | None] | None
  distance: tuple[float, float | None, float | None] | None


def gaps(found: paper_found.Found) -> dict[str, Gaps]:
  """Of each policy whose gap every seed has."""
  told = {}
  for name in paper_tables.common(found.seeds):
    rows = [seed.rows[name] for seed in found.seeds]
    if any(row.get("gap") is None for row in rows):
      continue
    solved = [row["solves"] for row in rows if row["solves"] is not None]
    every = len(solved) == len(rows)
    told[name] = Gaps(
      gap=_over_seeds([row["gap"]["value"] for row in rows]),
      solves=solved[0]["kl_coef"] if every else None,
      solved=_over_seeds([one["value"] for one in solved]) if every else None,
      distance=_over_seeds([one["value"] / one["kl_coef"] for one in solved])
      if every
      else None,
    )
  return told


def _over_seeds(values: Sequence[float]):
  return intervals.mean_interval(values, paper_tables.CONFIDENCE)


def _figure(values: np.ndarray) -> paper_tables.Figure:
  made = crossed.estimate(values, paper_tables.CONFIDENCE, against=0.0)
  return paper_tables.Figure(*(float(part[0]) for part in made[:3]))


def _mean(values: Sequence[float | None]) -> float | None:
  return None if None in values else float(np.mean(values))


def jobs(found: paper_found.Found) -> dict[tuple[str, str], paper_found.Row]:
  """What every job took, by its name and key; those that seeds share once."""
  return {
    (row["job"], row["key"]): row for seed in found.seeds for row in seed.jobs
  }
