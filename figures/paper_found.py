"""What the trials of the paper's sweep have found, kept in small files.

figures/found/paper holds no weights, and all that the tables are made of:
prompts.jsonl.xz, the held-out records; game.json, τ, whose preference is exact
and which judge was learnt; in seed_K what the trial of seed K left, texts of
every policy with log π/μ of each, a row a policy, curves along training and
what its jobs took; tau.jsonl, every number of the sweep over τ; sittings.jsonl,
what `make paper` has spent. The same workdirs give the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import json
import lzma
import pathlib
from typing import Any, NamedTuple

import numpy as np

from nashmd_jax import asked, files, mistakes
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import lines, records
from nashmd_jax.evaluation import exploitability, length, plots, win_rates
from nashmd_jax.stages import deployed, exploit, tournament
from nashmd_jax.training import metrics

FOUND = pathlib.Path("figures") / "found" / "paper"
START, RLHF, SELF_PLAY = "sft", "rlhf", "self_play"
MIXED = ("md_125", "md_250", "md_375", "md_500", "md_625", "md_750")
POLICIES = (
  START, RLHF, SELF_PLAY, *MIXED, "best_response",
  "ema_999", "ema_9995", "ema_999_average", "ema_9995_average",
)  # fmt: skip
MIXTURES = tuple(f"{name}_mixture" for name in MIXED)
HELD_OUT, SECOND = "held_out", "second"
EXACT = "raters"  # the judge that is the held-out population
GAME, PROMPTS, TAU, SITTINGS = (
  "game.json", "prompts.jsonl.xz", "tau.jsonl", "sittings.jsonl",
)  # fmt: skip
TEXTS, ROWS, CURVES, JOBS = (
  "texts.jsonl.xz", "rows.jsonl", "curves.jsonl", "jobs.jsonl",
)  # fmt: skip
DIGITS = 5  # of what is kept of a number of nats
Row = dict[str, Any]


class Seed(NamedTuple):
  """What the trial of one seed found.

  Attributes:
    number: the seed.
    texts: by policy, a response for each of N prompts.
    log_ratios: by policy f64[N], nats; without those for whom none is known.
    rows, curves, jobs: see `collect_trial`.
  """

  number: int
  texts: dict[str, list[str]]
  log_ratios: dict[str, np.ndarray]
  rows: dict[str, Row]
  curves: list[Row]
  jobs: list[Row]


class Found(NamedTuple):
  """All that has been found.

  Attributes:
    prompts: N summary records.
    game: "kl_coef", "learned", and of `raters.make_population` what makes
      `HELD_OUT` and `SECOND`.
    seeds: in the order of their numbers.
    tau, sittings: rows.
  """

  prompts: list[records.Record]
  game: dict[str, Any]
  seeds: list[Seed]
  tau: list[Row]
  sittings: list[Row]

  def distinct(self) -> int:
    """How many prompts there are; records of one count as one."""
    return len({row["prompt"] for row in self.prompts})


def save_lines(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes JSON lines, packed where the name ends in .xz."""
  texts = (json.dumps(row, ensure_ascii=False) for row in rows)
  data = "".join(f"{text}\n" for text in texts).encode()
  with files.whole(path) as partial:
    partial.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)


def load_lines(path: pathlib.Path) -> list[Row]:
  """JSON lines; none of a file that is not there."""
  if not path.exists():
    return []
  return [row for _, row in lines.read_objects(path, "one row a line")]


def finished(sweep: pathlib.Path) -> Iterator[pathlib.Path]:
  """The workdirs of the trials of a sweep that were played to the end."""
  for folder in sorted(sweep.glob("[0-9][0-9][0-9]*")):
    ends = (tournament.NAME, exploit.NAME)
    if all(workdir_lib.is_done(folder, name) for name in ends):
      yield folder


def collect(
  sweep: pathlib.Path, found: pathlib.Path, second: Mapping[str, float]
) -> list[int]:
  """Keeps what the finished trials of a sweep over seeds have found.

  Args:
    sweep: its workdir.
    found: where to.
    second: shares of the criteria among raters that nothing learnt from.
  Returns: the seeds.
  Raises: Mistake for a trial of another game or other prompts than are kept.
  """
  seeds = []
  for workdir in finished(sweep):
    config = files.load_json(workdir / workdir_lib.CONFIG)
    game = {
      "kl_coef": config["nash"]["kl_coef"],
      "learned": config["nash"]["judge"],
      HELD_OUT: config["raters"],
      SECOND: {**config["raters"], "weights": dict(second)},
    }
    _agree(found / GAME, game, workdir)
    seeds.append(collect_trial(workdir, config, found))
  return seeds


def _agree(path: pathlib.Path, game: Row, workdir: pathlib.Path) -> None:
  """Writes what all seeds have in common, if it is what was kept before.

  The second raters may be others: nothing was learnt from them.
  """
  game = workdir_lib.plain(game)
  old = files.load_object(path, *game) if path.exists() else game
  for name in set(game) - {SECOND}:
    if old[name] != game[name]:
      raise mistakes.Mistake(
        f"{workdir}: has {name} {mistakes.quote(game[name])} where {path} has "
        f"{mistakes.quote(old[name])}; keep seeds of one game together"
      )
  files.save_json(path, game)


def collect_trial(
  workdir: pathlib.Path, config: Mapping[str, Any], found: pathlib.Path
) -> int:
  """Keeps what one finished trial has found, in its folder; gives its seed.

  rows.jsonl has of each policy the commit, the config and what of it differs,
  the run that it is and what that sets, steps and seconds of the run, KL on
  the held-out prompts in nats, words, the share that ended, its win rate
  against SFT by the judge that was learnt, and from samples its gap at τ and at
  the τ that it solves if it is a mixture; curves.jsonl of each evaluation of
  a run the judge that it learns from, its step, the KL of the steps before it
  and the win rate by each judge;
  jobs.jsonl the key of each job, its results and what it took. What is not
  known is null.

  Args:
    workdir: of the trial.
    config: its settings, from JSON.
    found: folder of all seeds.
  """
  place = workdir / tournament.NAME
  results = files.load_object(place / "results.json", *tournament.RESULTS)
  prompts = records.load_records(
    place / "responses" / "written.jsonl", "summary"
  )
  _keep_prompts(found / PROMPTS, prompts, workdir)
  folder = found / f"seed_{config['seed']}"
  texts = {
    name: records.load_records(place / "responses" / f"{name}.jsonl", "summary")
    for name in results["policies"]
  }
  done = workdir_lib.finished(workdir)
  save_lines(folder / TEXTS, _texts(texts))
  save_lines(folder / ROWS, _rows(workdir, config, results, texts, done))
  save_lines(folder / CURVES, _curves(workdir, config))
  save_lines(
    folder / JOBS,
    (
      {
        "job": name,
        "key": _key(workdir, name),
        "results": one.get("results"),
        **_spent(one),
      }
      for name, one in done.items()
    ),
  )
  return config["seed"]


def _key(workdir: pathlib.Path, job: str) -> str:
  """What a job was made of, the same in all seeds that share it."""
  return workdir_lib.load_key(workdir / job / workdir_lib.KEY)["hash"][:16]


def _keep_prompts(path, prompts, workdir) -> None:
  kept = ("id", "prompt", "response")
  own = [{name: row[name] for name in kept} for row in prompts]
  if not path.exists():
    save_lines(path, own)
  elif load_lines(path) != own:
    raise mistakes.Mistake(
      f"{workdir}: its tournament was on other records than those in {path}; "
      "every seed has to answer the same ones"
    )


def _texts(texts: Mapping[str, Sequence[records.Record]]) -> Iterator[Row]:
  for name, rows in texts.items():
    for row in rows:
      ratio = row.get("log_ratio")
      yield {
        "policy": name,
        "id": row["id"],
        "response": row["response"],
        "log_ratio": None if ratio is None else round(ratio, DIGITS),
      }


def _rows(workdir, config, results, texts, done) -> Iterator[Row]:
  """A row a policy of the tournament, see `collect_trial`."""
  flag, changed = asked.load(workdir / asked.NAME)
  asked_of, gaps = workdir / exploit.NAME / "results.json", {}
  if asked_of.exists():
    gaps = files.load_object(asked_of, *exploitability.RESULTS)["policies"]
  learned = config["nash"]["judge"]
  for name, wrote in texts.items():
    run = _run_of(config, name)
    job = deployed.run_job(run)
    one = done.get(job, {})
    ratios = [row.get("log_ratio") for row in wrote]
    known = None not in ratios
    judged = learned in results["judges"] and name != START
    yield {
      "policy": name,
      "seed": config["seed"],
      "commit": one.get("machine", {}).get("nashmd_jax"),
      "config": flag,
      "changed": changed,
      "run": run,
      "sets": config["nash"]["runs"].get(run, {}),
      "steps": _steps(workdir / job),
      **_spent(one),
      "kl": round(float(np.mean(ratios)), DIGITS) if known else None,
      "words": float(
        np.mean(length.count_words([row["response"] for row in wrote]))
      ),
      "ended": results["ended"].get(name),
      "learned": list(win_rates.against(results, name, START, learned))
      if judged
      else None,
      "gap": _gap(gaps.get(name, {}).get("sampled")),
      "solves": _gap(gaps.get(name, {}).get("solves")),
    }


def _gap(found: Mapping[str, float] | None) -> dict[str, float] | None:
  """An estimate of `evaluation.exploitability`, short enough to keep."""
  if found is None:
    return None
  return {name: round(value, DIGITS) for name, value in found.items()}


def _run_of(config: Mapping[str, Any], name: str) -> str:
  """The run that a policy is: its own, or that which it deploys otherwise."""
  return config["nash"].get("deployed", {}).get(name, {}).get("run", name)


def _spent(done: Mapping[str, Any]) -> Row:
  machine = done.get("machine", {})
  return {
    "seconds": done.get("seconds"),
    "cpu_seconds": done.get("cpu_seconds"),
    "device": machine.get("device"),
    "cores": machine.get("cores"),
  }


def _steps(folder: pathlib.Path) -> int | None:
  rows = metrics.load_metrics(folder / "metrics.jsonl")
  return rows[-1]["step"] if rows else None


def _curves(workdir: pathlib.Path, config: Mapping[str, Any]) -> Iterator[Row]:
  """Every evaluation of every run that was trained here."""
  for run, sets in config["nash"]["runs"].items():
    own = {**config["nash"], **sets}["judge"]
    folder = workdir / deployed.run_job(run)
    for row in metrics.load_metrics(folder / "metrics.jsonl"):
      won = dict(_won(row, own))
      if won:
        yield {
          "policy": run,
          "judge": own,
          "step": row["step"],
          "kl": row.get("kl"),
          "won": won,
        }


def _won(row: Mapping[str, float], own: str) -> Iterator[tuple[str, float]]:
  """What each judge says in a row of metrics of win rates against μ."""
  for name, value in row.items():
    if name.startswith(plots.EVALUATION) and name.endswith(plots.WON):
      judge = name.removeprefix(plots.EVALUATION).removesuffix(plots.WON)
      yield judge.rstrip("_") or own, value


def collect_tau(sweep: pathlib.Path, found: pathlib.Path) -> int:
  """Keeps every number of a sweep over τ; gives how many rows there are.

  A row a run of a trial: what the trial sets, "kl_coef" of the run, its last
  step, KL, and "results", all that its last evaluation told.

  Args:
    sweep: its workdir.
    found: folder of all that is kept.
  """
  rows = []
  for folder in sorted(sweep.glob("[0-9][0-9][0-9]*")):
    if (folder / workdir_lib.CONFIG).exists():
      rows += _tau_rows(folder)
  if rows:
    save_lines(found / TAU, rows)
  return len(rows)


def _tau_rows(folder: pathlib.Path) -> Iterator[Row]:
  config = files.load_json(folder / workdir_lib.CONFIG)
  done = workdir_lib.finished(folder)
  for run, sets in config["nash"]["runs"].items():
    job = deployed.run_job(run)
    if job in done:
      last = metrics.load_metrics(folder / job / "metrics.jsonl")[-1]
      own = {**config["nash"], **sets}
      yield {
        "trial": int(folder.name),
        "seed": config["seed"],
        "policy": run,
        "kl_coef": own["kl_coef"],
        "judge": own["judge"],
        "step": last["step"],
        "kl": last.get("kl"),
        "results": done[job]["results"],
        **_spent(done[job]),
      }


def load(found: pathlib.Path) -> Found:
  """All that is kept in a folder; nothing of one that is not there.

  Raises: Mistake for files that do not go together.
  """
  prompts = load_lines(found / PROMPTS)
  ids = [row["id"] for row in prompts]
  folders = sorted(found.glob("seed_*"), key=lambda one: int(one.name[5:]))
  game = found / GAME
  return Found(
    prompts=prompts,
    game=files.load_json(game) if game.exists() else {},
    seeds=[_load_seed(folder, ids) for folder in folders],
    tau=load_lines(found / TAU),
    sittings=load_lines(found / SITTINGS),
  )


def _load_seed(folder: pathlib.Path, ids: Sequence[str]) -> Seed:
  texts: dict[str, list[Row]] = {}
  for row in load_lines(folder / TEXTS):
    texts.setdefault(row["policy"], []).append(row)
  for name, rows in texts.items():
    if [row["id"] for row in rows] != list(ids):
      raise mistakes.Mistake(
        f"{folder / TEXTS}: {name} has not one response to each record of "
        f"{folder.parent / PROMPTS}, in its order; collect it anew"
      )
  return Seed(
    number=int(folder.name[5:]),
    texts={
      name: [row["response"] for row in rows] for name, rows in texts.items()
    },
    log_ratios={
      name: np.array([row["log_ratio"] for row in rows])
      for name, rows in texts.items()
      if all(row["log_ratio"] is not None for row in rows)
    },
    rows={row["policy"]: row for row in load_lines(folder / ROWS)},
    curves=load_lines(folder / CURVES),
    jobs=load_lines(folder / JOBS),
  )
