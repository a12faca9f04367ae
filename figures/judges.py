"""`make judges`: what judges can and cannot, in out/judges.json.

About half an hour on 2 CPU cores. Exit status 1 when a row does not hold; rows
that need files that are absent say so.
"""

from collections.abc import Callable, Iterator
import pathlib
import sys

import jax
import numpy as np

from figures import (
  judges_ahead,
  judges_served,
  judges_votes,
  judges_worlds,
  rows,
)
from tests import certificate, variance, whole_step
from tests import gradient_oracle as oracle

OUT = pathlib.Path("out") / "judges.json"
KEYS, SAMPLES = 4000, 4
DESIGNS = (
  ("self", dict(design="all")),
  ("self", dict(design="circular")),
  ("self", dict(design="group")),
  ("self", dict(design="group_circular")),
  ("mixture", dict(design="all")),
  ("mixture", dict(design="circular")),
  ("mixture", dict(design="circular", orders="both")),
)


def design_rows() -> list[rows.Row]:
  """Bias of every design by enumeration, and its variance for a query."""
  found, worst = [], 0.0
  words = ("circular", "group", "orders")
  with jax.enable_x64(True):
    world = oracle.make_world(3)
    for case in certificate.STEPS:
      if any(word in case.algorithm for word in words):
        worst = max(worst, case.measure(world))
    found.append(
      rows.row(
        "designs of comparison: largest relative error of the expected step "
        "against the exact gradient, by enumeration",
        worst, "≤", certificate.BAR,
      )
    )  # fmt: skip
    once = {}
    for opponent, design in DESIGNS:
      play = whole_step.make_play(
        world, opponent=opponent, samples=SAMPLES, **design
      )
      _, asked = _queries(play)
      gradients = variance.step_gradients(play, world.sets, KEYS, seed=0)
      total = variance.total_variance(gradients)
      reference = once.setdefault(opponent, (total, asked))
      found.append(
        rows.row(
          f"K = {SAMPLES} against {opponent}, {_named(design)}: variance of a "
          f"step times its {asked} queries, of those of all pairs",
          total * asked / (reference[0] * reference[1]), "≤", 2.0,
        )
      )  # fmt: skip
  return found


def _queries(play) -> tuple[np.ndarray, int]:
  made = whole_step.play_lib.algorithms_lanes(play, 0)
  i, _ = play.algorithm.way.asks(len(made.own), len(made.other))
  return i, len(i)


def _named(design: dict[str, str]) -> str:
  return ", ".join(f"{name} {value}" for name, value in design.items())


MEASURES: tuple[Callable[[], list[rows.Row]], ...] = (
  judges_worlds.world_rows,
  design_rows,
  judges_served.served_rows,
  judges_ahead.ahead_rows,
  judges_votes.votes_rows,
)


def all_rows() -> Iterator[rows.Row]:
  """Everything, in order."""
  for measure in MEASURES:
    for row in measure():
      print(row, flush=True)
      yield row


if __name__ == "__main__":
  sys.exit(rows.report(OUT, list(all_rows())))
