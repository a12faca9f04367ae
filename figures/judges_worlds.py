"""Rows of `make judges` on worlds of texts whose raters are known exactly.

Some minutes on 2 CPU cores; `tests/judge_worlds_test.py` is the quick version.
"""

import numpy as np

from figures import rows
from tests import judge_worlds

TRAINING = dict(steps=320, batch_size=256, learning_rate=3e-3, seed=0)
HELD_OUT = 96  # texts, as many of each kind
SEED = 1


def world_rows() -> list[rows.Row]:
  """What judges make of a ring and of Bradley-Terry scores, and identities."""
  kinds = np.arange(HELD_OUT) % judge_worlds.KINDS
  texts = judge_worlds.draw_texts(np.random.default_rng(SEED), kinds)
  ring, line = judge_worlds.cycle(), judge_worlds.bradley_terry(SEED)
  return [
    *ring_rows(ring, texts),
    *line_rows(line, texts),
    rows.row(
      "largest |P(y ≻ π) − E σ(r(y) − r(y′))| of the Bradley-Terry fit under π "
      "in a table of 8 responses with cycles",
      judge_worlds.moment_error(responses=8, seed=SEED),
      "≤",
      1e-6,
    ),
  ]


def ring_rows(
  world: judge_worlds.World, texts: judge_worlds.Texts
) -> list[rows.Row]:
  """Three kinds of texts that raters prefer in a ring."""
  pairs, said = judge_worlds.between_kinds(texts), {}
  for kind in judge_worlds.TEMPLATES:
    params = judge_worlds.train(world, kind, **TRAINING)
    said[kind] = judge_worlds.log_odds(kind, params, *pairs)
    if kind == "preference":
      errors = {
        dtype: judge_worlds.antisymmetry_error(params, *pairs, dtype=dtype)
        for dtype in ("float32", "bfloat16")
      }
  count = len(said["reward"])
  share = {
    kind: judge_worlds.agreement(world, one, *pairs)
    for kind, one in said.items()
  }
  return [
    rows.row(
      f"a ring of 2/3 among three kinds of texts: of {count} held-out pairs "
      "between kinds, those that the preference model orders as raters do",
      share["preference"], ">", 0.95,
    ),
    rows.row(
      "those that the reward model does; no score can do more than 2/3",
      share["reward"], "≤", 0.67,
    ),
    rows.row(
      f"largest |P(y ≻ y′) + P(y′ ≻ y) − 1| over {count} pairs, float32",
      errors["float32"], "≤", 1e-6,
    ),
    rows.row("the same run in bfloat16", errors["bfloat16"], "≤", 1e-3),
  ]  # fmt: skip


def line_rows(
  world: judge_worlds.World, texts: judge_worlds.Texts
) -> list[rows.Row]:
  """The same texts before raters who all mind one score."""
  pairs, found = judge_worlds.all_pairs(texts), []
  for kind in judge_worlds.TEMPLATES:
    params = judge_worlds.train(world, kind, **TRAINING)
    said = judge_worlds.log_odds(kind, params, *pairs)
    reached, best = judge_worlds.vote_accuracy(world, said, *pairs)
    found.append(
      rows.row(
        f"Bradley-Terry raters: accuracy of the {kind} model on held-out votes "
        f"below the best possible, {best:.4f}",
        best - reached, "≤", 0.01,
      )
    )  # fmt: skip
    if kind == "preference":
      matrix = judge_worlds.square(said, len(texts.kinds))
      found.append(
        rows.row(
          "cyclic triples of held-out texts by that preference model, against "
          "the 97.5 % quantile of scores with noise as large as its own",
          judge_worlds.cyclic_share(matrix),
          "≤",
          judge_worlds.cyclic_by_chance(matrix, draws=400, seed=SEED),
        )
      )
  return found
