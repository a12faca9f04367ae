"""Runs the jobs of a pipeline in a workdir, each once for what it reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import pathlib
import time
from typing import Any, NamedTuple

from nashmd_jax import asked, changes, files, machine, mistakes, owner
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.training import distributed, dumps, ending, memory

BEHIND = 1.0  # seconds for an end in order, once another process has failed
Config = pipeline_lib.Config
Keys = Mapping[str, workdir_lib.Key]


class Place(NamedTuple):
  """Where a run is, and where else finished stages are.

  Attributes:
    workdir: of the run.
    reuse: other workdirs.
    store: folder that the trials of a sweep share; None for a single run.
    allowed: settings of which finished stages may have been made otherwise.
    config_flag: as `--config` takes it; None for a config of no file.
  """

  workdir: pathlib.Path
  reuse: Sequence[pathlib.Path] = ()
  store: pathlib.Path | None = None
  allowed: Sequence[str] = ()
  config_flag: str | None = None


@contextlib.contextmanager
def claimed(
  config: Config, place: Place, further: Callable[[], None]
) -> Iterator[None]:
  """Makes the workdir, or knows it again, and owns it to the end of the block.

  Args:
    config: of the run.
    place: where it is.
    further: what process 0 does besides.
  Raises: Mistake for a folder that is no workdir, that another run is at work
    in, or that hosts do not share.
  """
  workdir, mine = place.workdir, []

  def work():
    workdir_lib.claim(workdir, pipeline_lib.plain(config))
    mine.append(owner.take(workdir, lost=_end, waits=_say))
    further()
    return mine[0].token

  try:
    token = distributed.on_first(work)
    if not distributed.all_see(workdir):
      raise mistakes.Mistake(
        f"{workdir}: not every process sees what process 0 wrote there; "
        "choose a --workdir that all hosts share"
      )
    if not distributed.is_first():
      mine.append(owner.join(workdir, token, lost=_end))
    ending.at_last(lambda: _leave(mine))
    yield
  except Exception as error:  # which may follow from another process's end
    if mine and mine[0].is_over():
      raise mistakes.Fault(f"{workdir}: {owner.OVER}") from error
    if mine and (number := mine[0].stopped()):
      ending.agree(number)
      raise ending.Preempted(ending.said()) from error
    raise
  finally:
    _leave(mine)


def _leave(mine: Sequence[owner.Ownership]) -> None:
  """Gives a workdir free; the others of a run learn that a signal did it."""
  for one in mine:
    one.leave(ending.asked() if distributed.several() else 0)


def _say(sentence: str) -> None:
  print(sentence, flush=True)


def _end(sentence: str, number: int) -> None:
  """Ends this process, which its run or its workdir has left behind."""
  if number:
    ending.agree(number)
  code = ending.status() if ending.asked() else 1
  ending.end_within(BEHIND, code, sentence)


@contextlib.contextmanager
def on_disk(workdir: pathlib.Path) -> Iterator[None]:
  """Turns an error that a disk is to blame for into a Fault."""
  try:
    yield
  except (mistakes.Mistake, mistakes.Fault):
    raise
  except Exception as error:
    told = files.disk_fault(error, workdir)
    if told is None:
      raise
    raise mistakes.Fault(told) from error


@contextlib.contextmanager
def undone(place: Place) -> Iterator[None]:
  """Leaves no workdir behind if a mistake is found before any job begins.

  Data, tokenizer, folders of models and devices are looked at in the workdir,
  where what they are made into stays: it is taken back by the process that
  made it, so that the corrected command finds what the first one found.
  """
  with contextlib.ExitStack() as stack:
    if distributed.is_first():
      stack.enter_context(workdir_lib.undone(place.workdir))
    yield


def run(
  pipeline: pipeline_lib.Pipeline,
  config: Config,
  place: Place,
  stage: str | None,
) -> None:
  """Runs what is not done yet of one stage, or of all.

  Args:
    pipeline: that the config names.
    config: checked.
    place: claimed.
    stage: the name of one; None for all.
  Raises: Mistake for a stage that nothing needs, or that needs an unfinished
    one, and for jobs that were made of something else.
  """
  workdir, jobs = place.workdir, pipeline.jobs(config)
  chosen = [job for job, one in jobs.items() if stage in (None, one.name)]
  if not chosen:
    raise mistakes.Mistake(
      f"--stage: nothing in this config needs {stage}; leave it out"
    )
  facts = pipeline.prepare(config, workdir)  # data and tokenizer are there now
  keys = make_keys(pipeline, config, facts)
  wanted = dict.fromkeys(
    need for job in chosen for need in (*jobs[job].needs(config, job), job)
  )
  looked_at = {job: keys[job] for job in wanted}
  distributed.on_first(functools.partial(_look, config, place, looked_at))
  ran: list[str] = []
  for job in chosen:
    as_before = functools.partial(
      _check_facts, pipeline, config, workdir, job, facts if ran else None
    )
    if _run_if_needed(config, place, jobs[job], job, keys[job], as_before):
      ran.append(job)
  if not ran:
    print("all is done already")
  page = workdir / pipeline.page
  if page.exists():
    print(f"results: {page}")


def replay(
  pipeline: pipeline_lib.Pipeline,
  config: Config,
  workdir: pathlib.Path,
  named: str,
) -> None:
  """Prints what a step that was kept gives when it is computed again.

  Args:
    pipeline: that the config names.
    config: checked.
    workdir: claimed.
    named: job and step, as nash/nash_md:12.
  Raises: Mistake for a job that there is not, or that was made of something
    else, and for a step that is not kept.
  """
  job, _, step = named.rpartition(":")
  stage = pipeline.jobs(config).get(job)
  if stage is None or stage.replay is None or not step.isdecimal():
    can = [name for name, one in pipeline.jobs(config).items() if one.replay]
    raise mistakes.Mistake(
      f"--replay: got {mistakes.quote(named)}, expected a job and a step, as "
      f"in nash/nash_md:12; jobs of this config: {', '.join(can) or 'none'}"
    )
  dumps.load(workdir / job, int(step))  # before data and models are
  facts = pipeline.prepare(config, workdir)
  keys = {job: make_keys(pipeline, config, facts)[job]}
  distributed.on_first(lambda: workdir_lib.check_keys(workdir, keys))
  for line in stage.replay(config, workdir, job, int(step)):
    print(line, flush=True)


def make_keys(
  pipeline: pipeline_lib.Pipeline,
  config: Config,
  facts: Mapping[str, Any],
) -> Keys:
  """The key of every job, with what `pipeline.prepare` has found."""
  keys: dict[str, workdir_lib.Key] = {}
  for job, stage in pipeline.jobs(config).items():
    names = (*stage.facts, *stage.job_facts(config, job))
    keys[job] = workdir_lib.make_key(
      stage.reads(config, job),
      {name: facts[name] for name in names if facts[name] is not None},
      {need: keys[need] for need in stage.needs(config, job)},
    )
  return keys


def _check_facts(
  pipeline: pipeline_lib.Pipeline,
  config: Config,
  workdir: pathlib.Path,
  job: str,
  before: Mapping[str, Any] | None,
) -> None:
  """Raises Mistake for what is no longer as it was for the jobs before."""
  if before is None or pipeline.look is None:
    return
  now = pipeline.look(config, workdir)
  changed = [name for name, fact in before.items() if now[name] != fact]
  if changed:
    raise mistakes.Mistake(
      f"{job}: {' and '.join(changed)} changed while the jobs before it ran, "
      "which read other contents; put the files back as they were, and the "
      "same command goes on"
    )


def _look(config, place: Place, keys) -> None:
  """Checks what is there; links to what is finished elsewhere."""
  for job, key in keys.items():
    if not workdir_lib.is_done(place.workdir, job):
      found = workdir_lib.reuse(place.workdir, job, key, place.reuse)
      if found is not None:
        print(f"{job}: reused from {found}", flush=True)
  for line in changes.allow(place.workdir, keys, place.allowed):
    print(line, flush=True)
  workdir_lib.check_keys(place.workdir, keys)
  files.save_json(
    place.workdir / workdir_lib.CONFIG, pipeline_lib.plain(config)
  )
  if place.config_flag is not None:
    told = asked.differences(place.config_flag, config)
    files.save_json(place.workdir / asked.NAME, told)


def _run_if_needed(
  config, place, stage: pipeline_lib.Stage, job, key, as_before
) -> bool:
  """Runs a job unless it is done, here or meanwhile by another trial."""
  workdir = place.workdir

  def is_done(one: str) -> bool:
    return distributed.on_first(lambda: workdir_lib.is_done(workdir, one))

  if is_done(job):
    return False
  for need in stage.needs(config, job):
    if not is_done(need):
      raise mistakes.Mistake(
        f"{job}: needs {need}, which is not finished; run it first, or all "
        "stages"
      )
  distributed.stop_if_asked()
  as_before()
  with contextlib.ExitStack() as stack:
    if place.store is not None and stage.shared:
      hold = functools.partial(_hold, stack, place, job, key)
      distributed.on_first(hold)
      if is_done(job):
        print(f"{job}: done by another trial", flush=True)
        return True
    _run_job(config, workdir, stage, job, key)
  return True


def _hold(stack, place: Place, job, key) -> None:
  """Takes the job's folder in the store, once no other trial is at it."""

  def waiting():
    print(f"{job}: waits, another trial is at it", flush=True)

  folder = workdir_lib.share(place.workdir, job, key, place.store)
  stack.enter_context(workdir_lib.alone(folder, waiting))


def _run_job(config, workdir, stage: pipeline_lib.Stage, job, key) -> None:
  """Runs a job; leaves its results, or why it failed, in the workdir."""
  print(f"{job}: starts", flush=True)
  distributed.on_first(lambda: workdir_lib.begin(workdir, job, key))
  work = functools.partial(stage.run, config, workdir, job)
  began, cpu_began = time.monotonic(), time.process_time()
  try:
    results = distributed.on_first(work) if stage.alone else work()
  except Exception as error:
    if distributed.is_first():
      with contextlib.suppress(OSError):  # which would stand before the cause
        workdir_lib.fail(workdir, job, error)
    raise
  memory.give_back()
  seconds = time.monotonic() - began
  cpu_seconds = time.process_time() - cpu_began
  distributed.on_first(
    lambda: workdir_lib.finish(
      workdir, job, results, seconds, machine.describe(), cpu_seconds
    )
  )
  print(f"{job}: done in {seconds:.0f} s", flush=True)
