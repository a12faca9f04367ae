"""A workdir that looks as a run leaves it, with texts that mean harm."""

import json
import pathlib
from unittest import mock

import numpy as np

from nashmd_jax import asked, files, workdir
from nashmd_jax.annotators import design, outcome, simulated, votes
from nashmd_jax.evaluation import (
  exploitability,
  length,
  standings,
  win_rates,
)
from nashmd_jax.stages import (
  annotate,
  exploit,
  judge_report,
  policies,
  tournament,
)
from nashmd_jax.training import warned
from tests import judge_report_test, small_records

POLICIES = ("sft", "rlhf", "nash_md")
JUDGES = ("raters", "preference")
MACHINE = {
  "nashmd_jax": "abc1234", "python": "3.11.9", "jax": "0.10.2",
  "jaxlib": "0.10.2", "device": "cpu", "devices": 1, "processes": 1,
  "system": "Linux", "cores": 2, "memory_gib": 15.6,
}  # fmt: skip
HOSTILE = "</p><script>alert(1)</script><img src=http://x.test/a onerror=a()>"
COUNT, STEPS = 12, 40
CARD = {
  "rows": 24, "left_out": 3, "skipped_no_text": 2, "empty_responses": 0,
  "looked_at": 24, "prompts_cut": 0.125, "responses_cut": 0.0,
  "duplicate_ids": 0, "prompts": 20, "shared_prompts": 1,
}  # fmt: skip


def write(folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
  """All that the report reads, in a folder."""
  files.save_json(folder / workdir.CONFIG, {"nash": {"mixture": 0.25}})
  changed = {"nash.mixture": [0.125, 0.25], "data.records": [None, HOSTILE]}
  told = {"config": "configs/docstrings.py:tiny", "changed": changed}
  files.save_json(folder / asked.NAME, told)
  card = {split: CARD for split in ("train", "validation", "test")}
  files.save_json(folder / "data" / "card.json", card)
  train(folder, np.random.default_rng(seed))
  _judge(folder)
  _play(folder)
  _exploit(folder)
  _vote(folder)
  return folder


def train(folder: pathlib.Path, rng) -> None:
  """Metrics of all stages, each better than before and noisy."""

  def noisy(value):
    return float(value + 0.05 * rng.normal())

  for name in ("sft", "preference", "reward"):
    key = "nats_per_token" if name == "sft" else "accuracy"
    rows = []
    for step in range(2, STEPS + 1, 2):
      rows.append({"step": step, key: noisy(2.0 - step / STEPS)})
      if step % 10 == 0:
        rows[-1][f"eval/{key}"] = noisy(0.5 + 0.2 * step / STEPS)
    _metrics(folder / name, rows)
  for name, speed in (("rlhf", 1.0), ("nash_md", 0.6)):
    rows = []
    for step in range(2, STEPS + 1, 2):
      done = speed * step / STEPS
      rows.append({"step": step, "kl": abs(noisy(3 * done))})
      rows[-1] |= {"judge_calls": 2.0, "judge_tokens": 31.5}
      if step % 10 == 0:
        rows[-1] |= {
          "eval/ended": 0.9,
          "eval/win_prob_against_reference": noisy(0.5 + 0.2 * done),
          "eval/raters_win_prob_against_reference": noisy(0.5 + 0.1 * done),
        }
    _metrics(folder / "nash" / name, rows)
    key = workdir.make_key(
      {"nash.data.eval_examples": 16, "nash.data.batch_size": 8}, {}, {}
    )
    workdir.begin(folder, f"nash/{name}", key)
  seen = {"step": 8, "warning": "kl", "sentence": f"the KL grows {HOSTILE}"}
  path = folder / "nash" / "nash_md" / warned.FILE
  path.write_text(json.dumps(seen) + "\n")
  scores = {"eval/accuracy": 0.68, "eval/best_accuracy": 0.74,
            "cyclic_prompts": 0.03}  # fmt: skip
  for name in ("sft", "preference", "reward", "nash/rlhf", "nash/nash_md"):
    results = scores if name in ("preference", "reward") else {}
    workdir.finish(folder, name, results, 61.25, MACHINE)


def _metrics(folder: pathlib.Path, rows) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "metrics.jsonl").write_text(lines)


def _judge(folder: pathlib.Path) -> None:
  rows, said = judge_report_test.made()
  results = judge_report.describe(rows, said, seed=0)
  judge_report.save(folder / "judges", rows, said, results)


def _play(folder: pathlib.Path) -> None:
  """A tournament of texts of some lengths, by judges that like them short."""
  rows = [small_records.record(i) for i in range(COUNT)]
  rows[0] |= {"prompt": HOSTILE, "response": HOSTILE}
  responses = {
    name: ["word " * (1 + (i * place) % 5) for i in range(COUNT)]
    for place, name in enumerate(POLICIES, start=2)
  }
  for name, texts in responses.items():
    texts[1] = f"{HOSTILE} {name}"
  responses["nash_md"][2] = ""

  def judge(asked_of, ours, theirs):
    del asked_of
    more = length.count_words(theirs) - length.count_words(ours)
    return 1 / (1 + np.exp(-0.3 * more))

  with mock.patch.object(standings, "RESAMPLES", 20):  # each solves a game
    played = {
      name: win_rates.play(
        responses, rows, judge, confidence=0.95, seed=0, batch_size=COUNT
      )
      for name in JUDGES
    }
  about = {"about": f"Rules, and {HOSTILE}."}
  results = {
    "policies": list(POLICIES),
    "records": COUNT,
    "prompts": COUNT,
    "confidence": 0.95,
    "chosen": {},
    "ended": dict.fromkeys(POLICIES[1:], 0.9375),  # as a guest has none
    "words": {
      name: float(np.mean(length.count_words(texts)))
      for name, texts in responses.items()
    },
    "judges": {
      name: found | about | {"title": f"{name} judge"}
      for name, (found, _) in played.items()
    },
  }
  said = {name: pairs for name, (_, pairs) in played.items()}
  answers = policies.Answers(responses, {}, {}, {}, {})
  tournament.save(folder / tournament.NAME, rows, answers, results, said)
  workdir.finish(folder, tournament.NAME, {}, 3.5, MACHINE)


def _exploit(folder: pathlib.Path) -> None:
  """Gaps of all policies, an adversary of the last."""
  rng, found = np.random.default_rng(1), {}
  ends = {"kl_coef": 0.2, "confidence": 0.95}
  for name in POLICIES:
    win_prob, ratio = rng.random((COUNT, 4, 4)), rng.random((COUNT, 4))
    parts = (win_prob, ratio, np.arange(COUNT))
    found[name] = exploitability.estimates(*parts, **ends, seed=0)
    found[name] |= {"ended": 0.9, "adversaries": {}}
    solved = exploitability.mean_gap(*parts, **ends | {"kl_coef": 0.25})
    found[name]["solves"] = {"kl_coef": 0.25, **solved}
  played = exploitability.adversary(
    win_prob, ratio, 2 * ratio, np.arange(COUNT), **ends
  )
  found[POLICIES[-1]]["adversaries"] = {HOSTILE: played}
  results = ends | {
    "records": COUNT,
    "prompts": COUNT,
    "judge": JUDGES[0],
    "title": f"{HOSTILE} judge",
    "samples": 4,
    "replies": 4,
    "policies": found,
  }
  files.save_json(folder / exploit.NAME / "results.json", results)


def _vote(folder: pathlib.Path) -> None:
  """Votes of two people on all pairs, every third of them golden."""
  rng, cast = np.random.default_rng(2), []
  pairs = [
    design.Pair(
      name=f"{number} {a} {b}",
      record={"prompt": f"{HOSTILE} {number}"},
      a=a,
      b=b,
      response_a=a,
      response_b=HOSTILE,
      prob=0.95,
      is_golden=number % 3 == 0,
    )
    for number in range(COUNT)
    for a, b in (("sft", "nash_md"), ("rlhf", HOSTILE))
  ]
  for who, effort, repeats in (("ann", 1.0, 1), ("bob", 0.0, 0)):
    for question in design.questions(
      pairs, repeats=0.2 * repeats, seed=0, annotator=who
    ):
      pair = question.pair
      is_for_a = simulated.answer(np.array(pair.prob), effort, rng)
      cast.append(
        votes.Vote(
          key=f"{who} {len(cast)}",
          pair=pair.name,
          shown_left=question.shown_left,
          choice=votes.A if is_for_a else votes.B,
          seconds=float(rng.gamma(4.0)),
          annotator=who,
          is_repeat=question.is_repeat,
          is_golden=pair.is_golden,
          at=0.0,
        )
      )
  results = outcome.describe(cast, pairs, confidence=0.95)
  files.save_json(folder / annotate.NAME / "results.json", results)
