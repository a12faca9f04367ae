"""Who answers in a tournament, and what: SFT, runs, and choices among samples.

A choice, a section of `tournament.chosen`, trains nothing: a policy answers
each prompt N times and one of the answers is taken, by what a judge says of
all their pairs. See `evaluation.selection`.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from nashmd_jax import declare, mistakes, pipeline, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.evaluation import selection
from nashmd_jax.judges import scorers, table
from nashmd_jax.nash import opponents, settings
from nashmd_jax.stages import judging, nash, sft
from nashmd_jax.training import journal
from nashmd_jax.training import metrics as metrics_lib

Config = pipeline.Config
START = judging.START
SALT = 0x7001  # keys of the tournament, apart from those of training steps
SETTINGS = {
  declare.ANY: {
    "policy": declare.text(
      "Who writes the samples: sft, or a run of nash.runs."
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


def policy_job(
  config: Config, name: str, *, setting: str = "tournament.policies"
) -> str:
  """The job that trained a policy.

  Args:
    setting: dotted name of the setting that names it, for the error.
  Raises: Mistake for a policy that the config does not train.
  """
  if name == START:
    return sft.NAME
  if name in config.nash.runs:
    return f"{nash.NAME}/{name}"
  raise mistakes.Mistake(
    f"{setting}: {mistakes.quote(name)} is neither {mistakes.quote(START)} nor "
    "one of nash.runs "
    f"({sorted(config.nash.runs)})"
  )


def deployed_lane(config: Config, name: str) -> sampling.Lane:
  """The lane in which a policy answers."""
  if name == START:
    return opponents.LEARNER
  return settings.deployed_lane(settings.run_section(config, name))


def load_sets(
  task: task_lib.Task,
  lane: sampling.Lane,
  place: pathlib.Path,
  start: pathlib.Path,
) -> dict[str, Any]:
  """The parameter sets that a lane names, without the base of adapters.

  Args:
    place: stage that trained the policy and its moving average.
    start: stage that gave μ.
  """
  saved = {
    "policy": (place, "params"),
    "ema": (place, "ema"),
    "reference": (start, "params"),
  }
  sets = {}
  for wanted in lane:
    folder, name = saved[wanted]
    sets[wanted] = task_lib.load_trained(task, "model", folder, name=name)
  return sets


def write_all(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  rows: Sequence[records.Record],
  once: journal.Once,
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]], dict[str, float]]:
  """What every policy of the tournament answers, and how it was chosen.

  A response depends on the seed, the policy's place in the tournament and that
  of its prompt, not on the batch it is in, of which `once` does or has done
  each, see `journal`. The base of all is loaded once.

  Returns: responses by policy, one for each record; of each choice its
    settings and "judged", the share of its pairs that the judge judged; and by
    policy the share of what it wrote that ended by itself.
  """
  section, bases = config.tournament, task_lib.bases(task, "model")
  rng = jax.random.fold_in(jax.random.key(config.seed), SALT)
  responses, told, ended = {}, {}, {}
  for number, name in enumerate(section.policies):
    policy = judging.answering(config, name)
    lane, place = deployed_lane(config, policy), policy_job(config, policy)
    sets = bases | load_sets(task, lane, workdir / place, workdir / sft.NAME)
    chosen = judging.chosen(config).get(name)
    samples = chosen.samples if chosen else 1
    own = jax.random.fold_in(rng, number)
    written, ended[name] = task_lib.write_responses(
      task,
      sets,
      [lane] * samples,
      rows,
      batch_size=_prompts_at_a_time(task, section.batch_size, samples),
      temperature=section.temperature,
      rng=own,
      told=f"tournament: {name} writing",
      once=journal.named(once, f"{name} writing"),
    )
    if chosen is None:
      responses[name] = [texts[0] for texts in written]
      continue
    judge = judging.judge_of_all(
      config,
      task,
      workdir,
      chosen.judge,
      setting=_setting(name, "judge"),
      batch_size=section.batch_size,
    )
    responses[name], judged = choose(
      written,
      rows,
      judge,
      how=chosen.choose,
      rng=own,
      batch_size=section.batch_size,
      once=journal.named(once, f"{name} chosen"),
    )
    told[name] = pipeline.plain(chosen) | {"judged": judged}
  return responses, told, ended


def _prompts_at_a_time(task, batch_size: int, samples: int) -> int:
  """As many prompts as keep to the rows of a batch that devices share."""
  parts = task.devices.mesh.shape["data"]
  return -(-max(batch_size // samples, 1) // parts) * parts


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
      if name not in section.chosen:
        policy_job(config, name)
  with findings.collect():
    check_names(config)
  for name, chosen in section.chosen.items():
    with findings.collect():
      policy_job(config, chosen.policy, setting=_setting(name, "policy"))
    with findings.collect():
      table.find(chosen.judge, setting=_setting(name, "judge"))


def check_names(config: Config) -> None:
  """Raises Mistake for runs and choices whose names are another policy's."""
  findings = mistakes.Findings()
  taken = {START, WRITTEN}
  for setting, names in {
    "nash.runs": config.nash.runs,
    "tournament.chosen": config.tournament.chosen,
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
  names = [judging.answering(config, n) for n in config.tournament.policies]
  judges = [
    stage
    for name, chosen in judging.chosen(config).items()
    for stage in judging.stages_of(
      config, [chosen.judge], setting=_setting(name, "judge")
    )
  ]
  return [*(policy_job(config, name) for name in names), *judges]


def reads(config: Config) -> Mapping[str, Any]:
  """The settings of the choices that play, and the sources of their judges."""
  chosen = judging.chosen(config)
  return {
    **pipeline.settings(config, *(f"tournament.chosen.{n}" for n in chosen)),
    **judging.reads(
      config, "tournament.chosen", *(one.judge for one in chosen.values())
    ),
  }
