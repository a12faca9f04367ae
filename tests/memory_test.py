"""Pages of the host: kept from step to step, given back when asked to."""

import json
import os
import subprocess
import sys
from unittest import mock

from absl.testing import absltest

from nashmd_jax.training import memory

# Fresh pages of a step that makes 64 MiB, and what giving back frees.
PROGRAM = """
import json, os, resource, sys
import jax, jax.numpy as jnp
from nashmd_jax.training import memory

def resident():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * resource.getpagesize() / 2**20

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
  memory.run_in_main_thread()
  memory.keep_pages()

@jax.jit
def step(x):
  return x * 2

x = jnp.ones(2**24)
steps = []
for _ in range(8):
  before = faults()
  step(x).block_until_ready()
  steps.append((faults() - before) * resource.getpagesize() / 2**20)
fresh = min(steps)  # a step begins at times before what the last one made goes
held = resident()
memory.give_back()
print(json.dumps({"fresh": fresh, "freed": held - resident()}))
"""


def measured(how: str, **environ: str) -> dict[str, float]:
  """MiB of fresh pages of a step, and those that are given back behind it."""
  run = subprocess.run(
    [sys.executable, "-c", PROGRAM, how],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, "XLA_FLAGS": "", **environ},
  )
  return json.loads(run.stdout)


@absltest.skipUnless(memory._glibc() is not None, "needs glibc")
class PagesTest(absltest.TestCase):
  def test_pages_stay_for_the_next_step_until_they_are_given_back(self):
    as_it_was, kept = measured("as it was"), measured("kept")
    self.assertGreater(as_it_was["fresh"], 50)
    self.assertLess(kept["fresh"], 10)
    self.assertGreater(kept["freed"], 50)

  def test_who_tunes_glibc_is_left_alone(self):
    tunables = "glibc.malloc.mmap_threshold=1048576"
    tuned = measured("kept", GLIBC_TUNABLES=tunables)
    self.assertGreater(tuned["fresh"], 50)


class ElsewhereTest(absltest.TestCase):
  def test_another_system_is_left_alone(self):
    with (
      mock.patch.object(memory.sys, "platform", "darwin"),
      mock.patch.object(memory.ctypes, "CDLL") as library,
    ):
      memory.run_in_main_thread()
      memory.keep_pages()
      memory.give_back()
    library.assert_not_called()

  def test_an_accelerator_is_left_alone(self):
    with (
      mock.patch.object(memory.jax, "default_backend", lambda: "tpu"),
      mock.patch.object(memory, "_glibc") as glibc,
    ):
      memory.keep_pages()
    glibc.return_value.mallopt.assert_not_called()


if __name__ == "__main__":
  absltest.main()
