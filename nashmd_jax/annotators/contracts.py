"""What annotators are paid by the answers that are marked, and what they do.

Of n answers that can be marked, golden questions or repeats, the contract sees
how many are right alone. A linear contract pays for each, a binary one a bonus
for so many or more. Effort costs the annotator, who gives as much as pays best.
Money in any unit. NumPy and SciPy that run once, on the host.

  worth(e) = base + CE(e) − cost e^exponent / exponent

CE is the certainty equivalent of what the answers earn: its mean for whom the
mean is all, and −log E exp(−r pay) / r for an aversion r to risk. What a
contract costs above the pay for the same effort if it could be seen is the
premium, mean − CE. Of linear contracts it falls as 1/n; of binary ones, as the
share that fails, as 1/√(n log n) alone, since effort is not all or nothing: the
bonus has to be worth the whole of it, and so steep as to be worth its last bit.

Source: Liu, Wang, Ma and Li, 2025, on contracts and both rates; Liu, Cai, Wang,
Ma and Li, 2025, on golden questions and the rate of who passes.
"""

from typing import NamedTuple

import numpy as np
import scipy

from nashmd_jax.annotators import repeats

GRID = 1025  # efforts between which the slope of worth is searched for roots
NEAR, NEAREST = 12.0, 401  # deviations about the pass mark, and efforts there
TIES = 1e-9  # of worth, beside what effort costs


class Marked(NamedTuple):
  """Answers that are marked, alike and independent.

  Attributes:
    count: n of them, 1 or more.
    sure: how often one is right of full effort, above ½.
    power: d of the rate ½ + e^d (sure − ½); 1 of golden questions, 2 of
      repeats, which take two answers to be right.
  """

  count: int
  sure: float
  power: int


class Annotator(NamedTuple):
  """What an annotator minds.

  Attributes:
    cost: of the last bit of full effort, above 0.
    exponent: of effort in its cost, above 1.
    aversion: r to risk, one over money; 0 of one who minds the mean alone.
  """

  cost: float
  exponent: float
  aversion: float


class Contract(NamedTuple):
  """What is paid.

  Attributes:
    base: whatever the answers are.
    bonus: for `needed` right ones or more; of a linear contract for all n, and
      bonus/n for each.
    needed: 1 to n; None of a linear contract.
  """

  base: float
  bonus: float
  needed: int | None


def golden_questions(count: int, certainty: float) -> Marked:
  """Golden questions of one certainty c, right at the rate e c + (1 − e)/2."""
  return Marked(count, certainty, 1)


def repeated_pairs(count: int, prob: np.ndarray) -> Marked:
  """Pairs that are answered twice, see `repeats.agreement`.

  Args:
    count: of pairs, drawn from those of prob.
    prob: f64[N], P(a ≻ b).
  """
  return Marked(count, repeats.sharpness(prob), 2)


def right_rate(marked: Marked, effort: np.ndarray) -> np.ndarray:
  """½ + e^d (sure − ½), the rate of right answers."""
  return 0.5 + effort**marked.power * (marked.sure - 0.5)


def payments(contract: Contract, count: int) -> np.ndarray:
  """What is paid for 0 to count right answers, f64[count + 1]."""
  right = np.arange(count + 1)
  if contract.needed is None:
    return contract.base + contract.bonus * right / count
  return contract.base + contract.bonus * (right >= contract.needed)


def mean_pay(contract: Contract, marked: Marked, effort: float) -> float:
  """The mean of what is paid."""
  _, chance, _ = _draws(contract.needed, marked, effort)
  return float(contract.base + contract.bonus * chance)


def worth(
  contract: Contract, marked: Marked, annotator: Annotator, effort: np.ndarray
) -> np.ndarray:
  """What effort is worth to the annotator, see the top.

  Args:
    effort: f64[...], e in [0, 1].
  Returns: f64[...], money.
  """
  draws, chance, _ = _draws(contract.needed, marked, effort)
  earned = _sure_pay(contract.bonus, draws, chance, annotator.aversion)
  return contract.base + earned - _spent(annotator, effort)


def premium(
  contract: Contract, marked: Marked, annotator: Annotator, effort: float
) -> float:
  """Mean pay less its certainty equivalent: what risk costs who pays."""
  held = worth(contract, marked, annotator, effort) + _spent(annotator, effort)
  return mean_pay(contract, marked, effort) - float(held)


def rational_effort(
  contract: Contract, marked: Marked, annotator: Annotator
) -> float:
  """The effort in [0, 1] that is worth most; of several the least.

  Worth is smooth: the best is 0, 1 or a root of its slope, which are found
  between neighbours of a grid that is fine about the pass mark.

  Raises: ValueError for a setting that is none.
  """

  _check(marked, annotator)

  def slope(effort):
    draws, chance, gain = _draws(contract.needed, marked, effort)
    value = _by_chance(contract.bonus, draws, chance, annotator.aversion)
    last = annotator.cost * effort ** (annotator.exponent - 1)
    return value * gain - last

  grid = _grid(contract.needed, marked)
  signs = np.sign(slope(grid))
  tops = np.flatnonzero((signs[:-1] > 0) & (signs[1:] <= 0))
  roots = (
    scipy.optimize.brentq(slope, grid[at], grid[at + 1], xtol=1e-15)
    for at in tops
  )
  found = np.array([0.0, *roots, 1.0])
  values = worth(contract, marked, annotator, found)
  level = values.max() - TIES * annotator.cost / annotator.exponent
  return float(found[np.flatnonzero(values >= level)[0]])


def linear_contract(
  marked: Marked, annotator: Annotator, effort: float
) -> Contract | None:
  """The linear contract that an effort is best under, worth 0 to its annotator.

  Returns: None where no linear contract has that effort as the best, as of
    repeats where its cost is quadratic.
  """
  _check(marked, annotator)
  bonus = _bonuses(None, marked, annotator, effort)
  return _settled(Contract(0.0, float(bonus), None), marked, annotator, effort)


def binary_contract(
  marked: Marked, annotator: Annotator, effort: float, *, most: float
) -> Contract | None:
  """The binary contract of least premium that an effort is best under.

  It is worth 0 to its annotator. All numbers of right answers that may be
  needed are tried.

  Args:
    most: that the bonus may be. Without bound the least premium can be that of
      a ruinous base and a bonus that nearly everybody gets.
  Returns: None where no binary contract has that effort as the best.
  """
  _check(marked, annotator)
  needed = np.arange(1, marked.count + 1)
  bonus = _bonuses(needed, marked, annotator, effort)
  needed, bonus = needed[bonus <= most], bonus[bonus <= most]
  chance, idle = (_draws(needed, marked, one)[1] for one in (effort, 0.0))
  earned, anyway = (
    _sure_pay(bonus, 1, one, annotator.aversion) for one in (chance, idle)
  )
  paid = bonus * chance - earned
  for at in np.argsort(paid, kind="stable"):
    if earned[at] - _spent(annotator, effort) < anyway[at]:
      continue  # no effort at all is worth more
    found = Contract(0.0, float(bonus[at]), int(needed[at]))
    found = _settled(found, marked, annotator, effort)
    if found is not None:
      return found
  return None


def _settled(contract, marked, annotator, effort) -> Contract | None:
  """The contract with the base at which it is worth 0, if effort is best."""
  if not np.isfinite(contract.bonus):
    return None
  best = rational_effort(contract, marked, annotator)
  if abs(best - effort) > 1e-6:
    return None
  base = -worth(contract, marked, annotator, effort)
  return contract._replace(base=float(base))


def _draws(needed, marked: Marked, effort):
  """The pay as equal parts: how many, the chance of each, its slope by effort.

  The bonus of a binary contract is one part, that of a linear one n parts.
  """
  rate, d = right_rate(marked, effort), marked.power
  gain = d * effort ** (d - 1) * (marked.sure - 0.5)
  if needed is None:
    return marked.count, rate, gain
  chance = scipy.special.bdtrc(needed - 1.0, marked.count, rate)
  # By the rate it grows as the density of a beta variable.
  log = (
    scipy.special.xlogy(needed - 1, rate)
    + scipy.special.xlog1py(marked.count - needed, -rate)
    - scipy.special.betaln(needed, marked.count - needed + 1)
  )
  return 1, chance, gain * np.exp(log)


def _sure_pay(bonus, draws, chance, aversion):
  """Certainty equivalent of a bonus in equal parts, each paid by chance."""
  if not aversion:
    return bonus * chance
  part = aversion * bonus / draws
  with np.errstate(divide="ignore"):
    small = np.log1p(chance * np.expm1(-np.minimum(part, 1)))
    large = np.logaddexp(np.log1p(-chance), np.log(chance) - part)
  return -draws * np.where(part < 1, small, large) / aversion


def _by_chance(bonus, draws, chance, aversion):
  """Its slope by the chance."""
  if not aversion:
    return bonus
  part = aversion * bonus / draws
  left = (1 - chance) + chance * np.exp(-part)
  return -draws * np.expm1(-part) / (aversion * left)


def _bonuses(needed, marked, annotator, effort) -> np.ndarray:
  """The bonus at which the slope of worth is 0 at an effort; inf for none."""
  draws, chance, gain = _draws(needed, marked, effort)
  last = annotator.cost * effort ** (annotator.exponent - 1)
  with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
    bonus = np.divide(last, gain)  # as large as the slope by the chance
    if annotator.aversion:
      part = annotator.aversion * bonus / draws
      left = (1 - part * (1 - chance)) / (1 + part * chance)
      bonus = -draws * np.log(np.maximum(left, 0)) / annotator.aversion
  return np.where(np.isfinite(bonus), bonus, np.inf)


def _check(marked: Marked, annotator: Annotator) -> None:
  if marked.count < 1 or not 0.5 < marked.sure <= 1:
    raise ValueError(
      f"marked: got {marked}, expected count of 1 or more and sure above ½, "
      "at most 1"
    )
  fine = annotator.cost > 0 and annotator.exponent > 1
  if not fine or not annotator.aversion >= 0:
    raise ValueError(
      f"annotator: got {annotator}, expected cost above 0, exponent above 1 "
      "and aversion of 0 or more"
    )


def _spent(annotator: Annotator, effort):
  return annotator.cost * effort**annotator.exponent / annotator.exponent


def _grid(needed, marked: Marked) -> np.ndarray:
  """Efforts in [0, 1], in order, many about where as many are right."""
  even = np.linspace(0, 1, GRID)
  if needed is None:
    return even
  mark = needed / marked.count
  wide = NEAR / np.sqrt(marked.count)
  rate = np.linspace(mark - wide, mark + wide, NEAREST)
  share = np.clip((rate - 0.5) / (marked.sure - 0.5), 0, 1)
  return np.unique(np.concatenate([even, share ** (1 / marked.power)]))
