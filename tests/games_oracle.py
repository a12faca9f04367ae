"""Numbers and identities of the theory, each as the error of what we compute.

Every function of IDENTITIES returns the largest absolute difference between
the library and a value derived by hand or by another formula; call them in
float64.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import games

DICE = games.from_dice([[2, 4, 9], [1, 6, 8], [3, 5, 7]])
UNIFORM = np.full(3, 1 / 3)


def error(got, expected) -> float:
  return float(np.max(np.abs(np.asarray(got) - np.asarray(expected))))


def random_game(seed: int, responses: int, kl_coef: float) -> games.Game:
  """A random matrix and a random μ that is not uniform."""
  matrix = games.random_preferences(
    jax.random.key(seed), contexts=1, responses=responses
  )[0]
  return games.make_game(
    preference=matrix,
    reference=random_policies(seed, 1, responses)[0],
    kl_coef=kl_coef,
  )


def random_policies(seed: int, count: int, responses: int) -> np.ndarray:
  draw = np.random.default_rng(seed).dirichlet(np.ones(responses), count)
  return 0.99 * draw + 0.01 / responses


def random_logits(seed: int, responses: int) -> jax.Array:
  return jnp.log(random_policies(seed + 1, 1, responses)[0])


@jax.jit
def equilibrium(
  game: games.Game, tolerance: float, max_iterations: int = 20_000
) -> games.Equilibrium:
  return games.regularised_equilibrium(
    game, tolerance=tolerance, max_iterations=max_iterations
  )


def target(game: games.Game) -> jax.Array:
  found = equilibrium(game, 1e-12)
  assert found.distance <= 1e-12
  return found.log_policy


def once(step, game, logits, step_size, state=None) -> jax.Array:
  """One exact step, normalised."""
  state = games.init_state(logits) if state is None else state
  after = step(jax.random.key(0), state, game, step_size, games.exact_query)
  return jax.nn.log_softmax(after.logits)


def three_raters() -> float:
  worst = 0.0
  for epsilon in (-1 / 3, -0.1, 0.0, 0.1, 0.3):
    matrix = games.three_raters(epsilon)
    worst = max(
      worst,
      error(matrix[1, 0], 2 / 3 - epsilon / 2),
      error(matrix[0, 2], 2 / 3 + epsilon / 4),
      error(matrix[2, 1], 2 / 3 + epsilon / 4),
    )
    found = games.nash_equilibrium(matrix, reference=UNIFORM)
    share = 1 / 3 + epsilon / 2
    worst = max(worst, error(found.policy, [share, share, 1 / 3 - epsilon]))
  return worst


def bradley_terry_jump() -> float:
  """0 if the best score is response 0 for ε > 0 and response 1 for ε < 0."""
  best = [
    np.argmax(games.fit_scores(games.three_raters(epsilon)))
    for epsilon in (1e-6, -1e-6)
  ]
  return error(best, [0, 1])


def dice() -> float:
  found = games.nash_equilibrium(DICE, reference=np.array([0.2, 0.3, 0.5]))
  cycle = [DICE[0, 1], DICE[1, 2], DICE[2, 0]]
  return max(error(cycle, 5 / 9), error(found.policy, UNIFORM))


def total_orders() -> float:
  cyclic = ([0, 1, 2], [1, 2, 0], [2, 0, 1])
  orders = [games.from_order(order) for order in cyclic]
  matrix = games.from_raters(UNIFORM, orders)
  return error([matrix[0, 1], matrix[1, 2], matrix[2, 0]], 2 / 3)


def elo() -> float:
  """Among policies with π(0) = 2 π(1) the best score is not the winner."""
  scores = np.log([1.0, 9.0, 2.0])
  ends = np.array([[2 / 3, 1 / 3, 0], [0, 0, 1]])
  assert (ends @ scores)[0] > (ends @ scores)[1]
  between = ends @ games.from_scores(scores) @ ends.T
  winner = games.nash_equilibrium(between, reference=np.array([0.5, 0.5]))
  return max(error(between[1, 0], 50 / 99), error(winner.policy, [0, 1]))


def one_step() -> float:
  """Six printed digits, so good to 5e-7."""
  game = games.make_game(preference=DICE, reference=UNIFORM, kl_coef=0.1)
  logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
  seen = []

  def query(key, game, opponent):
    seen.append(jax.nn.softmax(opponent))
    return games.exact_query(key, game, opponent)

  state = games.init_state(logits)
  after = games.nash_md(jax.random.key(0), state, game, 5.0, query).logits
  return max(
    error(seen[0], [0.472734, 0.334273, 0.192993]),
    error(jax.nn.softmax(after), [0.490920, 0.308820, 0.200260]),
    error(
      jnp.exp(once(games.omd, game, logits, 5.0)),
      [0.499525, 0.290801, 0.209674],
    ),
  )


def two_responses() -> float:
  """log π*(0) / π*(1) = (P(0 ≻ 1) − ½) / τ under uniform μ."""
  worst = 0.0
  for wins, tau in ((0.7, 1.0), (0.7, 0.1), (0.1, 0.3)):
    game = games.make_game(
      preference=[[0.5, wins], [1 - wins, 0.5]],
      reference=[0.5, 0.5],
      kl_coef=tau,
    )
    log_policy = target(game)
    ratio = log_policy[0] - log_policy[1]
    worst = max(worst, error(ratio, (wins - 0.5) / tau))
  return worst


def two_responses_printed() -> float:
  """Six printed digits, so good to 5e-7."""
  shares = []
  for tau in (1.0, 0.1):
    game = games.make_game(
      preference=[[0.5, 0.7], [0.3, 0.5]], reference=[0.5, 0.5], kl_coef=tau
    )
    shares.append(jnp.exp(target(game))[0])
  return error(shares, [0.549834, 0.880797])


def rock_paper_scissors() -> float:
  """Six printed digits, so good to 5e-7."""
  game = games.make_game(
    preference=games.ROCK_SCISSORS_PAPER,
    reference=[0.7, 0.2, 0.1],
    kl_coef=0.1,
  )
  return error(jnp.exp(target(game)), [0.417154, 0.211330, 0.371515])


def advantage_is_kl() -> float:
  """P_τ(π* ≻ π) = ½ + τ KL(π, π*)."""
  worst = 0.0
  for seed, tau in enumerate((1.0, 0.1, 0.05)):
    game, other = random_game(seed, 7, tau), random_logits(seed, 7)
    best = target(game)
    worst = max(
      worst,
      error(
        games.regularised_win_rate(game, best, other),
        0.5 + tau * games.kl_divergence(other, best),
      ),
    )
  return worst


def gap_is_kl() -> float:
  """The gap's definition, its log-sum form and ours agree, τ > 0 and 0."""
  worst = 0.0
  for seed, tau in enumerate((1.0, 0.1, 0.0)):
    game, other = random_game(seed, 7, tau), random_logits(seed, 7)
    gap = games.duality_gap(game, other)
    best = games.best_response(game, other)
    played = games.win_rate(game, best, other) - 0.5
    if tau:
      played = games.regularised_win_rate(game, best, other) - 0.5
      wins = games.win_probs(game, other)
      summed = tau * jax.nn.logsumexp(game.log_reference + wins / tau)
      summed += tau * games.kl_divergence(other, game.log_reference) - 0.5
      both = 2 * tau * games.kl_divergence(other, best)
      worst = max(worst, error(gap, summed), error(2 * gap, both))
    worst = max(worst, error(gap, played))
  return worst


def equal_steps() -> float:
  """OMD(η) ≡ MMD(η / (1 − ητ)); EGPO(η) ≡ Nash-MP(η / (1 − ητ))."""
  worst = 0.0
  for seed, (tau, size) in enumerate([(1.0, 0.3), (0.1, 4.0), (0.01, 0.5)]):
    game, logits = random_game(seed, 6, tau), random_logits(seed, 6)
    longer = size / (1 - size * tau)
    for short, long in ((games.omd, games.mmd), (games.egpo, games.nash_mp)):
      worst = max(
        worst,
        error(
          once(short, game, logits, size), once(long, game, logits, longer)
        ),
      )
  return worst


def natural_gradient() -> float:
  """A natural-gradient step β/τ of Nash-MD-PG(β) is Nash-MD(η = β/τ)."""
  worst = 0.0
  for seed, (tau, mixture) in enumerate([(0.1, 0.125), (1.0, 0.5)]):
    game, logits = random_game(seed, 5, tau), random_logits(seed, 5)
    opponent = (1 - mixture) * logits + mixture * game.log_reference

    def objective(logits, game=game, opponent=opponent):
      return games.regularised_win_rate(game, logits, opponent)

    policy = jax.nn.softmax(logits)
    fisher = jnp.diag(policy) - jnp.outer(policy, policy)
    ascent = jnp.linalg.pinv(fisher) @ jax.grad(objective)(logits)
    stepped = jax.nn.log_softmax(logits + mixture / tau * ascent)
    expected = once(games.nash_md, game, logits, mixture / tau)
    worst = max(worst, error(stepped, expected))
  return worst


def scaling() -> float:
  """(P − ½, τ) → (c (P − ½), c τ) leaves π*_τ as it is."""
  game = random_game(3, 8, 0.2)
  smaller = game._replace(
    preference=0.5 + 0.3 * (game.preference - 0.5), kl_coef=0.3 * game.kl_coef
  )
  return error(target(game), target(smaller))


def mixture_is_equilibrium() -> float:
  """Where Nash-MD-PG(β) rests its mixture is π* at temperature τ / (1 − β)."""
  worst = 0.0
  for seed, mixture in enumerate((0.0, 0.125, 0.5)):
    game = random_game(seed, 6, 0.1)
    state, _ = games.solve(
      game,
      step=games.fixed_mixture(mixture),
      step_size=games.constant(0.5),
      query=games.exact_query,
      logits=game.log_reference,
      iterations=4000,
      key=jax.random.key(0),
      measures={},
      measure_every=4000,
      judged="logits",
    )
    played = (1 - mixture) * state.logits + mixture * game.log_reference
    warmer = game._replace(kl_coef=game.kl_coef / (1 - mixture))
    worst = max(worst, error(jax.nn.log_softmax(played), target(warmer)))
  return worst


def nash_md_bias() -> float:
  """A constant step η of Nash-MD rests where m is π* at τ / (1 − ητ)."""
  game, size = random_game(4, 6, 0.1), 0.5
  pull = size * game.kl_coef
  mixture = target(game._replace(kl_coef=game.kl_coef / (1 - pull)))
  logits = (mixture - pull * game.log_reference) / (1 - pull)
  moved = once(games.nash_md, game, logits, size)
  return error(moved, jax.nn.log_softmax(logits))


def _pair_gradient(game: games.Game, logits, opponent) -> jax.Array:
  """∇ of the IPO loss over pairs y, y′ ~ `opponent`, both orders counted."""
  weight = jax.nn.softmax(opponent)
  pairs = jnp.outer(weight, weight)
  half = 1 / (2 * game.kl_coef)

  def loss(logits):
    ratio = jax.nn.log_softmax(logits) - game.log_reference
    margin = ratio[:, None] - ratio[None, :]
    won = game.preference * (margin - half) ** 2
    lost = (1 - game.preference) * (-margin - half) ** 2
    return jnp.sum(pairs * (won + lost))

  return jax.grad(loss)(logits)


def online_ipo() -> float:
  """Online IPO's gradient is −4/τ times self-play's ascent direction."""
  worst = 0.0
  for seed, tau in enumerate((1.0, 0.1)):
    game, logits = random_game(seed, 5, tau), random_logits(seed, 5)

    def objective(logits, game=game, opponent=logits):
      return games.regularised_win_rate(game, logits, opponent)

    ipo = _pair_gradient(game, logits, logits)
    worst = max(worst, error(ipo * -tau / 4, jax.grad(objective)(logits)))
  return worst


def ipo_md() -> float:
  """IPO-MD's gradient, with h = log π/μ centred under the mixture m."""
  worst = 0.0
  for seed, (tau, mixture) in enumerate([(1.0, 0.125), (0.1, 0.5)]):
    game, logits = random_game(seed, 5, tau), random_logits(seed, 5)
    opponent = (1 - mixture) * logits + mixture * game.log_reference
    weight = jax.nn.softmax(opponent)
    ratio = jax.nn.log_softmax(logits) - game.log_reference
    bracket = games.win_probs(game, opponent) - 0.5
    bracket -= tau * (ratio - weight @ ratio)
    scores = jax.jacobian(jax.nn.log_softmax)(logits)
    expected = (weight * bracket) @ scores
    ipo = _pair_gradient(game, logits, opponent)
    worst = max(worst, error(ipo * -tau / 4, expected))
  return worst


# (name, function, bar): where the source prints six digits, half a unit.
IDENTITIES: tuple[tuple[str, Callable[[], float], float], ...] = (
  ("three raters and their Nash policy", three_raters, 1e-9),
  ("jump of the Bradley-Terry optimum", bradley_terry_jump, 0),
  ("dice and their Nash policy", dice, 1e-9),
  ("cycle of three total orders", total_orders, 1e-9),
  ("best Elo against best winner", elo, 1e-9),
  ("one step on the dice, six printed digits", one_step, 5.1e-7),
  ("π*_τ of two responses", two_responses, 1e-9),
  ("the same, six printed digits", two_responses_printed, 5.1e-7),
  ("π*_τ of rock-paper-scissors, six digits", rock_paper_scissors, 5.1e-7),
  ("P_τ(π* ≻ π) = ½ + τ KL(π, π*)", advantage_is_kl, 1e-9),
  ("duality gap in three forms", gap_is_kl, 1e-9),
  ("OMD ≡ MMD, EGPO ≡ Nash-MP", equal_steps, 1e-9),
  ("natural gradient of Nash-MD-PG ≡ Nash-MD", natural_gradient, 1e-9),
  ("P − ½ and τ scaled together", scaling, 1e-9),
  ("mixture of Nash-MD-PG(β) is π* at τ/(1−β)", mixture_is_equilibrium, 1e-9),
  ("bias of Nash-MD at a constant step", nash_md_bias, 1e-9),
  ("online IPO's gradient is self-play's", online_ipo, 1e-9),
  ("IPO-MD's gradient with centred log-ratio", ipo_md, 1e-9),
)
