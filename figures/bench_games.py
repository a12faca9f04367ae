"""Rows of `make bench`: exact games against NumPy on the same cores.

Each measurement runs in a process of its own that may use a given number of
cores; the parts are timed in turn and the medians of their ratios reported,
so that a drift of the machine's speed cancels.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

from figures import rows

GAMES, RESPONSES, ITERATIONS = 1024, 64, 10_000
STEP, KL_COEF = 0.5, 0.1
# Games at a time, so that their matrices stay in a core's cache.
BLOCK = 32
# NumPy runs a part of the work, and the time is scaled: at its pace the whole
# would take minutes.
NUMPY_ITERATIONS, NUMPY_GAMES = 100, 4
ROUNDS = 5


def numpy_nash_md(preference, log_reference, iterations):
  """Nash-MD on f32[..., Y, Y] matrices, every game at once."""
  pull = np.float32(STEP * KL_COEF)
  logits = log_reference
  for _ in range(iterations):
    mixture = (1 - pull) * logits + pull * log_reference
    weight = np.exp(mixture - mixture.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    wins = np.matmul(preference, weight[..., None])[..., 0]
    logits = mixture + np.float32(STEP) * (wins - np.float32(0.5))
  return logits


def numpy_nash_md_one(preference, log_reference, iterations):
  """The same for one game, without the arithmetic that a batch needs."""
  pull = np.float32(STEP * KL_COEF)
  logits = log_reference
  for _ in range(iterations):
    mixture = (1 - pull) * logits + pull * log_reference
    weight = np.exp(mixture - mixture.max())
    weight /= weight.sum()
    wins = preference @ weight
    logits = mixture + np.float32(STEP) * (wins - np.float32(0.5))
  return logits


def measure() -> dict[str, float]:
  """Seconds of the whole work in JAX, ratios of NumPy's to it, share of peak.

  Runs in the process whose cores are limited.
  """
  import jax

  from nashmd_jax import games
  from tests import games_oracle

  game = games.make_game(
    preference=games.random_preferences(
      jax.random.key(0), contexts=GAMES, responses=RESPONSES
    ),
    reference=games_oracle.random_policies(0, GAMES, RESPONSES),
    kl_coef=KL_COEF,
  )

  def one(game):
    return games.solve(
      game,
      step=games.nash_md,
      step_size=games.constant(STEP),
      query=games.exact_query,
      logits=game.log_reference,
      iterations=ITERATIONS,
      key=jax.random.key(0),
      measures={"gap": games.duality_gap},
      measure_every=ITERATIONS,
      judged="logits",
    )[0].logits

  solve = jax.jit(lambda game: jax.lax.map(one, game, batch_size=BLOCK))
  preference = np.asarray(game.preference)
  log_reference = np.asarray(game.log_reference)
  square = np.ones((2048, 2048), np.float32)

  def timed(function, *args):
    began = time.perf_counter()
    result = np.asarray(function(*args))
    return time.perf_counter() - began, result

  def loop_over_games():
    return [
      numpy_nash_md_one(preference[i], log_reference[i], ITERATIONS)
      for i in range(NUMPY_GAMES)
    ]

  timed(solve, game)
  found = []
  for _ in range(ROUNDS):
    batched, _ = timed(
      numpy_nash_md, preference, log_reference, NUMPY_ITERATIONS
    )
    seconds, logits = timed(solve, game)
    alone, expected = timed(loop_over_games)
    peak, _ = timed(np.matmul, square, square)
    np.testing.assert_allclose(logits[:NUMPY_GAMES], expected, atol=1e-3)
    flops = 2 * GAMES * RESPONSES**2 * ITERATIONS
    found.append(
      {
        "seconds": seconds,
        "batched": batched * ITERATIONS / NUMPY_ITERATIONS / seconds,
        "alone": alone * GAMES / NUMPY_GAMES / seconds,
        "peak_share": flops / seconds / (2 * 2048**3 / peak),
      }
    )
  return {
    key: float(np.median([row[key] for row in found])) for key in found[0]
  }


def measure_on(cores: int) -> dict[str, float]:
  """`measure` in a process with that many cores for JAX and for NumPy."""
  out = subprocess.run(
    [sys.executable, "-m", "figures.bench_games", f"--cores={cores}"],
    capture_output=True,
    text=True,
    check=True,
    env=os.environ | {"OPENBLAS_NUM_THREADS": str(cores)},
  )
  return json.loads(out.stdout.splitlines()[-1])


def speed_rows() -> list[rows.Row]:
  """JAX against NumPy with all cores allowed to both; one core told beside."""
  every = sorted(os.sched_getaffinity(0))
  found = {cores: measure_on(cores) for cores in {1, len(every)}}
  all_cores, one = found[len(every)], found[1]
  what = (
    f"{GAMES:,} games of {RESPONSES} responses, {ITERATIONS:,} Nash-MD "
    f"iterations in float32, {all_cores['seconds']:.1f} s in one jitted call "
    f"on {len(every)} cores ({all_cores['peak_share']:.0%} of NumPy's matrix "
    f"product there; on one core {one['peak_share']:.0%})"
  )
  return [
    rows.row(
      f"{what}: times faster than NumPy batched over games, {len(every)} cores "
      f"allowed to both (on one core {one['batched']:.1f})",
      all_cores["batched"],
      "≥",
      3,
    ),
    rows.row(
      "the same: times faster than a NumPy loop over games "
      f"(on one core {one['alone']:.1f})",
      all_cores["alone"],
      "≥",
      20,
    ),
  ]


def main() -> int:
  """Measures on given cores."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--cores", type=int, required=True)
  cores = parser.parse_args().cores
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  print(json.dumps(measure()))
  return 0


if __name__ == "__main__":
  sys.exit(main())
