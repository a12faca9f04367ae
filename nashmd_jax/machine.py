"""What a job ran on: versions, devices, the host."""

import functools
from importlib import metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

PACKAGE = "nashmd_jax"


def describe() -> dict[str, Any]:
  """What results depend on beside settings and data, for JSON.

  Returns: "nashmd_jax", a commit or a version; "python", "jax", "jaxlib";
    "device", what kind, and "devices", how many there are in all processes;
    "processes"; "system"; "cores" and "memory_gib" of this host.
  """
  devices = jax.devices()
  return {
    PACKAGE: commit() or _version(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "jaxlib": metadata.version("jaxlib"),
    "device": devices[0].device_kind,
    "devices": len(devices),
    "processes": jax.process_count(),
    "system": platform.platform(terse=True),
    "cores": os.cpu_count(),
    "memory_gib": round(_memory_bytes() / 2**30, 1),
  }


@functools.cache
def commit() -> str | None:
  """The commit of a checkout, "-dirty" if files differ; None without one."""
  root = pathlib.Path(__file__).parent.parent
  if not (root / ".git").exists():
    return None
  try:
    told = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--exclude=*"],
      cwd=root, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
  except (OSError, subprocess.TimeoutExpired):
    return None
  return told.stdout.strip() or None


def _version() -> str:
  try:
    return metadata.version(PACKAGE)
  except metadata.PackageNotFoundError:
    return "unknown"


def _memory_bytes() -> int:
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
