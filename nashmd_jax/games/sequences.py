"""Games over all responses of a small vocabulary, up to a length.

The Y responses are those that end in EOS, and those that are cut at R tokens
without one. A policy is a distribution over whole responses, logits f[Y], or
what it says after each of the N prefixes, log-probs f[N, V]; here is the way
from one to the other, and the game that Nash-MD-PG plays when its mixture is
taken token by token.
"""

from collections.abc import Callable
import itertools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.games import preference_game

Game = preference_game.Game


class Space(NamedTuple):
  """All responses, ordered by body (the tokens but EOS): shorter first.

  With b = V − 1 there are b^k bodies of k tokens. Body number i of fewer than
  R tokens is both prefix i and, with EOS behind it, response i; the bodies of
  R tokens are responses without EOS. Hence N = Σ_{k<R} b^k, Y = N + b^R.

  Attributes:
    tokens: int32[Y, R], zero behind the end.
    mask: bool[Y, R], true up to and including EOS.
    prefixes: int32[Y, R], number of the prefix before each position; zero
      where masked.
    vocab_size: V, EOS included.
    eos_id: token that ends a response.
  """

  tokens: np.ndarray
  mask: np.ndarray
  prefixes: np.ndarray
  vocab_size: int
  eos_id: int


def response_space(*, vocab_size: int, eos_id: int, max_response: int) -> Space:
  """All responses of up to `max_response` tokens, R.

  Raises: ValueError for sizes without a response or an EOS outside of V.
  """
  if vocab_size < 2 or max_response < 1 or not 0 <= eos_id < vocab_size:
    raise ValueError(
      f"responses: got vocab_size {vocab_size}, max_response {max_response}, "
      f"eos_id {eos_id}; expected 2 or more tokens, 1 or more of them in a "
      "response, and EOS among them"
    )
  others = [token for token in range(vocab_size) if token != eos_id]
  rows = []
  for size in range(max_response + 1):
    for body in itertools.product(others, repeat=size):
      row = [*body, eos_id] + [-1] * (max_response - size)
      rows.append(row[:max_response])
  tokens = np.array(rows)
  mask = tokens >= 0
  before = np.tri(max_response, k=-1, dtype=bool)
  prefixes = [
    _body_number(tokens, (tokens >= 0) & before[position], vocab_size, eos_id)
    for position in range(max_response)
  ]
  return Space(
    tokens=np.where(mask, tokens, 0).astype(np.int32),
    mask=mask,
    prefixes=np.where(mask, np.stack(prefixes, axis=1), 0).astype(np.int32),
    vocab_size=vocab_size,
    eos_id=eos_id,
  )


def _body_number(tokens, kept, vocab_size, eos_id):
  """Number of the body made of the `kept` tokens, a run from the left.

  NumPy or JAX arrays [..., R]. Each token turns the number i into b i + 1 +
  digit, which counts the shorter bodies as well.
  """
  digits = tokens - (tokens > eos_id)
  number = 0 * tokens[..., 0]
  for position in range(tokens.shape[-1]):
    longer = number * (vocab_size - 1) + 1 + digits[..., position]
    keep = kept[..., position]
    number = keep * longer + (1 - keep) * number
  return number


def response_index(
  space: Space, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
  """Which response each row is.

  Args:
    tokens: int[..., R]; what stands where masked does not matter.
    mask: bool[..., R], true up to and including EOS.
  Returns: int32[...], so that space.tokens[index] is the row.
  Raises: ValueError if the rows are not R tokens wide.
  """
  width = space.tokens.shape[1]
  if tokens.shape != mask.shape or tokens.shape[-1] != width:
    raise ValueError(
      f"tokens, mask: expected [..., R] with {{'R': {width}}}, got shapes "
      f"{tuple(tokens.shape)} and {tuple(mask.shape)}"
    )
  body = mask & (tokens != space.eos_id)
  return _body_number(
    jnp.asarray(tokens), body, space.vocab_size, space.eos_id
  ).astype(jnp.int32)


def sequence_log_probs(space: Space, log_probs: jax.Array) -> jax.Array:
  """log π(y) = Σ_n log π(y_n | y_<n) of every response.

  Args:
    log_probs: f[N, V], normalised over V, nats.
  Returns: f[Y], normalised over Y.
  """
  steps = log_probs[space.prefixes, space.tokens]
  return jnp.sum(jnp.where(space.mask, steps, 0), axis=-1)


def conditionals(space: Space, logits: jax.Array) -> jax.Array:
  """log π(v | prefix) after every prefix, by summing over what may follow.

  Args:
    logits: f[Y], finite; log π up to a constant.
  Returns: f[N, V], nats; `sequence_log_probs` leads back to log π.
  """
  base, length = space.vocab_size - 1, space.tokens.shape[1]
  counts = [base**k for k in range(length + 1)]
  starts = np.cumsum([0, *counts])
  mass, levels = logits[starts[length] :], []
  for k in reversed(range(length)):
    ends = logits[starts[k] : starts[k + 1], None]
    goes_on = mass.reshape(counts[k], base)
    parts = [goes_on[:, : space.eos_id], ends, goes_on[:, space.eos_id :]]
    level = jnp.concatenate(parts, axis=1)
    mass = jax.nn.logsumexp(level, axis=1)
    levels.append(level - mass[:, None])
  return jnp.concatenate(levels[::-1])


def token_mixture(
  space: Space, logits: jax.Array, log_reference: jax.Array, mixture: jax.Array
) -> jax.Array:
  """m(y) = Π_n m(y_n|y_<n), m(·|y_<n) ∝ π(·|y_<n)^{1−β} μ(·|y_<n)^β.

  Each prefix is normalised by itself, so that this is not the sequence-level
  π^{1−β} μ^β unless a response is one token long.

  Args:
    logits: f[Y] of π.
    log_reference: f[Y], log μ.
    mixture: β.
  Returns: f[Y], log m, normalised, nats.
  Source: Munos et al., ICML 2024, §7.
  """
  policy = conditionals(space, logits)
  reference = conditionals(space, log_reference)
  mixed = (1 - mixture) * policy + mixture * reference
  return sequence_log_probs(space, jax.nn.log_softmax(mixed, axis=-1))


class FixedPoint(NamedTuple):
  """Where Nash-MD-PG with a token-wise mixture comes to rest.

  Attributes:
    log_policy: f[Y], log π, normalised, nats.
    log_mixture: f[Y], log of the token-wise mixture m of this π and μ.
    residual: f[], max_y |log π − log(μ exp(P m / τ) / Z)|, nats.
    iterations: i32[], steps taken.
  """

  log_policy: jax.Array
  log_mixture: jax.Array
  residual: jax.Array
  iterations: jax.Array


def mixture_fixed_point(
  space: Space,
  game: Game,
  *,
  mixture: float | jax.Array,
  tolerance: float,
  max_iterations: int,
  start: jax.Array,
) -> FixedPoint:
  """π ∝ μ exp(P m(π) / τ), m the token-wise mixture of π and μ.

  At β = 0 it is π*_τ; at β = 1 the best response to μ. Newton's method on
  F(log π) = log π − log μ − P m / τ; a Newton step that does not halve the
  smallest residual so far is replaced by the damped mirror step
  (1 − α) log π + α (log μ + P m / τ) with α = τ² / (τ² + L²), L = max |P − ½|.
  Where the mixture is the sequence-level one (β = 0, β = 1, or responses of
  one token) that is the step of magnetic mirror descent on m at temperature
  τ/(1−β) with η ≤ τ/L², which contracts from anywhere. For longer ones no
  theorem is known: what was found is certified by its residual alone.

  Args:
    game: one context, τ > 0.
    mixture: β in [0, 1], weight on the reference.
    tolerance: of `residual`; 1e-12 needs float64.
    max_iterations: steps after which it stops; compare `residual` then.
    start: f[Y], logits to start from, such as log μ.
  Returns: the policy of the smallest residual seen.
  Source: Munos et al., ICML 2024, §7; Calandriello et al., ICML 2024,
    prop. 5.2, for the sequence-level mixture.
  """
  largest = jnp.max(jnp.abs(game.preference - 0.5))
  damping = game.kl_coef**2 / (game.kl_coef**2 + largest**2)

  def measured(logits, iterations) -> FixedPoint:
    policy = jax.nn.log_softmax(logits)
    mixed = token_mixture(space, policy, game.log_reference, mixture)
    response = jax.nn.log_softmax(preference_game.best_response(game, mixed))
    residual = jnp.max(jnp.abs(policy - response))
    return FixedPoint(policy, mixed, residual, iterations)

  def steps(logits):
    excess, newton = _newton(space, game, mixture, logits)
    return logits - newton, logits - damping * excess

  return settle(
    measured,
    steps,
    start,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )


def settle(
  measured: Callable[[jax.Array, jax.Array], FixedPoint],
  steps: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
  start: jax.Array,
  *,
  tolerance: float,
  max_iterations: int,
) -> FixedPoint:
  """Leaps where that halves the residual, walks where it does not.

  Args:
    measured: (logits, iterations) -> the point and its residual.
    steps: (logits) -> logits after Newton's step, and after a damped one.
    start: f[Y], logits.
    tolerance: of the residual.
    max_iterations: steps after which it stops.
  Returns: the point of the smallest residual seen.
  """

  def goes_on(carry):
    best, _ = carry
    return (best.residual > tolerance) & (best.iterations < max_iterations)

  def advance(carry):
    best, current = carry
    iterations = best.iterations + 1
    leap, walk = (measured(to, iterations) for to in steps(current))
    leaps = leap.residual < best.residual / 2
    moved = jax.tree.map(lambda a, b: jnp.where(leaps, a, b), leap, walk)
    improves = moved.residual < best.residual
    best = jax.tree.map(lambda a, b: jnp.where(improves, a, b), moved, best)
    return best._replace(iterations=iterations), moved.log_policy

  first = measured(start, jnp.zeros((), jnp.int32))
  return lax.while_loop(goes_on, advance, (first, first.log_policy))[0]


def _newton(space, game, mixture, logits) -> tuple[jax.Array, jax.Array]:
  """F(log π) = log π − log μ − (P m − ½) / τ, and Newton's step for F = 0."""

  def excess(logits):
    mixed = token_mixture(space, logits, game.log_reference, mixture)
    response = preference_game.best_response(game, mixed)
    return logits - response + 0.5 / game.kl_coef

  value = excess(logits)
  return value, jnp.linalg.solve(jax.jacfwd(excess)(logits), value)
