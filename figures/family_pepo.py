"""Rows on pessimism: what few noisy comparisons do to DPO, and PEPO against it.

  python -m figures.family_pepo

writes out/family_pepo.json, in about a minute on 2 CPU cores. A policy is a
table of logits for each of 150 prompts with 30 responses. Rewards r are normal,
P is Bradley-Terry of them, and log μ = r + a normal: the reference writes what
is good more often. It writes 30 pairs to each prompt, each of which gets one
vote. Policies descend the loss of all comparisons at once, a step an epoch, and
are measured exactly: P(π ≻ μ).
"""

from collections.abc import Iterator
import functools
import pathlib
import sys
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from figures import rows as rows_lib
from nashmd_jax import games, lanes, losses
from nashmd_jax.data import parts
from nashmd_jax.evaluation import intervals

OUT = pathlib.Path("out") / "family_pepo.json"
PROMPTS, RESPONSES, PAIRS = 150, 30, 30
MEMBERS, PESSIMISM, KL_COEF, STEP = 3, 0.1, 0.1, 100.0
EPOCHS = (0, *(2**k for k in range(11)))
SEEDS, CONFIDENCE = 5, 0.95
SAME = 1e-3  # below, a win rate is not told apart
DPO, MARGIN, MEMBER = "DPO", "PEPO's margin", "a member of the ensemble"
# By name the overlap of the members' parts, the rule, and η.
ENSEMBLES = {
  "ensemble, minimum": (0.0, "minimum", 0.0),
  "ensemble, minimum, a quarter overlapping": (0.25, "minimum", 0.0),
  "ensemble, mean less one deviation": (0.0, "lower", 1.0),
}


class World(NamedTuple):
  """Prompts with all their responses, and comparisons of some.

  Attributes:
    preference: f64[X, Y, Y], P(y ≻ y′|x).
    log_reference: f64[X, Y], log μ(y|x), nats.
    pairs: int[X, N, 2], responses that were compared.
    votes: f64[X, N], 1 where the first was preferred, else 0.
  """

  preference: np.ndarray
  log_reference: np.ndarray
  pairs: np.ndarray
  votes: np.ndarray


def make_world(seed: int, *, prompts: int, responses: int, pairs: int) -> World:
  """A world of `prompts` X, with Y responses and N comparisons each."""
  rng = np.random.default_rng(seed)
  reward = rng.normal(size=(prompts, responses))
  log_reference = reward + rng.normal(size=reward.shape)
  log_reference -= np.log(np.exp(log_reference).sum(-1, keepdims=True))
  preference = games.from_scores(reward)
  cdf = np.exp(log_reference).cumsum(-1)[:, None, None]
  uniform = rng.random((prompts, pairs, 2, 1)) * cdf[..., -1:]
  drawn = (uniform >= cdf).sum(-1)
  rows = np.arange(prompts)[:, None]
  won = preference[rows, drawn[..., 0], drawn[..., 1]]
  votes = rng.random(won.shape) < won
  return World(preference, log_reference, drawn, votes.astype(np.float64))


def part(world: World, number: int, overlap: float, seed: int) -> World:
  """The world with the comparisons of one member: of each prompt one part."""
  own = parts.numbers(
    world.pairs.shape[1],
    parts=MEMBERS,
    part=number,
    overlap=overlap,
    seed=seed,
  )
  return world._replace(pairs=world.pairs[:, own], votes=world.votes[:, own])


def trained(world: World, pessimism: float, epochs=EPOCHS) -> list[jax.Array]:
  """log π f[X, Y] after each number of epochs, from μ."""
  start = jnp.asarray(world.log_reference)
  reached, found, done = start, [], 0
  for epoch in epochs:
    reached = _descend(
      reached, epoch - done, *map(jnp.asarray, world[1:]), pessimism
    )
    found.append(jax.nn.log_softmax(reached))
    done = epoch
  return found


@functools.partial(jax.jit, static_argnames="pessimism")
def _descend(logits, steps, log_reference, pairs, votes, pessimism):
  """So many steps down the loss, the sum of every prompt's own mean."""
  size = pairs.shape[1]
  # Of two responses the first against the second is all that is read.
  win_prob = jnp.broadcast_to(votes.reshape(-1, 1, 1), (votes.size, 2, 2))

  def loss(logits):
    ratio = jax.nn.log_softmax(logits) - log_reference
    ratio = jnp.take_along_axis(ratio, pairs.reshape(len(pairs), -1), axis=1)
    mean, _ = losses.pepo_loss(
      log_ratio=ratio.reshape(-1, 2),
      win_prob=win_prob,
      judged=jnp.ones(win_prob.shape),
      kl_coef=KL_COEF,
      pessimism=pessimism,
    )
    return mean.total / size

  def step(_, logits):
    return logits - STEP * jax.grad(loss)(logits)

  return lax.fori_loop(0, steps, step, logits)


def joined(members: list[jax.Array], rule: str, deviations: float) -> jax.Array:
  """log π of an ensemble of policies over whole responses, each one token."""
  names = tuple(map(str, range(len(members))))
  lane = lanes.Ensemble(names, rule, deviations)
  by_name = dict(zip(names, members, strict=True))
  return jax.nn.log_softmax(lanes.combine(lane, by_name))


def win_rate(world: World, log_policy: jax.Array) -> float:
  """P(π ≻ μ), the mean over prompts."""
  reference, policy = np.exp(world.log_reference), np.exp(log_policy)
  won = np.einsum("xi,xij,xj->x", policy, world.preference, reference)
  return float(won.mean())


def curves(seed: int) -> dict[str, list[float]]:
  """The true win rate after each of `EPOCHS`, by method."""
  world = make_world(seed, prompts=PROMPTS, responses=RESPONSES, pairs=PAIRS)
  policies = {DPO: trained(world, 0.0), MARGIN: trained(world, PESSIMISM)}
  by_overlap = {
    overlap: [
      trained(part(world, number, overlap, seed), PESSIMISM)
      for number in range(MEMBERS)
    ]
    for overlap in sorted({overlap for overlap, _, _ in ENSEMBLES.values()})
  }
  policies[MEMBER] = by_overlap[0.0][0]
  for name, (overlap, rule, deviations) in ENSEMBLES.items():
    policies[name] = [
      joined(list(members), rule, deviations)
      for members in zip(*by_overlap[overlap], strict=True)
    ]
  return {
    name: [win_rate(world, one) for one in found]
    for name, found in policies.items()
  }


def measured() -> dict[str, np.ndarray]:
  """The same of all seeds, f64[seeds, epochs]."""
  found = [curves(seed) for seed in range(SEEDS)]
  return {name: np.array([one[name] for one in found]) for name in found[0]}


def falls(rates: np.ndarray) -> np.ndarray:
  """How far each seed's win rate has fallen from its peak in the end."""
  return rates.max(axis=1) - rates[:, -1]


def rows(found: dict[str, np.ndarray]) -> Iterator[rows_lib.Row]:
  """DPO falls; ensembles fall less; the margin alone does not.

  Args:
    found: see `measured`.
  """
  fell = {name: falls(rates) for name, rates in found.items()}
  claims = {"fall of DPO's true win rate from its peak": fell[DPO]}
  claims |= {
    f"fall of DPO's true win rate less that of the {name}": (
      fell[DPO] - fell[name]
    )
    for name in ENSEMBLES
  }
  for claim, values in claims.items():
    mean, low, high = intervals.mean_interval(values, CONFIDENCE)
    told = f"{claim}: {mean:.3f} ({low:.3f} to {high:.3f}), {SEEDS} seeds"
    yield rows_lib.row(f"{told}; lower end", low, ">", 0)
  yield rows_lib.row(
    f"fall of {MARGIN} alone, a = {PESSIMISM}, which is DPO's: largest "
    f"difference, {SEEDS} seeds",
    float(np.abs(fell[DPO] - fell[MARGIN]).max()),
    "≤",
    SAME,
  )


TEXT = """
## Pessimism

What few comparisons do: {prompts} prompts of {responses} responses,
{pairs} pairs to each and one vote a pair. P(π ≻ μ) is the true one, exactly;
in brackets its {confidence:.0%} interval over {seeds} seeds. β is {kl_coef},
a is {pessimism}, an ensemble has {members} members, each of a part of the
comparisons, and an epoch is a step down the loss of all of them, from μ.

| | peak | at epoch | after {last:,} epochs | fall |
|---|---|---|---|---|
"""
NOTE = """
- What wins its few votes by luck gains without end, and DPO moves to it. So
  does each member, but to other responses, and the least of them stays.
- From the same comparisons an ensemble learns less: who knows when to stop DPO
  has more from DPO, and who does not has less.
- The margin alone changes nothing here: log(1 + a) is {nats:.3f} nats of a
  margin that grows without end.
"""


def section(found: dict[str, np.ndarray]) -> str:
  """Of docs/family.md: who falls, and how far.

  Args:
    found: see `measured`.
  """
  text = TEXT.format(
    prompts=PROMPTS,
    responses=RESPONSES,
    pairs=PAIRS,
    seeds=SEEDS,
    confidence=CONFIDENCE,
    kl_coef=KL_COEF,
    pessimism=PESSIMISM,
    members=MEMBERS,
    last=EPOCHS[-1],
  )
  for name, rates in found.items():
    peak = EPOCHS[int(np.argmax(rates.mean(0)))]
    told = (
      _told(values) for values in (rates.max(1), rates[:, -1], falls(rates))
    )
    top, end, fall = told
    text += f"| {name} | {top} | {peak} | {end} | {fall} |\n"
  return text + NOTE.format(nats=np.log1p(PESSIMISM))


def _told(values: np.ndarray) -> str:
  mean, low, high = intervals.mean_interval(values, CONFIDENCE)
  return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
  """Measures, prints the section and writes the rows."""
  with jax.enable_x64(True):
    found = measured()
  print(section(found))
  return rows_lib.report(OUT, list(rows(found)))


if __name__ == "__main__":
  sys.exit(main())
