"""Odd values for every setting of every config, and which of them are right."""

from collections.abc import Callable, Iterator, Mapping
import copy
import fnmatch
import importlib.util
import math
from typing import Any, NamedTuple

import ml_collections

from nashmd_jax import declare, explain, main
from tests import forked

TINY = ("full", "tiny")
FOLDERS = ("folder", "tiny_folder")
VARIANTS = {
  "docstrings": TINY,
  "showcase": (*TINY, "gpu"),
  "finetune": TINY,
  "tldr_t5": (*TINY, *FOLDERS),
  "tldr_decoder": ("2b", "9b", "tiny", *FOLDERS),
  "worlds": ("neural", "one_token", "family", "tiny", "games", "games_tiny"),
  "votes": (*TINY, "smollm2"),
  "paper": ("cpu", "tldr"),
  "sweeps": tuple(
    f"{name}{tiny}"
    for name in ("mixture", "kl_coef", "opponents", "seeds", "games")
    for tiny in ("", "_tiny")
  ),
}
ALL = [f"{name}:{one}" for name, those in VARIANTS.items() for one in those]
# Between them they have every setting that any has.
FEW = ("docstrings:tiny", "tldr_decoder:tiny", "worlds:tiny",
       "worlds:games_tiny")  # fmt: skip
ANOTHER = "another"  # type
ODD = {
  "-1": -1, "0": 0, "1e20": 10**20, "nan": math.nan, "inf": math.inf, "''": "",
  "None": None, "()": (), "(1,2)": (1, 2),
}  # fmt: skip
NONE_OF_IT = "none of it is what is asked for"
NOT_OF_A_RUN = ("runs.", "deployed.", "ensembles.")
NOTHING = "there may be none"
# Which odd values are right, of settings by the end of their names, and why.
RIGHT = (
  ("0", "seed", "a seed like any other"),
  ("0", "rank", "the parameters themselves are trained"),
  ("0", "train.steps", "the start is kept as it is"),
  ("None", "sft.seed", "that of the run"),
  ("0", "panel.size panel.spread", "a rater a type, or all alike"),
  ("0", "warmup_steps decay_steps mixture_steps", "there is no schedule"),
  (
    "0",
    "tokenizer.vocab_size",
    "where a tokenizer is trained what compares refuses it",
  ),
  ("0", "samples_per_prompt", "the candidates are those of the data alone"),
  ("0", "mixture mixture_end", "the β of self-play"),
  ("0", "nash.*kl_coef", "no price; where an algorithm has none it is refused"),
  ("0", "judge_ahead", "judging keeps step"),
  ("0", "train.save_minutes", "no save by time"),
  ("0", "log.samples", "none are shown"),
  ("0", "keep.best", NONE_OF_IT),
  ("None", "keep.metric", "where best ones are kept what compares refuses it"),
  ("0", "decay ema_decay b1 b2", "the average is what came last"),
  ("0", "weight_decay smoothing deviations log_odds noise", NONE_OF_IT),
  (
    "0",
    "weights.coverage weights.brevity weights.grounding weights.plainness",
    NONE_OF_IT,
  ),
  ("()", "population.policies population.weights", "it is not played"),
  ("(1,2)", "population.weights", "weights of two"),
  ("0", "pessimism", "the loss of DPO"),
  ("0", "split.part split.overlap", "the first part, and nothing of another"),
  ("0", "ensembles.*.proposals", "the rule is applied at each token"),
  ("0", "turns.between", "nothing is said between turns"),
  ("0", "iterate.coef", "the policy is held to the reference alone"),
  ("(1,2)", "iterate.weights", "two iterates"),
  ("0", "retries top_logprobs most_failed", NONE_OF_IT),
  ("0", "per_minute budget_calls budget_tokens", "there is no limit"),
  ("-1 0", "cycle world.brevity", "log-odds have a sign"),
  ("1e20", "clip max_grad_norm per_minute", "a limit that is never reached"),
  ("''", "template.prompt template.response", "the other may have the slots"),
  ("'' None", "key_variable", "a server may ask for no key"),
  ("None", "data.records data.comparisons", "the program finds its own"),
  ("None", "pretrained tokenizer.file eos_token bos_token", NOTHING),
  ("None", "chat.template system", NOTHING),
  ("None", "recorded.file url served.model", "refused where it is named"),
  ("None", "cache", "a file in the workdir"),
  ("None", "window query_scale", "there may be none, or the family's"),
  ("()", "required packages special_tokens watch", NOTHING),
  ("()", "export.policies", "nothing is exported"),
  ("()", "exploit.policies adversaries", "nothing is estimated"),
  ("()", "annotate.policies", "nobody is asked"),
  ("0", "annotate.repeats annotate.golden", NONE_OF_IT),
  ("0", "annotate.port", "any that is free"),
  ("None", "nash.rival nash.runs.*.rival", "refused where it is to be played"),
  ("0", "tournament.width", "all prompts are judged"),
  ("()", "log.writers", "metrics.jsonl is written all the same"),
  ("()", "targets", "where a rank reads it what compares refuses it"),
  ("(1,2)", "prompt_buckets", "two buckets"),
)


class Case(NamedTuple):
  """One odd value of one setting.

  Attributes:
    name: of the setting, dotted.
    setting: what is declared of it.
    odd: a key of `ODD`, or `ANOTHER`.
    value: that.
  """

  name: str
  setting: declare.Setting
  odd: str
  value: Any


def load(name: str) -> ml_collections.ConfigDict:
  """A config by file and variant, such as "docstrings:tiny"."""
  file, _, variant = name.partition(":")
  path = forked.ROOT / "configs" / f"{file}.py"
  spec = importlib.util.spec_from_file_location(f"odd_{file}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def declared(config: Mapping[str, Any]) -> declare.Settings:
  """The settings of a config."""
  return main.PIPELINES[config["pipeline"]].declared()


def another(setting: declare.Setting) -> Any:
  """A value of another type than a setting has."""
  return 7 if setting.kind is str and setting.many is None else "a text"


def cases(config: Mapping[str, Any]) -> Iterator[Case]:
  """Every odd value of every setting that a config has."""
  for name, setting in explain.walk(declared(config), config):
    if isinstance(setting, declare.Setting):
      yield Case(name, setting, ANOTHER, another(setting))
      for odd, value in ODD.items():
        yield Case(name, setting, odd, value)


def of_a_run(config: Mapping[str, Any]) -> Iterator[Case]:
  """The same at the first run, of every setting that a run may change."""
  run = next(iter(config.get("nash", {}).get("runs", {})), None)
  for case in cases(config) if run else ():
    rest = case.name.removeprefix("nash.")
    if rest != case.name and not rest.startswith(NOT_OF_A_RUN):
      yield case._replace(name=f"nash.runs.{run}.{rest}")


def put(config: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
  """A copy of the top section that a name is in, with another value."""
  top, *path = name.split(".")
  if not path:
    return {top: value}
  found = {top: copy.deepcopy(config[top])}
  section = found[top]
  for key in path[:-1]:
    section = section.setdefault(key, {})
  section[path[-1]] = value
  return found


def why(case: Case) -> str | None:
  """Why an odd value is right; None if it is not."""
  for odd, names, reason in RIGHT:
    if case.odd in odd.split() and any(
      fnmatch.fnmatch(f".{case.name}", f"*.{name}") for name in names.split()
    ):
      return reason
  return None


def outcomes(
  name: str, make: Callable[[Mapping[str, Any]], Iterator[Case]]
) -> tuple[list[Case], list[Case]]:
  """The odd values of a config that are refused by name, and the others."""
  config = load(name).to_dict()
  settings = declared(config)
  refused, taken = [], []
  for case in make(config):
    top = case.name.partition(".")[0]
    given = put(config, case.name, case.value)[top]
    told = declare.faults({top: settings[top]}, {top: given})
    named = any(one.startswith(f"{case.name}: got ") for one in told)
    (refused if named else taken).append(case)
  return refused, taken
