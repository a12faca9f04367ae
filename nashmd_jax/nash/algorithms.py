"""How each loss is played: who writes, what is asked, what is learnt from.

A loss is a function of named arrays, and the names that it asks for decide how
it is played; a user's own is played the same way. Nothing here knows a model.

| a loss that asks for | is played by |
|---|---|
| `win_prob` | K responses of the policy against K of each of the opponent's |
| `reward` | K responses of the policy, and of one opponent if K = 1 |
| `log_ratio` | 2K responses of the opponent, each against every other |
| `label` | nobody: responses and labels are those of the records |

and `log_prob` reads sampled tokens where `log_probs` reads all of a vocabulary.
"""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, losses, mistakes, outside, policy, sampling
from nashmd_jax.nash import opponents

Rows = Mapping[str, jax.Array]
Named = dict[str, jax.Array]

# By what the judge gives, then by name.
LOSSES = {
  "win_prob": {
    "policy_gradient": losses.nash_pg_loss,
    "policy_gradient_sequence_kl": losses.nash_pg_sequence_kl_loss,
    "policy_gradient_exact_kl": losses.nash_pg_exact_kl_loss,
    "ipo": losses.ipo_loss,
    "dpo": losses.online_dpo_loss,
  },
  "reward": {
    "policy_gradient": losses.rlhf_pg_loss,
    "policy_gradient_sequence_kl": losses.rlhf_pg_sequence_kl_loss,
    "policy_gradient_exact_kl": losses.rlhf_pg_exact_kl_loss,
  },
}
# Their forms for several updates on one rollout.
OFF_POLICY = {losses.nash_pg_loss: losses.nash_pg_off_policy_loss}


class Lanes(NamedTuple):
  """The lanes of a rollout.

  Attributes:
    own: of the responses that the loss is of.
    other: of those that they are only scored against.
    weights: of the latter, which sum to 1.
  """

  own: list[sampling.Lane]
  other: list[sampling.Lane]
  weights: list[float]


class Way(NamedTuple):
  """A way of playing.

  Attributes:
    gives: what a judge has to give: "win_prob", "reward", or None for nothing.
    lanes: (the opponent's lanes with weights, K) -> the lanes of a rollout.
    asks: (own, other) -> numbers (i, j) of the responses to be compared, or
      (i, None) of those to be scored, own ones first.
    scores: (answers f32[B, N], judged bool[B, N], weights f32[B, other]) ->
      what the loss reads of them by name, and "counted", bool[rows].
    names: what a loss may ask for that is played so, besides `EVERY`.
  """

  gives: str | None
  lanes: Callable[[opponents.Weighted, int], Lanes]
  asks: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]
  scores: Callable[[jax.Array, jax.Array, jax.Array], Named]
  names: tuple[str, ...]


class Algorithm(NamedTuple):
  """A loss, and how it is played.

  Attributes:
    way: of playing.
    read: what is read of π_θ and of μ on the responses,
      `policy.response_log_probs` or `policy.response_distributions`.
    loss: (read of π_θ, read of μ, rows of a rollout, τ) -> (Mean, metrics).
  """

  way: Way
  read: Callable[..., jax.Array]
  loss: Callable[..., tuple[arrays.Mean, Mapping[str, arrays.Mean]]]


def _spread(lanes: opponents.Weighted, samples: int):
  """K of each lane, and their weights."""
  each = [(lane, weight / samples) for weight, lane in lanes] * samples
  return [lane for lane, _ in each], [weight for _, weight in each]


def _versus(lanes, samples) -> Lanes:
  return Lanes([opponents.LEARNER] * samples, *_spread(lanes, samples))


def _alone(lanes, samples) -> Lanes:
  """A single response needs another as baseline."""
  other = _spread(lanes, 1) if samples == 1 else ([], [])
  return Lanes([opponents.LEARNER] * samples, *other)


def _paired(lanes, samples) -> Lanes:
  if len(lanes) > 1:
    raise mistakes.Mistake(
      "nash.opponent: has several lanes, but this loss compares the responses "
      "of one opponent with one another; choose an opponent of one lane"
    )
  return Lanes([lanes[0][1]] * (2 * samples), [], [])


def _recorded(lanes, samples) -> Lanes:
  del lanes, samples
  return Lanes([], [], [])


def _all_pairs(own: int, other: int):
  i, j = np.divmod(np.arange(own * other), max(other, 1))
  return i, own + j


def _each_pair(own: int, other: int):
  del other
  return np.triu_indices(own, 1)


def _each(own: int, other: int):
  return np.arange(own + other), None


def _nobody(own: int, other: int):
  del own, other
  return np.arange(0), None


def _win_probs(answers, judged, weights) -> Named:
  """ "win_prob" f32[B·K]: the weighted mean over the opponent's responses."""
  others = weights.shape[1]
  shape = (len(answers), -1, others)
  weight = weights[:, None, :] * judged.reshape(shape)
  total = jnp.sum(weight, axis=2)
  won = jnp.sum(weight * answers.reshape(shape), axis=2)
  return {
    "win_prob": _rows(won / jnp.where(total > 0, total, 1)),
    "counted": _rows(total > 0),
  }


def _rewards(answers, judged, weights) -> Named:
  """ "reward" and "baseline" f32[B·K]: of the others, or of the K − 1."""
  others = weights.shape[1]
  own = answers.shape[1] - others
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


def _pair_win_probs(answers, judged, weights) -> Named:
  """ "win_prob" and "judged" [B, L, L], each pair asked once."""
  del weights
  count = round((1 + (1 + 8 * answers.shape[1]) ** 0.5) / 2)
  i, j = np.triu_indices(count, 1)
  win_prob = jnp.full((len(answers), count, count), 0.5, answers.dtype)
  known = jnp.zeros(win_prob.shape, bool)
  return {
    "win_prob": win_prob.at[:, i, j].set(answers).at[:, j, i].set(1 - answers),
    "judged": known.at[:, i, j].set(judged).at[:, j, i].set(judged),
    "counted": jnp.ones(len(answers) * count, bool),
  }


def _no_scores(answers, judged, weights) -> Named:
  del judged, weights
  return {"counted": jnp.ones(len(answers), bool)}


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1)


WROTE = "behaviour_log_prob"
VERSUS = Way("win_prob", _versus, _all_pairs, _win_probs, ("win_prob", WROTE))
ALONE = Way("reward", _alone, _each, _rewards, ("reward", "baseline", WROTE))
PAIRED = Way(
  "win_prob",
  _paired,
  _each_pair,
  _pair_win_probs,
  ("log_ratio", "win_prob", "judged", WROTE),
)
RECORDED = Way(None, _recorded, _nobody, _no_scores, ("label",))
WAYS = {"log_ratio": PAIRED, "label": RECORDED, "reward": ALONE}
SAMPLED = ("log_prob", "ref_log_prob")
WHOLE = ("log_probs", "ref_log_probs")
EVERY = ("mask", "tokens", "kl_coef", *SAMPLED, *WHOLE)
# What the step reports itself.
TAKEN = {"loss", "grad_norm"}
OF_ROWS = {
  "mask": "responses_mask",
  "tokens": "responses",
  WROTE: "behaviour_log_prob",
  "label": "label",
}


def make_algorithm(
  *, scores: str, loss: str, updates_per_rollout: int, clip: float
) -> Algorithm:
  """The algorithm of a loss.

  Args:
    scores: what the judge gives, "win_prob" or "reward".
    loss: a key of `LOSSES[scores]`, or the user's own as module:function: of
      named arrays, as `losses.nash_pg_loss` is, whose value is an
      `arrays.Mean` or a scalar, the mean over its rows.
    updates_per_rollout: 1, or more for the off-policy form.
    clip: ε > 0 of the off-policy form; read by it alone.
  Raises: ValueError for a loss that this judge does not allow, or that has no
    off-policy form.
  """
  function = outside.find(loss, LOSSES[scores], setting="nash.loss")
  if updates_per_rollout < 1 or not clip > 0:
    raise mistakes.Mistake(
      f"nash: got updates_per_rollout {updates_per_rollout} and clip {clip}, "
      "expected 1 or more and a clip above 0"
    )
  if updates_per_rollout > 1:
    function = OFF_POLICY.get(function, function)
  names = set(inspect.signature(function).parameters)
  if updates_per_rollout > 1 and "behaviour_log_prob" not in names:
    raise mistakes.Mistake(
      f"nash.updates_per_rollout: got {updates_per_rollout} for the loss "
      f"{loss!r} on a {scores}; several updates on one rollout are for "
      "'policy_gradient' on a win_prob, or a loss that asks for "
      "behaviour_log_prob"
    )
  if "clip" in names:
    function = functools.partial(function, clip=clip)
  return play_by_names(function, names - {"clip"}, scores=scores, loss=loss)


def play_by_names(
  function: Callable, names: set[str], *, scores: str, loss: str
) -> Algorithm:
  """The algorithm of a function of named arrays; see `make_algorithm`.

  Raises: Mistake for a name that there is not, or that this judge does not
    give.
  """
  way = next((way for name, way in WAYS.items() if name in names), VERSUS)
  if way.gives not in (scores, None):
    raise mistakes.Mistake(
      f"nash.loss: {loss!r} learns from a {way.gives}, but the judge gives a "
      f"{scores}"
    )
  _check_names(names, way, loss)
  whole = bool(names & {*WHOLE})
  read = policy.response_distributions if whole else policy.response_log_probs

  def of_rows(what, reference, rows, kl_coef):
    # What was not judged may hold NaN, and 0 · NaN is NaN.
    answers = jnp.where(rows["judged"], rows["answers"], 0)
    found = way.scores(answers, rows["judged"], rows["weights"])
    mask = rows["responses_mask"] & found.pop("counted")[:, None]
    found |= {name: rows[key] for name, key in OF_ROWS.items() if key in rows}
    found |= {"mask": mask, "kl_coef": kl_coef}
    found |= {"log_prob": what, "ref_log_prob": reference}
    found |= {"log_probs": what, "ref_log_probs": reference}
    if "log_ratio" in names:
      ratio = arrays.masked_sum(what - reference, mask)
      found["log_ratio"] = ratio.reshape(found["win_prob"].shape[:2])
    value, metrics = _checked(
      function(**{name: found[name] for name in names}), loss
    )
    count = jnp.sum(jnp.any(mask, axis=1))
    return _mean(value, count), {
      name: _mean(metric, count) for name, metric in metrics.items()
    }

  return Algorithm(way, read, of_rows)


def _check_names(names: set[str], way: Way, loss: str) -> None:
  """Raises Mistake for what a loss asks for and is not given."""
  unknown = sorted(names - {*EVERY, *way.names})
  if unknown:
    others = sorted(name for name, one in WAYS.items() if one != way)
    raise mistakes.Mistake(
      f"nash.loss: {loss!r} asks for {unknown}, expected some of "
      f"{sorted([*EVERY, *way.names])}, or one of {others} and what comes with "
      "it"
    )
  if names & {*WHOLE} and names & {*SAMPLED, "log_ratio"}:
    raise mistakes.Mistake(
      f"nash.loss: {loss!r} asks for both log-probs of sampled tokens and of "
      f"the whole vocabulary; take the former out of {WHOLE} at tokens"
    )


def _checked(returned, loss: str):
  """What a loss returned, which must be a value and metrics, all scalars."""
  fits = (
    isinstance(returned, tuple)
    and len(returned) == 2
    and isinstance(returned[1], Mapping)
  )
  value, metrics = returned if fits else (None, {})
  wrong = [
    name
    for name, one in {"the loss": value, **metrics}.items()
    if not isinstance(one, arrays.Mean) and getattr(one, "shape", None) != ()
  ]
  taken = sorted(TAKEN & set(metrics))
  if wrong or taken:
    raise mistakes.Mistake(
      f"nash.loss: {loss!r} must return its loss and a dict of metrics, each a "
      f"scalar or an arrays.Mean, and none named {sorted(TAKEN)}; "
      f"not so: {', '.join([*wrong, *taken])}"
    )
  return value, metrics


def _mean(value: arrays.Mean | jax.Array, count: jax.Array) -> arrays.Mean:
  if isinstance(value, arrays.Mean):
    return value
  count = count.astype(value.dtype)
  return arrays.Mean(value * count, count)
