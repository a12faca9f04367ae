"""Whole responses of an ensemble, drawn exactly by rejection.

The least probability that any of L policies gives to a whole response,

  π(y|x) = min_l π_l(y|x) / Z(x),  Z(x) = Σ_y min_l π_l(y|x),

has no form token by token. Drawn from the first policy and taken with
probability min_l π_l(y|x) / π_1(y|x), y follows it; Z(x) is the acceptance.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays, lanes, policy, sampling
from nashmd_jax.models import language_model


class Drawn(NamedTuple):
  """Responses of an ensemble to B prompts, K to each.

  Attributes:
    rollout: [B, K, R]; its log-probs are those of the first policy, who
      proposed them: Z is not known.
    accepted: f32[B, K], the share of the N proposals to each that were taken.
      Its mean over draws is Z(x); where it is 0 the response is none of these.
  """

  rollout: sampling.Rollout
  accepted: jax.Array


def accepts(log_weight: jax.Array, uniform: jax.Array) -> jax.Array:
  """Which proposals are taken, u ≤ w, bool[...]; one of weight 1 always."""
  return jnp.log(uniform) <= log_weight


def take(log_weight: jax.Array, uniform: jax.Array) -> jax.Array:
  """Which of N proposals is the answer, int32[...].

  The first that is taken, u ≤ w; where none is, one drawn in proportion to w,
  which is exact only as N grows.

  Args:
    log_weight: f32[..., N], log w = log min_l π_l(y) − log π_1(y) ≤ 0, nats.
    uniform: f32[..., N + 1] in [0, 1): one for each proposal, and one more.
  """
  taken = accepts(log_weight, uniform[..., :-1])
  share = jnp.cumsum(jax.nn.softmax(log_weight, axis=-1), axis=-1)
  drawn = jnp.sum(share <= uniform[..., -1:] * share[..., -1:], axis=-1)
  drawn = jnp.minimum(drawn, log_weight.shape[-1] - 1)
  first = jnp.argmax(taken, axis=-1)
  return jnp.where(jnp.any(taken, axis=-1), first, drawn).astype(jnp.int32)


def rollout(
  model: language_model.LanguageModel,
  params_by_name: Mapping[str, language_model.Params],
  lane: lanes.Rejection,
  *,
  samples: int,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  rng: jax.Array,
  example_ids: jax.Array,
  max_response: int,
  temperature: float,
  eos_ids: Sequence[int],
) -> Drawn:
  """K responses of an ensemble to each prompt, by N proposals to each of them.

  Args:
    params_by_name: at least the members. No gradient flows.
    lane: the members, and N.
    samples: K.
    prompts: int[B, P], padded on the right.
    prompt_mask: bool[B, P].
    rng: what is drawn depends on it, on the example and on the number of the
      response among the K, not on the batch.
    example_ids: int[B].
    max_response, temperature, eos_ids: see `sampling.rollout`; all members
      write at the temperature.
  """
  count = samples * lane.proposals
  # Behind the keys of the proposals are those of what becomes of them.
  keys = sampling.row_keys(rng, example_ids, count + samples)
  prompted = {"prompts": prompts, "prompt_mask": prompt_mask}
  written = sampling.rollout(
    model,
    params_by_name,
    [{lane.members[0]: 1.0}] * count,
    **prompted,
    keys=keys[:, :count],
    max_response=max_response,
    temperature=temperature,
    eos_ids=eos_ids,
  )
  log_weight = _log_weights(
    model, params_by_name, lane, written, **prompted, temperature=temperature
  )
  draw = functools.partial(jax.random.uniform, shape=(lane.proposals + 1,))
  uniform = jax.vmap(jax.vmap(draw))(keys[:, count:])
  return _answers(written, log_weight, uniform)


def _log_weights(
  model, params_by_name, lane, written, *, temperature, **prompted
) -> jax.Array:
  """log min_l π_l(y) − log π_1(y) of what π_1 wrote, f32[B, N]."""
  shape = written.tokens.shape
  own = jnp.sum(written.log_prob, axis=-1)
  least = own
  for name in lane.members[1:]:
    log_probs = policy.response_log_probs(
      model,
      params_by_name[name],
      **prompted,
      responses=written.tokens.reshape(-1, shape[-1]),
      temperature=temperature,
    ).reshape(shape)
    least = jnp.minimum(least, arrays.masked_sum(log_probs, written.mask))
  return least - own


def _answers(written, log_weight, uniform) -> Drawn:
  """One of N proposals for each of K responses, by uniform [B, K, N + 1]."""
  rows, samples, more = uniform.shape
  log_weight = log_weight.reshape(rows, samples, more - 1)
  chosen = take(log_weight, uniform)

  def of_chosen(x):
    each = x.reshape(rows, samples, more - 1, x.shape[-1])
    found = jnp.take_along_axis(each, chosen[..., None, None], axis=2)
    return found[:, :, 0]

  taken = accepts(log_weight, uniform[..., :-1]).astype(jnp.float32)
  return Drawn(
    rollout=jax.tree.map(of_chosen, written),
    accepted=jnp.mean(taken, axis=-1),
  )
