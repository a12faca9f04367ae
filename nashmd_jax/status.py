"""Where a workdir stands, read from what its jobs have left there."""

from collections.abc import Iterable, Iterator
import pathlib
import time

from nashmd_jax import files, mistakes, owner
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.training import metrics, warned

# Of a row of metrics, where it has them.
SHOWN = ("loss", "win_prob", "kl")


def lines(workdir: pathlib.Path, jobs: Iterable[str]) -> Iterator[str]:
  """A line for the process at work, and one for each job; changes nothing.

  Args:
    workdir: of a run.
    jobs: of its config, in order.
  Raises: Mistake for a folder that is no workdir.
  """
  if not (workdir / workdir_lib.CONFIG).is_file():
    raise mistakes.Mistake(
      f"{workdir}: is no workdir, as it holds no {workdir_lib.CONFIG}; name "
      "that of a run with --workdir"
    )
  yield owner.at_work(workdir) or "no process is at work"
  done, failure = workdir_lib.finished(workdir), workdir / workdir_lib.FAILED
  failed = (
    files.load_object(failure, "stage", "error") if failure.exists() else {}
  )
  for job in jobs:
    if job in done:
      where = done[job].get("reused")
      told = f"done in {done[job]['seconds']:.0f} s"
      told += f", in {where}" if where else ""
    elif failed.get("stage") == job:
      error = mistakes.plain(str(failed["error"]))
      told = f"failed: {mistakes.bounded(error)}"
    else:
      told = _reached(workdir / job)
    warnings = len(metrics.load_metrics(workdir / job / warned.FILE))
    yield f"{job}: {told}" + (f"; {warnings} warnings" if warnings else "")


def _reached(folder: pathlib.Path) -> str:
  """How far a job has come that is neither done nor failed."""
  path = folder / "metrics.jsonl"
  rows = metrics.load_metrics(path)
  if not rows:
    begun = (folder / workdir_lib.KEY).exists()
    return "begun" if begun else "not begun"
  last = rows[-1]
  shown = "".join(
    f", {name} {last[name]:.4g}" for name in SHOWN if name in last
  )
  age = owner.span(time.time() - path.stat().st_mtime)
  return f"step {last['step']}{shown}, {age} ago"
