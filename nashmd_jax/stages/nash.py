"""Stage `nash`: play on text, from μ, before a judge; a job for each run.

The judge decides which losses there are: one that gives win probabilities
plays Nash learning, a reward plays RLHF. A judge of text stands on the host,
between rollout and update.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, declare, mistakes, outside, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches
from nashmd_jax.judges import table
from nashmd_jax.nash import checks, ensembles, opponents, settings, warnings
from nashmd_jax.nash import play as play_lib
from nashmd_jax.stages import comparisons as comparisons_lib
from nashmd_jax.stages import (
  deployed,
  hosting,
  judging,
  learnt_from,
  sft,
  showing,
  trained,
  writing,
)
from nashmd_jax.training import distributed, telling
from nashmd_jax.training import settings as training_settings
from nashmd_jax.training import step as step_lib

Config = pipeline.Config
NAME = deployed.RUNS
OWN = {
  **trained.SETTINGS,
  **settings.SETTINGS,
  "watch": declare.several(
    declare.text(
      "Judges that score the same held-out pairs, and teach nothing."
    )
  ),
}
SETTINGS = OWN | {
  "runs": {declare.ANY: declare.Changes(NAME, OWN)},
  "deployed": settings.DEPLOYED,
  "ensembles": ensembles.SETTINGS,
}
COST = "judge_"  # what begins so is told of the judge on the host
WON = "win_prob_against_reference"
PAIR = np.arange(1)  # the deployed policy against the reference


def make_play(
  config: Config, task: task_lib.Task, section: Config
) -> play_lib.Play:
  """The play of a checked section on a task's model and text."""
  judge = table.find(section.judge, setting="nash.judge")
  on_host = judging.on_host(config, section.judge, setting="nash.judge")
  held = settings.make_held(section)
  return play_lib.Play(
    model=task.model,
    ready=task.ready,
    opponent=settings.make_opponent(section),
    judge=None if on_host else judging.token_judge(config, task, judge),
    algorithm=settings.make_algorithm(
      section, judge.gives, judge_ahead=section.judge_ahead
    ),
    samples=section.samples,
    kl_coef=held.kl_coef,
    held=held.lane,
    temperature=section.temperature,
    max_response=task.max_response,
    eos_ids=task.tokenizer.eos_ids,
    instruction=task.tokenizer.encode_marked(section.follower_instruction),
  )


def make_experiment(
  config: Config,
  task: task_lib.Task,
  section: Config,
  workdir: pathlib.Path,
  comparisons: comparisons_lib.Comparisons | None = None,
) -> step_lib.Experiment:
  """The learner plays an opponent; a judge scores the pair.

  Args:
    section: of the run, checked.
    comparisons: by split, for a run that learns from them in place of play.
    workdir: holds what earlier stages gave: μ, from which the policy also
      starts, or from its rival, and the judges that are trained.
  """
  play = make_play(config, task, section)
  on_host = play.judge is None and play.algorithm.way.gives is not None
  named = [section.judge, *section.watch]

  def init(rng):
    del rng
    start = task_lib.load_trained(task, "model", workdir / sft.NAME)
    stages = judging.stages_of(config, named, setting="nash.watch")
    frozen = {
      **judging.load_sets(config, task, workdir, stages, "model"),
      "reference": start,
    }
    for name, policy in settings.played(section).items():
      frozen[name] = deployed.load_learnt(config, task, policy, workdir)
    return frozen.get(opponents.RIVAL, start), frozen

  return step_lib.Experiment(
    init=init,
    rollout=functools.partial(play_lib.rollout, play),
    host=hosting.make_host(config, task, section, play, workdir)
    if on_host
    else None,
    loss=functools.partial(loss, play),
    batches=functools.partial(
      task_lib.training_batches,
      task,
      learnt_from.training_records(
        section, comparisons or task.splits, task.seed
      ),
      batch_size=section.data.batch_size,
      seed=task.seed,
    ),
    evaluate=make_evaluation(config, task, section, play, workdir),
    followers=settings.make_followers(section),
    rules=warnings.RULES,
    optimizer=settings.optimizer_of(section),
  )


def loss(play: play_lib.Play, params, sets, rows, rng):
  """The loss of the play; its metrics also tell of prompts and of the host.

  Args: as `play.loss`.
  Returns: loss and metrics; also "prompts_cut" and, where responses are those
    of the records, "responses_cut" or those of a and b, shares of the prompts;
    with a judge on the host "judged", the share of pairs or responses that it
    could judge, "judge_seconds", a step, and what the judge tells of its
    costs, such as "judge_calls", a prompt.
  """
  value, metrics = play_lib.loss(play, params, sets, rows, rng)
  cut = ("prompts_cut",)
  if play.algorithm.way.kind is not None:
    cut += ("responses_cut", "responses_a_cut", "responses_b_cut")
  told = trained.shares(rows, *cut)
  if "judge_seconds" in rows:
    known = rows["judged"].astype(jnp.float32)
    told["judged"] = arrays.mean_over(known, jnp.ones_like(rows["judged"]))
    for name in (name for name in rows if name.startswith(COST)):
      spent = rows[name]
      told[name] = arrays.mean_over(spent, jnp.ones(spent.shape, bool))
  return value, {**metrics, **told}


def make_evaluation(
  config: Config,
  task: task_lib.Task,
  section: Config,
  play: play_lib.Play,
  workdir: pathlib.Path,
):
  """(sets) -> the deployed policy against μ, by the judge and the watching.

  All of them score the same pairs of held-out responses. It also tells the
  share of the policy's that end by themselves, and shows some of the pairs.
  """
  shown = config.log.samples
  tokens, texts = _watching(config, task, section, workdir)
  lanes = [settings.deployed_lane(section), opponents.REFERENCE]
  source = task.splits["validation"][: section.data.eval_examples]

  @task.by_rows
  def score(sets, batch):
    write_rng, judge_rng = jax.random.split(jax.random.key(task.seed))
    names = {name for lane in lanes for name in lane}
    written = play_lib.write(
      play, play.ready(sets, names), lanes, batch, write_rng
    )
    said = {
      prefix: play_lib.ask(
        judge(sets), judge_rng, batch, written[:2], PAIR, PAIR + 1
      )[:, 0]
      for prefix, judge in tokens.items()
    }
    ended = sampling.ended(written.tokens, written.mask, play.eos_ids)
    return said, ended[:, 0], (written[:2] if texts or shown else None)

  def evaluate(sets):
    rows: dict[str, list] = {prefix: [] for prefix in (*tokens, *texts)}
    ends, samples = [], []
    ordered = batches.ordered_batches(
      source, task.encode, task.pad, batch_size=section.data.batch_size
    )
    for batch, real in ordered:
      distributed.stop_if_asked()
      said, ended, written = score(sets, batch)
      ends.append(np.asarray(ended[:real], np.float64))
      for prefix, values in said.items():
        rows[prefix].append(values[:real])
      for prefix, judge in texts.items():
        rows[prefix].append(_by_text(task, judge, source, batch, written, real))
      places = batch["record_ids"][: min(real, shown - len(samples))]
      last = {f"{prefix}{WON}": values[-1] for prefix, values in rows.items()}
      asked = [source[place] for place in places]
      samples += showing.samples(task, asked, written, last)
    means = {f"{prefix}{WON}": _mean(values) for prefix, values in rows.items()}
    return telling.Evaluation({"ended": _mean(ends)} | means, samples)

  return evaluate


def _watching(config, task, section, workdir):
  """The judge and those that watch, inside jit and on the host, by prefix."""
  where = {"setting": "nash.watch"}
  tokens, texts = {}, {}
  for name in (section.judge, *section.watch):
    prefix = f"{name}_" if tokens or texts else ""
    if judging.on_host(config, name, **where):
      texts[prefix] = _when_asked(
        functools.partial(
          judging.text_judge,
          config,
          task,
          workdir,
          name,
          **where,
          batch_size=section.data.batch_size,
        )
      )
    else:
      judge = table.find(name, **where)
      tokens[prefix] = judging.win_judge(config, task, judge)
  return tokens, texts


def _when_asked(make):
  """A judge that is made when it is first asked: its cost is not a check's."""
  made = functools.cache(make)
  return lambda *texts: made()(*texts)


def _by_text(task, judge, source, batch, written, real) -> np.ndarray:
  """What a judge of text says of a batch's pairs, f64[real]."""

  def judged():
    asked = [source[number] for number in batch["record_ids"][:real]]
    pairs = writing.texts_of(task, asked, *written)
    return judge(asked, *zip(*pairs, strict=True)).tolist()

  return np.asarray(distributed.on_first(judged))


def _mean(values: list[np.ndarray]) -> float:
  """The mean of what could be judged; NaN of nothing."""
  every = np.concatenate(values)
  known = every[np.isfinite(every)]
  return float(np.mean(known)) if len(known) else float("nan")


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, float]:
  """Trains one of `config.nash.runs` and returns its last evaluation."""
  training = make_training(config, workdir, job)
  told = settings.cut_off(training.section)
  if told:
    print(f"{job}: {told}")
  return trained.train(training, workdir, job)


def make_training(
  config: Config, workdir: pathlib.Path, job: str
) -> trained.Training:
  """How one of `config.nash.runs` trains."""
  section = settings.run_section(config, job.split("/")[1])
  task = task_lib.load_task(config, workdir)
  compares = settings.compares(section)
  comparisons = comparisons_lib.load(config, workdir) if compares else None
  experiment = make_experiment(config, task, section, workdir, comparisons)
  updates = section.updates_per_rollout
  return trained.Training(experiment, section, task, updates)


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the runs that are trained."""
  # Of a run that there is not the tournament or the export tells.
  names = [n for n in judging.trained_runs(config) if n in config.nash.runs]
  one = functools.partial(_check_run, config)
  checks.check_runs(config, names, one, findings)
  checks.check_turns(config, names, findings)


def _check_run(config, section: Config, findings: mistakes.Findings) -> None:
  checks.check(section, findings)
  hosting.check(config, section, findings)
  counted = settings.steps_counted(section)
  training_settings.check_together(
    NAME, section, findings, steps_counted=counted
  )
  if section.judge_ahead and section.train.log_every == 1:
    findings.sentences.append(
      f"nash.judge_ahead: got {section.judge_ahead} with train.log_every 1, "
      "which waits for every step; set log_every to several steps, which are "
      "overlapped but for the last"
    )
  for watching in section.watch:
    with findings.collect():
      table.find(watching, setting="nash.watch")


def needs(config: Config, job: str) -> list[str]:
  """SFT, the judges that the run names, whom it plays, and comparisons."""
  section = settings.run_section(config, job.split("/")[1])
  names = [section.judge, *section.watch]
  judges = judging.stages_of(config, names, setting="nash.judge")
  played = [
    deployed.job(config, one) for one in settings.played(section).values()
  ]
  compares = settings.compares(section)
  drawn = comparisons_lib.STAGE.jobs(config) if compares else []
  return list(dict.fromkeys([sft.NAME, *judges, *played, *drawn]))


def _facts(config: Config, job: str) -> tuple[str, ...]:
  """The comparisons, where the run learns from them."""
  section = settings.run_section(config, job.split("/")[1])
  return ("comparisons",) if settings.compares(section) else ()


def reads(config: Config, job: str) -> dict[str, Any]:
  """The settings of the run as it is played."""
  section = settings.run_section(config, job.split("/")[1])
  with section.unlocked():
    del section.runs, section.deployed, section.ensembles
  return {
    **trained.reads(config, "judge_model"),
    **pipeline.flat(pipeline.plain(section), NAME),
    **outside.sources("nash.loss", section.loss),
    **outside.sources("nash.opponent", section.opponent),
    **judging.reads(config, "nash.judge", section.judge),
    **judging.reads(config, "nash.watch", *section.watch),
  }


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [
    f"{NAME}/{name}" for name in judging.trained_runs(config)
  ],
  needs=needs,
  reads=reads,
  run=run,
  replay=trained.replays(make_training),
  facts=trained.FACTS,
  job_facts=_facts,
)
