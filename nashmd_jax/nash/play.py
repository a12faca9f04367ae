"""One step of play on any language model: who writes, who is asked.

Nothing here knows text, files or a config: the stages make a Play of those.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, models, repetition, sampling, turns
from nashmd_jax.judges import preference_model, scorers
from nashmd_jax.nash import (
  algorithms,
  holding,
  opponents,
  rejection,
  second_turn,
  ways,
)

Batch = Mapping[str, jax.Array]
Rows = Mapping[str, jax.Array]
Sets = Mapping[str, Any]
Segment = scorers.Segment
Judge = scorers.TokenJudge | scorers.TokenScorer


class Play(NamedTuple):
  """What is played, apart from parameters, prompts and randomness.

  Attributes:
    model: of every parameter set that writes.
    opponent: who writes y′.
    judge: (sets) -> the judge, of the kind that the algorithm asks; None for
      one on the host, which is asked between rollout and loss.
    algorithm: how it is played, and what is learnt.
    samples: K ≥ 1, responses of each side to a prompt.
    kl_coef: what a nat of KL to `held` costs, in units of the judge's score; τ
      where that is μ.
    held: weights of the sets that the policy is held to; see `holding`.
    temperature: of sampling and of every log-prob, > 0.
    max_response: R, tokens; of several turns those of each.
    eos_ids: tokens that end a response.
    ready: (sets, names) -> the named sets as models run on them.
    instruction: tokens behind a response that asks for the answer to it, for an
      algorithm of two turns; see `second_turn`.
  """

  model: models.LanguageModel
  opponent: opponents.Opponent
  judge: Callable[[Sets], Judge] | None
  algorithm: algorithms.Algorithm
  samples: int
  kl_coef: float
  held: sampling.Lane
  temperature: float
  max_response: int
  eos_ids: tuple[int, ...]
  ready: Callable[[Sets, Iterable[str]], Sets]
  instruction: Sequence[int] = ()


def as_they_are(sets: Sets, names: Iterable[str]) -> Sets:
  """The named sets, for a model that runs on them as they are stored."""
  return {name: sets[name] for name in names}


def rollout(
  play: Play, sets: Sets, batch: Batch, rng: jax.Array, step: jax.Array
) -> Rows:
  """What the loss reads of one step's play; no gradient flows.

  Args:
    sets: "policy", "reference" and what opponent and judge name.
    batch: prompts int[B, P], prompts_mask bool[B, P], example_ids int[B]; for
      conversations of several turns also what is fixed of them, see `turns`;
      for an algorithm on records what they hold, see `recorded`.
    rng: of this step.
    step: int32 scalar, for an opponent that changes with it.
  Returns: rows of the L responses to each prompt that the loss is of:
    responses, responses_mask [B·L, R]; behaviour_log_prob f32[B·L, R], as
    sampled; reference, what the algorithm keeps of what the policy is held to.
    Of each prompt: weights f32[B, other]; answers f32[B, N] and judged
    bool[B, N], but for a judge on the host. Where any are written also
    written, written_mask [B, L + other, R], all of them; of an opponent that
    accepts some accepted bool[B, other], with weights of 0 for the others.
  """
  write_rng, judge_rng, opponent_rng = jax.random.split(rng, 3)
  lanes = algorithms_lanes(play, step)
  used = {name for lane in lanes.all for name in lane}
  made = play.opponent.sets(sets, opponent_rng, step)
  made = {**made, **holding.anchors(dict.fromkeys(used) | play.held, sets)}
  ready = play.ready(made, used | set(play.held))
  rows = dict(batch)
  weights = jnp.array(lanes.weights, jnp.float32)
  rows["weights"] = jnp.tile(weights, (len(batch["prompts"]), 1))
  if lanes.own:
    writing = write if play.algorithm.way.turns == 1 else _write_in_turn
    every = writing(play, ready, lanes.all, batch, write_rng)
    shown = len(lanes.own) + len(lanes.other)
    written = sampling.Rollout(*(x[:, :shown] for x in every))
    rows |= _own_rows(written, len(lanes.own))
    rows |= {"written": written.tokens, "written_mask": written.mask}
    if lanes.voters:
      accepted = _accepted(play, sets, batch, lanes, every, opponent_rng)
      rows["accepted"] = accepted
      rows["weights"] = jnp.where(accepted, rows["weights"], 0)
    if play.algorithm.way.turns > 1:
      rows |= second_turn.rows(batch, written, play.instruction)
  if play.algorithm.way.recorded is not None:
    rows |= play.algorithm.way.recorded(batch)
  rows["reference"] = _kept(play, ready, rows)
  if play.algorithm.way.turns > 1:
    rows[second_turn.REFERENCE] = _kept(play, ready, second_turn.turned(rows))
  i, j = play.algorithm.way.asks(len(lanes.own), len(lanes.other))
  if "answers" in rows:
    return lax.stop_gradient(rows)
  if not len(i):
    rows["answers"] = jnp.zeros((len(batch["prompts"]), 0))
  elif play.judge is not None:
    judge = play.judge(sets)
    # Own and others are scored apart: a judge of pairs has one part alone.
    parts = np.split(i, [len(lanes.own)]) if j is None else [i]
    rows["answers"] = _said(judge, judge_rng, batch, written[:2], parts, j)
  if "answers" in rows:
    rows["judged"] = jnp.ones(rows["answers"].shape, bool)
  return lax.stop_gradient(rows)


def _said(judge, rng, batch, written, parts, j) -> jax.Array:
  """What is said of all parts that there are, beside one another."""
  said = [ask(judge, rng, batch, written, i, j) for i in parts if len(i)]
  return jnp.concatenate(said, axis=1)


def _kept(play: Play, ready: Sets, rows: Rows) -> jax.Array:
  """What the algorithm keeps of what the policy is held to."""
  read = [
    weight
    * play.algorithm.keep(play.model, ready[name], rows, play.temperature)
    for name, weight in play.held.items()
  ]
  return functools.reduce(jnp.add, read)


def algorithms_lanes(play: Play, step) -> ways.Lanes:
  """The lanes of the rollout of a step."""
  lanes = play.opponent.lanes(step)
  made = play.algorithm.way.lanes(lanes, play.samples)
  if play.opponent.accepts is None:
    return made
  count = play.opponent.accepts.voters * len(made.other)
  return made._replace(voters=[opponents.LEARNER] * count)


def voting(lanes: ways.Lanes) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of the other responses, as often as each has voters; of those."""
  own, others = len(lanes.own), len(lanes.other)
  j = own + others + np.arange(len(lanes.voters))
  return own + np.arange(len(j)) * others // max(len(j), 1), j


def _accepted(play, sets, batch, lanes, written, rng) -> jax.Array:
  """Which of the other responses the opponent gives, bool[B, other]."""
  vote_rng, chance_rng = jax.random.split(rng)
  accepts, others = play.opponent.accepts, len(lanes.other)
  said = ask(play.judge(sets), vote_rng, batch, written[:2], *voting(lanes))
  said = said.reshape(-1, others, accepts.voters)
  keys = sampling.row_keys(chance_rng, batch["example_ids"], others)
  return rejection.taken(keys, accepts.probability(said))


def _own_rows(written: sampling.Rollout, own: int) -> Rows:
  """[B, L, …] -> [B·L, …] of the first L responses to each prompt."""
  tokens, mask, log_prob = (
    x[:, :own].reshape(-1, x.shape[-1]) for x in written
  )
  return {
    "responses": tokens,
    "responses_mask": mask,
    "behaviour_log_prob": log_prob,
  }


def loss(
  play: Play, params: Any, sets: Sets, rows: Rows, rng: jax.Array
) -> tuple[arrays.Mean, Mapping[str, arrays.Mean]]:
  """The loss on what `rollout` returned, answers included.

  Args:
    params: of the policy, as stored. Gradient flows to them.
    sets: the other sets, of which an adapter's base is read, or μ.
    rows: see `rollout`.
    rng: not used.
  Returns: the algorithm's loss and metrics; of all responses "ended", the
    share that end by themselves, "response_tokens" and "repetition", see
    `repetition.repeated`; and "entropy", nats a token of who wrote them, by the
    tokens that were drawn. Of an opponent that accepts, see `rejection.told`.
  """
  del rng
  algorithm = play.algorithm
  if algorithm.way.halves:
    params = _at(holding.anchors(ways.ANCHOR, sets)["anchor"], params)
  ready = play.ready({**sets, "policy": params}, algorithm.reads)
  read = algorithm.read(play.model, ready, rows, play.temperature)
  value, metrics = algorithm.loss(read, rows, play.kl_coef)
  written = (rows["responses"], rows["responses_mask"])
  told = {
    "ended": sampling.ended(*written, play.eos_ids),
    "repetition": repetition.repeated(*written),
    "response_tokens": jnp.sum(written[1], axis=1),
  }
  every = jnp.ones(len(written[0]), bool)
  found = {
    name: arrays.mean_over(told[name].astype(jnp.float32), every)
    for name in told
  }
  if ways.WROTE in rows:
    found["entropy"] = arrays.mean_over(-rows[ways.WROTE], written[1])
  if "accepted" in rows:
    for name, share in rejection.told(rows["accepted"]).items():
      found[name] = arrays.mean_over(share, jnp.ones(share.shape, bool))
  return value, found | metrics


def _at(place: Any, params: Any) -> Any:
  """Other parameters, through which gradient flows to these."""
  return jax.tree.map(
    lambda there, here: (
      lax.stop_gradient(there) + (here - lax.stop_gradient(here))
    ),
    place,
    params,
  )


def write(
  play: Play,
  ready: Sets,
  lanes: Sequence[sampling.Lane],
  batch: Batch,
  rng: jax.Array,
) -> sampling.Rollout:
  """One response in every lane to each prompt, arrays [B, L, R]."""
  return sampling.rollout(
    play.model,
    ready,
    lanes,
    prompts=batch["prompts"],
    prompt_mask=batch["prompts_mask"],
    keys=sampling.row_keys(rng, batch["example_ids"], len(lanes)),
    max_response=play.max_response,
    temperature=play.temperature,
    eos_ids=play.eos_ids,
    script=turns.script(batch),
  )


def _write_in_turn(play, ready, lanes, batch, rng) -> sampling.Rollout:
  """`write`, the second half of the lanes after the response of the first."""
  first_rng, second_rng = jax.random.split(rng)
  half = len(lanes) // 2
  first = write(play, ready, lanes[:half], batch, first_rng)
  prompts, mask = second_turn.prompts(batch, *first[:2], play.instruction)
  keys = sampling.row_keys(second_rng, batch["example_ids"], half)
  second = sampling.rollout(
    play.model,
    ready,
    [opponents.LEARNER],
    prompts=prompts,
    prompt_mask=mask,
    keys=keys.reshape(-1, 1),
    max_response=play.max_response,
    temperature=play.temperature,
    eos_ids=play.eos_ids,
  )
  return jax.tree.map(
    lambda x, y: jnp.concatenate([x, y.reshape(x.shape)], axis=1),
    first,
    second,
  )


def ask(
  judge: Judge,
  rng: jax.Array,
  batch: Batch,
  written: Segment,
  i: np.ndarray,
  j: np.ndarray | None,
) -> jax.Array:
  """What a judge says of N pairs, or N responses, to each prompt, f32[B, N].

  Args:
    judge: a token judge; a token scorer where j is None.
    rng: a pair's key depends on it, the example and the pair's number.
    batch: prompts, or questions where they differ, with masks; example_ids;
      what is fixed between turns, see `turns.said`.
    written: tokens int[B, L, R] and mask bool[B, L, R].
    i: int[N], numbers of y among the L.
    j: int[N], of y′.
  """

  read = turns.said(batch, *written)

  def taken(index):
    return tuple(x[:, index].reshape(-1, x.shape[-1]) for x in read)

  prompts = preference_model.question(batch)
  if j is None:
    return judge(prompts, taken(i)).reshape(-1, len(i))
  keys = sampling.row_keys(rng, batch["example_ids"], len(i)).reshape(-1)
  return judge(keys, prompts, taken(i), taken(j)).reshape(-1, len(i))
