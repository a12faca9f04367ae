"""Steps on records against the gradients of their objectives, by enumeration.

Records are what μ wrote. Of comparisons every pair stands once, by its
probability. Unary ones are desired in a share `SHARE` to every prompt, so that
μ = a p⁺ + (1 − a) p⁻, and every batch of so many is drawn once. The exact side
is written from sequence probabilities, p⁺ and p⁻ alone. Call in float64.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import play as play_lib
from tests import family_oracle, whole_step
from tests import gradient_oracle as oracle

TAU = oracle.KL_COEF
SHARE, PESSIMISM = whole_step.SHARE, whole_step.PESSIMISM


class Records(NamedTuple):
  """All unary records there can be, N of them.

  Attributes:
    x, y: int[N], prompt and number of the response.
    label: f64[N].
    prob: f64[N], how often each is drawn.
  """

  x: np.ndarray
  y: np.ndarray
  label: np.ndarray
  prob: np.ndarray


def reference(world: oracle.World) -> np.ndarray:
  """log μ(y|x), f64[X, Y]."""
  return np.asarray(oracle.log_policy(world, world.sets["reference"]))


def parts(world: oracle.World) -> tuple[np.ndarray, np.ndarray]:
  """p⁺ and p⁻, f64[X, Y], of which μ is made: p⁺ wins more often."""
  mu = np.exp(reference(world))
  wins = np.einsum("xyz,xz->xy", world.win, mu)
  desired = mu * (0.3 + 0.4 * wins)  # at most 0.7/0.3 < 1/a times μ
  desired /= desired.sum(1, keepdims=True)
  return desired, (mu - SHARE * desired) / (1 - SHARE)


def labelled(world: oracle.World) -> Records:
  """Records with labels of 0 and 1."""
  desired, other = parts(world)
  weight = np.stack([(1 - SHARE) * other, SHARE * desired]) / oracle.PROMPTS
  label, x, y = (i.reshape(-1) for i in np.indices(weight.shape))
  return Records(x, y, label.astype(float), weight.reshape(-1))


def scored(world: oracle.World) -> Records:
  """Records with scores in [0, 1], the share of the desired among them."""
  mu = np.exp(reference(world))
  score = SHARE * parts(world)[0] / mu
  x, y = (i.reshape(-1) for i in np.indices(mu.shape))
  return Records(x, y, score.reshape(-1), mu.reshape(-1) / oracle.PROMPTS)


def batches(found: Records, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Every batch of so many: numbers int[D, count], how often each is drawn."""
  drawn = np.indices([len(found.x)] * count).reshape(count, -1).T
  return drawn, np.prod(found.prob[drawn], axis=1)


def step(world: oracle.World, loss: str, found: Records, count: int):
  """The expected ascent of a whole step on a batch of so many records."""
  play = whole_step.make_play(world, loss=loss)
  drawn, weight = batches(found, count)

  def of_batch(params, numbers):
    x, y, label = (jnp.asarray(part)[numbers] for part in found[:3])
    batch = whole_step.prompts_batch(x) | {
      "responses": world.tokens[y],
      "responses_mask": world.mask[y],
      "label": label,
    }
    rows = play_lib.rollout(play, world.sets, batch, jax.random.key(0), 0)
    return play_lib.loss(play, params, world.sets, rows, None)[0].value

  def value(params):
    return weight @ jax.vmap(functools.partial(of_batch, params))(drawn)

  return -np.asarray(jax.jit(jax.grad(value))(world.sets["policy"])["logits"])


def exact_rdro(world: oracle.World) -> np.ndarray:
  """Of E_p⁺[(1 + a) softplus(h) − h] + (1 − a) E_p⁻ softplus(h)."""
  desired, other = parts(world)
  mu = reference(world)

  def objective(log_pi):
    h = log_pi - mu
    soft = jnp.logaddexp(h, 0)
    chosen = desired * ((1 + SHARE) * soft - h)
    return jnp.sum(chosen + (1 - SHARE) * other * soft, axis=1)

  return family_oracle.ascent_of(world, objective)


def exact_una(world: oracle.World) -> np.ndarray:
  """Of −a E_p⁺ log σ(τ h) − (1 − a) E_p⁻ log σ(−τ h)."""
  desired, other = parts(world)
  mu = reference(world)

  def objective(log_pi):
    z = TAU * (log_pi - mu)
    chosen = SHARE * desired * jnp.logaddexp(-z, 0)
    return jnp.sum(chosen + (1 - SHARE) * other * jnp.logaddexp(z, 0), axis=1)

  return family_oracle.ascent_of(world, objective)


def exact_una_score(world: oracle.World) -> np.ndarray:
  """Of E_μ (σ(τ h) − s)², s = a p⁺/μ."""
  desired, _ = parts(world)
  mu = reference(world)

  def objective(log_pi):
    said = 1 / (1 + jnp.exp(TAU * (mu - log_pi)))
    error = said - SHARE * desired / np.exp(mu)
    return jnp.sum(np.exp(mu) * error**2, axis=1)

  return family_oracle.ascent_of(world, objective)


def log_ratio(world: oracle.World, params) -> jax.Array:
  """h(y), f64[X, Y]."""
  return oracle.log_policy(world, params) - reference(world)


def exact_kto(world: oracle.World, count: int) -> np.ndarray:
  """Of ½ E_p⁺[1 − σ(τ (h − z₀))] + ½ E_p⁻[1 − σ(τ (z₀ − h))], z₀ constant.

  Each batch has a z₀ of its own, from what the next of its records says to the
  prompt of each; `count` of 0 has that of infinitely many.
  """
  found = labelled(world)
  h = np.asarray(log_ratio(world, world.sets["policy"]))
  drawn, weight = batches(found, count or 1)
  x, y = found.x[drawn], found.y[drawn]
  if count:
    point = np.mean(h[x, np.roll(y, -1, axis=1)], axis=1)
  else:
    every = np.outer(found.prob, found.prob)
    point = np.sum(every * h[found.x[:, None], found.y[None]])
  point = np.broadcast_to(np.maximum(point, 0), weight.shape)[:, None]
  sides = np.where(found.label, 1, -1)[drawn]
  shares = np.where(found.label, SHARE, 1 - SHARE)[drawn]

  def value(params):
    above = TAU * (log_ratio(world, params)[x, y] - point)
    lost = (1 - 1 / (1 + jnp.exp(-sides * above))) / (2 * shares)
    return weight @ jnp.mean(lost, axis=1)

  return -np.asarray(jax.grad(value)(world.sets["policy"])["logits"])


def of_unary(world: oracle.World, loss: str) -> float:
  """Error of RDRO or UNA, whose records count one by one."""
  exact, found = {
    "rdro": (exact_rdro, labelled),
    "una": (exact_una, labelled),
    "una_score": (exact_una_score, scored),
  }[loss]
  return oracle.error(step(world, loss, found(world), 1), exact(world))


def of_kto(world: oracle.World, count: int) -> tuple[float, float]:
  """Error of KTO at the point of each batch, and its bias from one of all."""
  found = step(world, "kto", labelled(world), count)
  return (
    oracle.error(found, exact_kto(world, count)),
    oracle.error(found, exact_kto(world, 0)),
  )


def exact_pepo(world: oracle.World) -> np.ndarray:
  """Of −E [p log σ(τ (m − c)) + (1 − p) log σ(τ (−m − c))], c = log(1 + a)."""
  mu = reference(world)

  def objective(log_pi):
    margin = family_oracle.margin(log_pi - mu)
    nats = sum(
      win * jnp.log1p(jnp.exp(-TAU * side) * (1 + PESSIMISM) ** TAU)
      for win, side in ((world.win, margin), (1 - world.win, -margin))
    )
    return jnp.einsum("xy,xz,xyz->x", np.exp(mu), np.exp(mu), nats)

  return family_oracle.ascent_of(world, objective)


def of_pairs(world: oracle.World, loss: str) -> float:
  """Error of a loss on comparisons of pairs that μ wrote, each once."""
  x, y, z = oracle.pair_rows(world)
  mu = jnp.exp(reference(world))
  play = whole_step.make_play(world, loss=loss, design="records")
  batch = whole_step.prompts_batch(x) | {
    "responses_a": world.tokens[y],
    "responses_a_mask": world.mask[y],
    "responses_b": world.tokens[z],
    "responses_b_mask": world.mask[z],
    "prob_a": world.win[x, y, z],
    "weight": mu[x, y] * mu[x, z],
  }

  @jax.jit
  def ascent(params):
    rows = play_lib.rollout(play, world.sets, batch, jax.random.key(0), 0)

    def value(params):
      return -play_lib.loss(play, params, world.sets, rows, None)[0].value

    return jax.grad(value)(params)["logits"]

  exact = {
    "ipo": lambda: oracle.exact_ipo(world, "reference") * 4 / TAU,
    "dpo": lambda: oracle.exact_dpo(world, "reference"),
    "pepo": lambda: exact_pepo(world),
  }[loss]()
  return oracle.error(np.asarray(ascent(world.sets["policy"])), exact)
