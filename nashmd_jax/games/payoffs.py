"""Preference matrices P(y ≻ y′): examples, scores, raters, votes, chance.

A preference matrix is f64[..., Y, Y] with P + Pᵀ = 1, entry [i, j] the
probability that response i is preferred to response j; leading axes are
contexts, X. These are NumPy functions that run once, on the host, and check
what they are given; what plays the game is in the modules beside this one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy

# Each response beats the next one: rock, scissors, paper.
ROCK_SCISSORS_PAPER = np.array([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])


def check_preference(preference: np.ndarray) -> np.ndarray:
  """Checks that every cell is a probability and that P + Pᵀ = 1.

  Args:
    preference: [..., Y, Y].
  Returns: f64[..., Y, Y] with P + Pᵀ = 1 to round-off: deviations up to 1e-6,
    as float32 leaves them, are shared between both cells.
  Raises: ValueError that names the first wrong cell.
  """
  matrix = np.asarray(preference, np.float64)
  if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
    raise ValueError(
      f"preference: expected [..., Y, Y], got shape {matrix.shape}"
    )
  _check_cells(matrix, "preference", ~np.isnan(matrix), "a number")
  inside = (matrix >= 0) & (matrix <= 1)
  _check_cells(matrix, "preference", inside, "a value from 0 to 1")
  opposite = np.swapaxes(matrix, -1, -2)
  fits = np.abs(matrix + opposite - 1) <= 1e-6
  if not fits.all():
    cell = _first(~fits)
    mirror = (*cell[:-2], cell[-1], cell[-2])
    raise ValueError(
      f"preference: expected P + Pᵀ = 1, got {matrix[cell]:.6g} at "
      f"{list(cell)} and {matrix[mirror]:.6g} at {list(mirror)}"
    )
  return (matrix + (1 - opposite)) / 2


def check_distribution(policy: np.ndarray, name: str) -> np.ndarray:
  """Checks that policies have only positive entries, which sum to 1.

  Args:
    policy: [..., Y].
    name: what messages call it.
  Raises: ValueError that names the first wrong entry or row.
  """
  array = np.asarray(policy, np.float64)
  if not array.ndim:
    raise ValueError(f"{name}: expected [..., Y], got a scalar")
  _check_cells(array, name, array > 0, "a probability above 0")
  total = array.sum(-1)
  near = np.abs(total - 1) <= 1e-5
  _check_cells(total, f"{name}, sum", near, "1")
  return array


def _first(wrong: np.ndarray) -> tuple[int, ...]:
  return tuple(int(index) for index in np.argwhere(wrong)[0])


def _check_cells(
  array: np.ndarray, name: str, good: np.ndarray, expected: str
) -> None:
  if not good.all():
    cell = _first(~good)
    raise ValueError(
      f"{name}: expected {expected} at {list(cell)}, got {array[cell]:.6g}"
    )


def from_raters(shares: np.ndarray, preferences: np.ndarray) -> np.ndarray:
  """A population of raters: Σ_k share_k P_k.

  Args:
    shares: [K], positive, summing to 1.
    preferences: [K, ..., Y, Y], what each kind of rater prefers.
  Returns: f64[..., Y, Y].
  Source: Munos et al., ICML 2024, §3.2: such a mixture can be cyclic though
    no rater is.
  """
  shares = check_distribution(shares, "shares")
  preferences = check_preference(preferences)
  if shares.shape != preferences.shape[:1]:
    raise ValueError(
      f"shares: expected one for each of {preferences.shape[0]} raters, got "
      f"shape {shares.shape}"
    )
  return check_preference(np.tensordot(shares, preferences, axes=1))


def from_order(order: Sequence[int]) -> np.ndarray:
  """A rater with a total order: P is 1 above, 0 below, ½ on the diagonal.

  Args:
    order: the responses 0 … Y−1, best first.
  Returns: f64[Y, Y].
  """
  if sorted(order) != list(range(len(order))):
    raise ValueError(
      f"order: expected each of 0 to {len(order) - 1} once, got {list(order)}"
    )
  place = np.argsort(np.asarray(order))
  return (1 - np.sign(place[:, None] - place[None, :])) / 2


def three_raters(epsilon: float) -> np.ndarray:
  """The paper's three kinds of raters, each of whom minds one pair only.

  Shares 1/3 − ε prefer response 1 to 0, 1/3 + ε/2 prefer 0 to 2, 1/3 + ε/2
  prefer 2 to 1; all other comparisons are ties. The Nash policy
  (1/3 + ε/2, 1/3 + ε/2, 1/3 − ε) is continuous in ε; the Bradley-Terry
  optimum jumps from response 1 to response 0 as ε passes 0.

  Args:
    epsilon: strictly between −2/3 and 1/3; the Nash policy above needs
      −1/3 or more.
  Returns: f64[3, 3].
  Source: Munos et al., ICML 2024, §3.2.
  """
  if not -2 / 3 < epsilon < 1 / 3:
    raise ValueError(
      f"epsilon: expected a value between -2/3 and 1/3, got {epsilon}"
    )
  raters = np.full((3, 3, 3), 0.5)
  for rater, (winner, loser) in enumerate([(1, 0), (0, 2), (2, 1)]):
    raters[rater, winner, loser], raters[rater, loser, winner] = 1, 0
  return from_raters(
    np.array([1 / 3 - epsilon, 1 / 3 + epsilon / 2, 1 / 3 + epsilon / 2]),
    raters,
  )


def from_dice(faces: np.ndarray) -> np.ndarray:
  """Dice: the higher face is preferred, equal faces are a tie.

  Args:
    faces: [Y, F], the faces of each die, each as likely as another.
  Returns: f64[Y, Y].
  Source: Munos et al., ICML 2024, §3.2 for the non-transitive ones.
  """
  faces = np.asarray(faces)
  difference = faces[:, None, :, None] - faces[None, :, None, :]
  return ((np.sign(difference) + 1) / 2).mean((-1, -2))


def from_scores(scores: np.ndarray) -> np.ndarray:
  """Bradley-Terry: P = σ(r_y − r_y′).

  Args:
    scores: [..., Y], nats; an Elo rating is 400 / ln 10 times as large.
  Returns: f64[..., Y, Y], transitive.
  """
  scores = np.asarray(scores, np.float64)
  upper = scipy.special.expit(scores[..., :, None] - scores[..., None, :])
  return _antisymmetric(upper)


def random_preferences(
  key: jax.Array, *, contexts: int, responses: int
) -> np.ndarray:
  """Every pair's preference drawn from the uniform distribution on [0, 1].

  Returns: f64[X, Y, Y]; the same key gives the same matrices.
  """
  shape = (contexts, responses, responses)
  uniform = jax.random.uniform(key, shape, jnp.float32)
  return _antisymmetric(np.asarray(uniform, np.float64))


def cyclic_share(preference: np.ndarray) -> np.ndarray:
  """Share of the triples of responses whose majorities form a cycle.

  A triple is a cycle or one of its responses wins against both others, so
  that C(Y, 3) − Σ_y C(wins_y, 2) triples are cycles; a tie counts as a loss
  for both. One in four is cyclic when every majority is a coin flip, and no
  more than (Y + 1) / (4 (Y − 2)) can be.

  Args:
    preference: [..., Y, Y], Y ≥ 3, without ties off the diagonal.
  Returns: f64[...].
  Source: Kendall and Babington Smith, Biometrika 1940.
  """
  matrix = check_preference(preference)
  count = matrix.shape[-1]
  wins = (matrix > 0.5).sum(-1)
  transitive = (wins * (wins - 1) / 2).sum(-1)
  return 1 - transitive / (count * (count - 1) * (count - 2) / 6)


def _antisymmetric(upper: np.ndarray) -> np.ndarray:
  """The matrix whose upper triangle is given."""
  above = np.triu(upper, 1)
  below = np.tril(1 - np.swapaxes(above, -1, -2), -1)
  return above + below + np.eye(upper.shape[-1]) / 2


def count_votes(
  first: np.ndarray, second: np.ndarray, outcome: np.ndarray, responses: int
) -> np.ndarray:
  """Counts pairwise votes; a tie is half a vote for each.

  Args:
    first: int[N], a response of each comparison.
    second: int[N], the other one.
    outcome: [N], 1 if the first was preferred, 0 if the second, ½ for a tie,
      or any share of several votes.
    responses: Y.
  Returns: f64[Y, Y], entry [i, j] the votes for i against j.
  Raises: ValueError that names the first vote that cannot be counted.
  """
  first, second = np.asarray(first), np.asarray(second)
  outcome = np.asarray(outcome, np.float64)
  for name, array in {"first": first, "second": second}.items():
    inside = (array >= 0) & (array < responses)
    _check_cells(array, name, inside, f"a response from 0 to {responses - 1}")
  _check_cells(second, "second", second != first, "another response than first")
  inside = (outcome >= 0) & (outcome <= 1)
  _check_cells(outcome, "outcome", inside, "a value from 0 to 1")
  wins = np.zeros((responses, responses))
  np.add.at(wins, (first, second), outcome)
  np.add.at(wins, (second, first), 1 - outcome)
  return wins


def from_votes(
  wins: np.ndarray, *, pseudo_votes: float, prior: np.ndarray
) -> np.ndarray:
  """The maximum-likelihood preference matrix of votes and imagined votes.

  P(i ≻ j) = (wins_ij + s · prior_ij) / (wins_ij + wins_ji + s): the maximum
  likelihood when `s` votes a pair, split as `prior` says, are added to those
  cast; as a Bayesian says, the mode under a Beta(1 + s · prior_ij,
  1 + s · prior_ji) belief. Without imagined votes (s = 0) it is the plain
  share, 0 or 1 where votes agree; a pair nobody compared takes the prior's
  value and needs s > 0.

  Args:
    wins: [Y, Y], votes for i against j, see `count_votes`.
    pseudo_votes: s, imagined votes on each pair, 0 or more.
    prior: [Y, Y] preference matrix to which pairs with few votes are drawn:
      all ½, or `from_scores(fit_scores(wins))` to fill gaps by Bradley-Terry.
  Returns: f64[Y, Y].
  Raises: ValueError that names the pair without votes when s = 0.
  """
  wins = _check_wins(wins)
  prior = check_preference(prior)
  if prior.shape != wins.shape:
    raise ValueError(
      f"prior: expected shape {wins.shape} as wins, got {prior.shape}"
    )
  if not pseudo_votes >= 0:
    raise ValueError(f"pseudo_votes: expected 0 or more, got {pseudo_votes}")
  total = wins + wins.T + pseudo_votes
  np.fill_diagonal(total, 1)
  voted = total > 0
  if not voted.all():
    pair = _first(~voted)
    raise ValueError(
      f"wins: no vote on the pair {list(pair)}; give pseudo_votes above 0"
    )
  return _antisymmetric((wins + pseudo_votes * prior) / total)


def _check_wins(wins: np.ndarray) -> np.ndarray:
  wins = np.asarray(wins, np.float64)
  if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
    raise ValueError(f"wins: expected [Y, Y], got shape {wins.shape}")
  good = np.isfinite(wins) & (wins >= 0)
  _check_cells(wins, "wins", good, "a finite count of 0 or more")
  return wins


def fit_scores(wins: np.ndarray) -> np.ndarray:
  """Bradley-Terry scores of greatest likelihood: Σ_ij wins_ij log σ(r_i − r_j).

  A reward model with no limit to what it can express learns these. Under a
  sampling policy ρ the weights are wins_ij = ρ_i ρ_j P_ij: what they say of a
  cyclic P depends on ρ. Newton's method, each step cut to log(1 + s) / s of
  its length with s its spread, which the bounded third derivative of log σ
  makes an ascent from anywhere.

  Args:
    wins: [Y, Y], votes or weights for i against j.
  Returns: f64[Y], nats, mean 0.
  Raises: ValueError if some responses never lose to the others, directly or
    over third ones: their scores would be infinite. Add imagined votes.
  """
  wins = _check_wins(wins)
  count = wins.shape[0]
  parts, part = scipy.sparse.csgraph.connected_components(
    wins > 0, connection="strong"
  )
  if parts > 1:
    cut_off = np.flatnonzero(part == part[0]).tolist()
    raise ValueError(
      f"wins: responses {cut_off} and the others have not each won against "
      "the other side, so the scores are infinite; add imagined votes"
    )
  np.fill_diagonal(wins := wins.copy(), 0)
  total, scores = wins + wins.T, np.zeros(count)
  for _ in range(200):
    expected = scipy.special.expit(scores[:, None] - scores[None, :])
    gradient = (wins - total * expected).sum(1)
    curvature = total * expected * (1 - expected)
    hessian = np.diag(curvature.sum(1)) - curvature
    # The constant direction, in which the likelihood is flat, is filled in.
    step = np.linalg.solve(hessian + hessian.max() / count, gradient)
    spread = np.ptp(step)
    if spread <= 1e-14:
      break
    scores += step * (np.log1p(spread) / spread)
  return scores - scores.mean()
