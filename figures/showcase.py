"""`make showcase`: an instruct model learns to summarise, in out/showcase.json.

Needs the folder of SmolLM2-135M-Instruct in out/models or where NASHMD_MODELS
says, and SciTLDR where NASHMD_DATA says. Cut off at any moment, it goes on
where it was when it is called again. Each method has a workdir of its own, in
which it takes the judge of those before it, so that they may be run in
different sittings: what each wrote, and what was measured, is kept in
figures/found/showcase, and the rows are of all that lies there.
"""

import argparse
from collections.abc import Iterator, Sequence
import itertools
import json
import lzma
import pathlib
import re
import resource
import subprocess
import sys
from typing import Any

import numpy as np

from configs import showcase
from figures import demo, rows
from nashmd_jax import files
from nashmd_jax.data import records
from nashmd_jax.evaluation import intervals, win_rates
from nashmd_jax.judges import raters, scorers
from tests import real_data

CONFIG = "configs/showcase.py"
OUT = pathlib.Path("out") / "showcase.json"
WORK = pathlib.Path("out") / "showcase"
FOUND = pathlib.Path("figures") / "found" / "showcase"
START, METHOD = "sft", "nash_md"
PEOPLE = "people"  # who wrote the summaries of SciTLDR
METHODS = (METHOD, "rlhf", "self_play", "best_response", "best_of_8")
WORDS, HELD_OUT = 32, 400


def shortened(text: str) -> str:
  """As many first sentences as have at most `WORDS` words; none may have."""
  sentences = re.split(r"(?<=[.!?])\s+", text)
  sizes = itertools.accumulate(len(one.split()) for one in sentences)
  return " ".join(sentences[: sum(size <= WORDS for size in sizes)])


def summaries(split: str) -> Iterator[records.Record]:
  """First sentences of abstracts, and the first summary of each."""
  path = real_data.FOLDER / f"scitldr_{split}.jsonl.xz"
  with lzma.open(path, "rt", encoding="utf-8") as file:
    for row in map(json.loads, file):
      text = shortened(row["text"])
      if text:
        yield {"id": row["id"], "prompt": text, "response": row["summaries"][0]}


def splits() -> dict[str, list[records.Record]]:
  """The records of the run; most of SciTLDR's dev split is the test's."""
  held_out = list(summaries("dev"))
  return {
    "train": list(summaries("train")),
    "validation": held_out[:-HELD_OUT],
    "test": held_out[-HELD_OUT:],
  }


def run(method: str, variant: str, flags: Sequence[str]) -> dict[str, Any]:
  """One method against μ, from the records to texts; what was measured.

  Raises: SystemExit with the status of a run that did not end.
  """
  workdir = WORK / method
  others = [str(path.parent) for path in WORK.glob("*/config.json")]
  others = [one for one in others if one != str(workdir)]
  out, _ = demo.run_main(
    f"--workdir={workdir}",
    f"--config.model.pretrained={real_data.SMOLLM2.absolute()}",
    f"--config.data.records={WORK / 'records'}",
    f"--config.tournament.policies=('{START}', '{method}')",
    *([f"--reuse={','.join(others)}"] if others else []),
    *flags,
    config=f"{CONFIG}:{variant}",
  )
  if out.returncode:
    sys.exit(out.returncode)
  done = workdir / "nash" / method / "done.json"
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
  config = files.load_json(workdir / "config.json")
  results = files.load_json(workdir / "tournament" / "results.json")
  told = {
    "commit": subprocess.check_output(
      ["git", "rev-parse", "--short", "HEAD"], text=True
    ).strip(),
    "config": f"{CONFIG}:{variant}",
    "flags": list(flags),
    "seed": config["seed"],
    "judges": sorted(results["judges"]),
    "by_training_judge": win_rates.against(
      results, method, START, "preference"
    ),
    "ended": {name: results["ended"][name] for name in (START, method)},
    "peak_gib": peak,
  }
  if done.exists():
    steps = config["nash"]["train"]["steps"]
    told |= {
      "steps": steps,
      "seconds_a_step": files.load_json(done)["seconds"] / steps,
    }
  return told


def keep(method: str, told: dict[str, Any]) -> None:
  """Texts of a run without their prompts, and its figures, to be committed."""
  FOUND.mkdir(parents=True, exist_ok=True)
  for name in (START, method):
    path = WORK / method / "tournament" / "responses" / f"{name}.jsonl"
    said = [
      json.dumps({"id": row["id"], "response": row["response"]})
      for row in records.load_records(path, "summary")
    ]
    packed = lzma.compress(("\n".join(said) + "\n").encode())
    with files.whole(FOUND / f"{name}.jsonl.xz") as partial:
      partial.write_bytes(packed)
  files.save_json(FOUND / f"{method}.json", told)


def texts(name: str) -> list[dict[str, str]]:
  """What a policy wrote, or `PEOPLE` did to the same prompts, by id."""
  if name == PEOPLE:
    known = {row["id"]: row["response"] for row in summaries("dev")}
    ids = [one["id"] for one in texts(METHOD)]
    return [{"id": one, "response": known[one]} for one in ids]
  with lzma.open(FOUND / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
    return [json.loads(line) for line in file]


def win_probs(name: str, other: str) -> np.ndarray:
  """The exact raters' preference for a policy's texts, f64[prompts]."""
  population = raters.make_population(**showcase.get_config().raters)
  judge = scorers.make_rater_judge(population)
  known = {row["id"]: row for row in summaries("dev")}
  ours, theirs = texts(name), texts(other)
  ids = [one["id"] for one in ours]
  assert ids == [one["id"] for one in theirs]
  rows = [known[key] for key in ids]
  said = judge(
    rows,
    [one["response"] for one in ours],
    [one["response"] for one in theirs],
  )
  return win_rates.by_prompt(said, win_rates.prompt_numbers(rows))


def compare(name: str, other: str) -> tuple[float, float, float]:
  """Win rate by the exact raters, low and high end."""
  return intervals.win_rate_interval(win_probs(name, other), 0.95)


def found_rows() -> list[rows.Row]:
  """What is claimed of Nash-MD, and what it wins against every other method."""
  if not (FOUND / f"{METHOD}.json").exists():
    return [rows.row(f"{METHOD} was never run", None, "=", 0)]
  told = files.load_json(FOUND / f"{METHOD}.json")
  rate, low, high = compare(METHOD, START)
  prompts = len(texts(METHOD))
  by_judge = told["by_training_judge"][0]
  claim = (
    f"{METHOD} against μ by the exact raters, {prompts} prompts, "
    f"{rate:.3f} ({low:.3f} to {high:.3f}), by the judge that it learnt from "
    f"{by_judge:.3f}"
  )
  found = [
    rows.row(claim, rate, "≥", 0.6),
    rows.row(f"{METHOD} against μ: lower end", low, ">", 0.5),
    rows.row(
      f"{METHOD}: share of responses that end by themselves, of μ's "
      f"{told['ended'][START]:.2f}",
      told["ended"][METHOD],
      "≥",
      0.95,
    ),
  ]
  for name in METHODS[1:]:
    if (FOUND / f"{name}.json").exists():
      against, ours = compare(name, START), compare(METHOD, name)
      print(
        f"{name} against μ {against[0]:.3f} ({against[1]:.3f} to "
        f"{against[2]:.3f}); {METHOD} against {name} {ours[0]:.3f} "
        f"({ours[1]:.3f} to {ours[2]:.3f})"
      )
  return found


def main() -> int:
  """Runs the methods that are asked for; writes the rows of all."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--methods", default=METHOD)
  parser.add_argument("--variant", default="full")
  args, flags = parser.parse_known_args()
  if not real_data.FOLDER.exists() or not real_data.SMOLLM2.is_dir():
    absent = f"{real_data.SMOLLM2} or {real_data.FOLDER} is absent"
    return rows.report(OUT, [rows.row(f"not measured, {absent}", None, "=", 0)])
  for split, found in splits().items():
    records.save_records(WORK / "records" / f"{split}.jsonl", found)
  for method in filter(None, args.methods.split(",")):
    keep(method, run(method, args.variant, flags))
  return rows.report(OUT, found_rows())


if __name__ == "__main__":
  sys.exit(main())
