"""How a stage asks the judges that its config names, on tokens or on text."""

from collections.abc import Callable, Iterable, Sequence
import pathlib
from typing import Any

import ml_collections
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax import task as task_lib
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import preference_model, scorers, table
from nashmd_jax.nash import settings

Config = ml_collections.ConfigDict
START = "sft"
SLOTS = {
  "preference": preference_model.PREFERENCE_SLOTS,
  "reward": preference_model.REWARD_SLOTS,
}


def make_template(
  config: Config, tokenizer: tokenizer_lib.Tokenizer, stage: str
) -> preference_model.Template:
  """What the judge of a stage reads, in the run's tokens.

  Raises: Mistake for a template that cannot be.
  """
  try:
    return preference_model.make_template(
      tokenizer.encode,
      SLOTS[stage],
      barred=tokenizer.special_ids,
      **config[stage].template,
    )
  except ValueError as error:
    raise mistakes.Mistake(f"{stage}.{error}") from None


def base_section(config: Config, stage: str) -> str:
  """The model whose adapters the judge of a stage is.

  The policy's where both start alike, so that one base serves both.
  """
  alike = config[stage].start_from_sft or pretrained.same_start(config)
  return "model" if alike else "judge_model"


def chosen(config: Config) -> dict[str, Config]:
  """The choices among samples that the tournament plays, by their name."""
  section = config.tournament
  return {
    name: section.chosen[name]
    for name in section.policies
    if name in section.chosen
  }


def answering(config: Config, name: str) -> str:
  """The trained policy that writes for a name of `tournament.policies`."""
  sections = chosen(config)
  return sections[name].policy if name in sections else name


def trained_runs(config: Config) -> list[str]:
  """The runs of `nash` that are trained: of the tournament and the export."""
  playing = [answering(config, name) for name in config.tournament.policies]
  names = [*playing, *config.export.policies]
  return [name for name in dict.fromkeys(names) if name != START]


def wanted(config: Config) -> list[str]:
  """The stages of all judges that a run, a choice or the tournament names.

  A name that there is not counts for nothing here: the checks tell of it.
  """
  findings, stages = mistakes.Findings(), []
  judges = [section.judge for section in chosen(config).values()]
  for name in [*config.tournament.judges, *judges]:
    with findings.collect():
      stages += stages_of([name], setting="tournament.judges")
  for run in trained_runs(config):
    with findings.collect():
      section = settings.run_section(config, run)
      names = [section.judge, *section.watch]
      stages += stages_of(names, setting="nash.judge")
  return list(dict.fromkeys(stages))


def stages_of(names: Iterable[str], *, setting: str) -> list[str]:
  """The stages that train the named judges, each once."""
  found = (table.find(name, setting=setting).stage for name in names)
  return list(dict.fromkeys(stage for stage in found if stage))


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
  sections = {base_section(config, stage) for stage in stages} | {*further}
  return task_lib.bases(task, *sorted(sections)) | {
    stage: task_lib.load_trained(
      task, base_section(config, stage), workdir / stage
    )
    for stage in stages
  }


def token_judge(
  config: Config, task: task_lib.Task, judge: table.Judge
) -> Callable[[task_lib.Sets], Any]:
  """(sets) -> the judge for use inside jit."""
  stage = judge.stage
  if stage is None:
    return lambda sets: judge.token(None, None, None)
  template = make_template(config, task.tokenizer, stage)
  base = task_lib.BASES[base_section(config, stage)]
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
  judge: table.Judge,
  *,
  batch_size: int,
) -> scorers.TextJudge:
  """The judge as a win probability of text on the host."""
  if judge.text is not None:
    made = judge.text(config)
    if judge.gives == "win_prob":
      return made
    return scorers.bradley_terry_text(made)
  stages = [judge.stage] if judge.stage else []
  return scorers.make_text_judge(
    win_judge(config, task, judge),
    load_sets(config, task, workdir, stages),
    jit=task.by_rows,
    encode=task.encode,
    pad=task.pad,
    batch_size=batch_size,
  )


def decoded(
  task: task_lib.Task, tokens: np.ndarray, mask: np.ndarray
) -> list[str]:
  """The text of rows of tokens, int[N, R] and bool[N, R]."""
  return [
    task.tokenizer.decode(row[keep])
    for row, keep in zip(tokens, mask, strict=True)
  ]


def answers(
  judge: Any,
  gives: str,
  rows: Sequence[Any],
  written: Sequence[Sequence[str]],
  i: np.ndarray,
  j: np.ndarray | None,
) -> np.ndarray:
  """What a judge of text says of N pairs, or responses, to each of B records.

  Args:
    judge: a text judge, or a scorer.
    gives: which of the two.
    rows: B records.
    written: the L responses to each.
    i, j: see `play.ask`.
  Returns: f64[B, N], NaN where it could not judge.
  """
  repeated = [row for row in rows for _ in i]
  first = [texts[a] for texts in written for a in i]
  if gives == "reward":
    said = judge(repeated, first)
  else:
    said = judge(repeated, first, [texts[b] for texts in written for b in j])
  return np.asarray(said, np.float64).reshape(len(rows), len(i))
