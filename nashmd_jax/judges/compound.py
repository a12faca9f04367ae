"""Judges made of other judges: ensembles, and a penalty on length.

Nothing here knows whether the others read tokens or text: what they say comes
as an array, of JAX inside jit or of NumPy on the host.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nashmd_jax import declare

Array = Any
Combine = Callable[[Array, Array, Array], Array]


class Compound(NamedTuple):
  """A judge that is made of others.

  Attributes:
    judges: their names; rewards are asked as win probabilities, σ(r − r′).
    combine: (win_probs [M, B], sizes [B], other_sizes [B]) -> win_prob [B],
      from what the M judges say and how long y and y′ are: tokens with their
      end token for a judge of tokens, words for one of text.
    title: (titles of the judges) -> what a reader calls the whole.
    about: what its word is worth beyond that of its judges.
  """

  judges: tuple[str, ...]
  combine: Combine
  title: Callable[[Sequence[str]], str]
  about: str


def _mean(win_probs: Array, deviations: float) -> Array:
  del deviations
  return win_probs.mean(axis=0)


def _minimum(win_probs: Array, deviations: float) -> Array:
  del deviations
  return win_probs.min(axis=0)


def _lower(win_probs: Array, deviations: float) -> Array:
  lower = win_probs.mean(axis=0) - deviations * win_probs.std(axis=0)
  return lower.clip(0, 1)


RULES: Mapping[str, Callable[[Array, float], Array]] = {
  "mean": _mean,
  "minimum": _minimum,
  "lower": _lower,
}
ENSEMBLE = {
  "members": declare.several(
    declare.text(
      "The judges; preference-1 is the preference model trained once more."
    ),
    least=2,
  ),
  "rule": declare.text(
    "What of their win probabilities is taken; the last two are pessimistic "
    "about the learner's response.",
    one_of=tuple(RULES),
  ),
  "deviations": declare.number(
    "Standard deviations over the members that the rule lower takes off.",
    least=0,
    most=1000,
  ),
}
PENALISED = {
  "judge": declare.text("The judge whose win probabilities are changed."),
  "log_odds": declare.number(
    "λ, taken from the longer response for each token, or each word of text, "
    "that it is longer.",
    least=0,
    most=1000,
    unit="log-odds",
  ),
}


def ensemble(
  *, members: Sequence[str], rule: str, deviations: float
) -> Compound:
  """Several judges as one.

  Args:
    members: names of two or more judges, "preference-1" for one.
    rule: "mean"; "minimum", the least that any of them gives to y; or "lower",
      the mean less `deviations` standard deviations over the members, in
      [0, 1]. The last two are pessimistic about y, the learner's response, so
      that P(y ≻ y′) + P(y′ ≻ y) is at most 1; only the mean is antisymmetric.
    deviations: η ≥ 0; read by "lower" alone.
  Raises: Mistake for settings that cannot be.
  """
  given = {"members": members, "rule": rule, "deviations": deviations}
  declare.check(ENSEMBLE, given, "judges.ensemble")
  named = {
    "mean": "mean",
    "minimum": "least",
    "lower": f"mean less {deviations:g} standard deviations",
  }[rule]
  return Compound(
    judges=tuple(members),
    combine=lambda said, *sizes: RULES[rule](said, deviations),
    title=lambda titles: f"{named} of {', '.join(titles)}",
    about="Its members learned from the same comparisons: where those are "
    "wrong they are wrong together.",
  )


def penalised(*, judge: str, log_odds: float) -> Compound:
  """A judge that takes log-odds from the longer response.

    P′(y ≻ y′) = σ(logit P(y ≻ y′) − λ (|y| − |y′|))

  Args:
    judge: its name.
    log_odds: λ ≥ 0, for a token of difference; for a word where the judge
      reads text.
  Raises: Mistake for settings that cannot be.
  """
  given = {"judge": judge, "log_odds": log_odds}
  declare.check(PENALISED, given, "judges.penalised")

  def combine(said, sizes, other_sizes):
    space = said.__array_namespace__()
    # The odds of y′ to y, so that a certain judge stays certain.
    worse = log_odds * (sizes - other_sizes)
    won, lost = said[0], 1 - said[0]
    scale = space.exp(-space.abs(worse))
    won = space.where(worse > 0, won * scale, won)
    lost = space.where(worse > 0, lost, lost * scale)
    total = won + lost
    known = space.where(total > 0, total, 1)
    return space.where(total > 0, won / known, said[0])

  return Compound(
    judges=(judge,),
    combine=combine,
    title=lambda titles: (
      f"{titles[0]}, less {log_odds:g} log-odds for each token or word of "
      "greater length"
    ),
    about="Its rates are not those of the judge itself: length is penalised.",
  )
