"""Every kind of file that is read, as a target of `fuzz`."""

from collections.abc import Callable, Mapping
import functools
import gzip
import io
import json
import lzma
import math
import pathlib
import tempfile
from typing import Any

import numpy as np
import tokenizers
import zstandard

from nashmd_jax import workdir
from nashmd_jax.data import lines, records, templates, tldr
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import (
  config_keys,
  folders,
  peft,
  safetensors,
  token_files,
  weights,
)
from nashmd_jax.judges import answer_cache, recorded
from nashmd_jax.sweeps import collect
from nashmd_jax.training import checksums, metrics
from tests import (
  config_json_test,
  fuzz,
  fuzz_own,
  fuzz_settings,
  messages_test,
  small_records,
)

Target = fuzz.Target
SPECIAL = ("<pad>", "<s>", "</s>")


def _jsonl(rows) -> bytes:
  return "".join(json.dumps(row) + "\n" for row in rows).encode()


SUMMARIES = _jsonl(
  {**small_records.record(i), "slot": [0, 3]} for i in range(3)
)
COMPARISONS = _jsonl(
  {
    "id": str(i), "prompt": "p é", "response_a": "a", "response_b": "b",
    "prob_a": 0.75, "votes": 4, "ties": 0, "weight": 1.5, "rater": "x",
  }
  for i in range(2)
)  # fmt: skip
CONVERSATIONS = _jsonl(
  {"id": str(i), "messages": [messages_test.user("a"), messages_test.bot("b")]}
  for i in range(2)
)


def _rows(kind: str, file: str):
  def read(folder):
    path = folder / file
    found = [record for _, record in tldr.read_records(path, kind)]
    if kind == "comparison":
      recorded.make_judge(found)
    return found

  def means(data: bytes, found) -> bool:
    for packing, unpack in UNPACK.items():
      data = unpack(data) if file.endswith(packing) else data
    rows = [line.removeprefix(lines.UTF8_MARK) for line in data.split(b"\n")]
    rows = [fuzz.strict(row.decode()) for row in rows if row.strip()]
    if kind == "summary" and not any("messages" in row for row in rows):
      names = (*records.TEXT_FIELDS[kind], "slot")
      rows = [{key: row[key] for key in names if key in row} for row in rows]
      return fuzz.same(rows, found)
    given = [(str(row["id"]), row.get("prob_a", 0)) for row in rows]
    return given == [(row["id"], row.get("prob_a", 0)) for row in found]

  return read, means


UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
  ".gz": gzip.decompress,
  ".xz": lzma.decompress,
  ".zst": lambda data: (
    zstandard.ZstdDecompressor()
    .stream_reader(io.BytesIO(data), read_across_frames=True)
    .read()
  ),
}


def _records(name: str, kind: str, data: bytes, file="train.jsonl") -> Target:
  read, means = _rows(kind, file)
  plain = file.endswith(".jsonl")
  return Target(name, file, data, read, means, True if plain else None)


def _config_means(data: bytes, config) -> bool:
  said = fuzz.strict(data)
  return all(
    fuzz.same(float(getattr(config, ours)), float(said[theirs]))
    for ours, theirs in config_keys.DECODER_KEYS.items()
    if said.get(theirs) is not None
  )


def _tensors(data: bytes, found) -> bool:
  size = int.from_bytes(data[:8], "little")
  header = fuzz.strict(data[8 : 8 + size])
  header.pop("__metadata__", None)
  rest = data[8 + size :]
  for name, entry in header.items():
    first, last = entry["data_offsets"]
    array = found[name]
    if [*array.shape, array.tobytes()] != [*entry["shape"], rest[first:last]]:
      return False
  total = sum(array.nbytes for array in found.values())
  return total == len(rest) and set(found) == set(header)


def _safetensors(**tensors: np.ndarray) -> bytes:
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "a.safetensors"
    shapes = {name: (x.shape, x.dtype) for name, x in tensors.items()}
    safetensors.save_file(path, shapes, tensors.__getitem__)
    return path.read_bytes()


ONE = _safetensors(a=np.arange(6, dtype=np.float32).reshape(2, 3))
TWO = _safetensors(b=np.ones(2, np.int32), c=np.zeros((0, 2), np.float64))
PARTS = {"x-1-of-2.safetensors": ONE, "x-2-of-2.safetensors": TWO}


def _write_parts(folder: pathlib.Path) -> None:
  for name, data in PARTS.items():
    (folder / name).write_bytes(data)


def _index_means(data: bytes, found) -> bool:
  where = fuzz.strict(data)["weight_map"]
  inside = {tensor.path.name for tensor in found.values()} <= set(PARTS)
  return inside and all(
    found[name].path.name == file for name, file in where.items()
  )


@functools.cache
def _tokenizer() -> bytes:
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=264,
    special_tokens=list(SPECIAL),
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(["river lamp stone"] * 3, trainer)
  return made.to_str().encode()


def _load_tokenizer(folder):
  loaded = tokenizer_lib.load_tokenizer(
    folder / "tokenizer.json", eos_token="</s>", bos_token="<s>", ends=[0]
  )
  return loaded, loaded.encode("a river"), loaded.decode([5, 6])


def _tokenizer_means(data: bytes, found) -> bool:
  plain = tokenizers.Tokenizer.from_str(json.dumps(fuzz.strict(data)))
  plain.no_truncation()
  plain.no_padding()
  plain.model.dropout = None
  loaded, ids, _ = found
  own = plain.encode("a river", add_special_tokens=False).ids
  added = {one.content for one in plain.get_added_tokens_decoder().values()}
  same = own == ids or added != set(SPECIAL)  # other names are text in a text
  return same and plain.token_to_id("</s>") == loaded.eos_id


TOKEN_SETTINGS = {
  "bos_token": "<s>",
  "eos_token": {"content": "</s>", "special": True},
  "add_bos_token": True,
  "chat_template": [
    {"name": "default", "template": messages_test.TEMPLATE},
    {"name": "tool", "template": "{{ messages[0].content }}"},
  ],
}


def _read_token_settings(folder):
  names = token_files.names(folder)
  token_files.starts_with_bos(folder)
  ends = token_files.end_ids(folder)
  found = token_files.chat_template(folder)
  if found:
    render = templates.make_render(found[0], tokens=names, where=found[1])
    render([messages_test.user("a")], True)
  return names, ends


def _names_mean(data: bytes, found) -> bool:
  said = fuzz.strict(data)
  return all(
    name in (said[key], said[key].get("content") if said[key] else None)
    if isinstance(said[key], dict)
    else name == said[key]
    for key, name in found[0].items()
  )


def _read_template(folder):
  template, where = token_files.chat_template(folder) or ("", "")
  render = templates.make_render(template, tokens={}, where=where)
  return template, render([messages_test.user("a")], True)


ADAPTERS = {
  "peft_type": "LORA", "base_model_name_or_path": "base", "r": 8,
  "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none",
  "rank_pattern": {}, "use_dora": False, "modules_to_save": None,
}  # fmt: skip
OWN = {"seed": 0, "sft.lr": 0.1, "names": ["a"]}
KEY = dict(workdir.make_key(OWN, {"records": "ab"}, {}))
METRICS = _jsonl({"step": i, "loss": 0.5 / i} for i in (1, 2, 3))
RESULTS = {
  "policies": ["sft", "nash"],
  "judges": {"raters": {"win_rate": [[0.5, 0.25], [0.75, 0.5]]}},
}


def _read_key(folder):
  workdir.check_keys(folder, {"sft": KEY})
  return True


def _read_scores(folder):
  return collect.load_scores(folder, ["sft", "tournament"])


def _write_checkpoint(folder: pathlib.Path) -> None:
  (folder / "params").mkdir(exist_ok=True)
  (folder / "params" / "a").write_bytes(b"parameters")
  (folder / "params" / "b").write_bytes(b"moments")


def _checksums() -> bytes:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _write_checkpoint(folder)
    checksums.write(folder, 0, 1)
    return (folder / LIST).read_bytes()


LIST = f"{checksums.FOLDER}/process_0-of-1.json"
ANSWERS = {
  f"{number:064x}": answer_cache.Answer(number / 7, "said", 1, 10)
  for number in range(5)
}


def _answers() -> bytes:
  with tempfile.TemporaryDirectory() as name:
    path = pathlib.Path(name) / "a.sqlite3"
    cache = answer_cache.open_cache(path)
    for key, answer in ANSWERS.items():
      cache.keep(key, answer)
    cache.close()
    return path.read_bytes()


def _read_answers(folder):
  for path in folder.glob("a.sqlite3-*"):
    path.unlink()
  cache = answer_cache.open_cache(folder / "a.sqlite3")
  try:
    cache.spent()
    return cache.look_up(ANSWERS)
  finally:
    cache.close()


def files() -> list[Target]:
  """All kinds of files."""
  packers = {".gz": gzip.compress, ".xz": lzma.compress,
             ".zst": zstandard.compress}  # fmt: skip
  packed = [
    _records(
      f"records in {end}", "summary", pack(SUMMARIES), "train.jsonl" + end
    )
    for end, pack in packers.items()
  ]
  index = {"weight_map": dict(zip("ab", PARTS, strict=True))}
  return [
    _records("records", "summary", SUMMARIES),
    _records("recorded choices", "comparison", COMPARISONS),
    _records("conversations", "summary", CONVERSATIONS),
    *packed,
    Target("config.json", "config.json",
           json.dumps(config_json_test.LLAMA).encode(), folders.load_config,
           _config_means),
    Target("safetensors", "a.safetensors", ONE,
           lambda folder: safetensors.load_file(folder / "a.safetensors"),
           _tensors, None),
    Target("header of safetensors", "header",
           ONE[8 : 8 + int.from_bytes(ONE[:8], "little")], _read_header,
           _header_means),
    Target("index", weights.INDEX, json.dumps(index).encode(),
           weights.load_headers, _index_means, beside=_write_parts),
    Target("tokenizer.json", "tokenizer.json", _tokenizer(), _load_tokenizer,
           _tokenizer_means),
    Target("tokenizer_config.json", token_files.SETTINGS,
           json.dumps(TOKEN_SETTINGS).encode(), _read_token_settings,
           _names_mean),
    Target("chat template", token_files.TEMPLATE,
           messages_test.TEMPLATE.encode(), _read_template,
           lambda data, found: found[0].encode() == data, None),
    Target("adapter_config.json", peft.CONFIG, json.dumps(ADAPTERS).encode(),
           peft.load_settings,
           lambda data, found: fuzz.same(found, fuzz.strict(data))),
    Target("key.json", "sft/key.json", json.dumps(KEY).encode(), _read_key,
           lambda data, found: _same_key(fuzz.strict(data))),
    Target("metrics.jsonl", "metrics.jsonl", METRICS,
           lambda folder: metrics.load_metrics(folder / "metrics.jsonl"),
           _metrics_mean, True),
    Target("results.json", "tournament/results.json",
           json.dumps(RESULTS).encode(), _read_scores, _scores_mean,
           beside=_write_done),
    Target("checksums of a checkpoint", LIST, _checksums(),
           checksums.find_damage, _list_means, beside=_write_checkpoint),
    Target("the judge's answers", "a.sqlite3", _answers(), _read_answers,
           lambda data, found: all(
             fuzz.same(one, ANSWERS[key]) for key, one in found.items()
           ), None),
  ]  # fmt: skip


def _read_header(folder):
  """A file of safetensors whose header is damaged, its length being right."""
  path = folder / "header"
  header = path.read_bytes() if path.is_file() else b""
  rest = ONE[8 + int.from_bytes(ONE[:8], "little") :]
  whole = folder / "whole.safetensors"
  whole.write_bytes(len(header).to_bytes(8, "little") + header + rest)
  return whole.read_bytes(), safetensors.load_file(whole)


def _header_means(data: bytes, found) -> bool:
  return _tensors(*found)


def _same_key(said: Any) -> bool:
  return all(said[part] == KEY[part] for part in (*workdir.OWN, "needs"))


def _metrics_mean(data: bytes, found) -> bool:
  rows = data.splitlines()
  last = len(rows) - len(found)
  return last in (0, 1) and fuzz.same(
    found, [fuzz.strict(row) for row in rows[: len(found)]]
  )


def _write_done(folder: pathlib.Path) -> None:
  (folder / "sft").mkdir(exist_ok=True)
  (folder / "sft" / "done.json").write_text('{"seconds": 1, "results": {}}')


def _scores_mean(data: bytes, found) -> bool:
  said = fuzz.strict(data)
  return all(
    (0 <= value <= 1 or math.isnan(value)) and name.startswith("tournament/")
    for name, value in found.items()
  ) and len(found) == len(said["judges"]) * (len(said["policies"]) - 1)


def _list_means(data: bytes, found) -> bool:
  """A list that is another than the right one is damage."""
  with_errors, right = found is not None, json.loads(_checksums())
  try:
    said = fuzz.strict(data)
  except (ValueError, RecursionError):
    return with_errors
  # One that leaves a file out is no accident.
  return with_errors or all(fuzz.same(right[name], said[name]) for name in said)


def all_targets() -> list[Target]:
  """Files, of others and of a run's own, and settings."""
  return [*files(), *fuzz_own.files(), fuzz_settings.overrides()]
