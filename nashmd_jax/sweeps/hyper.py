"""Combinators of sweeps: a sweep is a list of {dotted setting: value}.

A config file that is a sweep defines `get_hyper(hyper)`, or `get_hyper(hyper,
variant)` beside `get_config(variant)`, and is handed this module, so that it
imports nothing of the library.
"""

from collections.abc import Iterable
import itertools
from typing import Any

Overrides = dict[str, Any]
Sweep = list[Overrides]


def values(name: str, *settings: Any) -> Sweep:
  """One trial for each value of the setting with a dotted name."""
  return [{name: setting} for setting in settings]


def product(*sweeps: Sweep) -> Sweep:
  """Every trial of each with every trial of the others; the last runs fastest.

  Raises: ValueError if two of them set the same.
  """
  return [_merged(parts, "product") for parts in itertools.product(*sweeps)]


def zipped(*sweeps: Sweep) -> Sweep:
  """The first trials of all as one, the second ones as one, and so on.

  Raises: ValueError if their lengths differ or two of them set the same.
  """
  lengths = [len(sweep) for sweep in sweeps]
  if len(set(lengths)) > 1:
    raise ValueError(
      f"hyper.zipped: got sweeps of {lengths} trials, expected equal numbers"
    )
  return [_merged(parts, "zipped") for parts in zip(*sweeps, strict=True)]


def one_of(*sweeps: Sweep) -> Sweep:
  """The trials of the first, then those of the second, and so on."""
  return [dict(overrides) for sweep in sweeps for overrides in sweep]


def _merged(parts: Iterable[Overrides], where: str) -> Overrides:
  merged = {}
  for overrides in parts:
    twice = sorted(set(merged) & set(overrides))
    if twice:
      raise ValueError(
        f"hyper.{where}: {twice[0]!r} is set by two of the sweeps; leave it "
        "to one"
      )
    merged |= overrides
  return merged
