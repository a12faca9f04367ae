"""What votes say: of policies, of annotators, and as comparison records."""

from collections.abc import Iterable, Mapping, Sequence
import hashlib
from typing import Any

import numpy as np

from nashmd_jax.annotators import design, golden, labels, repeats, votes
from nashmd_jax.data import records
from nashmd_jax.evaluation import intervals

VALUES = {votes.A: 1.0, votes.B: 0.0, votes.TIE: 0.5}
HELD_OUT = 10  # one prompt of so many is for validation
LEVEL = 0.05  # most that somebody passes with who throws coins
SHARES = np.arange(1, 20) / 20  # of votes, by their times
EQUAL, BY_REPEATS, BY_GOLDEN = "equal", "repeats", "golden"


def describe(
  cast: Sequence[votes.Vote],
  pairs: Sequence[design.Pair],
  *,
  confidence: float,
) -> dict[str, Any]:
  """The results of the votes on pairs.

  Returns: "votes" and "pairs", how many; "policies", of each two the share of
    votes for the first; "annotators", of each what tells whether to trust them;
    "times" of all, see `response_times`.
  """
  known = {pair.name: pair for pair in pairs}
  by_annotator: dict[str, list[votes.Vote]] = {}
  for vote in cast:
    by_annotator.setdefault(vote.annotator, []).append(vote)
  return {
    "votes": len(cast),
    "pairs": len({vote.pair for vote in cast}),
    "confidence": confidence,
    "policies": _policies(cast, known, confidence),
    "annotators": {
      name: _annotator(mine, known, confidence)
      for name, mine in by_annotator.items()
    },
    "times": response_times(cast),
  }


def response_times(cast: Sequence[votes.Vote]) -> list[list[float]]:
  """In how many seconds a share of the votes was given: [share, seconds].

  Of the whole time that a pair was seen, reading too; nothing without votes.
  """
  if not cast:
    return []
  seconds = np.quantile([vote.seconds for vote in cast], SHARES)
  return np.stack([SHARES, seconds], axis=1).tolist()


def comparisons(
  cast: Iterable[votes.Vote],
  pairs: Sequence[design.Pair],
  effort: Mapping[str, float] | None = None,
) -> list[records.Record]:
  """The votes as comparison records, one a pair, golden questions left out.

  Args:
    cast: all votes.
    pairs: that were asked about.
    effort: of each annotator, by which their votes count, see `labels`; None
      counts all alike, and says how many called a pair a tie.
  """
  known = {pair.name: pair for pair in pairs}
  plain = [vote for vote in cast if not vote.is_golden]
  ties: dict[str, int] = {}
  for vote in plain:
    ties[vote.pair] = ties.get(vote.pair, 0) + (vote.choice == votes.TIE)
  pooled = labels.pool(
    [vote.pair for vote in plain],
    [vote.annotator for vote in plain],
    np.array([VALUES[vote.choice] for vote in plain]),
    effort or {vote.annotator: 1.0 for vote in plain},
  )
  found = []
  for name, label in pooled.items():
    pair = known[name]
    record = records.prompt_of(pair.record) | {
      "id": name,
      "response_a": pair.response_a,
      "response_b": pair.response_b,
      "prob_a": label.prob,
      "votes": label.votes,
    }
    worth = {"ties": ties[name]} if effort is None else {"weight": label.weight}
    found.append(record | worth)
  return found


def efforts(results: Mapping[str, Any], by: str) -> dict[str, float] | None:
  """The effort of every annotator, by repeats or by golden questions.

  Args:
    results: see `describe`.
    by: `BY_REPEATS` or `BY_GOLDEN`.
  Returns: of an annotator of whom it is not known the mean of the others; None
    where it is known of nobody.
  """
  found = {
    name: one[by]["effort"] and one[by]["effort"][0]
    for name, one in results["annotators"].items()
  }
  known = [value for value in found.values() if value is not None]
  if not known:
    return None
  mean = float(np.mean(known))
  return {name: mean if e is None else e for name, e in found.items()}


def split(found: Sequence[records.Record]) -> dict[str, list[records.Record]]:
  """Comparisons for training and validation, all of a prompt in one of them."""
  order = sorted({row["prompt"] for row in found}, key=_hash)
  held = set(order[: -(-len(order) // HELD_OUT)])
  return {
    "train": [row for row in found if row["prompt"] not in held],
    "validation": [row for row in found if row["prompt"] in held],
  }


def lines(results: Mapping[str, Any]) -> Iterable[str]:
  """The results in sentences."""
  for one in results["policies"]:
    value, low, high = one["share"]
    yield (
      f"{one['a']} is preferred to {one['b']} in {value:.3f} ({low:.3f} to "
      f"{high:.3f}) of {one['votes']} votes"
    )
  for name, one in results["annotators"].items():
    told = f"{name}: {one['votes']} votes, {one['seconds']:.1f} s each"
    for by in (BY_REPEATS, BY_GOLDEN):
      found = one[by]
      if found["effort"]:
        value, low, high = found["effort"]
        told += (
          f"; effort by {by} {value:.2f} ({low:.2f} to {high:.2f}), "
          f"{found['agreed']:g} of {found['asked']}"
        )
    yield told


def _hash(prompt: str) -> bytes:
  return hashlib.sha256(prompt.encode()).digest()


def _policies(cast, known, confidence) -> list[dict[str, Any]]:
  """The share of votes for one policy against another, prompts weighing alike.

  Golden questions are left out: a judge has chosen them by who wins.
  """
  cells: dict[tuple[str, str], dict[str, list[float]]] = {}
  for vote in cast:
    pair = known[vote.pair]
    if not vote.is_golden:
      prompts = cells.setdefault((pair.a, pair.b), {})
      won = prompts.setdefault(pair.record["prompt"], [])
      won.append(VALUES[vote.choice])
  found = []
  for (a, b), prompts in sorted(cells.items()):
    share = np.array([np.mean(won) for won in prompts.values()])
    found.append(
      {
        "a": a,
        "b": b,
        "votes": sum(map(len, prompts.values())),
        "prompts": len(prompts),
        "share": list(intervals.win_rate_interval(share, confidence)),
      }
    )
  return found


def _annotator(mine: Sequence[votes.Vote], known, confidence) -> dict[str, Any]:
  decided = [vote for vote in mine if vote.choice != votes.TIE]
  left = sum(vote.choice == vote.shown_left for vote in decided)
  return {
    "votes": len(mine),
    "ties": len(mine) - len(decided),
    "left": left / len(decided) if decided else None,
    "seconds": float(np.median([vote.seconds for vote in mine])),
    "times": response_times(mine),
    BY_REPEATS: _by_repeats(mine, known, confidence),
    BY_GOLDEN: _by_golden(mine, known, confidence),
  }


def _by_repeats(mine, known, confidence) -> dict[str, Any]:
  """Of pairs that were answered twice, and never by a tie."""
  first = {vote.pair: vote for vote in mine if not vote.is_repeat}
  both = [
    (known[vote.pair].prob, vote.choice == first[vote.pair].choice)
    for vote in mine
    if vote.is_repeat
    and votes.TIE not in (vote.choice, first[vote.pair].choice)
  ]
  prob, agreed = np.array(both, float).reshape(-1, 2).T
  told = ~np.isnan(prob)
  return {
    "asked": len(both),
    "agreed": float(agreed.sum()),
    "effort": repeats.estimate_effort(agreed[told], prob[told], confidence),
  }


def _by_golden(mine, known, confidence) -> dict[str, Any]:
  """Right answers to golden questions, and whether they are enough.

  Returns: "needed" of them for the exam of so many questions whose level is
    `LEVEL`, and "power", how often somebody of full effort passes it; "passed"
    is None where no number of right answers would do.
  """
  asked = [vote for vote in mine if vote.is_golden]
  prob = np.array([known[vote.pair].prob for vote in asked])
  won = np.array([VALUES[vote.choice] for vote in asked])
  right = np.where(prob > 0.5, won, 1 - won)
  sure = float(np.mean(np.maximum(prob, 1 - prob))) if asked else golden.CHANCE
  exam = golden.make_exam(
    len(asked), level=LEVEL, careless=golden.CHANCE, careful=sure
  )
  passed = int(np.sum(right == 1))
  told = exam.needed <= len(asked)
  return {
    "asked": len(asked),
    "agreed": float(np.sum(right)),
    "needed": exam.needed,
    "passed": passed >= exam.needed if told else None,
    "power": exam.power,
    "by_chance": golden.pass_probability(len(asked), passed, golden.CHANCE),
    "effort": golden.estimate_effort(right, prob, confidence),
  }
