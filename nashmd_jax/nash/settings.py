"""The settings of play: sections of runs, and what is checked of them.

A run is the section `nash` with the changes that `nash.runs` makes for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from nashmd_jax import declare, mistakes, pipeline, sampling
from nashmd_jax.judges import table
from nashmd_jax.nash import algorithms, opponents
from nashmd_jax.training import followers

Section = ml_collections.ConfigDict
RIVAL = opponents.RIVAL
OPPONENT = opponents.SETTINGS
LOSS = {
  name: one
  for name, one in algorithms.SETTINGS.items()
  if name != "judge_ahead"
}
TEMPERATURE = declare.number(
  "Temperature at which responses are drawn; 1 is the model's own.",
  least=1e-6,
  most=1e6,
)
# What is played, whoever judges.
PLAY = {
  "samples": declare.whole(
    "K, responses of the learner to a prompt, and of each of its opponent's "
    "lanes.",
    least=1,
    most=10_000,
  ),
  "kl_coef": declare.number(
    "τ, the price of a nat of KL to the reference; 0 for none.",
    least=0,
    most=1e6,
  ),
  "temperature": TEMPERATURE,
}
EMA = {"ema": followers.MOVING_AVERAGE}
SETTINGS = {
  **OPPONENT,
  "deploy": opponents.DEPLOY,
  **algorithms.SETTINGS,
  **PLAY,
  "judge": declare.text(f"Whom a run learns from: {table.NAMES}."),
  **EMA,
  "past": followers.PAST_POLICIES,
  RIVAL: declare.text(
    "Whom the opponent rival plays, frozen: sft, or another run of nash.runs "
    "as it is deployed, whose mixture replaces that of this run.",
    optional=True,
  ),
}
DEPLOYED = {
  declare.ANY: {
    "run": declare.text("The run that it is, one of nash.runs."),
    "deploy": opponents.DEPLOY,
  }
}
START = "sft"  # the policy from which all runs start
FOLLOWERS = {"ema": followers.moving_average, "past": followers.past_policies}


def chosen(section: Section, keys: Iterable[str]) -> dict[str, Any]:
  """The named settings of a section."""
  return {key: section[key] for key in keys}


def run_section(
  config: ml_collections.ConfigDict, name: str, *, before: tuple[str, ...] = ()
) -> Section:
  """`config.nash` with the changes that `config.nash.runs[name]` makes.

  A run against a rival has the β that its rival deploys.

  Args:
    config: whose run it is.
    name: of the run.
    before: the runs whose rival it is, the first first.
  Raises: Mistake for a run that does not exist, a key that `config.nash` does
    not have, or a rival that there is not or that is trained against the run.
  """
  section = config.nash.copy_and_resolve_references()
  if name not in section.runs:
    raise mistakes.Mistake(
      f"nash.runs: no run {mistakes.quote(name)} among {sorted(section.runs)}"
    )
  own, changes = section.to_dict(), section.runs[name]
  lacking = sorted(
    set(pipeline.flat(pipeline.plain(changes))) - set(_names(own)) - {""}
  )
  if lacking:
    raise mistakes.Mistake(
      f"nash.runs.{name}: sets {', '.join(lacking)}, which nash does not have"
    )
  try:
    section.update(changes)
  except TypeError:  # a share of 0.5 for one of 1, which is a number too
    with section.ignore_type():
      section.update(changes)
  if section.opponent == RIVAL:
    _set_rival(config, section, (*before, name))
  return section


def _set_rival(config, section: Section, runs: tuple[str, ...]) -> None:
  """Gives a section the β of its rival."""
  if RIVAL not in section:
    raise mistakes.Mistake(
      f"nash.opponent: got {RIVAL!r}, expected one that is no other run: this "
      "config has no nash.rival"
    )
  rival = section.rival
  if rival is None:
    raise mistakes.Mistake(
      "nash.rival: not given, and nash.opponent is 'rival'; name sft or "
      "another run of nash.runs"
    )
  if rival in runs:
    raise mistakes.Mistake(
      f"nash.rival: {' plays '.join(map(mistakes.quote, (*runs, rival)))}, "
      "so that none can be trained first; name another rival"
    )
  lane = policy_lane(config, rival, before=runs)
  section.mixture = section.mixture_end = lane.get("reference", 0.0)
  section.mixture_steps = 0


def policy_lane(
  config: ml_collections.ConfigDict, name: str, *, before: tuple[str, ...] = ()
) -> sampling.Lane:
  """The lane in which a trained policy answers.

  Args:
    config: of the run.
    name: "sft", a run of `nash.runs` or one of `nash.deployed`.
    before: see `run_section`.
  Raises: Mistake where a run keeps no average that one of `nash.deployed`
    asks for.
  """
  if name == START:
    return opponents.LEARNER
  section = run_section(config, run_of(config, name), before=before)
  if name not in otherwise(config):
    return deployed_lane(section)
  kept = set(make_followers(section))
  section.deploy = otherwise(config)[name].deploy
  lane = deployed_lane(section)
  if not opponents.follows(lane) <= kept:
    raise mistakes.Mistake(
      f"nash.deployed.{name}: the run {mistakes.quote(run_of(config, name))} "
      "keeps no moving average; take one that plays or deploys its own"
    )
  return lane


def otherwise(config: ml_collections.ConfigDict) -> Mapping[str, Section]:
  """`nash.deployed`: runs that answer in another way too, by their names."""
  return config.nash.get("deployed", {})


def run_of(config: ml_collections.ConfigDict, name: str) -> str:
  """The run, or "sft", that a policy is, in whatever way it answers."""
  return otherwise(config)[name].run if name in otherwise(config) else name


def before_run(config: ml_collections.ConfigDict, name: str) -> list[str]:
  """The runs that have to be trained before a run: its rival, and so on.

  Returns: their names, the first to be trained first; of what there is not, or
    goes in a ring, nothing.
  """
  found: list[str] = []
  while name in config.nash.runs and name not in found:
    found.insert(0, name)
    own = {**config.nash, **config.nash.runs[name]}
    rival = own[RIVAL] if own["opponent"] == RIVAL else None
    name = run_of(config, rival)
  return found[:-1]


def _names(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
  """The dotted names of a section's settings, and of the sections in it."""
  for name, value in section.items():
    yield f"{prefix}{name}"
    if isinstance(value, Mapping):
      yield from _names(value, f"{prefix}{name}.")


def make_opponent(section: Section) -> opponents.Opponent:
  """The opponent of a section; see `opponents.make_opponent`."""
  return opponents.make_opponent(**chosen(section, OPPONENT))


def make_algorithm(
  section: Section, gives: str, *, judge_ahead: int
) -> algorithms.Algorithm:
  """The algorithm of a section before a judge that gives that."""
  return algorithms.make_algorithm(
    scores=gives, judge_ahead=judge_ahead, **chosen(section, LOSS)
  )


def deployed_lane(section: Section) -> sampling.Lane:
  """The lane in which a run answers when it is trained."""
  return opponents.deployed_lane(
    make_opponent(section), deploy=section.deploy, steps=section.train.steps
  )


def cut_off(section: Section) -> str | None:
  """Says where β ends if the steps end before its schedule does."""
  start, end = section.mixture, section.mixture_end
  steps, planned = section.train.steps, section.mixture_steps
  if planned <= steps or start == end:
    return None
  last = start + (end - start) * steps / planned
  return (
    f"β goes from {start:g} to {last:g}, not to {end:g}: train.steps ({steps}) "
    f"end before mixture_steps ({planned}) do"
  )


def make_followers(section: Section) -> dict[str, followers.Follower]:
  """The followers that a run's opponent, or what it deploys, names."""
  names = make_opponent(section).follows
  names |= opponents.follows(deployed_lane(section))
  return {name: FOLLOWERS[name](**section[name]) for name in sorted(names)}


def check_runs(
  config: ml_collections.ConfigDict,
  names: Iterable[str],
  check_one: Callable[[Section, mistakes.Findings], None],
  findings: mistakes.Findings,
) -> None:
  """Collects what is wrong with runs: each sentence once, with their names.

  Args:
    config: whose `nash.runs` they are.
    names: of the runs.
    check_one: collects what is wrong with the section of one.
    findings: where to.
  """
  runs: dict[str, list[str]] = {}
  for name in names:
    own = mistakes.Findings()
    with own.collect():
      check_one(run_section(config, name), own)
    for sentence in dict.fromkeys(own.sentences):
      runs.setdefault(sentence, []).append(name)
  for sentence, wrong in runs.items():
    findings.sentences.append(f"{sentence} (run {', '.join(wrong)})")


def check(section: Section, findings: mistakes.Findings) -> None:
  """Collects what makes no sense in a section."""
  gives = None
  with findings.collect():
    gives = table.find(section.judge, setting="nash.judge").gives
  check_play(section, gives, findings, judge_ahead=section.judge_ahead)
  with findings.collect():
    deployed_lane(section)


def check_play(
  section: Section,
  gives: str | None,
  findings: mistakes.Findings,
  *,
  judge_ahead: int = 0,
) -> None:
  """Collects what makes no sense in what is played, whoever judges.

  Args:
    section: with the keys of `OPPONENT` and `LOSS`, samples, kl_coef and
      temperature.
    gives: what the judge gives; None if there is no such judge.
    findings: where to.
    judge_ahead: see `algorithms.make_algorithm`.
  """
  if section.loss in ("ipo", "dpo") and section.kl_coef == 0:
    findings.sentences.append(
      f"nash.kl_coef: got 0 for the loss {mistakes.quote(section.loss)}, "
      "expected τ above 0"
    )
  if gives is None:
    return
  with findings.collect():
    algorithm = make_algorithm(section, gives, judge_ahead=judge_ahead)
    lanes = make_opponent(section).lanes(0)
    algorithm.way.lanes(lanes, section.samples)
