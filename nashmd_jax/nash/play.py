"""A game on any language model: who writes, who judges, what is learnt.

Nothing here knows text, files or a config: `nash.py` makes a Game of those.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import models, sampling
from nashmd_jax.nash import algorithms, opponents

Batch = algorithms.Batch
Sets = Mapping[str, Any]


class Game(NamedTuple):
  """What is played, apart from parameters, prompts and randomness.

  Attributes:
    model: of every parameter set that writes.
    opponent: who writes y′.
    judge: (params_by_name) -> the judge, of the kind that `rule` asks.
    rule: see `algorithms.make_rule`.
    samples: K ≥ 1, responses of each side to a prompt.
    kl_coef: τ ≥ 0, in units of the judge's score a nat.
    temperature: of sampling and of every log-prob, > 0.
    max_response: R, tokens.
    eos_id: token that ends a response.
    place: (sets) -> the copies of them that models run on; see
      `training.sharding`. Without it they run as they are.
  """

  model: models.LanguageModel
  opponent: opponents.Opponent
  judge: Callable[[Sets], algorithms.Judge]
  rule: algorithms.Rule
  samples: int
  kl_coef: float
  temperature: float
  max_response: int
  eos_id: int
  place: Callable[[Any], Any] = lambda sets: sets


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
    prompts, prompts_mask [B·L, P]; responses, responses_mask [B·L, R];
    behaviour_log_prob f32[B·L, R], as sampled; the scores; reference, what
    the rule reads of μ.
  """
  write_rng, judge_rng, opponent_rng = jax.random.split(rng, 3)
  sets = game.place(game.opponent.sets(params_by_name, opponent_rng, step))
  own, other = game.rule.lanes(game.opponent.lane(step), game.samples)
  written, scores = play(
    game, game.rule.score, sets, own, other, batch, write_rng, judge_rng
  )
  rows = {
    "prompts": jnp.repeat(batch["prompts"], len(own), axis=0),
    "prompts_mask": jnp.repeat(batch["prompts_mask"], len(own), axis=0),
    "responses": written.tokens.reshape(-1, game.max_response),
    "responses_mask": written.mask.reshape(-1, game.max_response),
    "behaviour_log_prob": written.log_prob.reshape(-1, game.max_response),
    **scores,
  }
  rows["reference"] = read(game, sets["reference"], rows)
  return lax.stop_gradient(rows)


def loss(
  game: Game, params: Any, batch: Batch, rng: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of the game on what `rollout` returned."""
  del rng
  what = read(game, game.place(params), batch)
  return game.rule.loss(what, batch["reference"], batch, game.kl_coef)


def read(game: Game, params: Any, batch: Batch) -> jax.Array:
  """What the rule reads of placed parameters on responses, by its kind."""
  return game.rule.read(
    game.model,
    params,
    prompts=batch["prompts"],
    prompt_mask=batch["prompts_mask"],
    responses=batch["responses"],
    temperature=game.temperature,
  )


def play(
  game: Game,
  score: algorithms.Score,
  params_by_name: Sets,
  own: Sequence[sampling.Lane],
  other: Sequence[sampling.Lane],
  batch: Batch,
  write_rng: jax.Array,
  judge_rng: jax.Array,
) -> tuple[sampling.Rollout, dict[str, jax.Array]]:
  """One response in every lane to each prompt, and the scores of them.

  Args:
    score: of a rule, or one of `algorithms.SCORES`.
    params_by_name: placed.
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
