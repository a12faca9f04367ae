"""Sections of docs/paper.md on runs: mixtures, curves, gaps, τ, time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from figures import (
  paper_found,
  paper_reward,
  paper_runs,
  paper_tables,
  paper_words,
  paper_worlds,
)
from figures.paper_found import HELD_OUT
from figures.paper_words import TITLES, figure, label, listed, number, table
from nashmd_jax.stages import exploit


def mixtures(
  comparisons: Mapping[str, Mapping[tuple[str, str], paper_tables.Comparison]],
) -> Iterator[str]:
  """What the mixture of a run wins against its last policy."""
  yield "## The deployed mixture against the last policy\n"
  yield (
    "Theory has the mixture at the equilibrium, and the policy itself beyond "
    "it: to solve τ, train at τ (1 − β) and deploy the mixture. Nobody has "
    "measured it on text.\n"
  )
  for name, some in comparisons.items():
    known = [pair for pair in paper_tables.OF_MIXTURES.pairs if pair in some]
    lines = [paper_words.of_mixture(one, some[one]) for one in known]
    yield f"By {TITLES[name]}:\n"
    yield listed(lines or ["not every seed has a mixture yet."])


def curves(found: paper_found.Found) -> Iterator[str]:
  """The judge that is learnt from beside the exact raters, along training."""
  yield "## Over-optimisation\n"
  went = paper_runs.curves(found)
  if not went:
    yield "No run was watched by the exact raters.\n"
    return
  parts = [f"{part:.0%}" for part in paper_runs.PARTS]
  yield (
    "Win rates against SFT on validation prompts by the judge that a run "
    "learns from / by the exact raters, and KL in nats on the prompts of "
    f"training, at {', '.join(parts)} of it, means over seeds:\n"
  )
  rows = [
    [
      label(name),
      one.judge,
      *(
        f"{learned:.3f} / {exact:.3f} at {kl:.2f}"
        for learned, exact, kl in zip(
          one.learned, one.exact, one.kl, strict=True
        )
      ),
    ]
    for name, one in went.items()
  ]
  yield table(["", "judge", *parts], rows)
  yield listed(paper_words.overrated(name, one) for name, one in went.items())


def distances(
  found: paper_found.Found, judged: paper_tables.Judged
) -> Iterator[str]:
  """KL, length, and what two judges say against SFT, of every policy."""
  yield "## Distance and length\n"
  told = paper_runs.of_policies(found)
  exact = paper_tables.cells(judged)
  start = exact.names.index(paper_found.START)
  asked = any(one["learned"] is not None for one in told.values())
  judge = f"the {found.game['learned']} judge, that Nash methods learn from"
  yield (
    "On the held-out prompts, at the temperature of sampling; win rates are "
    f"against SFT, by {judge + ', and by ' if asked else ''}"
    f"{TITLES[HELD_OUT]}.\n"
  )
  rows = []
  for i, (name, one) in enumerate(told.items()):
    ends = [x[i, start] for x in (exact.value, exact.low, exact.high)]
    rows.append(
      [
        label(name),
        figure(one["kl"], 2),
        figure(one["words"], 1),
        number(one["ended"]),
        *([number(one["learned"])] if asked else []),
        figure(ends),
      ]  # fmt: skip
    )
  head = ["", "KL, nats", "words", "ended"]
  yield table([*head, *["learned judge"][:asked], "exact"], rows)


def exploited(found: paper_found.Found) -> Iterator[str]:
  """What could be gained on each policy, and what its mixture solves."""
  yield "## What could be gained on each\n"
  told = paper_runs.gaps(found)
  if not told:
    yield "No seed was asked for exploiters.\n"
    return
  yield (
    "The gap of a policy in the game of the exact raters, what the best "
    "response to it gains with the price of KL, from samples "
    "([how](evaluation.md)), means over seeds with intervals over seeds; τ is "
    f"{found.game['kl_coef']:g}. It is 0 at the equilibrium of the exact "
    "raters' game, which no policy has learnt from. Theory has the mixture of "
    "β at the equilibrium of τ/(1 − β): of whole responses, that is, and in "
    "the game of the judge. The gap at that τ, over τ, is the most that the KL "
    "from the equilibrium can be.\n"
  )
  if found.game["kl_coef"] < exploit.COLDEST:
    yield (
      f"Below a τ of {exploit.COLDEST:g} samples of SFT miss rare responses "
      "that decide: a gap may be too low, and with it the most of the KL.\n"
    )
  yield table(
    ["", "gap", "solves τ", "gap there", "KL from the equilibrium, at most"],
    (
      [
        label(name), figure(one.gap), number(one.solves), figure(one.solved),
        figure(one.distance, 2),
      ]
      for name, one in told.items()
    ),
  )  # fmt: skip


def rewards(fits: paper_reward.Fits | None) -> Iterator[str]:
  """Where RLHF ends in games with rings, by the sampling of its pairs."""
  yield "## RLHF, cycles, and whose pairs it saw\n"
  if fits is None:
    yield "No prompt has enough different responses.\n"
    return
  share = fits.cyclic / fits.games
  yield (
    f"The first {paper_reward.SIZE} different responses that all trials wrote "
    f"to a prompt make {fits.games} games of the exact raters, with an even μ "
    f"and the τ above; {share:.0%} have a ring of three that beat one another. "
    "A Bradley-Terry reward without limits is fitted to the exact preference "
    "of pairs sampled evenly; from what RLHF itself writes, "
    f"{paper_reward.ROUNDS} times over; and from the equilibrium. RLHF pays "
    f"{paper_reward.SLOPE:g} τ, the slope of log-odds. Means over games.\n"
  )
  yield table(
    ["pairs sampled", "gap", "gap where there is a ring",
     "KL from the equilibrium, nats", "the equilibrium is preferred"],
    (
      [
        told, figure(fits.gap[name]), figure(fits.cyclic_gap.get(name)),
        figure(fits.kl[name], 2), figure(fits.won[name]),
      ]
      for name, told in (
        (paper_reward.EVENLY, "evenly"),
        (paper_reward.OWN, "by RLHF"),
        (paper_reward.SOLVED, "by the equilibrium"),
      )
    ),
  )  # fmt: skip


def worlds(solved: paper_worlds.Solved) -> Iterator[str]:
  """At which τ, length and error of a judge who would win, in solved games."""
  yield "## Where the shape would come out\n"
  if not solved:
    yield "There are too few games of written responses.\n"
    return
  yield (
    f"The first {paper_worlds.GAMES} of these games, in which every method is "
    "its expected mirror steps, of η times their number 2 to 128, from the "
    "exact preference, or from one whose log-odds are off by a normal error of "
    "the deviation given, as a judge's are. The exact one tells how often the "
    "first is preferred; bold where the interval over games is off one half.\n"
  )
  kinds = dict.fromkeys((one.time, one.noise) for one in solved)
  head = [
    f"off by {noise:g}" if noise else f"length {time:g}"
    for time, noise in kinds
  ]
  for pair in paper_worlds.PAIRS:
    yield f"{label(pair[0])} against {label(pair[1])}:\n"
    rows = []
    for price in dict.fromkeys(one.kl_coef for one in solved):
      cells = [solved[price, *kind][pair] for kind in kinds]
      rows.append([f"τ {price:g}", *map(_decided, cells)])
    yield table(["", *head], rows)


def _decided(one: Sequence[float | None]) -> str:
  """A win rate, bold where its interval is off one half."""
  value, low, high = one
  sure = low is not None and not low <= 0.5 <= high
  return f"**{value:.3f}**" if sure else f"{value:.3f}"


def tau(found: paper_found.Found) -> Iterator[str]:
  """Every number of the sweep over τ."""
  yield "## The sweep over τ\n"
  rows = found.tau
  if not rows:
    yield "τ was not swept yet.\n"
    return
  yield (
    "Validation prompts, the same budget a method; every number is in "
    "`figures/found/paper/tau.jsonl`. The tables have the smallest τ at which "
    f"the runs of its kind end within {paper_runs.NATS:g} nats of SFT; KL is "
    "that of the last step.\n"
  )
  names = list(dict.fromkeys(key for row in rows for key in row["results"]))
  yield table(
    ["", "τ", "seed", "KL", *(name.removeprefix("eval/") for name in names)],
    (
      [
        label(row["policy"]), f"{row['kl_coef']:g}", str(row["seed"]),
        number(row["kl"], 2),
        *(number(row["results"].get(name)) for name in names),
      ]
      for row in sorted(
        rows, key=lambda x: (x["policy"], x["kl_coef"], x["seed"])
      )
    ),
  )  # fmt: skip


def costs(found: paper_found.Found) -> Iterator[str]:
  """Seconds of each run, and of the whole."""
  yield "## Time\n"
  told = paper_runs.of_policies(found)
  yield (
    "Seconds of the process that finished a run, means over seeds; a policy "
    "that is a run deployed otherwise has those of the run.\n"
  )
  yield table(
    ["", "wall", "CPU"],
    (
      [label(name), number(one["seconds"], 0), number(one["cpu_seconds"], 0)]
      for name, one in told.items()
    ),
  )
  jobs = [*paper_runs.jobs(found).values()]
  yield f"All jobs, those that seeds share once: {_hours(jobs)}.\n"
  if found.sittings:
    yield (
      f"{len(found.sittings)} sittings of `make paper`, what was cut "
      f"among it: {_hours(found.sittings)}.\n"
    )


def _hours(rows: Sequence[Mapping[str, Any]]) -> str:
  sums = [
    sum(row[name] or 0.0 for row in rows) / 3600
    for name in ("seconds", "cpu_seconds")
  ]
  return "{:.2f} hours, {:.2f} of CPU".format(*sums)
