"""Rows of `make bench` on the machine itself, in the same run.

What is measured beside them is worth what these are worth.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from figures import bench_sizes, bench_turns, rows

Crews = Mapping[int, bench_turns.Crew]
BATCHES = (8, 32)
TIMES = 20


class Limits(NamedTuple):
  """What a machine can do, by NumPy.

  Attributes:
    flops: a second, of a large product in float32.
    read: bytes a second from memory.
  """

  flops: float
  read: float


def measure(crew: bench_turns.Crew) -> Limits:
  """The limits of a crew's cores: by CPU time on one, by the clock on more."""
  works = {
    "product": ("numpy", "product", {"times": 4}),
    "read": ("numpy", "read", {"times": 4}),
  }
  turns = crew.turns(works)
  clock = "cpu" if crew.threads == 1 else "wall"
  return Limits(
    *(turns.gave[name] / turns.median(name, clock) for name in works)
  )


def limit_rows(crews: Crews) -> Iterator[rows.Row]:
  """Products, reading, and the products of a token by themselves."""
  for threads, crew in crews.items():
    limits, on = measure(crew), f"{threads} thread{'s' * (threads > 1)}"
    claims = {
      f"NumPy, product of 2048², {on}, GFLOP/s": limits.flops / 1e9,
      f"NumPy, reading 256 MB, {on}, GB/s": limits.read / 1e9,
    }
    for size in bench_sizes.DECODERS:
      for batch in BATCHES:
        turns = crew.turns({"": products(size, batch)})
        took = turns.median("", "cpu" if threads == 1 else "wall") / TIMES
        claim = f"NumPy, the products of a token, {size}, B {batch}, {on}, ms"
        claims[claim] = took * 1e3
    for claim, one in claims.items():
      yield rows.row(claim, one, ">", 0)


def products(size: str, batch: int):
  """`TIMES` tokens of each of B rows through the matrices alone."""
  return "numpy", "products", {"size": size, "batch": batch, "times": TIMES}
