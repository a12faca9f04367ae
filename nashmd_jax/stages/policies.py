"""Who answers in a tournament, and what: SFT, runs, and choices among samples.

A choice, a section of `tournament.chosen`, trains nothing: a policy answers
each prompt N times and one of the answers is taken, by what a judge says of
all their pairs. See `evaluation.selection`.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from nashmd_jax import declare, lanes, mistakes, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.evaluation import selection
from nashmd_jax.judges import scorers, table
from nashmd_jax.nash import ensembles, opponents, settings
from nashmd_jax.stages import deployed, guests, judging, writing
from nashmd_jax.training import journal
from nashmd_jax.training import metrics as metrics_lib

Config = pipeline.Config
START = judging.START
SALT = 0x7001  # keys of the tournament, apart from those of training steps
SETTINGS = {
  declare.ANY: {
    "policy": declare.text(
      "Who writes the samples: sft, or one of nash.runs, nash.deployed or "
      "nash.ensembles."
    ),
    "choose": declare.text(
      "Which sample is the answer: the one that wins most often, or one drawn "
      "from the equilibrium of their game.",
      one_of=tuple(selection.CHOICES),
    ),
    "samples": declare.whole("N, responses to a prompt.", least=2),
    "judge": declare.text(f"Who compares the samples: {table.NAMES}."),
  }
}
# The file of what the records' author wrote stands among the policies'.
WRITTEN = "written"


class Answers(NamedTuple):
  """What the policies of a tournament answer to N records.

  Attributes:
    responses: by policy, N texts.
    chosen: of each choice its settings and "judged", the share of its pairs
      that the judge judged.
    ended: by policy the share of what it wrote that ended by itself, but for
      files.
    log_ratios: by trained policy f64[N], log π(y)/μ(y) of its responses in
      nats, see `writing.Responses`; empty unless `tournament.log_ratio`.
    ensembles: of each ensemble its settings; where it takes one of several
      proposals also "acceptance", the share that it would take, and "none", the
      share of responses to whose prompt it would have taken none.
  """

  responses: dict[str, list[str]]
  chosen: dict[str, dict[str, Any]]
  ended: dict[str, float]
  log_ratios: dict[str, np.ndarray]
  ensembles: dict[str, dict[str, Any]]


def policy_job(
  config: Config, name: str, *, setting: str = "tournament.policies"
) -> str:
  """The job that trained a policy, which is one.

  Args:
    setting: dotted name of the setting that names it, for the error.
  Raises: Mistake for a policy that the config does not train, or an ensemble.
  """
  if name in settings.joined(config):
    raise ensembles.no_policy(name, setting)
  if settings.run_of(config, name) in (START, *config.nash.runs):
    return deployed.job(config, name)
  raise mistakes.Mistake(
    f"{setting}: {mistakes.quote(name)} is neither {mistakes.quote(START)} nor "
    "one of nash.runs "
    f"({sorted([*config.nash.runs, *settings.otherwise(config)])}) or of "
    f"nash.ensembles ({sorted(settings.joined(config))})"
  )


def policy_jobs(
  config: Config, name: str, *, setting: str = "tournament.policies"
) -> list[str]:
  """The jobs that trained a policy, or the members of an ensemble.

  Args, Raises: as `policy_job`.
  """
  if name not in settings.joined(config):
    return [policy_job(config, name, setting=setting)]
  where = f"nash.ensembles.{name}.members"
  members = settings.joined(config)[name].members
  jobs = [policy_job(config, one, setting=where) for one in members]
  return list(dict.fromkeys(jobs))


def check_policy(
  config: Config, name: str, *, setting: str = "tournament.policies"
) -> None:
  """Raises Mistake for a policy that is not trained, or cannot answer so."""
  policy_jobs(config, name, setting=setting)
  if name in (*settings.otherwise(config), *settings.joined(config)):
    settings.policy_lane(config, name)


def write_all(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  rows: Sequence[records.Record],
  once: journal.Once,
) -> Answers:
  """What every policy of the tournament answers, and how it was chosen.

  A response depends on the seed, the policy's place in the tournament and that
  of its prompt, not on the batch it is in, of which `once` does or has done
  each, see `journal`. The base of all is loaded once.
  """
  section, bases = config.tournament, task_lib.bases(task, "model")
  rng = jax.random.fold_in(jax.random.key(config.seed), SALT)
  visiting = guests.playing(config)
  found = Answers({}, {}, {}, {}, {})
  for number, name in enumerate(section.policies):
    if name in visiting and guests.kind_of(name, visiting[name]) == guests.FILE:
      found.responses[name] = guests.texts(name, visiting[name], rows)
      continue
    chosen = judging.chosen(config).get(name)
    told = section.log_ratio and chosen is None and name not in visiting
    writer = _writer(config, task, workdir, name, bases, reference=told)
    own = jax.random.fold_in(rng, number)
    samples = chosen.samples if chosen else 1
    wrote = _write(config, writer, name, rows, once, own, samples, told)
    found.ended[name] = wrote.ended
    if wrote.log_ratio is not None:
      found.log_ratios[name] = wrote.log_ratio[:, 0]
    if name in settings.joined(config):
      found.ensembles[name] = _told(settings.joined(config)[name], wrote)
    if chosen is None:
      found.responses[name] = [texts[0] for texts in wrote.texts]
      continue
    found.responses[name], judged = choose(
      wrote.texts,
      rows,
      _judge_of(config, task, workdir, name),
      how=chosen.choose,
      rng=own,
      batch_size=section.batch_size,
      once=journal.named(once, f"{name} chosen"),
    )
    found.chosen[name] = pipeline.plain(chosen) | {"judged": judged}
  return found


def _write(
  config, writer, name, rows, once, rng, samples, log_ratio
) -> writing.Responses:
  """What one policy writes, so many responses to each record."""
  section, each = config.tournament, samples * writing.rows_of(writer.lane)
  return writing.write(
    writer.task,
    writer.sets,
    [writer.lane] * samples,
    rows,
    batch_size=writing.prompts_at_a_time(writer.task, section.batch_size, each),
    temperature=section.temperature,
    rng=rng,
    told=f"tournament: {name} writing",
    once=journal.named(once, f"{name} writing"),
    log_ratio=log_ratio and not isinstance(writer.lane, lanes.Rejection),
  )


def _told(ensemble: Config, wrote: writing.Responses) -> dict[str, Any]:
  """What is told of an ensemble; see `Answers`."""
  told = pipeline.plain(ensemble)
  if wrote.accepted is None:
    return told
  return told | {
    "acceptance": float(np.mean(wrote.accepted)),
    "none": float(np.mean(wrote.accepted == 0)),
  }


def _writer(config, task, workdir, name, bases, *, reference) -> guests.Guest:
  """Who writes for a name: a guest, or a policy of this run.

  Args:
    reference: whether its sets are to hold that of μ, whatever its lane.
  """
  visiting = guests.playing(config)
  if name in visiting:
    return guests.load(config, workdir, name, visiting[name])
  policy = judging.answering(config, name)
  further = tuple(opponents.REFERENCE) if reference else ()
  sets = deployed.load_policy(config, task, policy, workdir, *further)
  lane = settings.policy_lane(config, policy)
  return guests.Guest(task, {**bases, **sets}, lane)


def _judge_of(config, task, workdir, name) -> scorers.TextJudge:
  """The judge of a choice among samples."""
  return judging.judge_of_all(
    config,
    task,
    workdir,
    judging.chosen(config)[name].judge,
    setting=_setting(name, "judge"),
    batch_size=config.tournament.batch_size,
  )


def choose(
  written: Sequence[Sequence[str]],
  rows: Sequence[records.Record],
  judge: scorers.TextJudge,
  *,
  how: str,
  rng: jax.Array,
  batch_size: int,
  once: journal.Once,
) -> tuple[list[str], float]:
  """One of the N responses to each prompt, by what a judge says of all pairs.

  Every unordered pair is asked about once, P(y′ ≻ y) being 1 − P(y ≻ y′): of a
  judge that minds the order it hears one reading.

  Args:
    written: N responses to each record.
    rows: summary records.
    judge: of text.
    how: one of `selection.CHOICES`.
    rng: the key that `written` was drawn with; the draw from a mixture depends
      on it and on the place of the prompt.
    batch_size: prompts asked about at a time.
    once: does, or has done, each of these batches; see `journal`.
  Returns: the responses, and the share of pairs that were judged.
  """
  samples = len(written[0])
  i, j = selection.pairs(samples)
  said = []
  size = {"rows": len(rows), "batch_size": batch_size}
  for start in metrics_lib.shown_batches(
    range(0, len(rows), batch_size), "tournament: judging samples", **size
  ):
    part = slice(start, start + batch_size)
    ask = functools.partial(_said, judge, rows[part], written[part], i, j)
    said.append(once(f"records from {start}", ask))
  win_prob = selection.win_probs(np.concatenate(said))
  # The lane after the last has written nothing with its keys.
  keys = sampling.row_keys(rng, np.arange(len(rows)), samples + 1)[:, samples]
  uniform = np.asarray(jax.vmap(jax.random.uniform)(keys), np.float64)
  index = selection.CHOICES[how](win_prob, uniform)
  texts = [texts[k] for texts, k in zip(written, index, strict=True)]
  return texts, float(np.mean(np.isfinite(win_prob[:, i, j])))


def _said(judge, rows, written, i, j) -> list[list[float]]:
  return judging.answers(judge, rows, written, i, j).tolist()


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects the policies that there are not, and choices that cannot be."""
  section = config.tournament
  for name in section.policies:
    with findings.collect():
      if name not in (*section.chosen, *section.guests):
        check_policy(config, name)
  guests.check(config, findings)
  with findings.collect():
    check_names(config)
  for name, chosen in section.chosen.items():
    with findings.collect():
      check_policy(config, chosen.policy, setting=_setting(name, "policy"))
    with findings.collect():
      table.find(chosen.judge, setting=_setting(name, "judge"))


def check_names(config: Config) -> None:
  """Raises Mistake for runs and choices whose names are another policy's."""
  findings = mistakes.Findings()
  taken = {START, WRITTEN}
  for setting, names in {
    "nash.runs": config.nash.runs,
    "nash.deployed": settings.otherwise(config),
    "nash.ensembles": settings.joined(config),
    "tournament.chosen": config.tournament.chosen,
    "tournament.guests": config.tournament.guests,
  }.items():
    findings.sentences += [
      f"{setting}: {mistakes.quote(name)} is the name of another policy "
      "already; give this "
      "one a name of its own"
      for name in names
      if name in taken
    ]
    taken |= set(names)
  findings.tell()


def _setting(name: str, key: str) -> str:
  return f"tournament.chosen.{name}.{key}"


def needs(config: Config) -> list[str]:
  """The jobs that trained the policies, and the judges of the choices."""
  names = judging.answering_all(config)
  judges = [
    stage
    for name, chosen in judging.chosen(config).items()
    for stage in judging.stages_of(
      config, [chosen.judge], setting=_setting(name, "judge")
    )
  ]
  jobs = [job for name in names for job in policy_jobs(config, name)]
  return [*jobs, *judges]


def reads(config: Config) -> Mapping[str, Any]:
  """The settings of the choices that play, and the sources of their judges."""
  chosen = judging.chosen(config)
  return {
    **guests.reads(config),
    **deployed.reads(config, judging.answering_all(config)),
    **pipeline.settings(config, *(f"tournament.chosen.{n}" for n in chosen)),
    **judging.reads(
      config, "tournament.chosen", *(one.judge for one in chosen.values())
    ),
  }
