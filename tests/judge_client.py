"""A served judge as the tests make it, and as a program that can be killed.

  python -m tests.judge_client URL CACHE PAIRS

The program prints what it is told of that many pairs, and what they cost, as
JSON; a Mistake is its sentence and exit status 2.
"""

import json
import pathlib
import sys

from nashmd_jax import mistakes
from nashmd_jax.judges import questions, served, served_settings
from tests import judge_server

SETTINGS = dict(
  model="judge", form="chat", system=None, prompt=judge_server.PROMPT,
  answers=("1", "2"), top_logprobs=5, max_tokens=4, orders="one",
  timeout_seconds=10.0, retries=3, connections=8, per_minute=0, budget_calls=0,
  budget_tokens=0, most_failed=0.0, key_variable="JUDGE_KEY",
)  # fmt: skip


def make(url: str, cache: pathlib.Path, **changes) -> served.Served:
  """The judge of the settings with some changes."""
  return served.make_judge(cache=cache, **SETTINGS | {"url": url} | changes)


def pairs(count: int) -> tuple[list[dict[str, str]], list[str], list[str]]:
  """Pairs that differ."""
  numbers = range(count)
  records = [{"id": str(n), "prompt": f"prompt {n}"} for n in numbers]
  return records, [f"own {n}" for n in numbers], [f"other {n}" for n in numbers]


def expected(responses, opponents, **changes) -> list[float]:
  """What the server thinks of pairs, in the order that is asked about."""
  settings = served_settings.Settings(**SETTINGS | {"url": ""} | changes)
  wording = served_settings.wording(settings)
  said = []
  for y, other in zip(responses, opponents, strict=True):
    pair = questions.ask(wording, "", y, other)
    probs = []
    for question in pair.questions:
      p = judge_server.prob(*judge_server.shown(json.loads(question.body)))
      probs.append(p if settings.top_logprobs else float(p > 0.5))
    said.append(questions.win_prob(pair, probs))
  return said


def main(url: str, cache: str, count: str) -> int:
  """Judges; returns the exit status."""
  try:
    judge, asked = make(url, pathlib.Path(cache)), pairs(int(count))
    said = judge(*asked).tolist()
    costs = {name: x.tolist() for name, x in judge.costs(*asked).items()}
  except mistakes.Mistake as error:
    print(error, file=sys.stderr)
    return 2
  print(json.dumps([said, costs]))
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
