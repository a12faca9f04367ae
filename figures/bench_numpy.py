"""NumPy's side of `make bench`: what the machine can do, and products alone."""

from collections.abc import Callable

import numpy as np

from figures import bench_sizes

SIDE, READ_BYTES = 2048, 256 * 2**20


def product(times: int) -> Callable[[], float]:
  """Square products of `SIDE`; returns their floating-point operations."""
  square = np.random.default_rng(0).normal(size=(SIDE, SIDE))
  square = square.astype(np.float32)

  def run():
    for _ in range(times):
      square @ square
    return 2.0 * SIDE**3 * times

  return run


def read(times: int) -> Callable[[], float]:
  """Sums of an array that no cache holds; returns the bytes read."""
  array = np.ones(READ_BYTES // 4, np.float32)

  def run():
    for _ in range(times):
      array.sum()
    return float(READ_BYTES * times)

  return run


def products(size: str, batch: int, times: int) -> Callable[[], int]:
  """What a token of each of B rows goes through, and nothing else."""
  draw = np.random.default_rng(0)
  matrices = [
    draw.normal(size=shape).astype(np.float32)
    for shape in bench_sizes.matrices(bench_sizes.SIZES[size])
  ]
  rows = {
    width: draw.normal(size=(batch, width)).astype(np.float32)
    for width in {matrix.shape[0] for matrix in matrices}
  }

  def run():
    for _ in range(times):
      for matrix in matrices:
        rows[matrix.shape[0]] @ matrix
    return times

  return run


PIECES = {"product": product, "read": read, "products": products}
