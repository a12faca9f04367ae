"""What a loss reads of a judge's answers, by name; see `ways.Way.scores`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses

Named = dict[str, jax.Array]


class Asked(NamedTuple):
  """What was asked of L responses to each prompt.

  Attributes:
    own: how many of the responses the loss is of; they come first.
    i, j: see `Way.asks`.
  """

  own: int
  i: np.ndarray
  j: np.ndarray | None


def _table(answers, judged, size: int, asked: Asked):
  """P(y_i ≻ y_j) of all pairs, and which are known, each [B, L, L].

  A pair that was asked in both orders is the mean of the two, and known if
  both answers are.
  """
  number = np.full((size, size), -1)
  number[asked.i, asked.j] = np.arange(len(asked.i))
  was, swapped = (number >= 0)[None], (number.T >= 0)[None]
  times = np.maximum(was.astype(np.int32) + swapped, 1)
  there, back = answers[:, number], answers[:, number.T]
  won = jnp.where(was, there, 0) + jnp.where(swapped, 1 - back, 0)
  won = won / jnp.asarray(times, won.dtype)
  known = (judged[:, number] | ~was) & (judged[:, number.T] | ~swapped)
  asked_at_all = was | swapped
  return jnp.where(asked_at_all, won, 0.5), known & asked_at_all


def win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" f32[B·K]: the weighted mean over the opponent's responses."""
  own, others = asked.own, weights.shape[1]
  table, known = _table(answers, judged, own + others, asked)
  weight = weights[:, None, :] * known[:, :own, own:]
  return _mean_win(table[:, :own, own:], weight)


def group_win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" f32[B·K]: the mean over the learner's other responses."""
  del weights
  table, known = _table(answers, judged, asked.own, asked)
  return _mean_win(table, known.astype(table.dtype))


def answered_win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" f32[B·K]: of each response against the answer to it."""
  del weights
  table, known = _table(answers, judged, 2 * asked.own, asked)
  k = np.arange(asked.own)
  own, answer = k, asked.own + k
  return {
    "win_prob": _rows(table[:, own, answer]),
    "counted": _rows(known[:, own, answer]),
  }


def _mean_win(table, weight) -> Named:
  total = jnp.sum(weight, axis=2)
  won = jnp.sum(weight * table, axis=2)
  return {
    "win_prob": _rows(won / jnp.where(total > 0, total, 1)),
    "counted": _rows(total > 0),
  }


def rewards(answers, judged, weights, asked) -> Named:
  """ "reward" and "baseline" f32[B·K]: of the others, or of the K − 1."""
  own, others = asked.own, weights.shape[1]
  reward, known = answers[:, :own], judged[:, :own]
  if others:
    weight = weights * judged[:, own:]
    total = jnp.sum(weight, axis=1, keepdims=True)
    mean = jnp.sum(weight * answers[:, own:], axis=1, keepdims=True)
    mean = mean / jnp.where(total > 0, total, 1)
    baseline = jnp.broadcast_to(mean, reward.shape)
    known = known & (total > 0)
  else:
    baseline = losses.leave_one_out(reward, known)
    known = known & (jnp.sum(known, axis=1, keepdims=True) > 1)
  return {
    "reward": _rows(reward),
    "baseline": _rows(baseline),
    "counted": _rows(known),
  }


def group_rewards(answers, judged, weights, asked) -> Named:
  """ "reward" f32[B·K]; its mean and deviation in the group, each [B·K]."""
  del weights
  reward, known = answers[:, : asked.own], judged[:, : asked.own]
  count = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)
  mean = jnp.sum(jnp.where(known, reward, 0), axis=1, keepdims=True) / count
  apart = jnp.where(known, reward - mean, 0)
  spread = jnp.sqrt(jnp.sum(apart**2, axis=1, keepdims=True) / count)
  return {
    "reward": _rows(reward),
    "group_mean": _rows(jnp.broadcast_to(mean, reward.shape)),
    "group_spread": _rows(jnp.broadcast_to(spread, reward.shape)),
    "counted": _rows(known),
  }


def pair_win_probs(answers, judged, weights, asked) -> Named:
  """ "win_prob" and "judged" [B, L, L]."""
  del weights
  table, known = _table(answers, judged, asked.own, asked)
  counted = jnp.ones(len(answers) * asked.own, bool)
  return {"win_prob": table, "judged": known, "counted": counted}


def stated_win_probs(answers, judged, weights, asked) -> Named:
  """The same of comparisons, "judged" being what each counts."""
  found = pair_win_probs(answers, judged, weights, asked)
  counts = weights[:, :, None] * found["judged"]
  return found | {"judged": counts}


def none(answers, judged, weights, asked) -> Named:
  del judged, weights
  return {"counted": jnp.ones(len(answers) * asked.own, bool)}


def wins(answers, judged, weights, asked) -> Named:
  """ "wins" f32[B, K] and "wins_known": the mean over others' responses."""
  found = win_probs(answers, judged, weights, asked)
  shape = (len(answers), asked.own)
  return {
    "wins": found["win_prob"].reshape(shape),
    "wins_known": found["counted"].reshape(shape),
    "counted": jnp.ones(len(answers) * asked.own, bool),
  }


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1)
