"""Injected faults: what is done, what is said of it, and the exit status.

All that can be known before training is found by what runs before it: the check
of the config, readers, the claim of the workdir, a stage's restore.
"""

from collections.abc import Callable, Mapping
import errno
import gzip
import itertools
import json
import os
import pathlib
import re
from typing import Any, NamedTuple
from unittest import mock

import jax.numpy as jnp

from nashmd_jax import files, jobs, main, mistakes, owner, pipeline, workdir
from nashmd_jax.annotators import votes
from nashmd_jax.data import lines, templates, tldr
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.evaluation import judges_page
from nashmd_jax.hub import folders, peft, weights
from nashmd_jax.judges import answer_cache
from nashmd_jax.stages import report
from nashmd_jax.training import checkpoints, checksums, journal, metrics
from tests import fuzz_targets, judge_client, messages_test, odd_values

MOST_TOLD = 500
Folder = pathlib.Path


class Fault(NamedTuple):
  """One thing that goes wrong.

  Attributes:
    name: what it is.
    inject: (folder) -> None, does it and then what a run does.
    says: regex that the sentence matches.
    status: of the program.
    later: whether it can only be known once training runs.
  """

  name: str
  inject: Callable[[Folder], Any]
  says: str
  status: int = 2
  later: bool = False


def outcome(fault: Fault, folder: Folder) -> tuple[str, int]:
  """The sentences, each a line, and the exit status, as main has them."""
  try:
    fault.inject(folder)
  except mistakes.Mistake as error:
    return "\n".join(map(mistakes.plain, error.sentences)), 2
  except (FloatingPointError, mistakes.Fault) as error:
    return mistakes.plain(str(error)), 1
  return "", 0


def holds(fault: Fault, folder: Folder) -> str:
  """What is wrong with what is said; empty for nothing."""
  said, status = outcome(fault, folder)
  lines = said.replace(str(folder), "").splitlines()
  if status != fault.status or not re.search(fault.says, said):
    return f"{fault.name}: status {status}, {said!r}"
  if any(len(line) > MOST_TOLD for line in lines):
    return f"{fault.name}: says more than {MOST_TOLD} characters"
  return ""


def _disk(number: int) -> Callable[[Folder], None]:
  """A disk that refuses to write."""

  def inject(folder):
    refusal = OSError(number, os.strerror(number), str(folder / "a.json"))
    with jobs.on_disk(folder), mock.patch("os.fsync", side_effect=refusal):
      files.save_json(folder / "a.json", {})

  return inject


def _vanished(folder: Folder) -> None:
  with jobs.on_disk(folder / "gone"):
    (folder / "gone" / "a.json").read_bytes()


def _denied(folder: Folder) -> None:
  (folder / "train.jsonl").write_bytes(fuzz_targets.SUMMARIES)
  refusal = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
  with mock.patch.object(files, "opened", side_effect=refusal):
    list(lines.read_objects(folder / "train.jsonl", "records"))


def _records(data: bytes, name="train.jsonl", kind="summary"):
  def inject(folder):
    (folder / name).write_bytes(data)
    for path in lines.find_files(folder, "train"):
      list(tldr.read_records(path, kind))

  return inject


def _damaged_checkpoint(damage: Callable[[Folder], Any]):
  def inject(folder):
    place = folder / checkpoints.FOLDER / "8"
    (place / "params").mkdir(parents=True)
    (place / "params" / "a").write_bytes(b"parameters" * 99)
    checksums.write(place, 0, 1)
    damage(place)
    checkpoints.make_checkpointer(folder)

  return inject


def _flip(place: Folder) -> None:
  data = bytearray((place / "params" / "a").read_bytes())
  data[7] ^= 1
  (place / "params" / "a").write_bytes(data)


def _owned(folder: Folder) -> None:
  first = owner.take(folder, lost=print, waits=print)
  try:
    owner.take(folder, lost=print, waits=print)
  finally:
    first.leave()


def _key(settings: Mapping[str, Any], facts: Mapping[str, Any] | None = None):
  """Keys of a run whose settings or files were edited since."""

  def inject(folder):
    before = workdir.make_key({"seed": 0, "lr": 0.1}, {"records": "a"}, {})
    workdir.begin(folder, "sft", before)
    after = {"seed": 0, "lr": 0.1} | dict(settings)
    now = workdir.make_key(after, facts or {"records": "a"}, {})
    workdir.check_keys(folder, {"sft": now})

  return inject


def _written(name: str, data: bytes, read: Callable[[Folder], Any]):
  """A file of the user's, or of the workdir's, that is damaged."""

  def inject(folder):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    read(folder)

  return inject


def _config(**changes: Any):
  """A config with settings that cannot be."""

  def inject(folder):
    del folder
    config = odd_values.load("docstrings:tiny").unlock()
    for name, value in changes.items():
      config.update_from_flattened_dict({name.replace("__", "."): value})
    pipeline.check(main.pipeline_of(config, main.CHECK), config)

  return inject


def _not_empty(folder: Folder) -> None:
  (folder / "notes.txt").write_text("precious")
  workdir.claim(folder, {})


def _under_a_file(folder: Folder) -> None:
  (folder / "file").write_text("")
  workdir.claim(folder / "file" / "run", {})


def _dead_server(folder: Folder) -> None:
  with mock.patch.dict(os.environ, JUDGE_KEY="key"):
    judge = judge_client.make(
      "http://127.0.0.1:9/v1", folder / "answers", retries=0
    )
    judge(*judge_client.pairs(2))


def _not_finite(folder: Folder) -> None:
  saver = checkpoints.make_checkpointer(folder)
  params = {"a": jnp.array([1.0, jnp.nan])}
  state = mock.Mock(params=params, opt_state=(), followers={})
  checkpoints.save(saver, 3, state, mock.Mock())


def _load_tokenizer(folder: Folder) -> None:
  tokenizer_lib.load_tokenizer(
    folder / "tokenizer.json", eos_token="<end>", bos_token=None
  )


def _render(folder: Folder) -> None:
  template = (folder / "chat.jinja").read_text()
  made = templates.make_render(template, tokens={}, where="chat.jinja")
  made([messages_test.user("a")], True)


def _json(value: Any) -> bytes:
  return json.dumps(value).encode()


def _index(file: str) -> bytes:
  return _json({"weight_map": {"a": file}})


GOOD = fuzz_targets.SUMMARIES
PAIR = b'{"id": "1", "prompt": "p", "response_a": "a", "response_b": "b", '
LLAMA = fuzz_targets.config_json_test.LLAMA
SERVED = dict(nash__judge="served", judges__served__model="m")
# By what they are about, the headings of docs/faults.md.
AREAS: Mapping[str, tuple[Fault, ...]] = {
  "The disk": (
    Fault("disk full", _disk(errno.ENOSPC), "a.json: .*No space left", 1, True),
    Fault("over quota", _disk(errno.EDQUOT), "a.json: .*quota", 1, True),
    Fault("read-only disk", _disk(errno.EROFS), "Read-only file", 1, True),
    Fault("broken disk", _disk(errno.EIO), "Input/output error", 1, True),
    Fault("stale mount", _disk(errno.ESTALE), "Stale file handle", 1, True),
    Fault("workdir vanished", _vanished, "gone: .*it has vanished", 1, True),
  ),
  "Numbers": (
    Fault("NaN after an update", _not_finite, "update of step 3", 1, True),
  ),
  "Records and comparisons": (
    Fault("records may not be read", _denied, "line 1: .*Permission denied"),
    Fault("half a row", _records(GOOD[:-9]), "line 3: .*not JSON"),
    Fault("not UTF-8", _records(b'{"id": "\xff"}'), "line 1: not UTF-8"),
    Fault("cut archive", _records(gzip.compress(GOOD)[:-9], "train.jsonl.gz"),
          "gz, line .*ended before"),
    Fault("packed without saying", _records(gzip.compress(GOOD)), "in .gz"),
    Fault("a key twice", _records(b'{"id": "1", "id": "2"}'),
          "stands there twice"),
    Fault("deep nesting", _records(b"[" * 9999), "line 1: .*nested more than"),
    Fault("a number as text", _records(b'{"id": 7}'), "text field 'id', got 7"),
    Fault("NaN as a preference", _records(PAIR + b'"prob_a": NaN}',
                                          kind="comparison"), "prob_a between"),
    Fault("an absent part", _records(GOOD, "train-0-of-2.jsonl"), "2 parts"),
    Fault("records that are none", _config(data__records="/nowhere/at/all"),
          "/nowhere/at/all/train.jsonl: no such file"),
  ),
  "Checkpoints": (
    Fault("flipped byte", _damaged_checkpoint(_flip), "a holds other bytes"),
    Fault("cut checkpoint", _damaged_checkpoint(
      lambda place: (place / "params" / "a").write_bytes(b"para")),
      "has 4 bytes and not 990"),
    Fault("lost file", _damaged_checkpoint(
      lambda place: (place / "params" / "a").unlink()), "params/a is missing"),
    Fault("damaged checksums", _damaged_checkpoint(
      lambda place: (place / fuzz_targets.LIST).write_bytes(b"{")),
      "list of checksums is damaged"),
  ),
  "The workdir": (
    Fault("second process", _owned, "is at work here"),
    Fault("edited records", _key({}, {"records": "b"}),
          "records was 'a' and is"),
    Fault("edited settings", _key({"lr": 0.2, "seed": 1}),
          "lr was 0.1 and is now 0.2; seed was 0 and is now 1.*--allow_config"),
    Fault("edited key.json", _written("sft/key.json", b'{"settings": {}}',
          lambda folder: workdir.check_keys(folder, {"sft": fuzz_targets.KEY})),
          "key.json: lacks facts, needs, hash"),
    Fault("edited results", _written("tournament/results.json",
          b'{"policies": ["sft"], "judges": {}}',
          lambda folder: report.run(None, folder, report.NAME)),
          "results.json: lacks records, prompts, confidence"),
    Fault("edited scores", _written("judges/results.json", b'{"judges": {}}',
          judges_page.section), "results.json: lacks comparisons, prompts"),
    Fault("damaged metrics", _written("metrics.jsonl", b'{"step": 1}\n{\n{}\n',
          lambda folder: metrics.load_metrics(folder / "metrics.jsonl")),
          "metrics.jsonl, line 2: is no row"),
    Fault("damaged pieces", _written("pieces.jsonl", b'{"of": "a"}\n{\n',
          lambda folder: journal.keep(folder / "pieces.jsonl", of="a")),
          "pieces.jsonl, line 2: is damaged"),
    Fault("workdir of another's", _not_empty,
          "is not empty and holds no config"),
    Fault("workdir under a file", _under_a_file, "cannot be a workdir"),
    Fault("reused folder that is none", lambda folder: workdir.names([folder]),
          "--reuse: .* is no workdir"),
  ),
  "Models and tokenizers": (
    Fault("unknown family", _written("config.json",
          _json(LLAMA | {"model_type": "gru"}), folders.load_config),
          "model_type is 'gru'"),
    Fault("quantised model", _written("config.json",
          _json(LLAMA | {"quantization_config": {"bits": 4}}),
          folders.load_config), "not quantised"),
    Fault("absurd size", _written("config.json",
          _json(LLAMA | {"num_hidden_layers": 10**12}), folders.load_config),
          "num_hidden_layers is 1000000000000"),
    Fault("cut weights", _written(weights.WEIGHTS, fuzz_targets.ONE[:-3],
          weights.load_headers), "model.safetensors: .*bytes for what takes"),
    Fault("pointer of git-lfs", _written(weights.WEIGHTS,
          b"version https://git", weights.load_headers), "git lfs pull"),
    Fault("weights outside", _written(weights.INDEX,
          _index("../other/a.safetensors"), weights.load_headers),
          "only safetensors are read that stand beside it"),
    Fault("absent weights", _written(weights.INDEX, _index("a.safetensors"),
          weights.load_headers), "names a.safetensors, not there"),
    Fault("adapters of another kind", _written(peft.CONFIG,
          _json(fuzz_targets.ADAPTERS | {"use_dora": True}),
          peft.load_settings),
          "use_dora = True"),
    Fault("no end token", _written("tokenizer.json", fuzz_targets._tokenizer(),
          _load_tokenizer), "has no token '<end>'"),
    Fault("no tokenizer", _written("tokenizer.json", b"{}", _load_tokenizer),
          "tokenizer.json: .*lacks 'model'"),
    Fault("broken template", _written("chat.jinja", b"{% for %}", _render),
          "not a chat template"),
    Fault("template without end", _written("chat.jinja",
          b"{% for i in range(9999) %}{% for j in range(9) %}{% endfor %}"
          b"{% endfor %}", _render),
          "goes on after 50,000 steps"),
  ),
  "Settings": (
    Fault("learning rate of NaN", _config(
          sft__optimizer__learning_rate=jnp.nan),
          "sft.optimizer.learning_rate: got nan"),
    Fault("steps below 0", _config(sft__train__steps=-1),
          "sft.train.steps: got"),
    Fault("unknown judge", _config(nash__judge="me"), "nash.judge: got 'me'"),
    Fault("judge without address", _config(**SERVED), "judges.served.url: set"),
    Fault("key in an address", _config(
      **SERVED, judges__served__url="http://me:secret@here/v1"),
      "(?s)^(?!.*secret).*with a user or password"),
  ),
  "People's votes": (
    Fault("damaged votes", _written("v", b"votes" * 99,
          lambda folder: votes.open_log(folder / "v")),
          "votes cannot be kept there .*not a database"),
    Fault("a judge that did not play", _config(
          annotate__policies=("sft", "nash_md"), annotate__judge="reward"),
          "annotate.judge: got 'reward'"),
  ),
  "A served judge": (
    Fault("damaged answers", _written("a", b"answers" * 99,
          lambda folder: answer_cache.open_cache(folder / "a")),
          "answers cannot be kept there .*not a database"),
    Fault("dead judge server", _dead_server, "127.0.0.1:9", later=True),
  ),
}  # fmt: skip
FAULTS = tuple(itertools.chain.from_iterable(AREAS.values()))
