"""How each loss is played: who writes, what is scored, what is learnt from.

The algorithms of the paper and their relatives, as a table of rules. A rule
sees lanes, tokens and log-probs, never a model.
"""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, losses, policy, sampling
from nashmd_jax.judges import preference_model, scorers
from nashmd_jax.nash import opponents

Batch = Mapping[str, jax.Array]
Segment = preference_model.Segment
Judge = scorers.TokenJudge | scorers.TokenScorer
Score = Callable[
  [Judge, jax.Array, Batch, Segment, Segment], dict[str, jax.Array]
]


class Rule(NamedTuple):
  """How a loss is played: who writes, what is scored, what is learnt from.

  Attributes:
    lanes: (the opponent's lane, K) -> the lanes that the loss is of, and the
      further ones.
    score: (judge, rng, batch, responses of the former, of the latter) ->
      scores by name; responses are tokens and mask [B, L, R].
    read: what the loss reads of π_θ and of μ on the responses,
      `policy.response_log_probs` or `policy.response_distributions`.
    loss: (read of π_θ, read of μ, batch of `rollout`, τ) -> (loss, metrics).
  """

  lanes: Callable[
    [sampling.Lane, int], tuple[list[sampling.Lane], list[sampling.Lane]]
  ]
  score: Score
  read: Callable[..., jax.Array]
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def ask(
  judge: scorers.TokenJudge,
  rng: jax.Array,
  batch: Batch,
  responses: Segment,
  others: Segment,
) -> jax.Array:
  """P(y ≻ y′|x) of N pairs to each prompt, f32[B, N].

  Args:
    rng: a pair's key depends on it, the example and the pair's number.
    batch: prompts, prompts_mask, example_ids.
    responses: y, tokens int[B, N, R] and mask bool[B, N, R].
    others: y′, likewise.
  """
  pairs = responses[0].shape[1]
  keys = sampling.row_keys(rng, batch["example_ids"], pairs)
  win_prob = judge(
    keys.reshape(-1),
    _repeated(batch, pairs),
    _rows(responses),
    _rows(others),
  )
  return win_prob.reshape(-1, pairs)


def win_probs(judge, rng, batch, responses, others) -> dict[str, jax.Array]:
  """ "win_prob" f32[B·K]: the mean P(y ≻ y′_j|x) over the opponent's K."""
  mine, theirs = responses[0].shape[1], others[0].shape[1]
  i, j = np.divmod(np.arange(mine * theirs), theirs)
  pairs = ask(judge, rng, batch, _take(responses, i), _take(others, j))
  return {"win_prob": jnp.mean(pairs.reshape(-1, theirs), axis=1)}


def pair_win_probs(
  judge, rng, batch, responses, others
) -> dict[str, jax.Array]:
  """ "win_prob" f32[B, L, L] among the responses, each pair asked once."""
  del others
  count = responses[0].shape[1]
  i, j = np.triu_indices(count, 1)
  pairs = ask(judge, rng, batch, _take(responses, i), _take(responses, j))
  win_prob = jnp.full((len(pairs), count, count), 0.5, pairs.dtype)
  win_prob = win_prob.at[:, i, j].set(pairs).at[:, j, i].set(1 - pairs)
  return {"win_prob": win_prob}


def rewards(judge, rng, batch, responses, others) -> dict[str, jax.Array]:
  """ "reward" f32[B·K], and "baseline": the mean reward of the others.

  Without others it is the mean of the remaining K − 1 responses themselves.
  """
  del rng

  def reward(y):
    count = y[0].shape[1]
    return judge(_repeated(batch, count), _rows(y)).reshape(-1, count)

  own = reward(responses)
  if others[0].shape[1]:
    mean = jnp.mean(reward(others), axis=1, keepdims=True)
    baseline = jnp.broadcast_to(mean, own.shape)
  else:
    baseline = losses.leave_one_out(own)
  return {"reward": own.reshape(-1), "baseline": baseline.reshape(-1)}


def _take(responses: Segment, index) -> Segment:
  return tuple(x[:, index] for x in responses)


def _rows(responses: Segment) -> Segment:
  """[B, L, R] -> [B·L, R]."""
  return tuple(x.reshape(-1, x.shape[-1]) for x in responses)


def _repeated(batch: Batch, count: int) -> Segment:
  """The prompts, each as many times as it has responses."""
  prompts = preference_model.segment(batch, "prompts")
  return tuple(jnp.repeat(x, count, axis=0) for x in prompts)


def versus(opponent: sampling.Lane, samples: int):
  """K responses of the learner against K of the opponent."""
  return [opponents.LEARNER] * samples, [opponent] * samples


def alone(opponent: sampling.Lane, samples: int):
  """K responses of the learner; a single one needs another as baseline."""
  return [opponents.LEARNER] * samples, [opponent] * (samples == 1)


def paired(opponent: sampling.Lane, samples: int):
  """2K responses of the opponent, each against every other."""
  return [opponent] * (2 * samples), []


def _sampled(loss, *names):
  """A rule's loss from one of sampled log-probs and the named entries."""

  def rule_loss(log_prob, ref_log_prob, batch, kl_coef):
    return loss(
      log_prob=log_prob,
      ref_log_prob=ref_log_prob,
      mask=batch["responses_mask"],
      kl_coef=kl_coef,
      **{name: batch[name] for name in names},
    )

  return rule_loss


def _exact(loss, *names):
  """A rule's loss from one of whole distributions and the named entries."""

  def rule_loss(log_probs, ref_log_probs, batch, kl_coef):
    return loss(
      log_probs=log_probs,
      ref_log_probs=ref_log_probs,
      tokens=batch["responses"],
      mask=batch["responses_mask"],
      kl_coef=kl_coef,
      **{name: batch[name] for name in names},
    )

  return rule_loss


def _pairs(loss):
  """A rule's loss from one of log-ratios of whole responses."""

  def rule_loss(log_prob, ref_log_prob, batch, kl_coef):
    win_prob = batch["win_prob"]
    log_ratio = arrays.masked_sum(
      log_prob - ref_log_prob, batch["responses_mask"]
    )
    return loss(
      log_ratio=log_ratio.reshape(win_prob.shape[:2]),
      win_prob=win_prob,
      kl_coef=kl_coef,
    )

  return rule_loss


def _policy_gradients(lanes, score, losses_by_form, *names) -> dict[str, Rule]:
  to_go, whole, full = losses_by_form
  token, tokens = policy.response_log_probs, policy.response_distributions
  return {
    "policy_gradient": Rule(lanes, score, token, _sampled(to_go, *names)),
    "policy_gradient_sequence_kl": Rule(
      lanes, score, token, _sampled(whole, *names)
    ),
    "policy_gradient_exact_kl": Rule(
      lanes, score, tokens, _exact(full, *names)
    ),
  }


# By what the judge gives, then by the name of the loss.
SCORES = {"win_prob": win_probs, "reward": rewards}
RULES = {
  "win_prob": {
    **_policy_gradients(
      versus,
      win_probs,
      (
        losses.nash_pg_loss,
        losses.nash_pg_sequence_kl_loss,
        losses.nash_pg_exact_kl_loss,
      ),
      "win_prob",
    ),
    "ipo": Rule(
      paired, pair_win_probs, policy.response_log_probs, _pairs(losses.ipo_loss)
    ),
    "dpo": Rule(
      paired,
      pair_win_probs,
      policy.response_log_probs,
      _pairs(losses.online_dpo_loss),
    ),
  },
  "reward": _policy_gradients(
    alone,
    rewards,
    (
      losses.rlhf_pg_loss,
      losses.rlhf_pg_sequence_kl_loss,
      losses.rlhf_pg_exact_kl_loss,
    ),
    "reward",
    "baseline",
  ),
}


def off_policy(clip: float) -> Rule:
  """`nash_pg_loss` for several updates on one rollout, see its loss."""
  loss = functools.partial(losses.nash_pg_off_policy_loss, clip=clip)
  return Rule(
    versus,
    win_probs,
    policy.response_log_probs,
    _sampled(loss, "win_prob", "behaviour_log_prob"),
  )


def make_rule(
  *, scores: str, loss: str, updates_per_rollout: int, clip: float
) -> Rule:
  """The rule of a loss.

  Args:
    scores: what the judge gives, a key of `RULES`: "win_prob" or "reward".
    loss: a key of `RULES[scores]`.
    updates_per_rollout: 1, or more for the off-policy form.
    clip: ε > 0 of the off-policy form; read by it alone.
  Raises: ValueError for a loss that this judge does not allow, or that has no
    off-policy form.
  """
  if loss not in RULES[scores]:
    raise ValueError(
      f"nash.loss: got {loss!r}, expected one of {sorted(RULES[scores])} for "
      f"a judge that gives a {scores}"
    )
  if updates_per_rollout == 1:
    return RULES[scores][loss]
  if updates_per_rollout < 1 or not clip > 0:
    raise ValueError(
      f"nash: got updates_per_rollout {updates_per_rollout} and clip {clip}, "
      "expected 1 or more and a clip above 0"
    )
  if (scores, loss) != ("win_prob", "policy_gradient"):
    raise ValueError(
      f"nash.updates_per_rollout: got {updates_per_rollout} for the loss "
      f"{loss!r} on a {scores}; several updates on one rollout are for "
      "'policy_gradient' on a win_prob"
    )
  return off_policy(clip)
