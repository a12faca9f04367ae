"""Starts programs as one process or as several that find each other."""

from collections.abc import Sequence
import os
import pathlib
import socket
import subprocess
import sys

from nashmd_jax.training import distributed

ROOT = pathlib.Path(__file__).parent.parent
CLUSTER = ("SLURM_", "OMPI_", "PMI", "JOB_COMPLETION", *distributed.EXPLICIT)


def environment(devices: int, **more: str) -> dict[str, str]:
  """That of this process without any cluster, with CPU devices.

  What this process was told of compiling holds for those that it starts.
  """
  kept = {k: v for k, v in os.environ.items() if not k.startswith(CLUSTER)}
  count = f"--xla_force_host_platform_device_count={devices}"
  return kept | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{kept.get('XLA_FLAGS', '')} {count}",
    **more,
  }


def spawn(
  arguments: Sequence[str], *, processes: int, devices: int, **more: str
) -> list[subprocess.Popen]:
  """Starts `python -m ...`; several processes meet over loopback.

  Args:
    arguments: module and its arguments.
    processes: how many.
    devices: of each.
    **more: further environment variables.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  started = []
  for number in range(processes):
    env = environment(devices, **more)
    if processes > 1:
      env |= {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(number),
      }
    started.append(
      subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return started


def wait(
  started: Sequence[subprocess.Popen], seconds: float = 600
) -> tuple[list[int], list[str], list[str]]:
  """Exit statuses, outputs and error outputs, when all have ended."""
  try:
    ended = [process.communicate(timeout=seconds) for process in started]
  finally:
    for process in started:
      if process.poll() is None:
        process.kill()
  statuses = [process.returncode for process in started]
  return statuses, [out for out, _ in ended], [err for _, err in ended]


def run(arguments: Sequence[str], *, processes: int = 1, devices: int = 1):
  """Starts and waits; see `spawn` and `wait`."""
  return wait(spawn(arguments, processes=processes, devices=devices))
