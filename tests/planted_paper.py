"""What trials of the paper's sweep would find in a world with a known truth.

The raters like few words, and no policy is anything but a law of how many it
writes: the win rate of two policies is known by their means, and so is that of
the judge that was learnt, which likes the policies of large KL besides.
"""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np

from configs import docstrings
from figures import paper_found
from nashmd_jax import files

FEWEST, MEAN = 6, 20.0
STEPS = (10, 20, 30, 40)
# Words fewer than SFT: the shape of the paper.
PAPER = {
  "sft": 0.0, "rlhf": 6.0, "self_play": 6.0, "md_125": 7.0, "md_250": 7.0,
  "md_375": 7.0, "md_500": 6.0, "md_625": 4.5, "md_750": 3.5,
  "best_response": 2.0, "ema_999": 5.5, "ema_9995": 4.5,
  "ema_999_average": 5.5, "ema_9995_average": 6.0,
}  # fmt: skip
SHARPNESS = 0.4


def population(liked: str = "brevity") -> dict:
  """Raters with one criterion, as `raters.make_population` takes them."""
  made = docstrings.get_config("tiny").raters.to_dict()
  made["weights"] = {name: float(name == liked) for name in made["weights"]}
  made["sharpness"] = dict.fromkeys(made["sharpness"], SHARPNESS)
  return made


def write(
  folder: pathlib.Path,
  quality: Mapping[str, float],
  *,
  seeds: Sequence[int] = range(5),
  prompts: int = 60,
  kl: Mapping[str, float] | None = None,
  learned: Mapping[str, float] | None = None,
  exact: Mapping[str, float] | None = None,
) -> pathlib.Path:
  """A folder as `paper_found.collect` leaves it.

  Args:
    quality: by policy, words fewer than SFT's on average.
    kl: by policy, nats; those of others are 1.
    learned, exact: by run its win rate at the end of training by the judge
      that it learns from, and by the exact raters; both rise evenly to .6 in
      the first half.
  """
  rng, kl = np.random.default_rng(0), kl or {}
  game = {
    "kl_coef": 0.1,
    "learned": "preference",
    paper_found.HELD_OUT: population(),
    paper_found.SECOND: population(),
  }
  files.save_json(folder / paper_found.GAME, game)
  rows = [
    {"id": str(n), "prompt": f"prompt {n}", "response": "written"}
    for n in range(prompts)
  ]
  paper_found.save_lines(folder / paper_found.PROMPTS, rows)
  of_prompt = rng.normal(size=prompts)
  for seed in seeds:
    place = folder / f"seed_{seed}"
    texts = [
      {
        "policy": name,
        "id": str(n),
        "response": " ".join(["w"] * words),
        "log_ratio": round(kl.get(name, 1.0) + rng.normal(), 5),
      }
      for name, fewer in quality.items()
      for n, words in enumerate(_words(rng, fewer, of_prompt))
    ]
    paper_found.save_lines(place / paper_found.TEXTS, texts)
    paper_found.save_lines(
      place / paper_found.ROWS, [_row(name, seed) for name in quality]
    )
    curves = _curves(learned or {}, exact or {}, rng)
    paper_found.save_lines(place / paper_found.CURVES, curves)
    took = {"seconds": 3600.0, "cpu_seconds": 7200.0}
    keys = {"sft": "shared", "preference": f"of {seed}"}
    paper_found.save_lines(
      place / paper_found.JOBS,
      [{"job": job, "key": key, **took} for job, key in keys.items()],
    )
  return folder


def _words(rng, fewer: float, of_prompt: np.ndarray) -> np.ndarray:
  mean = MEAN - fewer + 0.1 * rng.normal() + of_prompt
  drawn = np.rint(mean + rng.normal(size=len(of_prompt)))
  return np.maximum(drawn, FEWEST).astype(int)


def _row(name: str, seed: int) -> dict:
  return {
    "policy": name, "seed": seed, "commit": "abc1234",
    "config": "configs/paper.py:cpu", "changed": {"seed": [0, seed]},
    "run": name, "sets": {"kl_coef": 0.05}, "steps": STEPS[-1], "seconds": 60.0,
    "cpu_seconds": 90.0, "device": "cpu", "cores": 2, "kl": 1.0,
    "words": 10.0, "ended": 1.0, "learned": [0.6, 0.5, 0.7],
    **_gaps(name, seed),
  }  # fmt: skip


def _gaps(name: str, seed: int) -> dict:
  """Of β = .125 the mixture is nearest to what it solves."""
  if name == "sft":
    return {"gap": None, "solves": None}
  ends = {"low": 0.0, "high": 1.0, "bias": 0.0}
  gap = {"value": 0.2 + 0.01 * seed, **ends}
  if not name.endswith("_mixture"):
    return {"gap": gap, "solves": None}
  share = int(name.split("_")[1]) / 1000
  solves = {"kl_coef": 0.1 / (1 - share), "value": share * 0.1, **ends}
  return {"gap": gap, "solves": solves}


def _curves(learned, exact, rng) -> list[dict]:
  return [
    {
      "policy": name,
      "judge": "preference",
      "step": step,
      "kl": step / STEPS[-1],
      "won": {
        "preference": _at(step, learned[name]) + 0.01 * rng.normal(),
        "raters": _at(step, exact[name]) + 0.01 * rng.normal(),
      },
    }
    for name in learned
    for step in STEPS
  ]


def _at(step: int, end: float) -> float:
  return float(np.interp(step, (0, STEPS[1], STEPS[-1]), (0.5, 0.6, end)))
