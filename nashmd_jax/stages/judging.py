"""How a stage asks the judges that its config names, on tokens or on text."""

from collections.abc import Callable, Iterable, Sequence
import functools
import pathlib
from typing import Any

import ml_collections
import numpy as np

from nashmd_jax import mistakes, outside
from nashmd_jax import task as task_lib
from nashmd_jax.judges import (
  scorers,
  table,
)
from nashmd_jax.nash import settings
from nashmd_jax.stages import judge_templates
from nashmd_jax.training import distributed

Config = ml_collections.ConfigDict
START = settings.START


def playing(config: Config, among: str) -> dict[str, Config]:
  """The sections of `tournament.chosen`, or of guests, that play, by name."""
  policies, sections = config.tournament.policies, config.tournament[among]
  return {name: sections[name] for name in policies if name in sections}


def chosen(config: Config) -> dict[str, Config]:
  """The choices among samples that the tournament plays, by their name."""
  return playing(config, "chosen")


def answering(config: Config, name: str) -> str:
  """The trained policy that writes for a name of `tournament.policies`."""
  sections = chosen(config)
  return sections[name].policy if name in sections else name


def answering_all(config: Config) -> list[str]:
  """The trained policies that write in the tournament; guests are apart."""
  section = config.tournament
  return [
    answering(config, name)
    for name in section.policies
    if name not in section.guests
  ]


def trained_runs(config: Config) -> list[str]:
  """The runs of `nash` that are trained, in the order in which they can be.

  Of the tournament, the export and the exploiters, and their rivals.
  """
  playing = answering_all(config)
  exploit = (*config.exploit.policies, *config.exploit.adversaries)
  named = [*playing, *config.export.policies, *exploit]
  runs = [run for name in named for run in settings.runs_of(config, name)]
  names = [
    one for name in runs for one in (*settings.before_run(config, name), name)
  ]
  return [name for name in dict.fromkeys(names) if name != START]


def wanted(config: Config) -> list[str]:
  """The stages of all judges that a run, a choice or the tournament names.

  A name that there is not counts for nothing here: the checks tell of it.
  """
  findings, stages = mistakes.Findings(), []
  judges = [section.judge for section in chosen(config).values()]
  if config.exploit.policies:
    judges.append(config.exploit.judge)
  for name in [*config.tournament.judges, *judges]:
    with findings.collect():
      stages += stages_of(config, [name], setting="tournament.judges")
  for run in trained_runs(config):
    with findings.collect():
      section = settings.run_section(config, run)
      names = [section.judge, *section.watch]
      stages += stages_of(config, names, setting="nash.judge")
  return list(dict.fromkeys(stages))


def whole(
  config: Config, name: str, *, setting: str, above: tuple[str, ...] = ()
) -> list[table.Judge]:
  """A judge and all that it is made of, itself first.

  Args:
    above: names of the judges that are made of it.
  Raises: Mistake for a name that is none of a judge, or a judge that is made
    of itself.
  """
  if name in above:
    raise mistakes.Mistake(
      f"{setting}: {mistakes.quote(name)} is made of "
      f"{' of '.join([*above[1:], name])}, "
      "which never ends; name other judges there"
    )
  judge = table.find(name, setting=setting)
  found = [judge]
  if judge.parts is not None:
    for part in judge.parts(config).judges:
      found += whole(
        config, part, setting=f"judges.{name}", above=(*above, name)
      )
  return found


def stages_of(
  config: Config, names: Iterable[str], *, setting: str
) -> list[str]:
  """The stages that train the named judges, each once."""
  found = [
    judge.stage
    for name in names
    for judge in whole(config, name, setting=setting)
  ]
  return list(dict.fromkeys(stage for stage in found if stage))


def reads(config: Config, setting: str, *names: str) -> dict[str, Any]:
  """What the answers of judges depend on, beside the stages that train them.

  Args:
    setting: dotted name of the setting that names them.
    *names: of judges.
  """
  found = dict(outside.sources(setting, *names))
  for name in names:
    for judge in whole(config, name, setting=setting):
      found |= judge.reads(config)
      if judge.parts is not None:
        parts = judge.parts(config).judges
        found |= outside.sources(f"judges of {name}", *parts)
  return found


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the judges that a run or a tournament names.

  Of a run that cannot be read, and of a name there that is no judge's, the
  stage `nash` tells.
  """
  names = {"tournament.judges": list(config.tournament.judges)}
  for name, section in chosen(config).items():
    names[f"tournament.chosen.{name}.judge"] = [section.judge]
  for run in trained_runs(config):
    with mistakes.Findings().collect():
      section = settings.run_section(config, run)
      for setting, name in (
        ("nash.judge", section.judge),
        *(("nash.watch", watching) for watching in section.watch),
      ):
        with mistakes.Findings().collect():
          table.find(name, setting=setting)
          names.setdefault(setting, []).append(name)
  for setting, named in names.items():
    for name in dict.fromkeys(named):
      with findings.collect():
        for judge in whole(config, name, setting=setting):
          judge.reads(config)


def on_host(config: Config, name: str, *, setting: str) -> bool:
  """Whether a judge, or one that it is made of, stands on the host."""
  return any(
    judge.token is None and judge.parts is None
    for judge in whole(config, name, setting=setting)
  )


def costs(config: Config, name: str, *, setting: str) -> list[str]:
  """Names of what is told of the costs of a judge's answers."""
  every = whole(config, name, setting=setting)
  return list(dict.fromkeys(cost for judge in every for cost in judge.costs))


def described(config: Config, name: str, *, setting: str) -> tuple[str, str]:
  """The title of a judge, and what its word is worth."""
  judge = table.find(name, setting=setting)
  if judge.parts is None:
    return judge.title, judge.about
  made = judge.parts(config)
  parts = [described(config, one, setting=setting) for one in made.judges]
  abouts = dict.fromkeys([*(about for _, about in parts), made.about])
  return made.title([title for title, _ in parts]), " ".join(abouts)


def load_sets(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  stages: Iterable[str],
  *further: str,
) -> dict[str, Any]:
  """The parameters of judges by their stage, and the bases of adapters.

  Args:
    stages: that trained the judges.
    *further: models whose bases are wanted too.
  """
  stages = list(stages)
  sections = {
    judge_templates.base_section(config, stage) for stage in stages
  } | {*further}
  return task_lib.bases(task, *sorted(sections)) | {
    stage: task_lib.load_trained(
      task, judge_templates.base_section(config, stage), workdir / stage
    )
    for stage in stages
  }


def token_judge(
  config: Config, task: task_lib.Task, judge: table.Judge
) -> Callable[[task_lib.Sets], Any]:
  """(sets) -> the judge for use inside jit."""
  if judge.parts is not None:
    made = judge.parts(config)
    members = [
      win_judge(config, task, table.find(name, setting="judges"))
      for name in made.judges
    ]
    return lambda sets: scorers.combined(
      [member(sets) for member in members], made.combine
    )
  stage = judge.stage
  if stage is None:
    return lambda sets: judge.token(None, None, None)
  template = judge_templates.make_template(config, task.tokenizer, stage)
  base = task_lib.BASES[judge_templates.base_section(config, stage)]
  return lambda sets: judge.token(
    task.judge_model, task.ready(sets, [stage], base)[stage], template
  )


def win_judge(
  config: Config, task: task_lib.Task, judge: table.Judge
) -> Callable[[task_lib.Sets], scorers.TokenJudge]:
  """The same as a win probability; of a reward, that of Bradley-Terry."""
  made = token_judge(config, task, judge)
  if judge.gives == "win_prob":
    return made
  return lambda sets: scorers.bradley_terry(made(sets))


def text_judge(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  name: str,
  *,
  setting: str,
  batch_size: int,
) -> scorers.TextJudge:
  """The judge as a win probability of text on the host.

  Args:
    workdir: holds the judges that are trained, and keeps what others answer.
    name: of the judge.
    setting: dotted name of the setting that names it.
    batch_size: rows that a judge of tokens reads at a time.
  """
  judge = table.find(name, setting=setting)
  if judge.text is not None:
    made = judge.text(config, workdir)
    if judge.gives == "win_prob":
      return made
    return scorers.bradley_terry_text(made)
  if judge.parts is not None and on_host(config, name, setting=setting):
    parts = judge.parts(config)
    trained = stages_of(config, [name], setting=setting)
    if trained and distributed.several():
      raise mistakes.Mistake(
        f"{setting}: {mistakes.quote(name)} is made of a judge on the host and "
        f"of {trained}, "
        "which several processes would have to run together; name judges of "
        "one kind"
      )
    members = [
      text_judge(
        config, task, workdir, part, setting="judges", batch_size=batch_size
      )
      for part in parts.judges
    ]
    return scorers.combined_text(members, parts.combine)
  stages = stages_of(config, [name], setting=setting)
  return scorers.make_text_judge(
    win_judge(config, task, judge),
    load_sets(config, task, workdir, stages),
    jit=task.by_rows,
    encode=task.encode,
    pad=task.pad,
    batch_size=batch_size,
  )


def judge_of_all(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  name: str,
  *,
  setting: str,
  batch_size: int,
) -> scorers.TextJudge:
  """The same for all processes; one on the host is asked by process 0 alone.

  It keeps the costs that one on the host has, for process 0.

  Args: as `text_judge`.
  """
  judge = text_judge(
    config, task, workdir, name, setting=setting, batch_size=batch_size
  )
  if not on_host(config, name, setting=setting):
    return judge

  def said(*texts):
    return np.asarray(judge(*texts), np.float64).tolist()

  def asked(*texts):
    told = distributed.on_first(functools.partial(said, *texts))
    return np.array(told, np.float64)

  asked.costs = getattr(judge, "costs", None)
  return asked


def host_judge(
  config: Config,
  task: task_lib.Task,
  workdir: pathlib.Path,
  name: str,
  *,
  batch_size: int,
) -> scorers.TextJudge | scorers.TextScorer:
  """The judge of a run on the host, as it gives: win probabilities or rewards.

  Args: as `text_judge`.
  """
  judge = table.find(name, setting="nash.judge")
  if judge.gives == "reward":
    return judge.text(config, workdir)
  return text_judge(
    config, task, workdir, name, setting="nash.judge", batch_size=batch_size
  )


def answers(
  judge: Any,
  rows: Sequence[Any],
  written: Sequence[Sequence[str]],
  i: np.ndarray,
  j: np.ndarray | None,
) -> np.ndarray:
  """What a judge of text says of N pairs, or responses, to each of B records.

  Args:
    judge: a text judge, or a scorer.
    rows: B records.
    written: the L responses to each.
    i, j: see `play.ask`.
  Returns: f64[B, N], NaN where it could not judge.
  """
  said = judge(*_asked(rows, written, i, j))
  return np.asarray(said, np.float64).reshape(len(rows), len(i))


def spent(
  judge: Any,
  names: Sequence[str],
  rows: Sequence[Any],
  written: Sequence[Sequence[str]],
  i: np.ndarray,
  j: np.ndarray | None,
) -> dict[str, list[float]]:
  """What the answers of a judge cost, by name: the sum for each record.

  Args: as `answers`; names of costs.
  """
  told = judge.costs(*_asked(rows, written, i, j)) if names else {}
  return {
    name: told[name].reshape(len(rows), len(i)).sum(axis=1).tolist()
    for name in names
  }


def _asked(rows, written, i, j) -> list[list[Any]]:
  """Records, responses and, for a judge of pairs, opponents, a pair each."""
  columns = [i] if j is None else [i, j]
  texts = [
    [of_record[place] for of_record in written for place in column]
    for column in columns
  ]
  return [[row for row in rows for _ in i], *texts]
