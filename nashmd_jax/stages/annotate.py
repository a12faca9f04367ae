"""Stage `annotate`: people compare responses of the tournament, on a page.

It asks once the tournament is played, until as many people as are waited for
have answered all of their questions, or until it is stopped; the same command
goes on. Every vote is on disk before the next question is shown. At each end
the votes are written as comparisons too, for judges, and the page of the run
tells of them.
"""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
from typing import Any

import numpy as np

from nashmd_jax import declare, files, mistakes, pipeline
from nashmd_jax.annotators import asking, design, outcome, server, votes
from nashmd_jax.data import records
from nashmd_jax.evaluation import judged
from nashmd_jax.judges import table
from nashmd_jax.stages import policies, report, tournament

Config = pipeline.Config
NAME = "annotate"
VOTES = "votes.sqlite3"
CONFIDENCE = 0.95
# Folders of comparisons, and by what votes count there.
FOLDERS = {
  "comparisons": outcome.EQUAL,
  "by_repeats": outcome.BY_REPEATS,
  "by_golden": outcome.BY_GOLDEN,
}
SETTINGS = {
  "policies": declare.several(
    declare.text(
      "Whose responses are compared: policies of the tournament, or written, "
      "the author's; none leaves the stage out."
    )
  ),
  "pairs": declare.whole(
    "Pairs of responses that are asked about, at most.", least=1
  ),
  "repeats": declare.number(
    "Pairs that each person is asked about once more, as a share of them.",
    least=0,
    most=0.25,
  ),
  "golden": declare.number(
    "Golden questions beside the pairs, as a share of them, as far as "
    "annotate.judge is certain.",
    least=0,
    most=0.5,
  ),
  "certainty": declare.number(
    "Least probability, by annotate.judge, of the answer to a golden question.",
    above=0.5,
    most=1,
  ),
  "judge": declare.text(
    f"Who tells which pairs are certain, one of tournament.judges: each "
    f"{table.NAMES}."
  ),
  "annotators": declare.whole(
    "Of how many people all answers are waited for.", least=1
  ),
  "host": declare.text(
    "Address to listen at; of any but this machine's own the link has a token."
  ),
  "port": declare.whole(
    "Port to listen at; 0 for any that is free.", least=0, most=65_535
  ),
}
# What the questions depend on; the others say who is waited for, and where.
DESIGN = ("policies", "pairs", "repeats", "golden", "certainty", "judge")


def run(config: Config, workdir: pathlib.Path, job: str) -> dict[str, Any]:
  """Serves the page; leaves `results.json` and comparisons behind."""
  section, folder = config.annotate, workdir / job
  pairs = choose(config, workdir)
  log = votes.open_log(folder / VOTES)
  desk = asking.open_desk(log, pairs, repeats=section.repeats, seed=config.seed)
  try:
    with server.serve(
      desk, host=section.host, port=section.port, enough=section.annotators
    ) as serving:
      tell(serving.link, pairs, section.annotators)
      serving.wait()
  finally:
    cast = log.load()
    log.close()
    save(folder, cast, pairs)
    report.renew(workdir)
  return {"votes": len(cast)}


def tell(link: str, pairs: Sequence[design.Pair], annotators: int) -> None:
  """Says where the page is, and when it ends."""
  golden = sum(pair.is_golden for pair in pairs)
  print(
    f"{NAME}: {len(pairs)} pairs to compare, {golden} of them golden, at "
    f"{link}; people to answer all: {annotators}; after Ctrl-C the same "
    "command goes on",
    flush=True,
  )


def choose(config: Config, workdir: pathlib.Path) -> list[design.Pair]:
  """The pairs of the tournament that are asked about; see `design.choose`."""
  section, folder = config.annotate, workdir / tournament.NAME
  names = list(section.policies)
  responses = {
    name: records.load_records(
      folder / "responses" / f"{name}.jsonl", "summary"
    )
    for name in names
  }
  results = files.load_object(folder / "results.json", *tournament.RESULTS)
  rows = responses[names[0]]
  said = judged.load(folder / judged.NAME, results, len(rows))
  pairs = all_pairs(responses, said.get(section.judge), results["policies"])
  if not pairs:
    raise mistakes.Mistake(
      f"{NAME}.policies: {mistakes.some(names)} wrote the same everywhere; "
      "there is nothing to compare"
    )
  return design.choose(
    pairs,
    count=section.pairs,
    golden_share=section.golden,
    certainty=section.certainty,
    seed=config.seed,
  )


def all_pairs(
  responses: Mapping[str, Sequence[records.Record]],
  said: np.ndarray | None,
  players: Sequence[str],
) -> list[design.Pair]:
  """Every two responses to a record that differ.

  Args:
    responses: by policy, one to each of N records.
    said: f64[N, M, M], win probabilities of the M players by the judge; None
      where none are known.
    players: of the tournament.
  """
  found = []
  for a, b in itertools.combinations(responses, 2):
    known = said is not None and a in players and b in players
    places = [players.index(one) for one in (a, b)] if known else None
    both = zip(responses[a], responses[b], strict=True)
    for number, (one, other) in enumerate(both):
      if one["response"] != other["response"]:
        found.append(
          design.Pair(
            name=f"{number} {a} {b}",
            record=one,
            a=a,
            b=b,
            response_a=one["response"],
            response_b=other["response"],
            prob=float(said[number, *places]) if known else float("nan"),
          )
        )
  return found


def save(
  folder: pathlib.Path,
  cast: Sequence[votes.Vote],
  pairs: Sequence[design.Pair],
) -> None:
  """Writes `results.json`, and the votes as comparisons.

  `comparisons` counts all votes alike; `by_repeats` and `by_golden` by the
  effort of annotators, where that is known. Of each there is a folder for
  `data.comparisons` and one file of all for `judges.recorded.file`, as soon as
  there is a vote that counts.
  """
  results = outcome.describe(cast, pairs, confidence=CONFIDENCE)
  files.save_json(folder / "results.json", results)
  for name, by in FOLDERS.items():
    effort = None if by == outcome.EQUAL else outcome.efforts(results, by)
    if effort is None and by != outcome.EQUAL:
      continue
    found = outcome.comparisons(cast, pairs, effort)
    if not found:
      continue
    records.save_records(folder / f"{name}.jsonl", found)
    for split, rows in outcome.split(found).items():
      records.save_records(folder / name / f"{split}.jsonl", rows)
  for line in outcome.lines(results):
    print(f"{NAME}: {line}", flush=True)


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with who is compared, and by whom."""
  section = config.annotate
  names = list(section.policies)
  if not names:
    return
  players = [*config.tournament.policies, policies.WRITTEN]
  with findings.collect():
    absent = [name for name in names if name not in players]
    if absent or len(names) < 2:
      raise mistakes.Mistake(
        f"{NAME}.policies: got {mistakes.quote(names)}, expected two or more "
        f"of {mistakes.some(players, len(players))}"
      )
  with findings.collect():
    judges = list(config.tournament.judges)
    if section.judge not in judges:
      raise mistakes.Mistake(
        f"{NAME}.judge: got {mistakes.quote(section.judge)}, expected one of "
        f"tournament.judges, {mistakes.some(judges)}"
      )


STAGE = pipeline.Stage(
  name=NAME,
  settings={NAME: SETTINGS},
  check=check,
  jobs=lambda config: [NAME] if config.annotate.policies else [],
  needs=lambda config, job: [tournament.NAME],
  reads=lambda config, job: pipeline.settings(
    config, "seed", *(f"{NAME}.{name}" for name in DESIGN)
  ),
  run=run,
  alone=True,
)
