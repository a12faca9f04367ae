"""Strictness in one place: eight devices, no silent rank promotion.

What one test compiles another finds, in this process or in a program that a
test starts: they share the folder of compiled programs. Most time of a test is
spent in the compiler, so programs are compiled quickly, but for the modules in
`AS_IN_A_RUN`: those hold the bits of two different programs against each other.
"""

from importlib import metadata
import os
import pathlib
import signal

# Of two code generators the quicker one, where a version still has both.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false"
    if metadata.version("jaxlib").startswith("0.10.")
    else "",
  ]
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parent.parent / "out" / "tests_xla_cache"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from absl import flags
import jax
import pytest

flags.FLAGS.mark_as_parsed()
jax.config.update("jax_numpy_rank_promotion", "raise")
# A shell that starts the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

AS_IN_A_RUN = {"step_test"}
# What takes longest begins first, so that no worker ends with it.
FIRST = (
  "whole_path_test",
  "distributed_test",
  "sharding_test",
  "training_test",
  "step_test",
  "worlds_test",
  "sweeps_test",
  "stops_test",
  "gradient_test",
  "policy_test",
  "extending_test",
  "standings_test",
  "sampling_test",
  "judges_test",
  "matrix_test",
)


def module_of(node) -> str:
  return node.module.__name__.rpartition(".")[2]


def pytest_collection_modifyitems(items):
  """Orders tests by module; with --no-loadscope-reorder it is kept."""
  place = {name: number for number, name in enumerate(FIRST)}
  items.sort(key=lambda item: place.get(module_of(item), len(FIRST)))


@pytest.fixture(autouse=True, scope="module")
def programs(request):
  """Compiled as the module asks, and forgotten behind it.

  They keep memory maps, of which a process may have 65,530.
  """
  quickly = module_of(request) not in AS_IN_A_RUN
  jax.config.update("jax_disable_most_optimizations", quickly)
  yield
  jax.clear_caches()
