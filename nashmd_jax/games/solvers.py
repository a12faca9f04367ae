"""The algorithms of the theory, one pure step each, and the scan over them.

A step takes (key, state, game, step size) and whom to ask for preferences,
and returns the next state. Symbols: π_t policy, `logits` · μ reference · τ
`kl_coef` · η step size · P(y ≻ π′) `win_probs`. All updates are in log space
and up to a constant; ½ is taken from every win probability, which changes no
policy and keeps the logits near zero. Regularised algorithms pull towards μ;
those for τ = 0 do not look at τ.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax.games import preference_game

Game = preference_game.Game


class State(NamedTuple):
  """What a step reads and returns.

  Attributes:
    iteration: i32[], steps done.
    logits: f[Y], log π_t up to a constant.
    average: f[Y], log of an average of π_0 … π_t: uniform for `mwu` and
      `fictitious_play`, exponential for `nash_ema`; the others leave it.
    last_win_probs: f[Y], P(y ≻ π_{t−1}) for `onpo`, P of the last half step
      for `omwu`; the others leave it.
  """

  iteration: jax.Array
  logits: jax.Array
  average: jax.Array
  last_win_probs: jax.Array


# (key, game, logits of π′) -> f[Y], P(y ≻ π′) or an unbiased estimate of it.
Query = Callable[[jax.Array, Game, jax.Array], jax.Array]
# (key, state, game, step size, query) -> state
Step = Callable[[jax.Array, State, Game, jax.Array, Query], State]
Measure = Callable[[Game, jax.Array], jax.Array]


def init_state(logits: jax.Array) -> State:
  """The state of a policy that has not moved yet, from its logits f[Y]."""
  return State(
    iteration=jnp.zeros((), jnp.int32),
    logits=logits,
    average=jax.nn.log_softmax(logits),
    last_win_probs=jnp.zeros_like(logits),
  )


def exact_query(key: jax.Array, game: Game, logits: jax.Array) -> jax.Array:
  """P(y ≻ π′) itself; the key is not used."""
  del key
  return preference_game.win_probs(game, logits)


def sampled_opponents(count: int) -> Query:
  """A query that draws `count` responses y′ ~ π′ and averages P(y ≻ y′)."""

  def query(key: jax.Array, game: Game, logits: jax.Array) -> jax.Array:
    drawn = jax.random.categorical(key, logits, shape=(count,))
    return jnp.mean(game.preference[:, drawn], axis=1)

  return query


def sampled_votes(count: int) -> Query:
  """A query whose every comparison with y′ ~ π′ is a vote, 0 or 1."""

  def query(key: jax.Array, game: Game, logits: jax.Array) -> jax.Array:
    opponent_key, vote_key = jax.random.split(key)
    drawn = jax.random.categorical(opponent_key, logits, shape=(count,))
    votes = jax.random.bernoulli(vote_key, game.preference[:, drawn])
    return jnp.mean(votes.astype(logits.dtype), axis=1)

  return query


def _towards_reference(game: Game, logits, step_size) -> jax.Array:
  """(1 − ητ) log π + ητ log μ, the geometric mixture."""
  pull = step_size * game.kl_coef
  return (1 - pull) * logits + pull * game.log_reference


def _mirror(game: Game, logits, wins, step_size) -> jax.Array:
  """(1 − ητ) log π + ητ log μ + η P(y ≻ π′)."""
  return _towards_reference(game, logits, step_size) + step_size * (wins - 0.5)


def _proximal(game: Game, logits, wins, step_size) -> jax.Array:
  """(log π + ητ log μ + η P(y ≻ π′)) / (1 + ητ)."""
  pull = step_size * game.kl_coef
  ahead = logits + pull * game.log_reference + step_size * (wins - 0.5)
  return ahead / (1 + pull)


def _moved(state: State, logits: jax.Array) -> State:
  return state._replace(iteration=state.iteration + 1, logits=logits)


def nash_md(key, state: State, game: Game, step_size, query: Query) -> State:
  """Nash-MD: (1 − ητ) log π + ητ log μ + η P m, m ∝ π^{1−ητ} μ^{ητ}.

  Source: Munos et al., ICML 2024, §5.
  """
  mixture = _towards_reference(game, state.logits, step_size)
  wins = query(key, game, mixture)
  return _moved(state, mixture + step_size * (wins - 0.5))


def omd(key, state: State, game: Game, step_size, query: Query) -> State:
  """Online mirror descent: (1 − ητ) log π + ητ log μ + η P π.

  Also known as INPO, and as the natural gradient of self-play.
  """
  wins = query(key, game, state.logits)
  return _moved(state, _mirror(game, state.logits, wins, step_size))


def mmd(key, state: State, game: Game, step_size, query: Query) -> State:
  """Magnetic mirror descent: (log π + ητ log μ + η P π) / (1 + ητ).

  Source: Sokota et al., ICLR 2023.
  """
  wins = query(key, game, state.logits)
  return _moved(state, _proximal(game, state.logits, wins, step_size))


def egpo(key, state: State, game: Game, step_size, query: Query) -> State:
  """Extragradient: an OMD half step, then from π_t with P π_{t+½}.

  Source: Zhou, Fazel and Du, 2025 (arXiv 2503.08942).
  """
  return _extragradient(_mirror, key, state, game, step_size, query)


def nash_mp(key, state: State, game: Game, step_size, query: Query) -> State:
  """Nash mirror prox: an MMD half step, then from π_t with P π_{t+½}.

  Source: Tiapkin et al., 2025 (arXiv 2505.19731).
  """
  return _extragradient(_proximal, key, state, game, step_size, query)


def _extragradient(form, key, state, game, step_size, query) -> State:
  here_key, half_key = jax.random.split(key)
  wins = query(here_key, game, state.logits)
  half = form(game, state.logits, wins, step_size)
  wins = query(half_key, game, half)
  return _moved(state, form(game, state.logits, wins, step_size))


def onpo(key, state: State, game: Game, step_size, query: Query) -> State:
  """Optimistic, for τ = 0: log π + 2η P π_t − η P π_{t−1}, π_{−1} = π_0.

  Source: Zhang et al., 2025.
  """
  wins = query(key, game, state.logits)
  last = jnp.where(state.iteration == 0, wins, state.last_win_probs)
  logits = state.logits + step_size * (2 * wins - last - 0.5)
  return _moved(state, logits)._replace(last_win_probs=wins)


def omwu(key, state: State, game: Game, step_size, query: Query) -> State:
  """Optimistic multiplicative weights with a pull to μ, one query a step.

  A half step of OMD by the P of the half step before, then from π_t by that
  of this one. It ends at π*_τ, and also turns in no circle at τ = 0.

  Source: Cen, Wei and Chi, 2021.
  """
  half = _mirror(game, state.logits, state.last_win_probs, step_size)
  wins = query(key, game, half)
  logits = _mirror(game, state.logits, wins, step_size)
  return _moved(state, logits)._replace(last_win_probs=wins)


def mwu(key, state: State, game: Game, step_size, query: Query) -> State:
  """Multiplicative weights (SPO), for τ = 0: log π + η P π; averages."""
  wins = query(key, game, state.logits)
  return _averaged(_moved(state, state.logits + step_size * (wins - 0.5)))


def fictitious_play(
  key, state: State, game: Game, step_size, query: Query
) -> State:
  """The best response of τ = 0 to the average of past policies; no step size.

  Ties go to the first of the best.
  """
  del step_size
  best = jnp.argmax(query(key, game, state.average))
  chosen = jnp.arange(state.logits.shape[-1]) == best
  return _averaged(_moved(state, jnp.where(chosen, 0, -jnp.inf)))


def _averaged(state: State) -> State:
  """The state with π_t taken into the uniform average of π_0 … π_t."""
  share = 1 / (state.iteration + 1).astype(state.logits.dtype)
  return state._replace(
    average=jnp.logaddexp(
      jnp.log1p(-share) + state.average,
      jnp.log(share) + jax.nn.log_softmax(state.logits),
    )
  )


def nash_ema(decay: float) -> Step:
  """Makes the mirror step against a moving average π̄ of past policies.

  (1 − ητ) log π + ητ log μ + η P π̄; then π̄ ← decay π̄ + (1 − decay) π.

  Args:
    decay: from 0 (OMD) to 1 (the opponent stays π_0).
  Raises: ValueError if decay is outside [0, 1].
  """
  if not 0 <= decay <= 1:
    raise ValueError(f"decay: expected a value from 0 to 1, got {decay}")

  def step(key, state: State, game: Game, step_size, query: Query) -> State:
    wins = query(key, game, state.average)
    logits = _mirror(game, state.logits, wins, step_size)
    average = jnp.logaddexp(
      jnp.log(decay) + state.average,
      jnp.log1p(-decay) + jax.nn.log_softmax(logits),
    )
    return _moved(state, logits)._replace(average=average)

  return step


def fixed_mixture(mixture: float) -> Step:
  """Makes the mirror step against m ∝ π^{1−β} μ^β with β apart from ητ.

  (1 − ητ) log π + ητ log μ + η P m: what Nash-MD-PG(β) and IPO-MD(β) do on
  average. β = 0 is OMD, β = 1 `best_response_to_reference`, β = ητ Nash-MD.

  Args:
    mixture: β, from 0 to 1, the weight on μ.
  Raises: ValueError if β is outside [0, 1].
  """
  if not 0 <= mixture <= 1:
    raise ValueError(f"mixture: expected a value from 0 to 1, got {mixture}")

  def step(key, state: State, game: Game, step_size, query: Query) -> State:
    opponent = (1 - mixture) * state.logits + mixture * game.log_reference
    wins = query(key, game, opponent)
    return _moved(state, _mirror(game, state.logits, wins, step_size))

  return step


def best_response_to_reference(
  key, state: State, game: Game, step_size, query: Query
) -> State:
  """Mirror steps against the fixed μ; it ends at the best response to μ."""
  wins = query(key, game, game.log_reference)
  return _moved(state, _mirror(game, state.logits, wins, step_size))


def rlhf(rewards: jax.Array) -> Step:
  """Makes the mirror step of RLHF, which ends at π ∝ μ exp(r / τ).

  (1 − ητ) log π + ητ log μ + η r, without asking for preferences.

  Args:
    rewards: f[Y], r, nats; `payoffs.fit_scores` under a sampling policy.
  """

  def step(key, state: State, game: Game, step_size, query: Query) -> State:
    del key, query
    logits = _towards_reference(game, state.logits, step_size)
    return _moved(state, logits + step_size * rewards)

  return step


class Algorithm(NamedTuple):
  """A step and what is to be known of it.

  Attributes:
    step: the pure step.
    queries: vectors P(y ≻ π′) that a step asks for.
    regularised: whether it solves the game at τ, else the one at τ = 0.
    judged: "logits" if it is the last policy that converges, "average" if
      only the average does.
  """

  step: Step
  queries: int
  regularised: bool
  judged: str


ALGORITHMS = {
  "nash_md": Algorithm(nash_md, 1, True, "logits"),
  "omd": Algorithm(omd, 1, True, "logits"),
  "mmd": Algorithm(mmd, 1, True, "logits"),
  "egpo": Algorithm(egpo, 2, True, "logits"),
  "nash_mp": Algorithm(nash_mp, 2, True, "logits"),
  "onpo": Algorithm(onpo, 1, False, "logits"),
  "mwu": Algorithm(mwu, 1, False, "average"),
  "fictitious_play": Algorithm(fictitious_play, 1, False, "average"),
}


def constant(step_size: jax.Array | float) -> Callable[[jax.Array], jax.Array]:
  """The schedule that always gives one step size."""
  return lambda iteration: step_size


def kl_to(target: jax.Array) -> Measure:
  """Measures KL(target, π) in nats, of a target given by logits f[Y]."""
  return lambda game, logits: preference_game.kl_divergence(target, logits)


def win_rate_over(opponent: jax.Array) -> Measure:
  """Measures P(π ≻ opponent), of an opponent given by logits f[Y]."""
  return lambda game, logits: preference_game.win_rate(game, logits, opponent)


def solve(
  game: Game,
  *,
  step: Step,
  step_size: Callable[[jax.Array], jax.Array],
  query: Query,
  logits: jax.Array,
  iterations: int,
  key: jax.Array,
  measures: Mapping[str, Measure],
  measure_every: int,
  judged: str,
) -> tuple[State, dict[str, jax.Array]]:
  """Runs an algorithm and measures it on the way; keeps no past policy.

  Pure: under `jax.jit` it is one program; under `jax.vmap` it runs over games,
  contexts, τ, step sizes, starts and keys at once. Many games are fastest in
  blocks that fit the cache: `jax.lax.map(f, games, batch_size=32)`.

  Args:
    game: one context.
    step: one of this module's, or any with their signature.
    step_size: iteration -> η; `constant`, or any optax schedule.
    query: `exact_query`, or a sampled one.
    logits: f[Y], the policy to start from.
    iterations: T, a multiple of measure_every.
    key: of all sampling; step t uses fold_in(key, t).
    measures: functions (game, logits) -> scalar, by name.
    measure_every: steps between two measurements, k.
    judged: "logits" to measure the last policy, "average" the average.
  Returns: the last state, and for each measure f[T / k + 1] with entry i
    taken after i · k steps.
  Raises: ValueError if k does not divide T, or `judged` is no such field.
  """
  if measure_every < 1 or iterations < 1 or iterations % measure_every:
    raise ValueError(
      f"iterations: expected a positive multiple of measure_every, got "
      f"{iterations} and {measure_every}"
    )
  if judged not in ("logits", "average"):
    raise ValueError(f"judged: expected 'logits' or 'average', got {judged!r}")

  def measured(state: State) -> dict[str, jax.Array]:
    policy = getattr(state, judged)
    return {name: of(game, policy) for name, of in measures.items()}

  def advance(_, state: State) -> State:
    step_key = jax.random.fold_in(key, state.iteration)
    return step(step_key, state, game, step_size(state.iteration), query)

  def chunk(state: State, _):
    state = lax.fori_loop(0, measure_every, advance, state)
    return state, measured(state)

  first = init_state(logits)
  last, rows = lax.scan(chunk, first, length=iterations // measure_every)
  start = measured(first)
  return last, {
    name: jnp.concatenate([start[name][None], rows[name]]) for name in rows
  }
