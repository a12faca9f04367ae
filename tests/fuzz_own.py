"""Files that a run wrote itself and reads again, as targets of `fuzz`."""

import functools
import json
import pathlib
import tempfile
from unittest import mock

import ml_collections
import numpy as np

from nashmd_jax import asked, mistakes, owner, workdir
from nashmd_jax.annotators import votes
from nashmd_jax.evaluation import judged
from nashmd_jax.stages import export
from nashmd_jax.sweeps import collect, trials
from nashmd_jax.training import checksums, dumps, journal
from tests import fuzz

Target = fuzz.Target
SCORES = {"eval/loss": 0.5, "text": "a", "steps": 8}
DONE = {"seconds": 1.5, "results": SCORES}
PIECES = {"a": [1, 2.5], "b": {"c": "d"}}
OVERRIDES = {"seed": 1, "sft.lr": 0.1}
ASKED = {"config": "a.py:b", "changed": {"seed": [0, 1], "sft.lr": [0.1, 2]}}
PLAYED = {"policies": ["a", "b"], "judges": {"raters": {}}}
JUDGED = b"id,raters: a over b\n1,0.25\n2,0.75\n"
LANE = {"first": 0.25, "second": 0.75}
ROWS = {
  "example_ids": np.arange(3),
  "mask": np.ones((3, 2), bool),
  "win_prob": np.full(3, 0.5, np.float32),
}
VOTES = [
  votes.Vote(f"ann {i}", f"{i} a b", "a", "tie", i / 7, "ann", False, True, 1e9)
  for i in range(5)
]
DUMP = f"{dumps.FOLDER}/step-2"


def _json(value) -> bytes:
  return json.dumps(value).encode()


def _pieces() -> bytes:
  return b"".join(
    [_json({"of": "x"}) + b"\n"]
    + [_json({"piece": k, "gave": v}) + b"\n" for k, v in PIECES.items()]
  )


def _read_pieces(folder):
  once = journal.keep(folder / journal.NAME, of="x")
  return {name: once(name, lambda: None) for name in PIECES}


def _pieces_mean(data: bytes, found) -> bool:
  """What is given is what a line says; anything else is made again."""
  lines = data.split(b"\n")[:-1]
  if not lines or lines[0].rstrip(b"\r") != _json({"of": "x"}):
    return not any(found.values())
  said = [fuzz.strict(line) for line in lines[1:]]
  said = {one["piece"]: one["gave"] for one in said}
  return all(fuzz.same(said.get(name), one) for name, one in found.items())


@functools.cache
def _dump() -> tuple[bytes, bytes]:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    dumps.save(folder, 2, ROWS, seed=5, must=False)
    return (
      (folder / f"{DUMP}.json").read_bytes(),
      (folder / f"{DUMP}.npz").read_bytes(),
    )


def _write_dump(folder: pathlib.Path) -> None:
  facts, rows = _dump()
  (folder / dumps.FOLDER).mkdir(exist_ok=True)
  (folder / f"{DUMP}.json").write_bytes(facts)
  (folder / f"{DUMP}.npz").write_bytes(rows)


def _rows_mean(data: bytes, found) -> bool:
  return set(found.rows) == set(ROWS) and all(
    np.array_equal(found.rows[name], x) and found.rows[name].dtype == x.dtype
    for name, x in ROWS.items()
  )


def _facts_mean(data: bytes, found) -> bool:
  said = fuzz.strict(data)
  return (found.step, found.seed) == (2, said["seed"])


ME = {
  "host": "h", "pid": 1, "began": 1e9, "machine": "here",
  "start": owner._start(1), "folder": [1, 2],
}  # fmt: skip


def _take(folder):
  """Whether a run that finds the file of another knows that it is at work."""
  quick = dict(LIMIT=0.02, BEAT=0.01, TRIES=3, PAUSE=0.01)
  with (
    mock.patch.multiple(owner, **quick),
    mock.patch.object(owner, "_myself", lambda place: ME),
  ):
    try:
      owner.take(folder, lost=len, waits=len).leave()
    except mistakes.Mistake as mistake:
      told = str(mistake).replace(str(folder), "")
      if "is at work here" not in told or len(told) > fuzz.MOST_TOLD:
        raise
      return True
  return False


def _owner_means(data: bytes, busy: bool) -> bool:
  """A workdir is taken of no one whom a whole file says to be at work."""
  if busy:
    return True
  try:
    said = fuzz.strict(data)
  except (ValueError, RecursionError):
    return True
  return not isinstance(said, dict) or any(
    not fuzz.same(said.get(name), value) for name, value in ME.items()
  )


def _read_trial(folder):
  config = ml_collections.ConfigDict()
  trials.claim(trials.Trial(1, OVERRIDES, config, folder))
  return True


def _read_state(folder):
  config = ml_collections.ConfigDict({"seed": 1})
  trial = mock.Mock(number=1, folder=folder, config=config)
  return collect.state(
    mock.Mock(trial=trial, jobs=["sft"], mistake=None), ["seed"]
  )


def _state_means(data: bytes, found) -> bool:
  said = fuzz.strict(data)
  return [said["stage"], said["error"]] == [found["reached"], found["reason"]]


def _scores_mean(data: bytes, found) -> bool:
  said = fuzz.strict(data)["results"]
  return found == {
    f"sft/{name}": value
    for name, value in said.items()
    if isinstance(value, int | float)
  } or any(value != value for value in found.values())


def _votes() -> bytes:
  with tempfile.TemporaryDirectory() as name:
    path = pathlib.Path(name) / "v.sqlite3"
    log = votes.open_log(path)
    for vote in VOTES:
      log.keep(vote)
    log.close()
    return path.read_bytes()


def _read_votes(folder):
  for path in folder.glob("v.sqlite3-*"):
    path.unlink()
  log = votes.open_log(folder / "v.sqlite3")
  try:
    return log.load()
  finally:
    log.close()


def files() -> list[Target]:
  """All kinds of them."""
  facts, rows = _dump()
  return [
    Target("pieces.jsonl", journal.NAME, _pieces(), _read_pieces,
           _pieces_mean, True),
    Target("facts of a step that was kept", f"{DUMP}.json", facts,
           lambda folder: dumps.load(folder, 2), _facts_mean,
           beside=_write_dump),
    Target("rows of a step that was kept", f"{DUMP}.npz", rows,
           lambda folder: dumps.load(folder, 2), _rows_mean, None,
           beside=_write_dump),
    Target("done.json", f"sft/{workdir.DONE}", _json(DONE), workdir.finished,
           lambda data, found: fuzz.same(found["sft"], fuzz.strict(data))),
    Target("scores of done.json", f"sft/{workdir.DONE}", _json(DONE),
           lambda folder: collect.load_scores(folder, ["sft"]), _scores_mean),
    Target("asked.json", asked.NAME, _json(ASKED),
           lambda folder: asked.load(folder / asked.NAME),
           lambda data, found: fuzz.same(
             list(found), [fuzz.strict(data)[name] for name in ASKED])),
    Target("judged.csv", judged.NAME, JUDGED,
           lambda folder: judged.load(folder / judged.NAME, PLAYED, 2),
           lambda data, found: np.all(found["raters"] >= 0), None),
    Target("failed.json", "failed.json",
           _json({"stage": "sft", "error": "ValueError: a"}), _read_state,
           _state_means),
    Target("trial.json", "trial.json",
           _json({"trial": 1, "overrides": OVERRIDES}), _read_trial,
           lambda data, found: fuzz.strict(data)["overrides"] == OVERRIDES),
    Target("mixture.json", "mixture.json", _json(LANE),
           lambda folder: export._load_lane(folder / "mixture.json"),
           lambda data, found: fuzz.same(found, fuzz.strict(data))),
    Target("metadata of a checkpoint", checksums.METADATA,
           _json({"custom_metadata": checksums.promise()}),
           checksums.is_of_before, lambda data, found: True),
    Target("owner.json", owner.NAME, _json({"token": "ab", **ME}), _take,
           _owner_means),
    Target("the votes", "v.sqlite3", _votes(), _read_votes,
           lambda data, found: found == (VOTES if data else []), None),
  ]  # fmt: skip
