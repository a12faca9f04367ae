"""Metrics of tiny runs as they were before the seams were opened.

`tests/golden/metrics.json` was recorded at commit 7664532, on the records of
`small_records`, with the eight CPU devices of the tests and the flags of
`flags`: biases were decayed then, so that the runs with AdamW are without
decay. What else changed since is in `CHANGED`, with the reason; everything else
is equal to `CLOSE` on a machine that rounds as that one did and so draws the
same tokens: rows are flattened before a product now, and its sums round in
another way.
"""

import hashlib
import json
import os
import pathlib
import platform
import sys

import jax

from nashmd_jax.training import metrics

PATH = pathlib.Path(__file__).parent / "golden" / "metrics.json"
# (job, metric) -> why it is another now; a job of None stands for all.
CHANGED = {
  ("sft", "eval/nats_per_token"): (
    "was a mean over batches of ratios, is the ratio of the sums"
  ),
  ("nash/rlhf", "eval/reward_against_reference"): (
    "was against nothing; the win probability against μ stands in its place"
  ),
  ("nash/rlhf", "eval/baseline_against_reference"): "as above",
  (None, "eval/ema_kl"): "the average is kept by the runs that name it",
}
CLOSE = 1e-5
QUICKER = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
# Jobs that nothing in their config needs, so that they are not run any more.
GONE = {("tldr_t5", "reward"), ("tldr_decoder", "reward")}


def flags(name: str, records: pathlib.Path) -> list[str]:
  """What the run of a config was given besides `:tiny` and a workdir."""
  if name == "worlds":
    return []
  given = [f"--config.data.records={records}", "--config.data.schema=summary"]
  if name == "docstrings":
    given += [
      f"--config.{stage}.optimizer.weight_decay=0.0"
      for stage in ("sft", "preference", "reward", "nash")
    ]
  return given


def machine() -> str:
  """What decides how sums are rounded: versions, processor, cores."""
  flags = ""
  if sys.platform == "linux":
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
  digest = hashlib.sha256(flags.encode()).hexdigest()[:12]
  return (
    f"jax {jax.__version__}, {platform.machine()} {digest}, "
    f"{os.cpu_count()} cores"
  )


def environ() -> dict[str, str]:
  """Of a run that is compared, where it can be: compiled as the recorded one.

  Elsewhere that of all tests.
  """
  if machine() != recorded()["machine"]:
    return dict(os.environ)
  kept = {k: v for k, v in os.environ.items() if k not in QUICKER}
  return kept | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


def of_workdir(workdir: pathlib.Path) -> dict[str, list[dict[str, float]]]:
  """The rows of metrics of every job of a run."""
  return {
    path.parent.relative_to(workdir).as_posix(): metrics.load_metrics(path)
    for path in sorted(workdir.rglob("metrics.jsonl"))
  }


def recorded() -> dict:
  """What the file holds: "machine", and "runs" by name and job."""
  return json.loads(PATH.read_text(encoding="utf-8"))


def differences(name: str, workdir: pathlib.Path) -> list[str]:
  """What is another than recorded, without what `CHANGED` names."""
  found, told = of_workdir(workdir), []
  for job, rows in recorded()["runs"][name].items():
    if (name, job) in GONE:
      continue
    for old, new in zip(rows, found.get(job, [{}] * len(rows)), strict=True):
      told += [
        f"{name}/{job} step {old['step']}: {key} was {old[key]}, is "
        f"{new.get(key)}"
        for key in old
        if not _same(old[key], new.get(key))
        and not {(job, key), (None, key)} & CHANGED.keys()
      ]
  return told


def _same(old: float, new: float | None) -> bool:
  return new is not None and abs(new - old) <= CLOSE * max(1.0, abs(old))
