"""A simulated population of raters whose preference is known exactly.

A constructed judge on real text, not a model of people: types of rater each
decide by one measurable criterion, with logistic noise, and the population's
P(y ≻ y′|x) is their mixture. Where no type has a majority, the population's
preference can be cyclic where each rater's is not. A panel
is a population of single raters, who differ within a type in how sure they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import itertools
import re
from typing import NamedTuple

import numpy as np
import scipy

from nashmd_jax import declare, mistakes
from nashmd_jax.data import docstrings, records


class Rater(NamedTuple):
  """One type of rater: P(y ≻ y′) = σ(sharpness · (score(y) − score(y′))).

  Attributes:
    weight: share of the population.
    sharpness: log-odds a unit of score, > 0.
    score: (prompt, written summary, response) -> score.
  """

  weight: float
  sharpness: float
  score: Callable[[str, str, str], float]


Population = Mapping[str, Rater]
LETTERS = 12.0  # of a word, from which on none is plainer than another


def coverage(prompt: str, written: str, response: str) -> float:
  """Recall of the written summary: mean over its words and word pairs."""
  del prompt
  recalls = [
    len(there & mine) / len(there)
    for there, mine in zip(_ngrams(written), _ngrams(response), strict=True)
    if there
  ]
  return float(np.mean(recalls)) if recalls else 0.0


def brevity(
  prompt: str, written: str, response: str, *, short: int = 5
) -> float:
  """Minus the number of words; `short` and fewer are equally short."""
  del prompt, written
  return -float(max(short, len(response.split())))


def grounding(prompt: str, written: str, response: str) -> float:
  """Share of the response's content words that the prompt contains."""
  del written
  return docstrings.overlap(docstrings.content_words(response), prompt)


def plainness(prompt: str, written: str, response: str) -> float:
  """Minus the mean letters of a word, `LETTERS` at most and of no words."""
  del prompt, written
  sizes = [len(word) for word in re.findall(r"[^\W\d_]+", response)]
  return -min(float(np.mean(sizes)), LETTERS) if sizes else -LETTERS


def _ngrams(text: str) -> tuple[set[str], set[tuple[str, str]]]:
  words = re.findall(r"\w+", text.lower())
  return set(docstrings.content_words(text)), set(itertools.pairwise(words))


CRITERIA = {
  "coverage": coverage,
  "brevity": brevity,
  "grounding": grounding,
  "plainness": plainness,
}


SETTINGS = {
  "weights": {
    name: declare.number(
      f"Share of the raters who judge by {name}; the shares sum to 1.",
      least=0,
      most=1,
    )
    for name in CRITERIA
  },
  "sharpness": {
    name: declare.number(
      f"How surely those who judge by {name} do, for a unit of it.",
      above=0,
      most=1e6,
      unit="log-odds",
    )
    for name in CRITERIA
  },
  "short": declare.whole(
    "Words up to which all responses are equally short.", least=1, unit="words"
  ),
  "panel": {
    "size": declare.whole(
      "Raters of the panel, by type in the shares of the weights; 0: a rater a "
      "type.",
      least=0,
      most=100_000,
    ),
    "spread": declare.number(
      "How raters of a type differ in their sharpness: the deviation of its "
      "logarithm.",
      least=0,
      most=10,
    ),
  },
}


def _check_shares(weights: Mapping[str, float]) -> None:
  """Raises Mistake unless the shares of the raters sum to 1."""
  if abs(sum(weights.values()) - 1) > 1e-9:
    raise mistakes.Mistake(
      f"raters.weights: got {dict(weights)}, expected shares that sum to 1"
    )


def make_population(
  *,
  weights: Mapping[str, float],
  sharpness: Mapping[str, float],
  short: int,
  panel: Mapping[str, float],
) -> dict[str, Rater]:
  """A population from the shares and the sharpness of each criterion.

  Args:
    weights, sharpness: by criterion.
    short: see `brevity`.
    panel: "size", raters, and "spread" of the log of their sharpness, which
      stand at the quantiles of a normal distribution.
  Raises: Mistake for unknown criteria, shares that do not sum to one, or a
    panel in which a type that has a share has no rater.
  """
  given = {"weights": weights, "sharpness": sharpness, "short": short}
  declare.check(SETTINGS, {**given, "panel": panel}, "raters")
  _check_shares(weights)
  scores = CRITERIA | {"brevity": functools.partial(brevity, short=short)}
  types = {
    name: Rater(weights[name], sharpness[name], score)
    for name, score in scores.items()
    if weights[name]
  }
  return _make_panel(types, **panel) if panel["size"] else types


def _make_panel(
  types: Population, *, size: int, spread: float
) -> dict[str, Rater]:
  """Single raters, each type in its share of the whole."""
  shares = size * np.array([rater.weight for rater in types.values()])
  counts = np.floor(shares).astype(int)
  counts[np.argsort(counts - shares, kind="stable")[: size - counts.sum()]] += 1
  made = {}
  for (name, rater), count in zip(types.items(), counts, strict=True):
    if not count:
      raise mistakes.Mistake(
        f"raters.panel.size: got {size}, too few for a rater of {name}, whose "
        f"share is {rater.weight:g}"
      )
    place = scipy.special.ndtri((np.arange(count) + 0.5) / count)
    for number, factor in enumerate(np.exp(spread * place)):
      made[f"{name} {number}"] = rater._replace(
        weight=rater.weight / count, sharpness=rater.sharpness * float(factor)
      )
  return made


def half(population: Population, rng: np.random.Generator) -> dict[str, Rater]:
  """A random half of the raters, at least one, as a population of its own."""
  names = list(population)
  drawn = rng.permutation(len(names))[: max(1, len(names) // 2)]
  total = sum(population[names[one]].weight for one in drawn)
  return {
    names[one]: population[names[one]]._replace(
      weight=population[names[one]].weight / total
    )
    for one in sorted(drawn)
  }


def score_matrix(
  population: Population, prompt: str, written: str, responses: Sequence[str]
) -> np.ndarray:
  """Sharpness times score, f64[Y, raters], for each of Y responses."""
  sharpness = np.array([rater.sharpness for rater in population.values()])
  scores = [rater.score for rater in population.values()]
  said = []
  for y in responses:
    by_score = {one: one(prompt, written, y) for one in set(scores)}
    said.append([by_score[one] for one in scores])
  return sharpness * np.array(said)


def win_prob(
  population: Population, scores_a: np.ndarray, scores_b: np.ndarray
) -> np.ndarray:
  """The population's exact P(a ≻ b), from rows of `score_matrix`.

  Args:
    scores_a: f64[..., raters].
    scores_b: f64[..., raters].
  Returns: f64[...]; win_prob(a, b) + win_prob(b, a) = 1.
  """
  weights = np.array([rater.weight for rater in population.values()])
  return _sigmoid(scores_a - scores_b) @ weights


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1.0 + np.tanh(0.5 * x))


def candidates(
  record: records.Record, other: str, samples: Sequence[str], rng
) -> dict[str, str]:
  """Real candidate summaries of one record, by kind; repeats are left out.

  Args:
    record: a summary record.
    other: the summary of another object.
    samples: responses of the fine-tuned policy to this prompt.
    rng: a NumPy generator, for the cut and the shuffle.
  """
  written = record["response"]
  words = written.split()
  signature, colon, body = record["prompt"].partition(": ")
  body = body if colon else signature
  found = {
    "written": written,
    "lead": " ".join(re.split(r"(?<=[.!?])\s", body)[0].split()[:20]),
    "truncated": " ".join(words[: rng.integers(1, max(2, len(words)))]),
    "shuffled": " ".join(rng.permutation(words)),
    "other": other,
  }
  found |= {f"sample {i}": text for i, text in enumerate(samples)}
  kinds = {text: kind for kind, text in reversed(found.items()) if text}
  return {kind: text for kind, text in found.items() if kinds.get(text) == kind}


def has_cycle(
  population: Population, record: records.Record, texts: Sequence[str]
) -> bool:
  """Whether three responses beat one another in a ring, each above ½."""
  return has_ring(preference(population, record, texts))


def preference(
  population: Population, record: records.Record, texts: Sequence[str]
) -> np.ndarray:
  """Exact P(y ≻ y′), f64[Y, Y], of Y responses to a summary record."""
  scores = score_matrix(population, record["prompt"], record["response"], texts)
  return win_prob(population, scores[:, None], scores[None])


def has_ring(probs: np.ndarray) -> bool:
  """The same of P(y ≻ y′), f64[Y, Y]; a tie beats nobody."""
  beats = (probs > 0.5 + 1e-9).astype(int)
  return bool(np.trace(beats @ beats @ beats) > 0)


def draw_comparisons(
  population: Population,
  record: records.Record,
  texts: Sequence[str],
  *,
  pairs: int,
  votes: int,
  rng: np.random.Generator,
) -> Iterator[records.Record]:
  """Comparisons of random pairs, each put to a panel of raters.

  Every vote comes from a rater of a type drawn at random, so that the number
  of votes for a is binomial with the population's P(a ≻ b).

  Args:
    texts: Y distinct candidate responses to the record's prompt.
    pairs: how many comparisons.
    votes: raters on a panel.
    rng: draws pairs and votes.
  Yields: comparison records whose prob_a is the share of the votes for a, with
    `population_prob_a`, the exact P(a ≻ b) that no model is shown, and
    `prompt_is_cyclic`, see `has_cycle`.
  """
  cyclic = has_cycle(population, record, texts)
  scores = score_matrix(population, record["prompt"], record["response"], texts)
  for number in range(pairs):
    a, b = rng.choice(len(texts), 2, replace=False)
    exact = float(win_prob(population, scores[a], scores[b]))
    yield {
      "id": f"{record['id']}-{number}",
      **records.prompt_of(record),
      "response_a": texts[a],
      "response_b": texts[b],
      "prob_a": rng.binomial(votes, exact) / votes,
      "votes": votes,
      "population_prob_a": exact,
      "prompt_is_cyclic": cyclic,
    }


def best_accuracy(exact: np.ndarray, votes: int) -> float:
  """Accuracy against the panels' majorities of a judge that knows P exactly.

  Args:
    exact: f64[N] of P(a ≻ b).
    votes: raters on a panel; a drawn vote counts one half.
  """
  side = np.maximum(exact, 1 - exact)
  half = votes / 2
  more = scipy.special.bdtrc(np.floor(half), votes, side)
  as_many = scipy.special.bdtrc(np.ceil(half) - 1, votes, side)
  return float(np.mean((more + as_many) / 2))
