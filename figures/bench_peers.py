"""Rows of `make bench` against peers: decode, and a step of Nash-MD-PG.

Both sides read the same folders, and write the same most probable tokens
before anything is timed. CPU seconds of one thread decide.
"""

from collections.abc import Iterator, Mapping
import json
from typing import Any

import numpy as np

from figures import bench_limits, bench_sizes, bench_turns, rows
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
  Work("T5 5M", 64, 8): 0,
  Work("T5 30M", 64, 8): 0,
}
STEP = {
  Work("5M", 64, 8): 3,
  Work("5M", 64, 32): 3,
  Work("30M", 64, 8): 2,
  Work("30M", 64, 32): 2,
  Work("5M", 256, 8): 3,
  Work("T5 5M", 64, 8): 0,
  Work("T5 30M", 64, 8): 0,
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


def decode_rows(crews: Crews) -> Iterator[rows.Row]:
  """Sampling from one lane; the best of the peers counts."""
  yield from absent("torch", "decode")
  if not bench_turns.SIDES["torch"].present:
    return
  yield from verified_rows(crews[1])
  yield from absent("tunix", "decode")
  for work, bar in DECODE.items():
    works = _decoders(given(work), work.size)
    turns = _measured(crews, works, bar)
    peers = [name for name in works if name != OURS]
    best = min(peers, key=turns[1].median)
    for peer in peers:
      yield ratio_row(
        f"decode, {work}", turns, peer, bar if peer == best else 0
      )
  yield from real_rows(crews)


def _measured(
  crews: Crews, works: bench_turns.Works, bar: float
) -> dict[int, bench_turns.Turns]:
  """By number of threads; on one alone where nothing must hold."""
  return {
    threads: crew.turns(works)
    for threads, crew in crews.items()
    if bar or threads == 1
  }


def _decoders(folder: Mapping[str, Any], size: str):
  """The works of all that are there."""
  sizes = {**folder, "new_tokens": bench_sizes.NEW_TOKENS}
  works = {
    OURS: ("ours", "decode", {**sizes, "lanes": ["policy"]}),
    "transformers": ("torch", "decode", sizes),
  }
  if bench_turns.SIDES["tunix"].present and size in bench_sizes.DECODERS:
    works["Tunix 0.1.7"] = ("tunix", "decode", {**sizes, "size": size})
  return works


def real_rows(crews: Crews) -> Iterator[rows.Row]:
  """A released folder, where it is present."""
  place = (real_data.MODELS / REAL).absolute()
  what = f"decode, {REAL}, P 64, B 8"
  if not (place / "config.json").exists():
    yield rows.row(f"{what}: skipped, {place} is absent", 0.0, "≥", 0)
    return
  vocab_size = json.loads((place / "config.json").read_text())["vocab_size"]
  folder = {
    **{name: str(place) for name in bench_sizes.SETS},
    "prompts": bench_sizes.prompts(Work(REAL, 64, 8), vocab_size),
  }
  turns = _measured(crews, _decoders(folder, REAL), 0)
  yield ratio_row(what, turns, "transformers", 0)


def verified_rows(crew: bench_turns.Crew) -> Iterator[rows.Row]:
  """What both sides must have in common before they are timed."""
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
    differ = sum(
      np.sum(own != theirs) for theirs in _generated(crew, work, size)
    )
    win_prob = []
    for how in ("apart", "together"):
      theirs = crew.ask("torch", "write", **work, how=how)["gave"]
      differ += np.sum(own != theirs["own"]) + np.sum(other != theirs["other"])
      win_prob.append(theirs["win_prob"])
    claim = (
      f"verified, {size}: greedy tokens of ours that a peer has otherwise, y "
      f"and y′ of {own.size} (y′ differs from y in {np.mean(own != other):.0%})"
    )
    yield rows.row(claim, float(differ), "=", 0)
    judged = crew.ask("ours", "judged", own=own.tolist(), other=other.tolist())[
      "gave"
    ]
    error = float(np.abs(np.array(win_prob) - judged).max())
    claim = f"verified, {size}: the largest difference of a win probability"
    yield rows.row(claim, error, "≤", 1e-5)
    crew.forget()
  yield from learnt_rows(crew)


def _generated(crew, work: Mapping[str, Any], size: str):
  """What the decoders of the peers write, greedily."""
  sizes = {**work, "new_tokens": bench_sizes.NEW_TOKENS, "greedy": True}
  yield crew.ask("torch", "decode", **sizes)["gave"]
  if bench_turns.SIDES["tunix"].present and size in bench_sizes.DECODERS:
    yield crew.ask("tunix", "decode", **sizes, size=size)["gave"]


def learnt_rows(crew: bench_turns.Crew) -> Iterator[rows.Row]:
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
  for key, name in (("loss", "loss"), ("grad_norm", "gradient's norm")):
    yield rows.row(
      f"verified, 5M: relative difference of the {name} of a step from torch's",
      abs(ours[key] / theirs[key] - 1),
      "≤",
      1e-4,
    )


def step_rows(crews: Crews) -> Iterator[rows.Row]:
  """A step: y of the policy, y′ of the mixture, the judge, the update."""
  yield from absent("torch", "step")
  limits = bench_limits.measure(crews[1])
  for work, bar in STEP.items():
    sizes = given(work)
    works = {OURS: ("ours", "step", sizes)}
    if bench_turns.SIDES["torch"].present:
      works[APART] = ("torch", "step", {**sizes, "how": "apart"})
      if work.batch == 8:
        works[TOGETHER] = ("torch", "step", {**sizes, "how": "together"})
    turns, what = _measured(crews, works, bar), f"Nash-MD step, {work}"
    if APART in works:
      yield ratio_row(what, turns, APART, bar)
    if TOGETHER in works:
      yield ratio_row(what, turns, TOGETHER, 0)
    yield share_row(crews[1], work, limits, turns[1].median(OURS))
  yield from trl_rows(crews)


def share_row(
  crew: bench_turns.Crew,
  work: Work,
  limits: bench_limits.Limits,
  seconds: float,
) -> rows.Row:
  """What a step's products, or reading for a token, take at the limit."""
  parts = crew.ask("alone", "costs", **given(work))["gave"]
  crew.forget()
  least = {
    name: max(part["flops"] / limits.flops, part["bytes"] / limits.read)
    for name, part in parts.items()
  }
  least["decode"] *= bench_sizes.NEW_TOKENS
  total = sum(least.values())
  told = ", ".join(f"{name} {one:.2f}" for name, one in least.items())
  claim = (
    f"Nash-MD step, {work}: {total:.2f} s at NumPy's product "
    f"({limits.flops / 1e9:.0f} GFLOP/s) and reading "
    f"({limits.read / 1e9:.1f} GB/s) on one core, of {seconds:.2f} CPU s "
    f"({told}); share"
  )
  return rows.row(claim, total / seconds, ">", 0)


def trl_rows(crews: Crews) -> Iterator[rows.Row]:
  """The same step by TRL's trainer as it is shipped; it keeps no caches."""
  yield from absent("trl", "step")
  if not bench_turns.SIDES["trl"].present:
    return
  title = bench_turns.SIDES["trl"].title
  for work, bar in TRL.items():
    sizes = given(work)
    works = {OURS: ("ours", "step", sizes), title: ("trl", "step", sizes)}
    turns = {1: crews[1].turns(works)}
    yield ratio_row(f"Nash-MD step, {work}", turns, title, bar)
