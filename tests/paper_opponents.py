"""Who writes y′, from the formulas of PAPER §4 alone.

Nothing of `nashmd_jax.nash` is used: a β in the wrong place there must not be
repeated here.
"""

from collections.abc import Callable

import jax


def log_probs(logits: jax.Array, temperature: float) -> jax.Array:
  """log softmax(logits / temperature) over the last axis."""
  scaled = logits / temperature
  return scaled - jax.scipy.special.logsumexp(scaled, axis=-1, keepdims=True)


def mixed(policy: jax.Array, reference: jax.Array, beta: float) -> jax.Array:
  """log of softmax((1 − β) log π + β log μ), at every prefix by itself."""
  return log_probs((1 - beta) * policy + beta * reference, 1.0)


def moving_average_mixture(sets, beta, temperature):
  average = log_probs(sets["ema"]["logits"], temperature)
  reference = log_probs(sets["reference"]["logits"], temperature)
  return [mixed(average, reference, beta)]


def rival(sets, beta, temperature):
  """What another run deploys, its own mixture with μ."""
  other = log_probs(sets["rival"]["logits"], temperature)
  reference = log_probs(sets["reference"]["logits"], temperature)
  return [mixed(other, reference, beta)]


def mixture(sets, beta, temperature):
  policy = log_probs(sets["policy"]["logits"], temperature)
  reference = log_probs(sets["reference"]["logits"], temperature)
  return [mixed(policy, reference, beta)]


def interpolation(sets, beta, temperature):
  """Parameters (1 − β) θ + β θ_0, θ_0 the start, which is μ."""
  now, start = sets["policy"]["logits"], sets["reference"]["logits"]
  return [log_probs(now - beta * (now - start), temperature)]


def past(sets, beta, temperature):
  """Each stored policy as likely as any other."""
  del beta
  snapshots, count = sets["past"]
  return [
    log_probs(snapshots["logits"][i], temperature) for i in range(int(count))
  ]


def anchor(sets, beta, temperature):
  """The policy of the last iteration, the newest of those that are kept."""
  del beta
  return [log_probs(sets["iterate"]["logits"][0], temperature)]


def alone(name: str) -> Callable:
  """One set, whatever β."""
  return lambda sets, beta, temperature: [
    log_probs(sets[name]["logits"], temperature)
  ]


# (sets, β, temperature) -> log π′(v | x, y_<n) f64[X, prefixes, V] of every
# policy that the opponent may draw, each as likely.
TABLES = {
  "self": alone("policy"),
  "mixture": mixture,
  "moving_average": alone("ema"),
  "reference": alone("reference"),
  "moving_average_mixture": moving_average_mixture,
  "interpolation": interpolation,
  "past": past,
  "anchor": anchor,
  "rival": rival,
}
