"""Games that can be solved exactly.

  python -m nashmd_jax.main --config=configs/worlds.py:games

About two minutes on 2 CPU cores. Writes to out/worlds-games/games a table of
iterations and preference queries until KL to equilibrium stays at 1e-6, and
figures. Expected, among others, at the best constant step: OMD 13, Nash-MD
about 355, EGPO 4 on the three raters; OMD 96, EGPO 12 on rock, paper,
scissors. `:games_tiny` runs the same path in seconds.
"""

import ml_collections


def get_config(variant: str = "games") -> ml_collections.ConfigDict:
  """The study of exact games, `:games` or `:games_tiny`."""
  if variant not in ("games", "games_tiny"):
    raise ValueError(f"configs/worlds.py: no variant {variant!r}")
  config = ml_collections.ConfigDict()
  config.pipeline = "games"
  config.games = {
    "references": {
      "three_raters": (1 / 3, 1 / 3, 1 / 3),
      "rock_paper_scissors": (0.7, 0.2, 0.1),
      "dice": (0.5, 0.3, 0.2),
    },
    "kl_coef": 0.1,
    "target_kl": 1e-6,
    "horizon": 200_000,
    "ema_decay": 0.9,
    "step_sizes": {"smallest": 1e-3, "largest": 30.0, "count": 600},
  }
  if variant == "games_tiny":
    for name in ("three_raters", "dice"):
      del config.games.references[name]
    config.games.horizon = 400
    config.games.step_sizes.count = 20
  return config.lock()
