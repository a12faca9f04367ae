"""Anything that scores responses, inside jit or on the host.

A token judge is pure and runs inside jit: (keys, prompts, responses,
opponents) -> win_prob f32[B·N], with a key for each of the N pairs to a prompt
and (tokens, mask) for the rest, of B rows for the prompts; a token scorer gives
(prompts, responses) -> reward f32[B·N].
A text judge runs on the host, on strings: (records, responses, opponents) ->
win_prob f64[B], and a text scorer (records, responses) -> reward f64[B]; NaN
stands where one could not judge.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models
from nashmd_jax.data import batches, records
from nashmd_jax.judges import preference_model, raters

Segment = preference_model.Segment
TokenJudge = Callable[
  [jax.Array, Segment, Segment, Segment],
  jax.Array,
]
TokenScorer = Callable[[Segment, Segment], jax.Array]
TextJudge = Callable[
  [Sequence[records.Record], Sequence[str], Sequence[str]], np.ndarray
]
TextScorer = Callable[[Sequence[records.Record], Sequence[str]], np.ndarray]


def make_preference_judge(
  model: models.LanguageModel,
  params: Any,
  template: preference_model.Template,
) -> TokenJudge:
  """The learned preference model; deterministic, so no key is used."""

  def judge(keys, prompts, responses, opponents):
    del keys
    logit = preference_model.win_logit(
      model,
      params,
      template,
      prompts=prompts,
      responses=responses,
      opponents=opponents,
    )
    return jax.nn.sigmoid(logit)

  return judge


def votes(judge: TokenJudge) -> TokenJudge:
  """One vote a pair, 1 for y or 0, drawn from the preference of a judge.

  As from a rater who is shown each pair once: the loss needs no more. The
  vote depends on the row's key alone.

  Source: Munos et al., ICML 2024, app. F.2.
  """

  def vote(keys, prompts, responses, opponents):
    judge_keys, own_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    win_prob = judge(judge_keys, prompts, responses, opponents)
    drawn = jax.vmap(jax.random.bernoulli)(own_keys, win_prob)
    return drawn.astype(win_prob.dtype)

  return vote


def make_reward_scorer(
  model: models.LanguageModel,
  params: Any,
  template: preference_model.Template,
) -> TokenScorer:
  """The learned reward model, Bradley-Terry log-odds."""

  def score(prompts, responses):
    return preference_model.reward(
      model, params, template, prompts=prompts, responses=responses
    )

  return score


def bradley_terry(score: TokenScorer) -> TokenJudge:
  """σ(r(x, y) − r(x, y′)), the win probability that a reward stands for."""

  def judge(keys, prompts, responses, opponents):
    del keys
    return jax.nn.sigmoid(score(prompts, responses) - score(prompts, opponents))

  return judge


def bradley_terry_text(score: TextScorer) -> TextJudge:
  """The same of a scorer on the host."""

  def judge(rows, responses, opponents):
    margin = score(rows, responses) - score(rows, opponents)
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(margin, np.float64)))

  return judge


def combined(
  judges: Sequence[TokenJudge],
  combine: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> TokenJudge:
  """Token judges as one; each has randomness of its own.

  Args:
    combine: see `compound.Compound`.
  """

  def judge(keys, prompts, responses, opponents):
    said = [
      one(
        jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys),
        prompts,
        responses,
        opponents,
      )
      for i, one in enumerate(judges)
    ]
    sizes = (jnp.sum(mask, axis=1) for _, mask in (responses, opponents))
    return combine(jnp.stack(said), *sizes)

  return judge


def combined_text(
  judges: Sequence[TextJudge],
  combine: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> TextJudge:
  """Text judges as one, which tells the costs of all that have any.

  Args:
    combine: see `compound.Compound`.
  """

  def judge(rows, responses, opponents):
    said = [one(rows, responses, opponents) for one in judges]
    sizes = (
      np.array([len(text.split()) for text in texts])
      for texts in (responses, opponents)
    )
    return combine(np.array(said, np.float64), *sizes)

  def costs(rows, responses, opponents):
    told: dict[str, np.ndarray] = {}
    for one in judges:
      if hasattr(one, "costs"):
        for name, values in one.costs(rows, responses, opponents).items():
          told[name] = told.get(name, 0.0) + values
    return told

  judge.costs = costs
  return judge


def make_rater_judge(population: raters.Population) -> TextJudge:
  """The simulated population's exact preference.

  The records are summary records: the raters read the written summary.
  """

  def judge(rows, responses, opponents):
    probs = []
    for row, response, opponent in zip(rows, responses, opponents, strict=True):
      scores = raters.score_matrix(
        population, row["prompt"], row["response"], [response, opponent]
      )
      probs.append(raters.win_prob(population, scores[0], scores[1]))
    return np.array(probs)

  return judge


def make_text_judge(
  make_token_judge: Callable[[Any], TokenJudge],
  sets: Any,
  *,
  jit: Callable[[Callable], Callable],
  encode: Callable[[records.Record], batches.Example],
  pad: Callable[[Sequence[batches.Example]], batches.Batch],
  batch_size: int,
) -> TextJudge:
  """A text judge from a deterministic token judge.

  Args:
    make_token_judge: sets -> token judge.
    sets: the parameter sets of that judge.
    jit: `jax.jit`, or what runs such a function on many devices.
    encode: record -> token ids.
    pad: examples -> batch.
    batch_size: rows judged at a time.
  """

  @jit
  def win_prob(sets, batch):
    keys = jax.random.split(jax.random.key(0), batch_size)
    return make_token_judge(sets)(keys, *preference_model.compared(batch))

  def judge(rows, responses, opponents):
    pairs = [
      {**records.prompt_of(row), "response_a": a, "response_b": b}
      for row, a, b in zip(rows, responses, opponents, strict=True)
    ]
    ordered = batches.ordered_batches(pairs, encode, pad, batch_size=batch_size)
    return np.concatenate(
      [
        np.asarray(win_prob(sets, batch), np.float64)[:real]
        for batch, real in ordered
      ]
    )

  return judge
