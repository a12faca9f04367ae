"""The settings of play: sections of runs, and what is checked of them.

A run is the section `nash` with the changes that `nash.runs` makes for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from nashmd_jax import declare, mistakes, pipeline, sampling
from nashmd_jax.data import parts
from nashmd_jax.judges import table
from nashmd_jax.nash import (
  algorithms,
  ensembles,
  holding,
  opponents,
  rejection,
  second_turn,
  ways,
)
from nashmd_jax.training import followers, half_steps

Section = ml_collections.ConfigDict
RIVAL, POPULATION = opponents.RIVAL, opponents.POPULATION
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
# Sections of the followers and the opponents that a game may need.
FOLLOWED = {
  "ema": followers.MOVING_AVERAGE,
  "iterate": holding.SETTINGS,
  rejection.NAME: rejection.SETTINGS,
}
SETTINGS = {
  **OPPONENT,
  "deploy": opponents.DEPLOY,
  **algorithms.SETTINGS,
  **PLAY,
  "judge": declare.text(f"Whom a run learns from: {table.NAMES}."),
  **FOLLOWED,
  "past": followers.PAST_POLICIES,
  "split": parts.SETTINGS,
  "follower_instruction": second_turn.INSTRUCTION,
  RIVAL: declare.text(
    "Whom the opponent rival plays, frozen: sft, or another run of nash.runs "
    "as it is deployed, whose mixture replaces that of this run.",
    optional=True,
  ),
  POPULATION: {
    "policies": declare.several(
      declare.text(
        "Whom the opponent population plays, frozen: sft, or other runs of "
        "nash.runs as they are deployed."
      )
    ),
    "weights": declare.several(
      declare.number("Weight of each of them.", above=0, most=1e6),
      repeats=True,
    ),
  },
}
DEPLOYED = {
  declare.ANY: {
    "run": declare.text("The run that it is, one of nash.runs."),
    "deploy": opponents.DEPLOY,
  }
}
START = "sft"  # the policy from which all runs start
# By name, (its section) -> the follower.
FOLLOWERS = {
  "ema": lambda own: followers.moving_average(**own),
  "past": lambda own: followers.past_policies(**own),
  "iterate": lambda own: followers.iterates(
    every=own.every, count=len(own.weights)
  ),
}


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
  if section.opponent == POPULATION:
    _check_population(config, section, (*before, name))
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
  _check_ring("rival", run_of(config, rival), runs)
  if rival in joined(config):
    raise ensembles.no_policy(rival, "nash.rival")
  lane = policy_lane(config, rival, before=runs)
  section.mixture = section.mixture_end = lane.get("reference", 0.0)
  section.mixture_steps = 0


def _check_ring(setting: str, played: str, runs: tuple[str, ...]) -> None:
  """Raises Mistake where a run is played by one that it plays itself."""
  if played in runs:
    ring = " plays ".join(map(mistakes.quote, (*runs, played)))
    raise mistakes.Mistake(
      f"nash.{setting}: {ring}, so that none can be trained first; name another"
    )


def _check_population(config, section: Section, runs: tuple[str, ...]) -> None:
  """Raises Mistake for a population that cannot be played."""
  if POPULATION not in section:
    raise mistakes.Mistake(
      f"nash.opponent: got {POPULATION!r}, expected one that is no other run: "
      "this config has no nash.population"
    )
  policies, weights = section.population.policies, section.population.weights
  if not policies or len(policies) != len(weights):
    raise mistakes.Mistake(
      f"nash.population: got {len(policies)} policies and {len(weights)} "
      "weights, expected one or more and as many weights"
    )
  for name in policies:
    _check_ring(f"{POPULATION}.policies", run_of(config, name), runs)
    _check_alone(config, name, "nash.population.policies", runs)


def _check_alone(
  config, name: str, setting: str, runs: tuple[str, ...]
) -> None:
  """Raises Mistake for a policy that is not one set of parameters by itself."""
  if name in joined(config):
    raise ensembles.no_policy(name, setting)
  if "reference" in policy_lane(config, name, before=runs):
    raise mistakes.Mistake(
      f"{setting}: {mistakes.quote(name)} deploys a mixture with the "
      "reference, which is no policy by itself; set its deploy to 'last'"
    )


def played(section: Section) -> dict[str, str]:
  """The policies that an opponent is, by the set that each writes with."""
  if section.opponent == RIVAL:
    return {RIVAL: section.rival}
  if section.opponent == POPULATION:
    names = enumerate(section.population.policies)
    return {opponents.member(number): name for number, name in names}
  return {}


def policy_lane(
  config: ml_collections.ConfigDict, name: str, *, before: tuple[str, ...] = ()
) -> sampling.Lane:
  """The lane in which a trained policy answers.

  Args:
    config: of the run.
    name: "sft", a run of `nash.runs`, one of `nash.deployed` or of
      `nash.ensembles`.
    before: see `run_section`.
  Raises: Mistake where a run keeps no average that one of `nash.deployed`
    asks for, or a member of an ensemble is no policy by itself.
  """
  if name == START:
    return opponents.LEARNER
  if name in joined(config):
    return _joined_lane(config, name, before)
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


def _joined_lane(config, name: str, before: tuple[str, ...]) -> sampling.Lane:
  """The lane of an ensemble, whose members are checked."""
  setting = f"nash.ensembles.{name}"
  for one in joined(config)[name].members:
    _check_alone(config, one, f"{setting}.members", before)
  return ensembles.lane(joined(config)[name], setting)


def joined(config: ml_collections.ConfigDict) -> Mapping[str, Section]:
  """`nash.ensembles`: policies that answer as one, by the name of the whole."""
  return config.nash.get("ensembles", {})


def members(config: ml_collections.ConfigDict, name: str) -> dict[str, str]:
  """The policies of an ensemble, by the set that each answers with."""
  names = enumerate(joined(config)[name].members)
  return {ensembles.member(number): one for number, one in names}


def runs_of(config: ml_collections.ConfigDict, name: str) -> list[str]:
  """The runs, or "sft", that a policy is made of, each once."""
  names = joined(config)[name].members if name in joined(config) else [name]
  return list(dict.fromkeys(run_of(config, one) for one in names))


def otherwise(config: ml_collections.ConfigDict) -> Mapping[str, Section]:
  """`nash.deployed`: runs that answer in another way too, by their names."""
  return config.nash.get("deployed", {})


def run_of(config: ml_collections.ConfigDict, name: str) -> str:
  """The run, or "sft", that a policy is, in whatever way it answers."""
  return otherwise(config)[name].run if name in otherwise(config) else name


def before_run(config: ml_collections.ConfigDict, name: str) -> list[str]:
  """The runs that have to be trained before a run: whom it plays, and so on.

  Returns: their names, the first to be trained first; of what there is not, or
    goes in a ring, nothing.
  """
  found: list[str] = []

  def visit(name: str | None, runs: tuple[str, ...]) -> None:
    if name not in config.nash.runs or name in (*runs, *found):
      return
    for other in _plays(config, name):
      visit(run_of(config, other), (*runs, name))
    found.append(name)

  visit(name, ())
  return [one for one in found if one != name]


def _plays(config: ml_collections.ConfigDict, name: str) -> list[str | None]:
  """The policies that a run plays, of a config that is not checked."""
  changes = config.nash.runs[name]
  own = {**config.nash, **changes}
  if own["opponent"] == RIVAL:
    return [own.get(RIVAL)]
  if own["opponent"] != POPULATION:
    return []
  of_all = config.nash.get(POPULATION, {}).get("policies", ())
  return list(changes.get(POPULATION, {}).get("policies", of_all))


def _names(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
  """The dotted names of a section's settings, and of the sections in it."""
  for name, value in section.items():
    yield f"{prefix}{name}"
    if isinstance(value, Mapping):
      yield from _names(value, f"{prefix}{name}.")


def make_opponent(section: Section) -> opponents.Opponent:
  """The opponent of a section; see `opponents.make_opponent`."""
  if section.opponent == POPULATION:
    return opponents.make_population(section.population.weights)
  if section.opponent == rejection.NAME:
    return rejection.make_opponent(kl_coef=section.kl_coef, **section.rejection)
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


def compares(section: Section) -> bool:
  """Whether a run learns from comparisons, and not from what is written."""
  return section.design == ways.RECORDS


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


def optimizer_of(section: Section) -> Callable[[Any], Any]:
  """What a run makes of its optimizer; see `training.step.Experiment`."""
  halved = section.loss == algorithms.HALVED
  return half_steps.half_steps if halved else lambda inner: inner


def steps_counted(section: Section) -> int:
  """Steps that the optimizer of a run counts as one."""
  return 2 if section.loss == algorithms.HALVED else 1


def make_held(section: Section) -> holding.Held:
  """What the policy of a section is held to."""
  return holding.make_held(kl_coef=section.kl_coef, **section.iterate)


def played_followers(section: Section) -> dict[str, followers.Follower]:
  """The followers that a run's opponent names, or what it is held to."""
  names = make_opponent(section).follows | make_held(section).follows
  if section.loss == algorithms.HALVED:
    names |= {holding.FOLLOWER}
  return {name: FOLLOWERS[name](section[name]) for name in sorted(names)}


def make_followers(section: Section) -> dict[str, followers.Follower]:
  """Those, and the ones that what a run deploys names."""
  deployed = opponents.follows(deployed_lane(section))
  found = {name: FOLLOWERS[name](section[name]) for name in deployed}
  return dict(sorted((found | played_followers(section)).items()))
