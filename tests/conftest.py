"""Strictness in one place: eight devices, no silent rank promotion.

What one test compiles another finds, in this process or in a program that a
test starts: they share the folder of compiled programs. Where values are held
against other mathematics, to a tolerance, programs are compiled quickly; where
the bits of two programs are compared, as in a run.
"""

import os
import pathlib
import signal

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
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

QUICKLY = {
  "attention_test",
  "family_games_test",
  "family_step_test",
  "family_test",
  "gradient_test",
  "lora_test",
  "pages_test",
  "play_test",
  "policy_test",
  "recorded_test",
  "rivals_test",
  "sampling_test",
  "sequences_test",
  "solvers_test",
  "worlds_answer_test",
}


@pytest.fixture(autouse=True, scope="module")
def programs(request):
  """Compiled as the module asks, and forgotten behind it.

  They keep memory maps, of which a process may have 65,530.
  """
  quickly = request.module.__name__.rpartition(".")[2] in QUICKLY
  jax.config.update("jax_disable_most_optimizations", quickly)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
  jax.clear_caches()
