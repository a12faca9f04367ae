"""The one table of judges; a user's own is found by module:function."""

from collections.abc import Callable
import inspect
import reprlib
from typing import Any, NamedTuple

import ml_collections

from nashmd_jax import mistakes, outside
from nashmd_jax.judges import brought, raters, scorers


class Judge(NamedTuple):
  """A judge that a config can name.

  Attributes:
    title: what a reader calls it.
    about: what its word is worth, a sentence or two for the report.
    gives: "win_prob", or "reward".
    stage: that trains it; also the config section of its template. None for
      one that is not trained.
    token: (model, params, template) -> a token judge or scorer; the three are
      None for a judge without a stage. None for one that reads text alone.
    text: (config) -> a text judge or scorer. None for one that reads tokens;
      those are asked about text through the tokenizer.
  """

  title: str
  about: str
  gives: str
  stage: str | None = None
  token: Callable[..., Any] | None = None
  text: Callable[[ml_collections.ConfigDict], Any] | None = None


def _votes(model, params, template):
  judge = scorers.make_preference_judge(model, params, template)
  return scorers.votes(judge)


def _raters(config: ml_collections.ConfigDict) -> scorers.TextJudge:
  population = raters.make_population(**config.raters)
  return scorers.make_rater_judge(population)


LEARNED = (
  "The judge is a model that policies were trained against, so that these "
  "rates overrate them: ask people, or a judge that no policy has seen, before "
  "you claim anything."
)
TABLE = {
  "preference": Judge(
    title="learned preference model",
    about=LEARNED,
    gives="win_prob",
    stage="preference",
    token=scorers.make_preference_judge,
  ),
  "votes": Judge(
    title="votes drawn from the learned preference model",
    about=LEARNED,
    gives="win_prob",
    stage="preference",
    token=_votes,
  ),
  "reward": Judge(
    title="learned reward model",
    about=LEARNED,
    gives="reward",
    stage="reward",
    token=scorers.make_reward_scorer,
  ),
  "raters": Judge(
    title="simulated raters",
    about=(
      "The raters are a constructed judge: three simulated types, each with "
      "one measurable criterion, whose mixture gives an exact, possibly cyclic "
      "preference. They stand in for people in tests; they are no model of "
      "people."
    ),
    gives="win_prob",
    text=_raters,
  ),
}
# What a user's function takes, and what it is by that.
SHAPES = {
  ("keys", "prompts", "responses", "opponents"): ("win_prob", "token"),
  ("prompts", "responses"): ("reward", "token"),
  ("records", "responses", "opponents"): ("win_prob", "text"),
  ("records", "responses"): ("reward", "text"),
}


STAGES = ("preference", "reward")


def find(name: str, *, setting: str) -> Judge:
  """A judge by its name.

  Args:
    name: a key of `TABLE`, or module:function. The function is the judge
      itself, of the arguments of one of `SHAPES`; or it takes none and returns
      a `Judge`.
    setting: dotted name of the setting, for the error.
  Raises: Mistake for a judge that there is not, or that cannot be.
  """
  found = outside.find(name, TABLE, setting=setting)
  if isinstance(found, Judge):
    return found
  names = tuple(inspect.signature(found).parameters)
  if not names:
    return _checked_judge(found(), name, setting)
  if names not in SHAPES:
    expected = ", ".join(f"({', '.join(shape)})" for shape in SHAPES)
    raise mistakes.Mistake(
      f"{setting}: {name} takes ({', '.join(names)}), expected one of "
      f"{expected}, or () and a judges.table.Judge in return"
    )
  gives, reads = SHAPES[names]
  about = "A judge that the config brings."
  if reads == "token":
    judge = brought.of_tokens(found, name=name, setting=setting)
    return Judge(name, about, gives, token=lambda *nothing: judge)
  judge = brought.of_text(found, gives=gives, name=name, setting=setting)
  return Judge(name, about, gives, text=lambda config: judge)


def _checked_judge(judge: Any, name: str, setting: str) -> Judge:
  """A judge of the user's making, whose parts are guarded and checked."""
  faults = {
    "a judges.table.Judge": isinstance(judge, Judge),
    "one that gives 'win_prob' or 'reward'": (
      getattr(judge, "gives", None) in ("win_prob", "reward")
    ),
    f"one whose stage is None or one of {STAGES}": (
      getattr(judge, "stage", None) in (None, *STAGES)
    ),
    "one of tokens or of text": bool(
      getattr(judge, "token", None) or getattr(judge, "text", None)
    ),
  }
  for expected, holds in faults.items():
    if not holds:
      raise mistakes.Mistake(
        f"{setting}: {name} returned {reprlib.repr(judge)}, expected {expected}"
      )
  known = {"name": name, "setting": setting}

  def token(*parts):
    made = outside.guarded(judge.token, **known)(*parts)
    return brought.of_tokens(outside.guarded(made, **known), **known)

  def text(config):
    made = outside.guarded(judge.text, **known)(config)
    return brought.of_text(
      outside.guarded(made, **known), gives=judge.gives, **known
    )

  return judge._replace(
    token=token if judge.token else None, text=text if judge.text else None
  )
