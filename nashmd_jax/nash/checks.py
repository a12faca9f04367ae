"""What is checked of sections of play, by themselves and over all runs."""

from collections.abc import Callable, Iterable

import ml_collections

from nashmd_jax import mistakes
from nashmd_jax.data import parts
from nashmd_jax.judges import table
from nashmd_jax.nash import algorithms, settings, ways

Section = ml_collections.ConfigDict


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
      check_one(settings.run_section(config, name), own)
    for sentence in dict.fromkeys(own.sentences):
      runs.setdefault(sentence, []).append(name)
  for sentence, wrong in runs.items():
    findings.sentences.append(f"{sentence} (run {', '.join(wrong)})")


def check_turns(
  config: ml_collections.ConfigDict,
  names: Iterable[str],
  findings: mistakes.Findings,
) -> None:
  """Collects what has one turn where records have several.

  Args: as `check_runs`.
  """
  most = config.turns.most
  if most == 1:
    return

  def of_run(section, own):
    if settings.compares(section):
      own.sentences.append(
        f"nash.design: got {mistakes.quote(section.design)} with turns.most "
        f"{most}, but comparisons hold no turns; take "
        "a design in which policies write, or set turns.most to 1"
      )
    if section.loss == "stackelberg":
      own.sentences.append(
        f"nash.loss: got {section.loss!r} with turns.most {most}, but its own "
        "second turn is the last; set turns.most to 1"
      )

  check_runs(config, names, of_run, findings)
  findings.sentences += [
    f"nash.ensembles.{name}.proposals: got {one.proposals} with turns.most "
    f"{most}, but responses of one turn alone are drawn by rejection; set "
    "proposals to 0, or turns.most to 1"
    for name, one in config.nash.get("ensembles", {}).items()
    if one.proposals
  ]


def check(section: Section, findings: mistakes.Findings) -> None:
  """Collects what makes no sense in a section."""
  gives = None
  with findings.collect():
    gives = table.find(section.judge, setting="nash.judge").gives
  check_play(section, gives, findings, judge_ahead=section.judge_ahead)
  with findings.collect():
    settings.deployed_lane(section)
  with findings.collect():
    parts.check(section.split, "nash.split")


def check_play(
  section: Section,
  gives: str | None,
  findings: mistakes.Findings,
  *,
  judge_ahead: int = 0,
) -> None:
  """Collects what makes no sense in what is played, whoever judges.

  Args:
    section: with the keys of `OPPONENT` and `LOSS` in settings, samples,
      kl_coef and temperature.
    gives: what the judge gives; None if there is no such judge.
    findings: where to.
    judge_ahead: see `algorithms.make_algorithm`.
  """
  held = settings.make_held(section)
  if section.loss in algorithms.DIVIDED and held.kl_coef == 0:
    findings.sentences.append(
      f"nash.kl_coef: got 0 for the loss {mistakes.quote(section.loss)}, "
      "expected τ above 0"
    )
  _check_anchors(section, findings)
  if gives is None:
    return
  with findings.collect():
    algorithm = settings.make_algorithm(section, gives, judge_ahead=judge_ahead)
    opponent = settings.make_opponent(section)
    if opponent.accepts and algorithm.way.lanes is not ways.VERSUS.lanes:
      raise mistakes.Mistake(
        f"nash.opponent: got {opponent.name!r} for the loss "
        f"{mistakes.quote(section.loss)} and the design "
        f"{mistakes.quote(section.design)}, which do not hold the learner's "
        "responses against others; choose a policy gradient on a win_prob"
      )
    algorithm.way.lanes(opponent.lanes(0), section.samples)
    if algorithm.way.halves and section.loss != algorithms.HALVED:
      raise mistakes.Mistake(
        f"nash.loss: {mistakes.quote(section.loss)} asks for wins, which are "
        f"of the two half steps of {algorithms.HALVED!r} alone"
      )
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
  if section.loss == algorithms.HALVED and own.every != 2:
    findings.sentences.append(
      f"nash.iterate.every: got {own.every} for the loss {loss}, expected 2: "
      "two half steps are an iteration"
    )
  if section.loss == algorithms.HALVED and own.coef:
    findings.sentences.append(
      f"nash.iterate.coef: got {own.coef:g} for the loss {loss}, expected 0: "
      "it is held to the reference alone"
    )
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
