"""A workdir: whose it is, what is done in it and of what, what failed.

Every job has a folder. `key.json` there says all that its result depends on:
settings, facts such as a hash of the data, and the keys of the jobs it reads.
With it a finished job is known again, here, in another workdir, or in the
store that the trials of a sweep share; a job of another key is never used and
never overwritten. `done.json` holds the results of a finished one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import traceback
from typing import Any

from nashmd_jax import files, mistakes, owner

CONFIG, KEY, DONE, FAILED = (
  "config.json",
  "key.json",
  "done.json",
  "failed.json",
)
WAIT_SECONDS = 1.0
SHOWN, MORE = 40, 6  # characters of a changed value, names without values
MOST_TOLD, MOST_NAMED = 170, 90  # characters of changes, of names alone
OWN = ("settings", "facts")  # of a key, beside needs and hash
ALLOW = "--allow_config_change"
ALLOWED = "allowed"  # in a key: what has changed and was let through
NO_WORK = {f"{CONFIG}.partial", owner.NAME}
# Settings that say when a job stops or saves, and nothing of what it gives.
STOPPING = re.compile(r".*\.train\.(nonfinite_steps|save_minutes|keep\.\w+)")

Key = Mapping[str, Any]


def claim(workdir: pathlib.Path, config: Any) -> None:
  """Makes a workdir with the config of its first command, or knows one again.

  Raises: Mistake for a folder that is no workdir, or cannot be one.
  """
  path = workdir / CONFIG
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    found = {one.name for one in workdir.iterdir()} - NO_WORK
    if found and CONFIG not in found:
      raise mistakes.Mistake(
        f"{workdir}: is not empty and holds no {CONFIG}; choose another "
        "--workdir"
      )
    if CONFIG not in found:
      files.save_json(path, config)
  except OSError as error:
    raise mistakes.Mistake(
      f"{workdir}: cannot be a workdir ({error.strerror}); choose another "
      "--workdir"
    ) from None


@contextlib.contextmanager
def undone(workdir: pathlib.Path) -> Iterator[None]:
  """Leaves nothing behind of a block that ends in a mistake.

  A workdir that was there before is left as it is, and so is one in which a
  job has begun or that another run owns.
  """
  absent, fresh = [], False
  with contextlib.suppress(OSError):  # of what can be no workdir
    absent = [one for one in (workdir, *workdir.parents) if not one.exists()]
    fresh = bool(absent) or not any(workdir.iterdir())
  try:
    yield
  except mistakes.Mistake:
    owned = (workdir / owner.NAME).exists()
    if fresh and workdir.is_dir() and not owned and not _has_begun(workdir):
      _clear(workdir, absent)
    raise


def _has_begun(workdir: pathlib.Path) -> bool:
  """Whether a job of its own has; links are to what others have done."""
  keys = (*workdir.glob(f"*/{KEY}"), *workdir.glob(f"*/*/{KEY}"))
  own = any(
    not key.parent.is_symlink() and not key.parent.parent.is_symlink()
    for key in keys
  )
  return own or (workdir / FAILED).exists()


def _clear(workdir: pathlib.Path, absent: Iterable[pathlib.Path]) -> None:
  """Empties a workdir; removes it, and folders above it, if it made them."""
  for one in workdir.iterdir():
    if one.is_dir() and not one.is_symlink():
      shutil.rmtree(one, ignore_errors=True)
    else:
      one.unlink(missing_ok=True)
  with contextlib.suppress(OSError):  # another run has come to be in it
    for folder in absent:
      folder.rmdir()


def make_key(
  settings: Mapping[str, Any],
  facts: Mapping[str, Any],
  needs: Mapping[str, Key],
) -> Key:
  """The key of a job.

  Args:
    settings: by dotted name.
    facts: by name.
    needs: keys of the jobs that it reads, by their names.
  """
  key = {
    "settings": plain(dict(sorted(_telling(settings).items()))),
    "facts": plain(dict(sorted(facts.items()))),
    "needs": {job: needs[job]["hash"] for job in sorted(needs)},
  }
  text = json.dumps(key, sort_keys=True)
  return key | {"hash": hashlib.sha256(text.encode()).hexdigest()}


def changes(old: Key, new: Key) -> dict[str, list[Any]]:
  """What of a job's own changed from one key to another: [was, is now]."""
  found = {}
  for part in OWN:
    before, now = old[part], new[part]
    for name in sorted(set(before) | set(now)):
      both = [one.get(name, "absent") for one in (before, now)]
      if both[0] != both[1]:
        found[name] = both
  return found


def told(changed: Mapping[str, Sequence[Any]]) -> str:
  """Changes in a few words, the first of them with their values."""
  phrases = []
  for name, both in changed.items():
    was, now = (mistakes.quote(one, SHOWN) for one in both)
    phrases.append(f"{mistakes.some([name])} was {was} and is now {now}")
  rest = [*changed][mistakes.MOST_NAMES :]
  more = f" and so {mistakes.some(rest, MORE)}" if rest else ""
  first = "; ".join(phrases[: mistakes.MOST_NAMES])
  return mistakes.bounded(first, MOST_TOLD) + mistakes.bounded(more, MOST_NAMED)


def check_keys(workdir: pathlib.Path, keys: Mapping[str, Key]) -> None:
  """Checks that what the folders of jobs hold was made with their keys.

  Raises: Mistake that names the jobs that were made of something else, what
    has changed, and the jobs that were made from them.
  """
  stale: dict[tuple[str, str], list[str]] = {}
  after = []
  for job, key in keys.items():
    own, needs = _changed(workdir / job, key)
    if own:
      stale.setdefault(own, []).append(job)
    elif needs:
      after.append(job)
  sentences = [
    f"{workdir}: {mistakes.some(jobs, MORE)} was made of other settings or "
    f"data, {changed}; choose another --workdir, which may --reuse={workdir}, "
    f"delete the folder to make it anew{allowing}"
    for (changed, allowing), jobs in stale.items()
  ]
  if after and sentences:
    sentences[-1] += f"; so with what was made from it, {', '.join(after)}"
  elif after:
    sentences = [
      f"{workdir}: {', '.join(after)} was made from other stages than the "
      "config has now; choose another --workdir, or delete the folder"
    ]
  if sentences:
    raise mistakes.Mistake(*sentences)


def check_settings(
  workdir: pathlib.Path, settings: Mapping[str, Mapping[str, Any]]
) -> None:
  """`check_keys` of the settings of jobs alone, before any fact is known."""
  findings = mistakes.Findings()
  for job, mine in settings.items():
    path = workdir / job / KEY
    if path.exists():
      old = load_key(path)
      changed = changes(old, {**old, "settings": plain(_telling(mine))})
      if changed:
        findings.sentences.append(
          f"{workdir / job}: was made with other settings, {told(changed)}"
        )
  findings.tell()


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in settings.items() if not STOPPING.fullmatch(k)}


def plain(value: Any) -> Any:
  """A value as it comes back from JSON."""
  return json.loads(json.dumps(value))


def _changed(
  folder: pathlib.Path, key: Key
) -> tuple[tuple[str, str] | None, bool]:
  """What of its own has changed, and whether what it was made from has.

  Returns: (what, the way to let it through) or None, and the second.
  """
  if (folder / KEY).exists():
    old = load_key(folder / KEY)
    own, needs = changes(old, key), old["needs"] != key["needs"]
    if not own:
      return None, needs
    names = mistakes.bounded(mistakes.some([*own], MORE, ","), MOST_NAMED)
    return (told(own), f", or let it stand by {ALLOW}={names}"), needs
  absent = (f"it has no {KEY}", "") if (folder / DONE).exists() else None
  return absent, False


def load_key(path: pathlib.Path) -> Key:
  """The key in a file.

  Raises: Mistake if there is none in it.
  """
  key = files.load_object(path, "settings", "facts", "needs", "hash")
  if not all(isinstance(key[part], dict) for part in (*OWN, "needs")):
    raise mistakes.Mistake(f"{path}: is no key of a job; it was changed")
  return key


def begin(workdir: pathlib.Path, job: str, key: Key) -> None:
  """Notes the key of a job that is about to run."""
  path = workdir / job / KEY
  if not path.exists():
    files.save_json(path, dict(key))


def finish(
  workdir: pathlib.Path,
  job: str,
  results: Mapping[str, Any],
  seconds: float,
  machine: Mapping[str, Any] | None = None,
  cpu_seconds: float | None = None,
) -> None:
  """Notes the results of a job, and forgets that one failed.

  Args:
    results: for JSON.
    seconds: that the process took which finished it.
    machine: that it ran on.
    cpu_seconds: of that process, on all cores together.
  """
  outcome = {"seconds": seconds, "results": dict(results)}
  more = {"cpu_seconds": cpu_seconds, "machine": machine}
  outcome |= {name: one for name, one in more.items() if one is not None}
  files.save_json(workdir / job / DONE, outcome)
  (workdir / FAILED).unlink(missing_ok=True)


def is_done(workdir: pathlib.Path, job: str) -> bool:
  """Whether a job is finished."""
  return (workdir / job / DONE).exists()


def ends(workdir: pathlib.Path, jobs: Iterable[str]) -> str:
  """A hash of what jobs gave, another once one of them is run again."""
  paths = {job: workdir / job / DONE for job in jobs}
  return files.digest(
    {j: files.load_json(path) for j, path in paths.items() if path.exists()}
  )


def finished(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """What `done.json` of every finished job holds, in the order of their ends.

  A job that is another workdir's has its folder there as "reused".
  """
  found = []
  for path in (*workdir.glob(f"*/{DONE}"), *workdir.glob(f"*/*/{DONE}")):
    folder = path.parent
    done = files.load_object(path, "seconds", "results")
    if not isinstance(done.get("machine", {}), dict):
      raise mistakes.Mistake(f"{path}: its machine is none; it was changed")
    if folder.is_symlink():
      done["reused"] = str(folder.resolve())
    name = folder.relative_to(workdir).as_posix()
    found.append((path.stat().st_mtime, name, done))
  return {name: done for _, name, done in sorted(found, key=lambda x: x[:2])}


def origin(workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Where a job really is, and its key; None for one that has none."""
  folder = (workdir / job).resolve()
  path = folder / KEY
  key = load_key(path) if path.exists() else None
  return {"folder": str(folder), "key": key}


def fail(workdir: pathlib.Path, job: str, error: BaseException) -> None:
  """Leaves the job that failed, and its error line, in `failed.json`."""
  files.save_json(workdir / FAILED, {"stage": job, "error": error_line(error)})


def error_line(error: BaseException) -> str:
  """The line that ends a traceback, messages of several lines as one."""
  return " ".join(traceback.format_exception_only(error)[0].split())


def reuse(
  workdir: pathlib.Path, job: str, key: Key, others: Iterable[pathlib.Path]
) -> pathlib.Path | None:
  """Links a job to the same one finished in another workdir, if there is one.

  Args:
    others: workdirs to look in, in this order.
  Returns: the folder that was linked.
  """
  for other in others:
    folder = (other / job).resolve()
    if not (folder / DONE).exists() or not (folder / KEY).exists():
      continue
    found = load_key(folder / KEY)
    if found["hash"] == key["hash"] and ALLOWED not in found:
      _link(workdir / job, folder)
      return folder
  return None


def share(
  workdir: pathlib.Path, job: str, key: Key, store: pathlib.Path
) -> pathlib.Path:
  """Gives a job its folder in a store, where all who want it have it.

  Returns: the folder.
  """
  folder = store.resolve() / f"{job.replace('/', '-')}-{key['hash'][:16]}"
  folder.mkdir(parents=True, exist_ok=True)
  _link(workdir / job, folder)
  return folder


def _link(place: pathlib.Path, folder: pathlib.Path) -> None:
  """Makes place a link to a folder, unless it holds something of its own."""
  if place.is_symlink():
    place.unlink()
  if not place.exists():
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(folder, place.parent.resolve()))


@contextlib.contextmanager
def alone(folder: pathlib.Path, waiting: Callable[[], None]) -> Iterator[None]:
  """Holds a folder of a store; waits while another process holds it.

  The lock is the kernel's: it goes with its process, however that ends.

  Args:
    folder: of a job.
    waiting: called once when another process holds it.
  """
  with (folder / "lock").open("a") as file:
    told = False
    while not _locked(file):
      if not told:
        waiting()
      told = True
      time.sleep(WAIT_SECONDS)
    yield


def _locked(file) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def names(workdirs: Sequence[str]) -> list[pathlib.Path]:
  """Workdirs to reuse, as paths.

  Raises: Mistake for a folder that is no workdir.
  """
  found = [pathlib.Path(name) for name in workdirs]
  for path in found:
    if not (path / CONFIG).exists():
      raise mistakes.Mistake(
        f"--reuse: {path} is no workdir, it has no {CONFIG}"
      )
  return found
