"""One of N responses to each prompt, from what a judge says of all their pairs.

Best-of-N and the equilibrium of the empirical game: arrays in, indices out;
`stages.policies` writes the responses and asks the judge.
"""

from collections.abc import Callable

import numpy as np

from nashmd_jax import games

# Means that differ by less are a tie, whatever the order of their sums.
TIE = 1e-9
# To a thousandth, less than a judge can tell apart: responses that are as good
# as one another are so exactly, which the linear program needs.
DIGITS = 3


def pairs(samples: int) -> tuple[np.ndarray, np.ndarray]:
  """The unordered pairs i < j of N responses, int[N (N − 1) / 2] each."""
  return np.triu_indices(samples, 1)


def win_probs(said: np.ndarray) -> np.ndarray:
  """P(y_i ≻ y_j|x) of all ordered pairs from one question an unordered one.

  Args:
    said: f64[X, N (N − 1) / 2], P of each of `pairs`; NaN where the judge
      could not tell.
  Returns: f64[X, N, N] with P + Pᵀ = 1, ½ on the diagonal, NaN as in `said`.
  """
  contexts, count = said.shape
  samples = int(round((1 + np.sqrt(1 + 8 * count)) / 2))
  if samples * (samples - 1) // 2 != count:
    raise ValueError(
      f"said: got {count} pairs a prompt, expected N (N − 1) / 2 of them"
    )
  i, j = pairs(samples)
  matrix = np.full((contexts, samples, samples), 0.5)
  matrix[:, i, j], matrix[:, j, i] = said, 1 - said
  return matrix


def best(win_prob: np.ndarray) -> np.ndarray:
  """The response of the highest mean win probability against the others.

    argmax_i mean_{j ≠ i} P(y_i ≻ y_j|x)

  Pairs that were not judged are left out of the mean; a response of which no
  pair was has ½, as nothing speaks for it or against. Of several the first.

  Args:
    win_prob: f64[X, N, N], see `win_probs`.
  Returns: int[X].
  """
  others = ~np.eye(win_prob.shape[-1], dtype=bool)
  known = np.isfinite(win_prob) & others
  count = known.sum(-1)
  total = np.where(known, win_prob, 0).sum(-1)
  mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)
  return np.argmax(mean >= mean.max(-1, keepdims=True) - TIE, axis=-1)


def equilibria(win_prob: np.ndarray) -> np.ndarray:
  """The Nash policy of the game among the N responses to each prompt.

  Of several equilibria the one of maximum entropy, so that responses that are
  as good as one another are given alike. A game needs every cell: a pair that
  was not judged is a tie, ½, the one value that favours neither.

  Args:
    win_prob: f64[X, N, N], see `win_probs`; played to `DIGITS`.
  Returns: f64[X, N], rows that sum to 1.
  """
  samples = win_prob.shape[-1]
  i, j = pairs(samples)
  said = np.where(np.isfinite(win_prob), win_prob, 0.5)[:, i, j]
  uniform = np.full(samples, 1 / samples)
  return np.array(
    [
      games.nash_equilibrium(game, reference=uniform).policy
      for game in win_probs(np.round(said, DIGITS))
    ]
  ).reshape(-1, samples)


def draw(policy: np.ndarray, uniform: np.ndarray) -> np.ndarray:
  """One response to each prompt by inverting the CDF of a policy.

  Args:
    policy: f64[X, N], rows that sum to 1.
    uniform: f64[X] in [0, 1).
  Returns: int[X], responses of positive probability.
  """
  cdf = np.cumsum(policy, axis=-1)
  # What round-off leaves above the sum goes to the last response given.
  cdf /= cdf[:, -1:]
  return np.argmax(cdf > uniform[:, None], axis=-1)


def _best(win_prob: np.ndarray, uniform: np.ndarray) -> np.ndarray:
  del uniform
  return best(win_prob)


def _drawn(win_prob: np.ndarray, uniform: np.ndarray) -> np.ndarray:
  return draw(equilibria(win_prob), uniform)


# (win_prob f64[X, N, N], uniform f64[X]) -> int[X] by the name in a config.
CHOICES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "best": _best,
  "equilibrium": _drawn,
}
