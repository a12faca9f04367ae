"""A game on any language model: who writes, who judges, what is learnt.

Nothing here knows text, files or a config: `nash.py` makes a Game of those.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import (
  judges,
  losses,
  models,
  opponents,
  policy,
  preference_model,
  sampling,
)

Batch = Mapping[str, jax.Array]
Sets = Mapping[str, Any]
Segment = preference_model.Segment
Judge = judges.TokenJudge | judges.TokenScorer
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
    loss: (log π, log μ, batch of `rollout`, τ) -> (loss, metrics).
  """

  lanes: Callable[
    [sampling.Lane, int], tuple[list[sampling.Lane], list[sampling.Lane]]
  ]
  score: Score
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


class Game(NamedTuple):
  """What is played, apart from parameters, prompts and randomness.

  Attributes:
    model: of every parameter set that writes.
    opponent: who writes y′.
    judge: (params_by_name) -> the judge, of the kind that `rule` asks.
    rule: one of `RULES`, which lists them by what the judge gives.
    samples: K ≥ 1, responses of each side to a prompt.
    kl_coef: τ ≥ 0, in units of the judge's score a nat.
    temperature: of sampling and of every log-prob, > 0.
    max_response: R, tokens.
    eos_id: token that ends a response.
  """

  model: models.LanguageModel
  opponent: opponents.Opponent
  judge: Callable[[Sets], Judge]
  rule: Rule
  samples: int
  kl_coef: float
  temperature: float
  max_response: int
  eos_id: int


def rollout(
  game: Game,
  params_by_name: Sets,
  batch: Batch,
  rng: jax.Array,
  step: jax.Array,
) -> Batch:
  """What the loss reads of one step's play; no gradient flows.

  Args:
    params_by_name: "policy", "reference" and what opponent and judge name.
    batch: prompts int[B, P], prompts_mask bool[B, P], example_ids int[B].
    rng: of this step.
    step: int32 scalar, for an opponent that changes with it.
  Returns: rows of the L responses to each prompt that the loss is of:
    prompts, prompts_mask [B·L, P]; responses, responses_mask [B·L, R]; the
    scores; ref_log_prob, log μ of the responses.
  """
  write_rng, judge_rng, opponent_rng = jax.random.split(rng, 3)
  sets = game.opponent.sets(params_by_name, opponent_rng, step)
  own, other = game.rule.lanes(game.opponent.lane(step), game.samples)
  written, scores = play(
    game, game.rule.score, sets, own, other, batch, write_rng, judge_rng
  )
  rows = {
    "prompts": jnp.repeat(batch["prompts"], len(own), axis=0),
    "prompts_mask": jnp.repeat(batch["prompts_mask"], len(own), axis=0),
    "responses": _rows(written.tokens),
    "responses_mask": _rows(written.mask),
    **scores,
  }
  rows["ref_log_prob"] = log_prob(game, sets["reference"], rows)
  return lax.stop_gradient(rows)


def loss(
  game: Game, params: Any, batch: Batch, rng: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of the game on what `rollout` returned."""
  del rng
  return game.rule.loss(
    log_prob(game, params, batch), batch["ref_log_prob"], batch, game.kl_coef
  )


def play(
  game: Game,
  score: Score,
  params_by_name: Sets,
  own: Sequence[sampling.Lane],
  other: Sequence[sampling.Lane],
  batch: Batch,
  write_rng: jax.Array,
  judge_rng: jax.Array,
) -> tuple[sampling.Rollout, dict[str, jax.Array]]:
  """One response in every lane to each prompt, and the scores of them.

  Args:
    score: of a rule, or one of `SCORES`.
    own: lanes of the responses that are scored and returned.
    other: lanes of those that they are scored against.
  """
  lanes = [*own, *other]
  written = sampling.rollout(
    game.model,
    params_by_name,
    lanes,
    prompts=batch["prompts"],
    prompt_mask=batch["prompts_mask"],
    keys=sampling.row_keys(write_rng, batch["example_ids"], len(lanes)),
    max_response=game.max_response,
    temperature=game.temperature,
    eos_id=game.eos_id,
  )
  mine, theirs = (
    jax.tree.map(lambda x, part=part: x[:, part], written)
    for part in (slice(len(own)), slice(len(own), None))
  )
  judge = game.judge(params_by_name)
  return mine, score(judge, judge_rng, batch, mine[:2], theirs[:2])


def log_prob(game: Game, params: Any, batch: Batch) -> jax.Array:
  """log π(y_n | x, y_<n) of the batch's responses, f32[rows, R], nats."""
  return policy.response_log_probs(
    game.model,
    params,
    prompts=batch["prompts"],
    prompt_mask=batch["prompts_mask"],
    responses=batch["responses"],
    temperature=game.temperature,
  )


def ask(
  judge: judges.TokenJudge,
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
  prompts = preference_model.segment(batch, "prompts")
  win_prob = judge(
    keys.reshape(-1),
    tuple(jnp.repeat(x, pairs, axis=0) for x in prompts),
    tuple(_rows(x) for x in responses),
    tuple(_rows(x) for x in others),
  )
  return win_prob.reshape(-1, pairs)


def win_probs(judge, rng, batch, responses, others) -> dict[str, jax.Array]:
  """ "win_prob" f32[B·K]: the mean P(y ≻ y′_j|x) over the opponent's K."""
  mine, theirs = responses[0].shape[1], others[0].shape[1]
  i, j = np.divmod(np.arange(mine * theirs), theirs)
  pairs = ask(judge, rng, batch, _take(responses, i), _take(others, j))
  return {"win_prob": jnp.mean(pairs.reshape(-1, theirs), axis=1)}


def rewards(judge, rng, batch, responses, others) -> dict[str, jax.Array]:
  """ "reward" f32[B·K], and "baseline", the mean reward of the others."""
  del rng
  prompts = preference_model.segment(batch, "prompts")
  own, other = (
    jnp.stack(
      [judge(prompts, _take(y, i)) for i in range(y[0].shape[1])], axis=1
    )
    for y in (responses, others)
  )
  baseline = jnp.broadcast_to(jnp.mean(other, axis=1, keepdims=True), own.shape)
  return {"reward": own.reshape(-1), "baseline": baseline.reshape(-1)}


def _take(responses: Segment, index) -> Segment:
  return tuple(x[:, index] for x in responses)


def _rows(x: jax.Array) -> jax.Array:
  """[B, L, …] -> [B·L, …]."""
  return x.reshape(-1, *x.shape[2:])


def versus(opponent: sampling.Lane, samples: int):
  """K responses of the learner against K of the opponent."""
  return [opponents.LEARNER] * samples, [opponent] * samples


def _of_scores(loss, *names):
  """A rule's loss from a loss of log-probs and the named scores."""

  def rule_loss(log_prob, ref_log_prob, batch, kl_coef):
    return loss(
      log_prob=log_prob,
      ref_log_prob=ref_log_prob,
      mask=batch["responses_mask"],
      kl_coef=kl_coef,
      **{name: batch[name] for name in names},
    )

  return rule_loss


SCORES = {"win_prob": win_probs, "reward": rewards}
RULES = {
  "win_prob": {
    "policy_gradient": Rule(
      versus, win_probs, _of_scores(losses.nash_pg_loss, "win_prob")
    ),
  },
  "reward": {
    "policy_gradient": Rule(
      versus, rewards, _of_scores(losses.rlhf_pg_loss, "reward", "baseline")
    ),
  },
}
