"""Ensembles: trained policies that answer as one, pessimistically.

Nothing is trained of an ensemble but its members, which are policies of their
own. See `lanes` for what one writes, and `rejection` for whole responses.
"""

from collections.abc import Mapping
from typing import Any

from nashmd_jax import declare, lanes, mistakes

SETTINGS = {
  declare.ANY: {
    "members": declare.several(
      declare.text(
        "The policies that answer as one: runs of nash.runs or nash.deployed, "
        "or sft; of whole responses the first proposes."
      ),
      least=1,
    ),
    "rule": declare.text(
      "What their probabilities become at each token, normalised: the least of "
      "them, or the mean less some standard deviations, 0 where that is below.",
      one_of=tuple(lanes.RULES),
    ),
    "deviations": declare.number(
      "Standard deviations over the members that the rule lower takes off.",
      least=0,
      most=1000,
    ),
    "proposals": declare.whole(
      "Proposals to a response of which the ensemble takes one, so that it "
      "follows the least probability of whole responses; 0 applies the rule at "
      "each token.",
      least=0,
      most=10_000,
      unit="responses",
    ),
  }
}


def member(number: int) -> str:
  """The set of one member."""
  return f"member_{number}"


def lane(ensemble: Mapping[str, Any], setting: str) -> lanes.Members:
  """What an ensemble answers in.

  Args:
    ensemble: its settings.
    setting: their dotted name, for the error.
  Raises: Mistake for a rule that whole responses cannot be drawn by.
  """
  names = tuple(member(n) for n in range(len(ensemble["members"])))
  if not ensemble["proposals"]:
    return lanes.Ensemble(names, ensemble["rule"], ensemble["deviations"])
  if ensemble["rule"] != "minimum":
    raise mistakes.Mistake(
      f"{setting}.proposals: got {ensemble['proposals']} for the rule "
      f"{mistakes.quote(ensemble['rule'])}, which is of tokens alone; set them "
      "to 0, or the rule to 'minimum'"
    )
  return lanes.Rejection(names, ensemble["proposals"])


def no_policy(name: str, setting: str) -> mistakes.Mistake:
  """What is said of an ensemble where one policy is asked for."""
  return mistakes.Mistake(
    f"{setting}: {mistakes.quote(name)} is an ensemble, which is no policy by "
    "itself; name its members"
  )
