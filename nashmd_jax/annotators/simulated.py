"""Simulated annotators, to hold the estimators to.

A decision in time is drawn without the densities that `response_times` is made
of: the time in which a Brownian motion leaves (−b, b) is a sum of independent
exponential times, and which end it leaves by is independent of that.
"""

import numpy as np

TERMS = 200  # exponential times; of the others their mean stands
BLOCK = 10


def answer(
  prob: np.ndarray, effort: float, rng: np.random.Generator
) -> np.ndarray:
  """Votes of an annotator who reads a pair with probability `effort`.

  Args:
    prob: f64[...], P(a ≻ b) of each question.
    effort: e in [0, 1].
    rng: of all draws.
  Returns: bool[...], whether the vote is for a; of a coin where nothing was
    read.
  """
  reads = rng.random(np.shape(prob)) < effort
  return rng.random(np.shape(prob)) < np.where(reads, prob, 0.5)


def decide(
  drift: np.ndarray,
  boundary: float,
  rng: np.random.Generator,
  non_decision: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
  """Choices and times of drift-diffusion.

    P(Z = 1) = 1/(1 + e^{−2vb}),  T = Σ_k E_k / (((2k − 1) π/2b)² + v²) · 2,
    E_k exponential of mean 1

  Args:
    drift: f64[N], v of each decision.
    boundary: b.
    rng: of all draws.
    non_decision: t₀, seconds that are added to every time.
  Returns: f64[N] of 1 and −1, f64[N] seconds.
  Source: Euler's product of cosh in the Laplace transform of T,
    L(λ) = Π_k 1/(1 + 2λ/(((2k − 1) π/2b)² + v²)).
  """
  drift = np.asarray(drift, np.float64)
  chance = 1 / (1 + np.exp(-2 * drift * boundary))
  choices = np.where(rng.random(drift.shape) < chance, 1.0, -1.0)
  times = np.full(drift.shape, float(non_decision))
  for start in range(0, TERMS, BLOCK):
    pole = (2 * np.arange(start, start + BLOCK) + 1) * np.pi / (2 * boundary)
    mean = 2 / (pole**2 + drift[:, None] ** 2)
    times += (rng.exponential(size=mean.shape) * mean).sum(-1)
  # Σ over k > K of the means, by ∫ 2/(pole(k)²) dk from K.
  return choices, times + 2 * boundary**2 / (np.pi**2 * TERMS)
