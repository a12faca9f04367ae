"""Variance of the Nash gradient with K samples a side, against K = 1.

Once exactly, from all pairs of responses, and once through the whole step:
sampling, judge and loss on many keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses
from nashmd_jax.nash import play as play_lib
from tests import gradient_oracle as oracle
from tests import whole_step


def step_gradients(
  play: play_lib.Play, sets: dict, count: int, seed: int
) -> np.ndarray:
  """The ascent direction of `count` independent steps, f64[count, …]."""

  @jax.jit
  @jax.vmap
  def gradient(rng):
    batch = whole_step.prompts_batch(np.arange(oracle.PROMPTS))
    rows = play_lib.rollout(play, sets, batch, rng, jnp.int32(0))

    def loss(params):
      return play_lib.loss(play, params, sets, rows, rng)[0].value

    return -jax.grad(loss)(sets["policy"])["logits"]

  return np.asarray(gradient(jax.random.split(jax.random.key(seed), count)))


def total_variance(gradients: np.ndarray) -> float:
  """Trace of the covariance."""
  return float(np.sum(np.var(gradients, axis=0)))


def exact_variance(world: oracle.World, samples: int) -> float:
  """The same for K samples a side, from the parts of the K = 1 gradient.

  With g(y, y′) split into what depends on y alone, on y′ alone and on both,
  the mean over K × K pairs has variance a/K + b/K + c/K².
  """
  x, y, z = oracle.pair_rows(world)
  reference = oracle.token_log_probs(world, world.sets["reference"])
  log_prob = oracle.token_log_probs(world, world.sets["policy"])[x, y]

  def loss(rows):
    return losses.nash_pg_loss(
      log_prob=rows,
      ref_log_prob=reference[x, y],
      win_prob=world.win[x, y, z],
      mask=world.mask[y],
      kl_coef=oracle.KL_COEF,
    )[0].value

  slopes = -len(x) * jax.grad(loss)(log_prob) / oracle.PROMPTS
  scores = jax.jacobian(functools.partial(oracle.token_log_probs, world))(
    world.sets["policy"]
  )["logits"]
  writer = jnp.exp(oracle.log_policy(world, world.sets["policy"]))
  (opponent,) = oracle.played(world, "mixture")
  total = 0.0
  for prompt in range(oracle.PROMPTS):
    p, q = writer[prompt], opponent[prompt]
    slope = slopes.reshape(*world.win.shape, -1)[prompt]
    g = jnp.einsum("yzn,yn...->yz...", slope, scores[prompt])
    g = g.reshape(len(p), len(q), -1)
    mean = jnp.einsum("y,z,yzd->d", p, q, g)
    by_y = jnp.einsum("z,yzd->yd", q, g) - mean[None]
    by_z = jnp.einsum("y,yzd->zd", p, g) - mean[None]
    both = g - mean[None, None] - by_y[:, None] - by_z[None]
    a, b = jnp.sum(p @ by_y**2), jnp.sum(q @ by_z**2)
    c = jnp.einsum("y,z,yzd->", p, q, both**2)
    total += a / samples + b / samples + c / samples**2
  return float(total)
