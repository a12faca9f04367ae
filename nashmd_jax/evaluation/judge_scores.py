"""How good a judge is on held-out comparisons, with intervals.

Accuracy, log-loss, Brier score and calibration; accuracy by the judge's margin,
by the difference of the lengths and by the raters' agreement; the bias of a
judge that reads a pair in one order. Pure NumPy; intervals are of `clusters`.
"""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy

from nashmd_jax.evaluation import clusters

# Lower ends of the groups but the first, and what a reader calls the groups.
CONFIDENCES = np.arange(11, 20) / 20
MARGINS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
WORDS = np.array([-20, -5, 0, 1, 6, 21])
# Shares of votes may have passed through float32.
AGREEMENTS = np.array([0.5, 0.6, 0.7, 0.8, 0.9]) + 1e-6
LABELS = {
  "calibration": [f"{50 + 5 * i} to {55 + 5 * i} %" for i in range(10)],
  "margin": [
    "below 0.25", "0.25 to 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 and more"
  ],
  "length": [
    "shorter by 21 words and more", "shorter by 6 to 20", "shorter by 1 to 5",
    "as long", "longer by 1 to 5", "longer by 6 to 20",
    "longer by 21 and more",
  ],
  "agreement": [
    "a tie", "to 60 %", "to 70 %", "to 80 %", "to 90 %", "more than 90 %"
  ],
}  # fmt: skip


class Judged(NamedTuple):
  """N comparisons, and what a judge says of them.

  Attributes:
    logit: f64[N], the judge's log-odds that a is preferred; finite.
    prob_a: f64[N], the share of the raters' votes for a.
    words: int[N], words of a minus words of b.
    prompts: [N], which prompt each is of; the intervals resample prompts.
  """

  logit: np.ndarray
  prob_a: np.ndarray
  words: np.ndarray
  prompts: np.ndarray


def agreement(logit: np.ndarray, prob_a: np.ndarray) -> np.ndarray:
  """½ + ½ sign(ℓ) sign(p − ½), f64[N]: 1 where the judge is right.

  A tie on either side counts one half, as in `losses.preference_loss`.
  """
  return 0.5 + 0.5 * np.sign(logit) * np.sign(prob_a - 0.5)


def log_loss(logit: np.ndarray, prob_a: np.ndarray) -> np.ndarray:
  """−p log σ(ℓ) − (1 − p) log σ(−ℓ), f64[N], nats."""
  return np.logaddexp(0, logit) - prob_a * logit


def brier(logit: np.ndarray, prob_a: np.ndarray) -> np.ndarray:
  """(σ(ℓ) − p)², f64[N]; of several votes, the distance to their share."""
  return (scipy.special.expit(logit) - prob_a) ** 2


def describe(judged: Judged, *, resamples: int, seed: int) -> dict[str, Any]:
  """All scores of a judge.

  The order in a pair is arbitrary, so calibration is of the side that the
  judge favours: its confidence max(P, 1 − P) in 10 bins of equal width from ½
  to 1, [½, .55) … [.95, 1], against the share of votes for that side (½ where
  it favours neither). The expected calibration error is the mean over
  comparisons of |mean confidence − share| of their bins; noise in the bins
  makes it more than 0 for a perfect judge, and its interval is shifted up.

  Args:
    judged: comparisons; each counts the same.
    resamples: of the prompts.
    seed: of the resamples.
  Returns: estimates, see `clusters.ratio`: "accuracy"; "log_loss" (nats);
    "brier"; "calibration_error"; "favours_longer", the share of pairs of
    different lengths in which the judge favours the longer, a tie one half;
    "longer_wins", the share of votes for the longer in them. Lists of groups
    with their "label", from low to high: "calibration" ("confidence" and the
    estimate of the share for the favoured side); accuracies by "margin", |ℓ| in
    nats; by "length", words that the favoured side has more, those without a
    favoured side left out; by "agreement", share of votes of the majority.
  Raises: ValueError if there is no comparison, or a number is not finite.
  """
  for name, column in judged._asdict().items():
    if name != "prompts" and not np.isfinite(column).all():
      raise ValueError(f"{name}: expected finite numbers, got {column}")
  columns, tables = _columns(judged), _tables(judged)
  for table, group in tables.items():
    columns |= _grouped(columns, table, group)
  sums = clusters.resample(
    columns, judged.prompts, resamples=resamples, seed=seed
  )
  found = {
    name: clusters.ratio(sums[name], sums["one"])
    for name in ("accuracy", "log_loss", "brier")
  }
  found["calibration_error"] = _calibration_error(sums)
  for name in ("favours_longer", "longer_wins"):
    found[name] = clusters.ratio(sums[name], sums["lengths_differ"])
  return found | {table: _rows(sums, table) for table in tables}


def _columns(judged: Judged) -> dict[str, np.ndarray]:
  """What is summed over all comparisons."""
  logit, prob_a, words, _ = judged
  side = np.sign(logit)
  differ = (words != 0).astype(float)
  return {
    "one": np.ones(len(logit)),
    "accuracy": agreement(logit, prob_a),
    "log_loss": log_loss(logit, prob_a),
    "brier": brier(logit, prob_a),
    "confidence": scipy.special.expit(np.abs(logit)),
    "share": 0.5 + side * (prob_a - 0.5),
    "lengths_differ": differ,
    "favours_longer": differ * (0.5 + 0.5 * side * np.sign(words)),
    "longer_wins": differ * (0.5 + np.sign(words) * (prob_a - 0.5)),
  }


def _tables(judged: Judged) -> dict[str, np.ndarray]:
  """The group of every comparison, int[N], by table; −1 for none."""
  logit, prob_a, words, _ = judged
  side = np.sign(logit)

  def group(ends, values):
    return np.searchsorted(ends, values, side="right")

  return {
    "calibration": group(CONFIDENCES, scipy.special.expit(np.abs(logit))),
    "margin": group(MARGINS, np.abs(logit)),
    "length": np.where(side == 0, -1, group(WORDS, side * words)),
    "agreement": group(AGREEMENTS, np.maximum(prob_a, 1 - prob_a)),
  }


def _grouped(columns, table: str, group: np.ndarray) -> dict[str, np.ndarray]:
  """The columns that a table needs, once for each of its groups."""
  of_table = (
    ("confidence", "share") if table == "calibration" else ("accuracy",)
  )
  return {
    f"{table} {number} {name}": columns[name] * (group == number)
    for number in range(len(LABELS[table]))
    for name in (*of_table, "one")
  }


def _rows(sums, table: str) -> list[dict[str, Any]]:
  """The groups of a table that are not empty."""
  rows = []
  for number, label in enumerate(LABELS[table]):
    of_group = f"{table} {number}"
    count = sums[f"{of_group} one"]
    if not count.whole:
      continue
    row: dict[str, Any] = {"label": label}
    if table == "calibration":
      confidence = clusters.ratio(sums[f"{of_group} confidence"], count)
      row["confidence"] = confidence["value"]
      rows.append(row | clusters.ratio(sums[f"{of_group} share"], count))
    else:
      rows.append(row | clusters.ratio(sums[f"{of_group} accuracy"], count))
  return rows


def _calibration_error(sums) -> clusters.Estimate:
  whole, drawn = 0.0, 0.0
  for number in range(len(LABELS["calibration"])):
    confidence, share = (
      sums[f"calibration {number} {name}"] for name in ("confidence", "share")
    )
    whole += abs(confidence.whole - share.whole)
    drawn = drawn + np.abs(confidence.drawn - share.drawn)
  count = sums["one"]
  return clusters.estimate(whole / count.whole, drawn / count.drawn, count)


def position_bias(
  first: np.ndarray,
  second: np.ndarray,
  prob_a: np.ndarray,
  prompts: np.ndarray,
  *,
  resamples: int,
  seed: int,
) -> Mapping[str, clusters.Estimate]:
  """What a judge would be that read every pair in one order only.

  Args:
    first: f64[N], f(x, a, b): log-odds that the first, a, is preferred.
    second: f64[N], f(x, b, a): that the first, b, is.
    prob_a, prompts: see `Judged`.
    resamples, seed: see `describe`.
  Returns: estimates: "disagree", the share of pairs whose orders name different
    winners; "first_wins", the share of the 2N readings in which the first
    place wins; "first_prob", the mean probability of the first place in them;
    "accuracy_one_order", the mean of both orders' accuracies;
    "accuracy_both_orders", of f(x, a, b) − f(x, b, a); "gain", the second less
    the first. Where a logit is 0 each of them counts one half.
  """
  one = np.ones(len(first))
  single = (agreement(first, prob_a) + agreement(-second, prob_a)) / 2
  both = agreement(first - second, prob_a)
  columns = {
    "disagree": 0.5 + 0.5 * np.sign(first) * np.sign(second),
    "first_wins": 0.5 + (np.sign(first) + np.sign(second)) / 4,
    "first_prob": (scipy.special.expit(first) + scipy.special.expit(second))
    / 2,
    "accuracy_one_order": single,
    "accuracy_both_orders": both,
    "gain": both - single,
  }
  sums = clusters.resample(
    {"one": one, **columns}, prompts, resamples=resamples, seed=seed
  )
  return {name: clusters.ratio(sums[name], sums["one"]) for name in columns}


def between(
  logits: Mapping[str, np.ndarray],
  prompts: np.ndarray,
  *,
  resamples: int,
  seed: int,
) -> list[dict[str, Any]]:
  """How often each two judges favour the same side; a tie counts one half.

  Args:
    logits: f64[N] of each judge, see `Judged`.
    prompts: see `Judged`.
    resamples, seed: see `describe`.
  Returns: for each pair "judge" and "other", and an estimate.
  """
  one, found = np.ones(len(prompts)), []
  for name, other in itertools.combinations(logits, 2):
    same = 0.5 + 0.5 * np.sign(logits[name]) * np.sign(logits[other])
    sums = clusters.resample(
      {"one": one, "same": same}, prompts, resamples=resamples, seed=seed
    )
    found.append(
      {"judge": name, "other": other}
      | clusters.ratio(sums["same"], sums["one"])
    )
  return found


def numbered(prompts: Sequence[str]) -> np.ndarray:
  """The same number for the same prompt, int[N]."""
  known: dict[str, int] = {}
  return np.array([known.setdefault(text, len(known)) for text in prompts])
