"""What a response is drawn from: parameter sets, and how they become one.

A lane is a weighted sum of log-probs over named sets, or an ensemble of sets
that answers pessimistically. Nothing here knows a model.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp

Lane = Mapping[str, "float | jax.Array"]


class Members(Mapping[str, float]):
  """The sets of an ensemble by name; what a name has is no weight, but 1."""

  members: tuple[str, ...]

  def __getitem__(self, name: str) -> float:
    if name not in self.members:
      raise KeyError(name)
    return 1.0

  def __iter__(self) -> Iterator[str]:
    return iter(self.members)

  def __len__(self) -> int:
    return len(self.members)


@dataclasses.dataclass(frozen=True)
class Ensemble(Members):
  """Several sets that answer as one at each token, see `RULES`.

  Attributes:
    members: names of the sets.
    rule: a key of `RULES`.
    deviations: η ≥ 0; read by "lower" alone.
  """

  members: tuple[str, ...]
  rule: str
  deviations: float


@dataclasses.dataclass(frozen=True)
class Rejection(Members):
  """Sets whose least probability of a whole response is sampled exactly.

  Attributes:
    members: names of the sets; the first proposes.
    proposals: N ≥ 1, proposals for each response; see `rejection`.
  """

  members: tuple[str, ...]
  proposals: int


def minimum(log_probs: jax.Array, deviations: float) -> jax.Array:
  """log min_l π_l, f[..., V], not normalised.

  Args:
    log_probs: f[L, ..., V], nats, each normalised over V.
    deviations: not read.
  """
  del deviations
  return jnp.min(log_probs, axis=0)


def lower(log_probs: jax.Array, deviations: float) -> jax.Array:
  """log max(0, mean_l π_l − η sd_l π_l), f[..., V], not normalised.

  The deviation is that of the members themselves, over L and not L − 1: with η
  below 1/√(L − 1) no token that any member may write is lost. Where nothing of
  the vocabulary is left, which takes a larger η, the minimum stands for it.

  Args:
    log_probs: f[L, ..., V], nats, each normalised over V.
    deviations: η ≥ 0.
  """
  probs = jnp.exp(log_probs)
  left = jnp.mean(probs, axis=0) - deviations * jnp.std(probs, axis=0)
  some = jnp.any(left > 0, axis=-1, keepdims=True)
  kept = jnp.where(left > 0, jnp.log(jnp.where(left > 0, left, 1)), -jnp.inf)
  return jnp.where(some, kept, minimum(log_probs, deviations))


RULES: Mapping[str, Callable[[jax.Array, float], jax.Array]] = {
  "minimum": minimum,
  "lower": lower,
}


def combine(lane: Lane, log_probs: Mapping[str, jax.Array]) -> jax.Array:
  """log π of a lane at each prefix, f[..., V], not normalised.

  An ensemble of one set is that set, bit for bit.

  Args:
    lane: weights by name, or an `Ensemble`.
    log_probs: of its sets by name, f[..., V], nats, each normalised over V.
  """
  if isinstance(lane, Ensemble):
    parts = [log_probs[name] for name in lane]
    if len(parts) == 1:
      return parts[0]
    return RULES[lane.rule](jnp.stack(parts), lane.deviations)
  weighted = (lane[name] * log_probs[name] for name in log_probs)
  return functools.reduce(jnp.add, weighted, 0.0)


def nonzero(lane: Lane) -> Lane:
  """The lane without the sets whose weight is the Python number 0."""
  if isinstance(lane, Members):
    return lane
  return {
    name: weight
    for name, weight in lane.items()
    if isinstance(weight, jax.Array) or weight != 0
  }
