"""Memory of the host: pages that stay for the next step.

XLA's programs for CPU take what they need in between from `malloc` and give it
back at their end. glibc maps and unmaps blocks of such sizes each time, and the
kernel clears every page of them again: a third of the time of some steps. Told
to, it keeps them; but only for the main thread, whose heap alone may be large.
"""

import ctypes
import os
import sys

import jax

# Parameters of mallopt, in glibc's malloc.h: what of the top of the heap is
# given back, and what size is mapped apart; -1 is never.
TRIM_THRESHOLD, MMAP_THRESHOLD, NEVER = -1, -3, -1


def run_in_main_thread() -> None:
  """Makes programs for CPU run where they are called; before any device."""
  if _glibc() is not None:
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_pages() -> None:
  """Keeps the pages that a step gives back, where devices are CPUs.

  Does nothing without glibc, or where GLIBC_TUNABLES say how to allocate.
  """
  libc = _glibc()
  if libc is not None and jax.default_backend() == "cpu":
    libc.mallopt(MMAP_THRESHOLD, NEVER)
    libc.mallopt(TRIM_THRESHOLD, NEVER)


def give_back() -> None:
  """Gives back what is kept and free: behind what is done once and large."""
  libc = _glibc()
  if libc is not None:
    libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
  """The C library if it is glibc and nobody has tuned it."""
  tuned = "malloc" in os.environ.get("GLIBC_TUNABLES", "")
  if sys.platform != "linux" or tuned:
    return None
  libc = ctypes.CDLL(None)
  return libc if hasattr(libc, "gnu_get_libc_version") else None
