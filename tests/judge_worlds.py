"""Texts of three kinds, raters of known preference, and judges taught by them.

A text is random tokens of a small vocabulary with one or two among them that
its kind alone uses: hardly two are alike, and a judge has to find those.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from nashmd_jax import games, losses, models
from nashmd_jax.judges import preference_model
from nashmd_jax.stages import preference

KINDS, OWN, SHARED = 3, 4, 32  # kinds, tokens that each has of its own, others
MARKERS = (2, 3, 4)
FIRST_OWN = 5
FIRST_SHARED = FIRST_OWN + KINDS * OWN
VOCAB = FIRST_SHARED + SHARED
SHORTEST, LONGEST = 5, 7
LABELS = {"kind": "hard", "ties": "half", "smoothing": 0.0}
SIZES = dict(
  family="t5", vocab_size=VOCAB, width=32, num_heads=4, head_dim=8,
  mlp_dim=64, encoder_layers=1, decoder_layers=2, num_buckets=16,
  max_distance=32,
)  # fmt: skip
# What the models read: "<2> first <3> second <4>", "<2> first <4>".
TEMPLATES = {
  "preference": preference_model.Template(
    prompt=("prompt",),
    response=((2,), "first", (3,), "second", (4,)),
    answers=(2, 3),
    barred=MARKERS,
  ),
  "reward": preference_model.Template(
    prompt=("prompt",),
    response=((2,), "first", (4,)),
    answers=(2, 3),
    barred=MARKERS,
  ),
}
CHUNK = 1024


class Texts(NamedTuple):
  """N texts.

  Attributes:
    tokens: int32[N, R], zero behind the end.
    mask: bool[N, R].
    kinds: int[N], 0 to 2.
  """

  tokens: np.ndarray
  mask: np.ndarray
  kinds: np.ndarray

  def take(self, index) -> "Texts":
    return Texts(*(array[index] for array in self))


class World(NamedTuple):
  """Who prefers what.

  Attributes:
    win_prob: (y, y′) -> f64[N], the population's P(y ≻ y′).
    vote: (rng, y, y′) -> f64[N], one rater's word on each pair, 1 or 0, or a
      share of several.
  """

  win_prob: Callable[[Texts, Texts], np.ndarray]
  vote: Callable[[np.random.Generator, Texts, Texts], np.ndarray]


def draw_texts(rng: np.random.Generator, kinds: np.ndarray) -> Texts:
  """A text of each of N kinds."""
  count = len(kinds)
  tokens = rng.integers(FIRST_SHARED, VOCAB, (count, LONGEST))
  own = FIRST_OWN + OWN * kinds[:, None] + rng.integers(OWN, size=tokens.shape)
  # The first one or two places in a random order of those that are there.
  length = rng.integers(SHORTEST, LONGEST + 1, count)
  mask = np.arange(LONGEST) < length[:, None]
  order = np.argsort(np.where(mask, rng.uniform(size=mask.shape), 2), axis=1)
  place = np.argsort(order, axis=1)
  tokens = np.where(place < rng.integers(1, 3, count)[:, None], own, tokens)
  return Texts(np.where(mask, tokens, 0).astype(np.int32), mask, kinds)


def cycle() -> World:
  """Raters of three total orders of the kinds, a third each: a ring of 2/3.

  Two texts of one kind are alike to all of them.
  """
  orders = np.array(
    [games.from_order(order) for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1))]
  )
  population = games.from_raters(np.full(KINDS, 1 / KINDS), orders)

  def vote(rng, first, second):
    who = rng.integers(KINDS, size=len(first.kinds))
    sure = orders[who, first.kinds, second.kinds]
    return (rng.uniform(size=len(who)) < sure).astype(np.float64)

  return World(lambda a, b: population[a.kinds, b.kinds], vote)


def panels(world: World) -> World:
  """The same raters, so many on each pair that their share is P."""
  return world._replace(vote=lambda rng, a, b: world.win_prob(a, b))


def bradley_terry(seed: int) -> World:
  """Raters who all mind one score, with logistic noise: P = σ(r − r′).

  r adds up what the tokens of a kind are worth, −1, 0 or 1 and something of
  each token's own; other tokens are worth nothing.
  """
  worth = np.zeros(VOCAB)
  own = np.random.default_rng(seed).normal(size=(KINDS, OWN))
  worth[FIRST_OWN:FIRST_SHARED] = (np.arange(KINDS)[:, None] - 1 + own).ravel()

  def win_prob(first, second):
    return special.expit(
      worth[first.tokens].sum(1) - worth[second.tokens].sum(1)
    )

  def vote(rng, first, second):
    prob = win_prob(first, second)
    return (rng.uniform(size=len(prob)) < prob).astype(np.float64)

  return World(win_prob, vote)


def draw_comparisons(
  world: World, rng: np.random.Generator, count: int
) -> dict[str, np.ndarray]:
  """A batch for `preference.comparison_loss`: random pairs, a vote each."""
  first, second = (
    draw_texts(rng, rng.integers(KINDS, size=count)) for _ in range(2)
  )
  return segments(first, second) | {
    "prob_a": world.vote(rng, first, second).astype(np.float32),
    "weight": np.ones(count, np.float32),
    "real": np.ones(count, bool),
  }


def segments(first: Texts, second: Texts) -> dict[str, np.ndarray]:
  """Prompts of one token and the responses of pairs."""
  prompts = np.full((len(first.kinds), 1), FIRST_SHARED, np.int32)
  return {
    "prompts": prompts,
    "prompts_mask": prompts > 0,
    "responses_a": first.tokens,
    "responses_a_mask": first.mask,
    "responses_b": second.tokens,
    "responses_b_mask": second.mask,
  }


def train(
  world: World,
  kind: str,
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
  seed: int,
) -> Any:
  """Parameters of a judge of one kind after so many batches of new votes."""
  model = models.make_language_model(**SIZES)
  template = TEMPLATES[kind]
  tx = optax.adam(
    optax.warmup_cosine_decay_schedule(
      0.0, learning_rate, steps // 20 + 1, steps
    )
  )

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def update(params, moments, batch):
    def loss(params):
      judge = (model, params, template)
      return preference.comparison_loss(kind, judge, batch, LABELS)[0].value

    change, moments = tx.update(jax.grad(loss)(params), moments, params)
    return optax.apply_updates(params, change), moments

  params = model.init(jax.random.key(seed))
  moments, rng = tx.init(params), np.random.default_rng([seed, 1])
  for _ in range(steps):
    batch = draw_comparisons(world, rng, batch_size)
    params, moments = update(params, moments, batch)
  return params


def log_odds(
  kind: str, params: Any, first: Texts, second: Texts, **numerics: str
) -> np.ndarray:
  """What a judge says of N pairs, f32[N] log-odds of y ≻ y′.

  Args:
    **numerics: of the model, such as its dtype.
  """
  model = models.make_language_model(**SIZES, **numerics)
  judge = (model, params, TEMPLATES[kind])
  said, count = [], len(first.kinds)
  for start in range(0, count, CHUNK):
    # The last chunk is filled up, so that one program serves all.
    index = np.minimum(np.arange(start, start + CHUNK), count - 1)
    batch = segments(first.take(index), second.take(index))
    said.append(_log_odds(kind, judge[0], judge[2], params, batch))
  return np.concatenate(said)[:count]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _log_odds(kind, model, template, params, batch):
  prompts, first, second = (
    preference_model.segment(batch, name)
    for name in ("prompts", "responses_a", "responses_b")
  )
  if kind == "preference":
    return preference_model.win_logit(
      model, params, template,
      prompts=prompts, responses=first, opponents=second,
    )  # fmt: skip
  rewards = [
    preference_model.reward(
      model, params, template, prompts=prompts, responses=responses
    )
    for responses in (first, second)
  ]
  return rewards[0] - rewards[1]


def between_kinds(texts: Texts) -> tuple[Texts, Texts]:
  """All pairs of texts of which the second is of the next kind."""
  first, second = np.nonzero(
    (texts.kinds[:, None] + 1) % KINDS == texts.kinds[None, :]
  )
  return texts.take(first), texts.take(second)


def all_pairs(texts: Texts) -> tuple[Texts, Texts]:
  """All unordered pairs, i < j."""
  i, j = np.triu_indices(len(texts.kinds), 1)
  return texts.take(i), texts.take(j)


def agreement(
  world: World, said: np.ndarray, first: Texts, second: Texts
) -> float:
  """Share of pairs on whose order a judge and the population agree.

  A judge without a preference counts one half. A score agrees on at most two
  thirds of `between_kinds` in a ring, whatever it is and exactly: of three
  texts, one of each kind, it puts one first that the ring puts second to
  another, so that of their three pairs it has at most two right (with ties
  1 + ½ at most); with as many texts of each kind, every pair is in as many of
  these triples as any other, and the mean over pairs is that over triples.
  """
  side = np.sign(world.win_prob(first, second) - 0.5)
  return float(np.mean(0.5 + 0.5 * np.sign(said) * side))


def vote_accuracy(
  world: World, said: np.ndarray, first: Texts, second: Texts
) -> tuple[float, float]:
  """Expected accuracy against one vote a pair; and that of who knows P."""
  prob = world.win_prob(first, second)
  mine = np.where(said > 0, prob, np.where(said < 0, 1 - prob, 0.5))
  return float(np.mean(mine)), float(np.mean(np.maximum(prob, 1 - prob)))


def square(said: np.ndarray, count: int) -> np.ndarray:
  """f64[Y, Y] log-odds of `all_pairs` of Y texts, antisymmetric."""
  matrix = np.zeros((count, count))
  matrix[np.triu_indices(count, 1)] = said
  return matrix - matrix.T


def cyclic_share(log_odds: np.ndarray) -> float:
  """Share of triples whose majorities go round, of log-odds f64[Y, Y]."""
  return float(games.cyclic_share(special.expit(log_odds)))


def cyclic_by_chance(log_odds: np.ndarray, *, draws: int, seed: int) -> float:
  """The most cycles, 97.5 % quantile, that a Bradley-Terry judge of noise has.

  The null is the best additive reading of the log-odds, r_i − r_j with r_i
  their mean over j, and on every pair independent normal noise as large as
  what that leaves over: cycles then are where scores nearly tie. A judge whose
  remainder is arranged in rings has more.
  """
  count = len(log_odds)
  score = log_odds.mean(1)
  additive = score[:, None] - score[None, :]
  upper = np.triu_indices(count, 1)
  left = (log_odds - additive)[upper]
  # The scores take count − 1 of the degrees of freedom.
  size = np.sqrt(np.sum(left**2) / (len(left) - count + 1))
  rng = np.random.default_rng(seed)
  shares = [
    cyclic_share(square(additive[upper] + size * noise, count))
    for noise in rng.normal(size=(draws, len(left)))
  ]
  return float(np.quantile(shares, 0.975))


def antisymmetry_error(
  params: Any, first: Texts, second: Texts, **numerics: str
) -> float:
  """Largest |P(y ≻ y′) + P(y′ ≻ y) − 1| of a preference model in float32.

  The two readings are asked in different orders of the rows.
  """
  turned = np.arange(len(first.kinds))[::-1]
  there, back = (
    np.asarray(
      jax.nn.sigmoid(log_odds("preference", params, *pair, **numerics))
    )
    for pair in ((first, second), (second.take(turned), first.take(turned)))
  )
  return float(np.abs(there.astype(np.float64) + back[::-1] - 1).max())


def moment_error(*, responses: int, seed: int) -> float:
  """Largest |P(y ≻ π) − E_{y′~π} σ(r(y) − r(y′))|, r fitted under π.

  A table of responses with random preferences, cycles among them. π gives each
  a share in whole numbers, so that the loss is asked about every pair as often
  as π draws it: its minimum, found by Newton's method in float64, is the
  Bradley-Terry fit under π with no sampling error.

  Source: Munos et al., ICML 2024, prop. 2.
  """
  rng = np.random.default_rng(seed)
  preference = games.random_preferences(
    jax.random.key(seed), contexts=1, responses=responses
  )[0]
  drawn = np.repeat(np.arange(responses), rng.integers(1, 6, responses))
  a, b = (pair.ravel() for pair in np.meshgrid(drawn, drawn))
  with jax.enable_x64(True):
    prob_a, real = jnp.asarray(preference[a, b]), jnp.ones(len(a), bool)

    def loss(free):
      # The likelihood minds differences alone: the first reward is 0.
      reward = jnp.concatenate([jnp.zeros(1), free])
      return losses.bradley_terry_loss(
        reward_a=reward[a],
        reward_b=reward[b],
        prob_a=prob_a,
        weight=jnp.ones(len(a)),
        mask=real,
      )[0].value

    slope, curvature = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    free = jnp.zeros(responses - 1)
    for _ in range(30):
      step = jnp.linalg.solve(curvature(free), slope(free))
      free -= step / jnp.maximum(1, jnp.abs(step).max())
  reward = np.concatenate([[0], free])
  fitted = special.expit(reward[:, None] - reward[drawn]).mean(1)
  return float(np.abs(preference[:, drawn].mean(1) - fitted).max())
