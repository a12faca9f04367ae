"""The exact gradient of P_τ(π_θ ≻ opponent), and the estimator's expectation.

Both by enumeration of every pair of responses, in float64; used by the tests
and by the figures of `make demo`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses, opponents, policy
from tests import enumeration

TEMPERATURE, KL_COEF, MIXTURE = 0.8, 0.3, 0.25


def relative_error(opponent: str, length: int, loss=losses.nash_pg_loss):
  """‖E[estimator] − exact‖ / ‖exact‖ for one opponent.

  The estimator's expectation is Σ_{y,y′} π(y) π′(y′) times its value; π and
  π′ are constants there, as they are for a sampler.
  """
  model = enumeration.table_model(length)
  keys = jax.random.split(jax.random.key(0), 4)
  sets = {
    name: model.init(key)
    for name, key in zip(("policy", "reference", "ema"), keys, strict=False)
  }
  tokens, mask = (jnp.asarray(x) for x in enumeration.responses(length))
  size = tokens.shape[0]
  a = jax.random.uniform(keys[3], (2, size, size), jnp.float64)
  win = 0.5 + 0.5 * (a - jnp.swapaxes(a, 1, 2))
  lane = opponents.make_opponent(
    opponent=opponent, mixture=MIXTURE, mixture_end=MIXTURE, mixture_steps=0
  ).lane(0)

  def by_prefix(params):
    return jax.nn.log_softmax(params["logits"] / TEMPERATURE)

  mixed = jax.nn.log_softmax(
    sum(weight * by_prefix(sets[name]) for name, weight in lane.items())
  )

  def sequences(log_probs, prompt):
    return enumeration.sequence_log_probs(log_probs[prompt], tokens, mask)

  def exact_objective(params):
    """Mean over the two prompts of P(π ≻ sg π′) − τ KL(π, μ)."""
    total = 0.0
    for prompt in (0, 1):
      log_pi = sequences(by_prefix(params), prompt)
      log_mu = sequences(by_prefix(sets["reference"]), prompt)
      pi, opp = jnp.exp(log_pi), jnp.exp(sequences(mixed, prompt))
      kl = jnp.sum(pi * (log_pi - log_mu))
      total += 0.5 * (pi @ win[prompt] @ opp - KL_COEF * kl)
    return total

  def expected_loss(params):
    """Σ over all pairs, weighted by their probability under sampling."""
    total = 0.0
    for prompt in (0, 1):
      prompts = jnp.full((size, 1), prompt, jnp.int32)

      def score(which, prompts=prompts):
        return policy.response_log_probs(
          model,
          which,
          prompts=prompts,
          prompt_mask=prompts == prompts,
          responses=tokens,
          temperature=TEMPERATURE,
        )

      log_prob, ref_log_prob = score(params), score(sets["reference"])
      pi = jnp.exp(sequences(by_prefix(sets["policy"]), prompt))
      opp = jnp.exp(sequences(mixed, prompt))

      def pair_loss(y, win_row, log_prob=log_prob, ref=ref_log_prob, opp=opp):
        one = jax.vmap(
          lambda win_prob: loss(
            log_prob=log_prob[y][None],
            ref_log_prob=ref[y][None],
            win_prob=win_prob[None],
            mask=mask[y][None],
            kl_coef=KL_COEF,
          )[0]
        )(win_row)
        return one @ opp

      per_response = jax.vmap(pair_loss)(jnp.arange(size), win[prompt])
      total += 0.5 * pi @ per_response
    return total

  exact = jax.grad(exact_objective)(sets["policy"])["logits"]
  expected = -jax.jit(jax.grad(expected_loss))(sets["policy"])["logits"]
  return float(np.linalg.norm(expected - exact) / np.linalg.norm(exact))
