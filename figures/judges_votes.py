"""Judges of people's votes: UKPConvArg1, by the command line, from scratch.

  python -m figures.judges_votes

Figures in out/judges_votes.json, about twelve minutes on 2 CPU cores. The data
is found by NASHMD_DATA, or in ../shared/data; without it there is no row. Six
of 32 sides of debates, both sides of three questions, are held out.
"""

from collections.abc import Sequence
import json
import lzma
import os
import pathlib
import shutil
import sys
from typing import Any

import numpy as np

from figures import demo, rows
from nashmd_jax import files
from nashmd_jax.data import records, tldr
from nashmd_jax.evaluation import clusters, judge_scores
from tests import real_data

OUT = pathlib.Path("out")
WORK = OUT / "judges_votes"
CONFIG = "configs/votes.py"
SHORT = 200  # held-out pairs of the pretrained judge
HELD_OUT = slice(2, None, 5)  # of the 16 questions in alphabetical order
Given = dict[str, Any]


def load_votes() -> tuple[list[Given], list[Given]]:
  """The pairs to train on and the held-out ones, each shuffled."""
  with lzma.open(real_data.UKP, "rt", encoding="utf-8") as file:
    given = [json.loads(line) for line in file]
  titles = sorted({row["title"] for row in given})
  held_out = set(titles[HELD_OUT])
  np.random.default_rng(0).shuffle(given)
  return (
    [row for row in given if row["title"] not in held_out],
    [row for row in given if row["title"] in held_out],
  )


def compared(row: Given) -> records.Record:
  """A pair as our record; the prompt says the side that is argued for."""
  (record,) = tldr.SCHEMAS["ukp_votes"].convert(row)
  side = row["topic"].partition("_")[2].replace("-", " ").strip(" _")
  return record | {"prompt": f"{row['title']} {side}".strip()}


def write(folder: pathlib.Path, train, held_out) -> None:
  """The records of a run: comparisons, and texts to make a tokenizer of."""
  for split, given in {"train": train, "validation": held_out}.items():
    pairs = [compared(row) for row in given]
    records.save_records(folder / "comparisons" / f"{split}.jsonl", pairs)
    # A dict, so that every text stands once.
    texts = {row["response_a"]: row for row in pairs}
    summaries = [
      {"id": row["id"], "prompt": row["prompt"], "response": text}
      for text, row in texts.items()
    ]
    records.save_records(folder / "records" / f"{split}.jsonl", summaries)
  shutil.copy(
    folder / "records" / "validation.jsonl", folder / "records" / "test.jsonl"
  )


def halves(given: Sequence[Given]) -> clusters.Estimate:
  """How often one half of the voters on a pair agrees with the other.

  Voters are split at random; a tie between either half's votes counts one
  half, as for a judge. Both halves are small, so that a judge may agree with
  the majority of all voters more often than they with one another.

  Returns: an estimate whose interval resamples topics.
  """
  rng, agreed = np.random.default_rng(0), []
  for row in given:
    votes = np.array([{1: 1, 2: -1, 0: 0}[vote] for _, vote in row["votes"]])
    rng.shuffle(votes)
    one, other = np.array_split(votes, 2)
    agreed.append(0.5 + 0.5 * np.sign(one.sum()) * np.sign(other.sum()))
  return resampled(np.array(agreed), [row["topic"] for row in given])


def longer_wins(given: Sequence[Given]) -> clusters.Estimate:
  """The accuracy of a judge that prefers more words."""
  pairs = [compared(row) for row in given]
  more = np.array(
    [
      len(row["response_a"].split()) - len(row["response_b"].split())
      for row in pairs
    ]
  )
  prob_a = np.array([row["prob_a"] for row in pairs])
  right = judge_scores.agreement(more, prob_a)
  return resampled(right, [row["topic"] for row in given])


def resampled(column: np.ndarray, topics: Sequence[str]) -> clusters.Estimate:
  """The mean of a column, with an interval that resamples topics."""
  sums = clusters.resample(
    {"over": column, "under": np.ones(len(column))},
    judge_scores.numbered(topics),
    resamples=1000,
    seed=0,
  )
  return clusters.ratio(sums["over"], sums["under"])


def said(estimate: clusters.Estimate) -> str:
  """The value of an estimate and its interval."""
  return (
    f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
  )


def votes_rows() -> list[rows.Row]:
  """What judges learn from votes, what lengths tell, how far voters agree."""
  if not real_data.UKP.is_file():
    print(real_data.ABSENT)
    return []
  train, held_out = load_votes()
  voters = halves(held_out)
  found = [
    rows.row(
      f"two halves of the voters on a held-out pair agree, {said(voters)}: "
      "lower end",
      voters["low"], ">", 0.5,
    ),
    *learned("from scratch", CONFIG, train, held_out),
  ]  # fmt: skip
  if not real_data.SMOLLM2.is_dir():
    print(f"no rows of a pretrained judge: {real_data.SMOLLM2} is not there")
    return found
  return found + learned(
    "of SmolLM2-135M with adapters",
    f"{CONFIG}:smollm2",
    [row for row in train if is_short(row)],
    [row for row in held_out if is_short(row)][:SHORT],
    f"--config.model.pretrained={real_data.SMOLLM2}",
  )


def is_short(row: Given) -> bool:
  """Whether both texts are so short that the pretrained judge reads all."""
  return max(len(row[name].split()) for name in ("text1", "text2")) <= 40


def learned(
  what: str, config: str, train: list[Given], held_out: list[Given], *flags: str
) -> list[rows.Row]:
  """What both judges of a config learn from votes."""
  work = WORK / what.replace(" ", "_")
  shutil.rmtree(work, ignore_errors=True)
  write(work, train, held_out)
  for stage in ("preference", "reward", "judges"):
    out, seconds = demo.run_main(
      f"--workdir={work / 'run'}",
      f"--config.data.records={work / 'records'}",
      f"--config.data.comparisons={work / 'comparisons'}",
      f"--stage={stage}",
      *flags,
      config=config,
    )
    print(f"{what}, {stage}: {seconds:.0f} s, status {out.returncode}")
    if out.returncode:
      return [rows.row(f"stage {stage} of {config} ended", None, "=", 0)]
  results = files.load_json(work / "run" / "judges" / "results.json")
  lengths, found = longer_wins(held_out), []
  for name, scores in results["judges"].items():
    right, error = scores["accuracy"], scores["calibration_error"]
    found += [
      rows.row(
        f"{name} model {what}, {len(train)} pairs: accuracy against the "
        f"majority on {results['comparisons']} held-out pairs, {said(right)}, "
        f"where the longer text has {said(lengths)}: lower end",
        right["low"], ">", 0.5,
      ),
      rows.row(
        f"{name} model {what}: expected calibration error, {said(error)}",
        error["value"], "≤", 0.5,
      ),
    ]  # fmt: skip
  return found


def main() -> int:
  """Measures and reports; returns the exit status."""
  return rows.report(OUT / "judges_votes.json", votes_rows())


if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  sys.exit(main())
