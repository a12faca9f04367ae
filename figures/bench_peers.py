"""Rows of `make bench` against peers: decode, and a step of Nash-MD-PG.

Both sides read the same folders, and write the same most probable tokens
before anything is timed. CPU seconds of one thread decide.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from figures import bench_sizes, bench_turns, rows
from tests import real_data

Crews = Mapping[int, bench_turns.Crew]
Work = bench_sizes.Work
# At least so many times as fast; 0 is told and holds nothing.
DECODE = {
  Work("5M", 64, 8): 2,
  Work("30M", 64, 8): 1.5,
  Work("5M", 64, 32): 0,
  Work("30M", 64, 32): 0,
  Work("5M", 256, 8): 0,
  Work("30M", 256, 8): 0,
}
STEP = {
  Work("5M", 64, 8): 3,
  Work("5M", 64, 32): 3,
  Work("30M", 64, 8): 2,
  Work("30M", 64, 32): 2,
  Work("5M", 256, 8): 3,
}
TRL = {Work("5M", 64, 8): 20}
REAL = "smollm2"
OURS = "ours"
APART = "torch with two caches, a loop for y and one for y′"
TOGETHER = "torch with two caches in one loop, as ours"


def given(work: Work) -> dict[str, Any]:
  """What every side is told of a work: folders and prompts."""
  return {
    **{
      name: str(bench_sizes.folder(work.size, name))
      for name in bench_sizes.SETS
    },
    "prompts": bench_sizes.prompts(
      work, bench_sizes.SIZES[work.size]["vocab_size"]
    ),
  }


def absent(side: str, what: str) -> list[rows.Row]:
  """A row that says that a side is skipped; none where it is there."""
  one = bench_turns.SIDES[side]
  if one.present:
    return []
  claim = (
    f"{what}: skipped beside {one.title}, {one.environment} is absent (make "
    "bench-peers makes it); environments measured"
  )
  return [rows.row(claim, 0.0, "≥", 0)]


def ratio_row(
  what: str,
  found: Mapping[int, bench_turns.Turns],
  peer: str,
  bar: float,
) -> rows.Row:
  """How many times as fast, by medians of CPU seconds of one thread.

  Args:
    what: was measured.
    found: by number of threads.
    peer: its name among the works, and its title.
    bar: at least so.
  """
  claim = f"{what}: {peer} / ours ({bench_turns.told(found, peer, OURS)})"
  return rows.row(claim, found[1].ratio(peer, OURS), "≥", bar)


def decode_rows(crews: Crews) -> list[rows.Row]:
  """Sampling from one lane; the best of the peers counts."""
  if skipped := absent("torch", "decode"):
    return skipped
  found = verified_rows(crews[1])
  found += absent("tunix", "decode")
  for work, bar in DECODE.items():
    turns = {
      threads: crew.turns(_decoders(given(work), work.size))
      for threads, crew in crews.items()
    }
    peers = [name for name in turns[1].took["cpu"] if name != OURS]
    best = min(peers, key=turns[1].median)
    found += [
      ratio_row(f"decode, {work}", turns, peer, bar if peer == best else 0)
      for peer in peers
    ]
  return [*found, *real_rows(crews)]


def _decoders(folder: Mapping[str, Any], size: str | None):
  """The works of all that are there."""
  sizes = {**folder, "new_tokens": bench_sizes.NEW_TOKENS}
  works = {
    OURS: ("ours", "decode", {**sizes, "lanes": ["policy"]}),
    "transformers": ("torch", "decode", sizes),
  }
  if bench_turns.SIDES["tunix"].present and size is not None:
    works["Tunix 0.1.7"] = ("tunix", "decode", {**sizes, "size": size})
  return works


def real_rows(crews: Crews) -> list[rows.Row]:
  """A released folder, where it is present."""
  place = real_data.MODELS / REAL
  if not (place / "config.json").exists():
    return [rows.row(f"decode, {REAL}: skipped, no {place}", 0.0, "≥", 0)]
  folder = {
    "policy": str(place),
    "reference": str(place),
    "prompts": bench_sizes.prompts(Work(REAL, 64, 8), 49_152),
  }
  works = _decoders(folder, None)
  turns = {threads: crew.turns(works) for threads, crew in crews.items()}
  what = f"decode, {REAL}, P 64, B 8"
  return [ratio_row(what, turns, "transformers", 0)]


def verified_rows(crew: bench_turns.Crew) -> list[rows.Row]:
  """What both sides must have in common before they are timed."""
  found = []
  for size in bench_sizes.SIZES:
    work = given(Work(size, 64, 8))
    ours = crew.ask(
      "ours",
      "decode",
      **work,
      new_tokens=bench_sizes.NEW_TOKENS,
      lanes=["policy", "mixture"],
      greedy=True,
    )["gave"]
    own, other = np.moveaxis(np.array(ours), 1, 0)
    generated = crew.ask(
      "torch",
      "decode",
      **work,
      new_tokens=bench_sizes.NEW_TOKENS,
      greedy=True,
    )["gave"]
    differ, win_prob = np.sum(own != generated), []
    for how in ("apart", "together"):
      theirs = crew.ask("torch", "write", **work, how=how)["gave"]
      differ += np.sum(own != theirs["own"]) + np.sum(other != theirs["other"])
      win_prob.append(theirs["win_prob"])
    claim = (
      f"verified, {size}: greedy tokens of ours that torch has otherwise, y "
      f"and y′ (y′ differs from y in {np.mean(own != other):.0%})"
    )
    found.append(rows.row(claim, float(differ), "=", 0))
    judged = crew.ask("ours", "judged", own=own.tolist(), other=other.tolist())[
      "gave"
    ]
    error = float(np.abs(np.array(win_prob) - judged).max())
    claim = f"verified, {size}: the largest difference of a win probability"
    found.append(rows.row(claim, error, "≤", 1e-5))
    crew.forget()
  return [*found, *learnt_rows(crew)]


def learnt_rows(crew: bench_turns.Crew) -> list[rows.Row]:
  """Loss and gradient of the same responses."""
  work = given(Work("5M", 64, 8))
  ours = crew.ask("ours", "learn", **work)["gave"]
  theirs = crew.ask(
    "torch",
    "learn",
    **work,
    responses=ours["responses"],
    win_prob=ours["win_prob"],
  )["gave"]
  crew.forget()
  return [
    rows.row(
      f"verified, 5M: relative difference of the {name} of a step from torch's",
      abs(ours[key] / theirs[key] - 1),
      "≤",
      1e-4,
    )
    for key, name in (("loss", "loss"), ("grad_norm", "gradient's norm"))
  ]


def step_rows(crews: Crews) -> list[rows.Row]:
  """A step: y of the policy, y′ of the mixture, the judge, the update."""
  found = absent("torch", "step")
  for work, bar in {} if found else STEP.items():
    sizes = given(work)
    works = {
      OURS: ("ours", "step", sizes),
      APART: ("torch", "step", {**sizes, "how": "apart"}),
      TOGETHER: ("torch", "step", {**sizes, "how": "together"}),
    }
    turns = {threads: crew.turns(works) for threads, crew in crews.items()}
    what = f"Nash-MD step, {work}"
    found.append(ratio_row(what, turns, APART, bar))
    found.append(ratio_row(what, turns, TOGETHER, 0))
  return [*found, *trl_rows(crews)]


def trl_rows(crews: Crews) -> list[rows.Row]:
  """The same step by TRL's trainer as it is shipped; it keeps no caches."""
  found = absent("trl", "step")
  for work, bar in {} if found else TRL.items():
    sizes = given(work)
    title = bench_turns.SIDES["trl"].title
    works = {OURS: ("ours", "step", sizes), title: ("trl", "step", sizes)}
    turns = {1: crews[1].turns(works)}
    found.append(ratio_row(f"Nash-MD step, {work}", turns, title, bar))
  return found
