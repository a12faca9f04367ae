"""The one table of judges; a user's own is found by module:function."""

from collections.abc import Callable, Mapping
import hashlib
import inspect
import json
import pathlib
import re
import reprlib
from typing import Any, NamedTuple

import ml_collections

from nashmd_jax import declare, mistakes, outside, pipeline
from nashmd_jax.data import tldr
from nashmd_jax.judges import (
  brought,
  compound,
  raters,
  recorded,
  scorers,
  served,
  served_settings,
)

Config = ml_collections.ConfigDict
CACHE = "served_answers.sqlite3"  # in the workdir


class Judge(NamedTuple):
  """A judge that a config can name.

  Attributes:
    title: what a reader calls it.
    about: what its word is worth, a sentence or two for the report.
    gives: "win_prob", or "reward".
    stage: that trains it; also the config section of its template. None for
      one that is not trained.
      A further member of it, "preference-1" for one, has a stage of its own
      with the same section.
    token: (model, params, template) -> a token judge or scorer; the three are
      None for a judge without a stage. None for one that reads text alone.
    text: (config, workdir) -> a text judge or scorer. None for one that reads
      tokens; those are asked about text through the tokenizer.
    parts: (config) -> the judges that it is made of; for such a one token and
      text are None.
    reads: (config) -> the settings and facts that its answers depend on, by
      name, beside those of the judges that it is made of.
    costs: names of what `text(config, workdir).costs` tells of an answer.
  """

  title: str
  about: str
  gives: str
  stage: str | None = None
  token: Callable[..., Any] | None = None
  text: Callable[[Config, pathlib.Path], Any] | None = None
  parts: Callable[[Config], compound.Compound] | None = None
  reads: Callable[[Config], Mapping[str, Any]] = lambda config: {}
  costs: tuple[str, ...] = ()


def _votes(model, params, template):
  judge = scorers.make_preference_judge(model, params, template)
  return scorers.votes(judge)


def _raters(config: Config, workdir: pathlib.Path) -> scorers.TextJudge:
  del workdir
  population = raters.make_population(**config.raters)
  return scorers.make_rater_judge(population)


def _recorded(config: Config, workdir: pathlib.Path) -> scorers.TextJudge:
  del workdir
  return recorded.make_judge(_comparisons(config))


def _comparisons(config: Config) -> list[dict]:
  """The comparisons of `judges.recorded`, checked."""
  given, setting = config.judges.recorded, "judges.recorded.schema"
  if given.file is None:
    raise mistakes.Mistake(
      "judges.recorded.file: got None, expected JSON lines of comparisons"
    )
  kind = tldr.find_schema(given.schema, setting=setting).kind
  if kind not in (None, "comparison"):
    raise mistakes.Mistake(
      f"{setting}: got the schema {mistakes.quote(given.schema)} of a {kind}, "
      "expected one "
      "of comparisons"
    )
  rows = tldr.read_records(
    given.file, given.schema, kind="comparison", setting=setting
  )
  found = [record for _, record in rows]
  if not found:
    raise mistakes.Mistake(
      f"{given.file}: no records in it; expected {given.schema} "
      "(judges.recorded.file)"
    )
  return found


def _recorded_reads(config: Config) -> dict[str, Any]:
  rows = json.dumps(_comparisons(config), sort_keys=True)
  return {"judges.recorded": hashlib.sha256(rows.encode()).hexdigest()}


def _raters_reads(config: Config) -> Mapping[str, Any]:
  raters.make_population(**config.raters)
  return pipeline.settings(config, "raters")


def _served(config: Config, workdir: pathlib.Path) -> served.Served:
  given = dict(config.judges.served)
  own = given.pop("cache")
  cache = workdir / CACHE if own is None else pathlib.Path(own)
  return served.make_judge(cache=cache, **given)


def _served_reads(config: Config) -> Mapping[str, Any]:
  given = config.judges.served
  served.check(**{name: given[name] for name in given if name != "cache"})
  names = [f"judges.served.{name}" for name in served.ANSWERED]
  return pipeline.settings(config, *names)


def _section(name: str) -> Callable[[Config], Mapping[str, Any]]:
  return lambda config: pipeline.settings(config, name)


# The reward model as a judge of pairs, P(y ≻ y′) = σ(r − r′).
BRADLEY_TERRY = compound.Compound(
  judges=("reward",),
  combine=lambda said, *sizes: said[0],
  title=lambda titles: f"{titles[0]}, of pairs",
  about="It is the sigmoid of a difference of rewards, and knows no cycle.",
)
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
    reads=_raters_reads,
  ),
  "recorded": Judge(
    title="recorded human choices",
    about=(
      "People compared these pairs; a pair that nobody compared is left out, "
      "and the share that was judged says how many are not."
    ),
    gives="win_prob",
    text=_recorded,
    reads=_recorded_reads,
  ),
  "served": Judge(
    title="served language model",
    about=(
      "A language model judged each pair by the prompt of this run; it may "
      "favour long, fluent or familiar text. Pairs it could not judge are left "
      "out."
    ),
    gives="win_prob",
    text=_served,
    reads=_served_reads,
    costs=("judge_calls", "judge_tokens"),
  ),
  "bradley_terry": Judge(
    title="learned reward model, of pairs",
    about="",
    gives="win_prob",
    parts=lambda config: BRADLEY_TERRY,
  ),
  "ensemble": Judge(
    title="ensemble of judges",
    about="",
    gives="win_prob",
    parts=lambda config: compound.ensemble(**config.judges.ensemble),
    reads=_section("judges.ensemble"),
  ),
  "penalised": Judge(
    title="judge with a penalty on length",
    about="",
    gives="win_prob",
    parts=lambda config: compound.penalised(**config.judges.penalised),
    reads=_section("judges.penalised"),
  ),
}
# What a user's function takes, and what it is by that.
SHAPES = {
  ("keys", "prompts", "responses", "opponents"): ("win_prob", "token"),
  ("prompts", "responses"): ("reward", "token"),
  ("records", "responses", "opponents"): ("win_prob", "text"),
  ("records", "responses"): ("reward", "text"),
}


SETTINGS = {
  "ensemble": compound.ENSEMBLE,
  "penalised": compound.PENALISED,
  "recorded": {
    "file": declare.text(
      "JSON lines of comparisons that people have made.", optional=True
    ),
    "schema": declare.text(
      "Schema of its rows, one as data.comparisons_schema."
    ),
  },
  "served": {
    **served_settings.SETTINGS,
    "cache": declare.text(
      "File that keeps every answer; None: one in the workdir.", optional=True
    ),
  },
}
NAMES = f"one of {', '.join(TABLE)}, or your own as module:function"
STAGES = ("preference", "reward")
# A judge that is trained, and its number among those trained alike.
MEMBER = re.compile(r"(\w+)-([1-9]\d{0,2})")


def kind_of(stage: str) -> tuple[str, int]:
  """The section of the stage of a judge, and its number: 0 for the first."""
  found = MEMBER.fullmatch(stage)
  return (found[1], int(found[2])) if found else (stage, 0)


def find(name: str, *, setting: str) -> Judge:
  """A judge by its name.

  Args:
    name: a key of `TABLE`; that of a trained one with a number behind it, as
      "preference-1", for another of its kind, trained apart; or
      module:function. The function is the judge itself, of the arguments of
      one of `SHAPES`; or it takes none and returns a `Judge`.
    setting: dotted name of the setting, for the error.
  Raises: Mistake for a judge that there is not, or that cannot be.
  """
  kind, number = kind_of(str(name))
  if number and getattr(TABLE.get(kind), "stage", None):
    judge = TABLE[kind]
    return judge._replace(
      title=f"{judge.title} {number}", stage=f"{judge.stage}-{number}"
    )
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
  return Judge(name, about, gives, text=lambda config, workdir: judge)


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
    "one of tokens, of text or of other judges": any(
      getattr(judge, name, None) for name in ("token", "text", "parts")
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

  def text(config, workdir):
    made = outside.guarded(judge.text, **known)(config, workdir)
    checked = brought.of_text(
      outside.guarded(made, **known), gives=judge.gives, **known
    )
    if judge.costs:
      checked.costs = made.costs
    return checked

  return judge._replace(
    token=token if judge.token else None, text=text if judge.text else None
  )
