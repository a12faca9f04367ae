"""The settings of play: sections of runs, and what is checked of them.

A run is the section `nash` with the changes that `nash.runs` makes for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from nashmd_jax import declare, mistakes, pipeline, sampling
from nashmd_jax.judges import table
from nashmd_jax.nash import algorithms, holding, opponents, ways
from nashmd_jax.training import followers

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
# Sections of the followers that a game may need.
FOLLOWED = {"ema": followers.MOVING_AVERAGE, "iterate": holding.SETTINGS}
SETTINGS = {
  **OPPONENT,
  "deploy": opponents.DEPLOY,
  **algorithms.SETTINGS,
  **PLAY,
  "judge": declare.text(f"Whom a run learns from: {table.NAMES}."),
  **FOLLOWED,
  "past": followers.PAST_POLICIES,
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
  _check_ring("rival", rival, runs)
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
    _check_ring(f"{POPULATION}.policies", name, runs)
    lane = policy_lane(config, name, before=runs)
    if "reference" in lane:
      raise mistakes.Mistake(
        f"nash.population.policies: {mistakes.quote(name)} deploys a mixture "
        "with the reference, which is no policy by itself; set its deploy to "
        "'last'"
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
    name: "sft" or a run of `nash.runs`.
    before: see `run_section`.
  """
  if name == START:
    return opponents.LEARNER
  return deployed_lane(run_section(config, name, before=before))


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
      visit(other, (*runs, name))
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


def make_held(section: Section) -> holding.Held:
  """What the policy of a section is held to."""
  return holding.make_held(kl_coef=section.kl_coef, **section.iterate)


def played_followers(section: Section) -> dict[str, followers.Follower]:
  """The followers that a run's opponent names, or what it is held to."""
  names = make_opponent(section).follows | make_held(section).follows
  return {name: FOLLOWERS[name](section[name]) for name in sorted(names)}


def make_followers(section: Section) -> dict[str, followers.Follower]:
  """Those, and the ones that what a run deploys names."""
  deployed = opponents.follows(deployed_lane(section))
  found = {name: FOLLOWERS[name](section[name]) for name in deployed}
  return dict(sorted((found | played_followers(section)).items()))


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
  held = make_held(section)
  if section.loss in algorithms.DIVIDED and held.kl_coef == 0:
    findings.sentences.append(
      f"nash.kl_coef: got 0 for the loss {mistakes.quote(section.loss)}, "
      "expected τ above 0"
    )
  _check_anchors(section, findings)
  if gives is None:
    return
  with findings.collect():
    algorithm = make_algorithm(section, gives, judge_ahead=judge_ahead)
    lanes = make_opponent(section).lanes(0)
    algorithm.way.lanes(lanes, section.samples)
    if held.follows and algorithm.reads != ("policy",):
      raise mistakes.Mistake(
        f"nash.iterate.coef: got {section.iterate.coef:g} for the loss "
        f"{mistakes.quote(section.loss)}, which reads the reference over the "
        "whole vocabulary and can be held to nothing else; set it to 0, or "
        "take a loss of sampled tokens"
      )


def _check_anchors(section: Section, findings: mistakes.Findings) -> None:
  """Collects why a loss that is named after its anchors has not those."""
  own, loss = section.iterate, mistakes.quote(section.loss)
  if section.loss not in algorithms.ANCHORED:
    return
  if own.coef == 0:
    findings.sentences.append(
      f"nash.iterate.coef: got 0 for the loss {loss}, expected κ above 0, the "
      "price of leaving the last iterate"
    )
  if section.loss == "inpo" and len(own.weights) > 1:
    findings.sentences.append(
      f"nash.iterate.weights: got {mistakes.quote(tuple(own.weights))} for the "
      "loss 'inpo', which has one anchor; 'mnpo' has several"
    )
