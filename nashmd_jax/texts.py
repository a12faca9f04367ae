"""The texts of a run: its records and comparisons, whoever wrote them.

Records of every origin are prepared once, by TFDS, in `workdir/data`, in a
folder named after what the files hold: other files are other data.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import hashlib
import io
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath
import ml_collections
import tensorflow_datasets as tfds

from nashmd_jax import declare, files, mistakes, outside
from nashmd_jax.data import (
  card,
  docstrings,
  lines,
  parameters,
  records,
  sources,
  tldr,
)
from nashmd_jax.training import distributed

SPLITS = ("train", "validation", "test")
JUDGED = ("train", "validation")
SUMMARISED = ("summary", "unary", "conversation")
COMPARED = ("comparison",)
TARGETS = {
  "summary": docstrings.find_records,
  "parameter": parameters.find_records,
}
SETTINGS = {
  "records": declare.text(
    "Folder of train.jsonl, validation.jsonl and test.jsonl, here or gs://; "
    "None: docstrings of the code found on this machine.",
    optional=True,
  ),
  "schema": declare.text(
    f"Schema of the records: one of {', '.join(tldr.SCHEMAS)}, or your own as "
    "module:function."
  ),
  "comparisons": declare.text(
    "Folder of train.jsonl and validation.jsonl of comparisons; None: "
    "simulated raters compare what the policy writes.",
    optional=True,
  ),
  "comparisons_schema": declare.text(
    "Schema of the comparisons, one as of the records."
  ),
  "bad_rows": declare.text(
    "What becomes of a row of your files that is no JSON, not of its schema or "
    "has a field that cannot be: error refuses it, by file and line; skip "
    "passes over it, and the data card counts such rows by cause.",
    one_of=tldr.BAD_ROWS,
  ),
  "packages": declare.several(
    declare.text(
      "Packages whose docstrings are taken; all that are found if none is "
      "named."
    )
  ),
  "target": declare.text(
    "What is to be written about the code found on this machine: summary, of a "
    "definition by its body, or parameter, what one is, in a few words.",
    one_of=tuple(TARGETS),
  ),
}
Splits = dict[str, list[records.Record]]
Builder = tfds.core.GeneratorBasedBuilder


class Own(NamedTuple):
  """Records that the user brings.

  Attributes:
    place: dotted name of the setting that names the folder.
    folder: of their files.
    schema: of the files.
    setting: dotted name of the setting that names the schema.
    kinds: that the records may be of.
    splits: that must be there.
    bad_rows: what becomes of bad rows, one of `tldr.BAD_ROWS`.
  """

  place: str
  folder: str
  schema: str
  setting: str
  kinds: tuple[str, ...]
  splits: tuple[str, ...]
  bad_rows: str


def check(config: ml_collections.ConfigDict) -> None:
  """Reads the user's own files through, if the config names any.

  Raises: Mistake with a sentence for each schema or file that is bad; of a
    file it names the first bad row.
  """
  findings = mistakes.Findings()
  for own in _own(config.data):
    with findings.collect():
      _check_own(own, findings)
  findings.tell()


def check_whose(data: ml_collections.ConfigDict) -> None:
  """Raises Mistake for comparisons of other texts than the records'."""
  if data.comparisons is not None and data.records is None:
    raise mistakes.Mistake(
      f"data.comparisons: got {mistakes.quote(data.comparisons)} without "
      "data.records, so that judges would learn from your texts and policies "
      "write about Python code; give the records too"
    )


def load_summaries(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Splits:
  """Records of all `SPLITS`: the user's, or docstrings found here.

  Returns: summary or unary records by split, or conversations.
  """
  if config.data.records is None:
    packages, target = tuple(config.data.packages), config.data.target
    return _prepared(
      docstrings.Docstrings,
      roots=sources.source_roots(),
      packages=packages,
      find=TARGETS[target],
      data_dir=workdir / "data" / files.digest((target, packages))[:12],
    )
  own, _ = _own_of(config.data)
  return _prepared_own(own, workdir)


def load_comparisons(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Splits | None:
  """The user's comparison records of the splits `JUDGED`; None without any."""
  if config.data.comparisons is None:
    return None
  _, own = _own_of(config.data)
  return _prepared_own(own, workdir)


class LeftOut(NamedTuple):
  """Rows of files that are in no record, by split.

  Attributes:
    none: rows that gave no record.
    skipped: bad ones that were passed over, by cause.
  """

  none: Mapping[str, int] = {}
  skipped: Mapping[str, Mapping[str, int]] = {}


def count_left_out(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[LeftOut, LeftOut]:
  """What is left out of the user's files.

  Returns: of the records, of the comparisons; nothing for files that are not
    the user's. Both have been loaded before.
  """
  of_records, of_comparisons = (
    LeftOut()
    if own.folder is None
    else _left_out(tldr.Tldr(**_own_files(own, workdir)).info.metadata)
    for own in _own_of(config.data)
  )
  return of_records, of_comparisons


def _left_out(metadata: Mapping[str, Any]) -> LeftOut:
  return LeftOut(metadata["left_out"], metadata["skipped"])


def save_card(
  workdir: pathlib.Path,
  splits: Mapping[str, Sequence[records.Record]],
  encode: Callable[[records.Record], card.Example],
  *,
  left_out: LeftOut,
  name: str = "card",
  title: str = "data",
) -> dict[str, card.Card]:
  """Writes `workdir/data/NAME.json`, and a line for a split that is amiss.

  Args:
    workdir: of the run.
    splits: records of any kind by split.
    encode: record -> token ids; see `batches.encode_record`.
    left_out: see `count_left_out`.
    name: of the file.
    title: what the lines begin with.
  Returns: the card, see `card.describe`.
  """

  def work():
    found = card.describe(splits, encode, *left_out)
    files.save_json(workdir / "data" / f"{name}.json", found)
    for told in card.lines(found):
      print(f"{title}: {told}")
    return found

  return distributed.on_first(work)


def facts(splits: Splits, comparisons: Splits | None) -> dict[str, str]:
  """Hashes of what a run learns from, by name: what it says, not where it is.

  Args:
    splits: summary records.
    comparisons: the user's; None without any.
  """
  return {
    "records": files.digest(splits),
    "comparisons": files.digest(comparisons),
  }


def _own(data) -> list[Own]:
  """The user's records and comparisons, as far as there are any."""
  return [one for one in _own_of(data) if one.folder is not None]


def _own_of(data) -> tuple[Own, Own]:
  """Records and comparisons, whose folders may be None."""
  return (
    Own(
      "data.records",
      data.records,
      data.schema,
      "data.schema",
      SUMMARISED,
      SPLITS,
      data.bad_rows,
    ),
    Own(
      "data.comparisons",
      data.comparisons,
      data.comparisons_schema,
      "data.comparisons_schema",
      COMPARED,
      JUDGED,
      data.bad_rows,
    ),
  )


def _check_own(own: Own, findings: mistakes.Findings) -> None:
  """Collects what is wrong with the files; raises what concerns them all."""
  kind = tldr.find_schema(own.schema, setting=own.setting).kind
  if kind is not None and kind not in own.kinds:
    fitting = [name for name, s in tldr.SCHEMAS.items() if s.kind in own.kinds]
    raise mistakes.Mistake(
      f"{own.setting}: got the schema {mistakes.quote(own.schema)} for a "
      f"{' or a '.join(own.kinds)}, expected one of {sorted(fitting)}, or your "
      "own as module:function"
    )
  for paths in _files(own).values():
    counts = []
    for path in paths:
      with findings.collect():
        counts.append(None)
        kind, counts[-1] = _check_file(own, path, kind)
    if not any(count is None or count for count in counts):
      findings.sentences.append(
        f"{paths[0]}: no records in it; expected {own.schema}"
      )


def _check_file(own: Own, path, kind: str | None) -> tuple[str | None, int]:
  """The kind of the records in a file and their number."""
  skip = None if own.bad_rows == tldr.REFUSE else lambda cause: None
  rows = tldr.read_records(
    path, own.schema, kind=kind, setting=own.setting, skip=skip
  )
  count = 0
  for number, record in rows:
    kind = kind or records.kind_of(record)
    if kind not in own.kinds:
      raise mistakes.Mistake(
        f"{path}, line {number}: {own.schema} gave a {kind}, expected a "
        f"{' or a '.join(own.kinds)} ({own.setting})"
      )
    count += 1
  return kind, count


def _files(own: Own) -> dict[str, list[epath.Path]]:
  """The files of each split, of which every one must be there."""
  findings, found = mistakes.Findings(), {}
  for split in own.splits:
    with findings.collect():
      found[split] = lines.find_files(own.folder, split)
  findings.tell()
  absent = [f"{split}.jsonl" for split, paths in found.items() if not paths]
  if absent:
    others = f", nor {' or '.join(absent[1:])}" if absent[1:] else ""
    path = mistakes.bounded(f"{own.folder}/{absent[0]}", mistakes.LONGEST_PATH)
    raise mistakes.Mistake(
      f"{path}: no such file{others}; expected JSON lines of {own.schema} "
      f"({own.place})"
    )
  return found


def _prepared_own(own: Own, workdir: pathlib.Path) -> Splits:
  return _prepared(tldr.Tldr, **_own_files(own, workdir))


def _own_files(own: Own, workdir: pathlib.Path) -> dict[str, Any]:
  """What makes the builder of the user's files."""
  found = _files(own)
  source = outside.source_hash(own.schema) or ""
  policy = "" if own.bad_rows == tldr.REFUSE else own.bad_rows
  digest = hashlib.sha256(f"{own.schema}{source}{policy}".encode())
  for split, paths in found.items():
    for path in paths:
      name = f"{split} {path.name}\n".encode()
      digest.update(name + files.read_bytes(path))
  paths = {
    split: [str(path) for path in there] for split, there in found.items()
  }
  return {
    "schema": own.schema,
    "files": paths,
    "bad_rows": own.bad_rows,
    "data_dir": workdir / "data" / digest.hexdigest()[:12],
  }


def _prepared(make: Callable[..., Builder], **kwargs) -> Splits:
  """The records of a builder, which prepares them if they are not there.

  A builder learns of prepared data when it is made, hence one for each.
  """
  distributed.on_first(lambda: _prepare(make(**kwargs)))
  return {
    name: [_plain(row) for row in source]
    for name, source in make(**kwargs).as_data_source().items()
  }


def _plain(row: records.Record) -> records.Record:
  """A record as it was before TFDS: text, and a slot only if it has one."""
  record = {
    key: value.decode() if isinstance(value, bytes) else value
    for key, value in row.items()
  }
  record["slot"] = records.slot_of(row)
  for name in ("messages", "turns"):
    record[name] = json.loads(record.get(name, "null"))
  return {
    key: value
    for key, value in record.items()
    if key not in (*records.PROMPT, "turns") or value is not None
  }


def _prepare(builder: Builder) -> None:
  if pathlib.Path(builder.data_dir).exists():
    return
  # The builder speaks of a download; there is none.
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(file_format="array_record")
  counts = {
    name: split.num_examples for name, split in builder.info.splits.items()
  }
  print(
    f"data: {builder.info.full_name} {counts}, content hash "
    f"{builder.info.metadata['content_hash'][:12]}"
  )
  left_out = builder.info.metadata.get("left_out_of_all")
  if left_out:
    told = ", ".join(f"{n:,} {why}" for why, n in sorted(left_out.items()))
    print(f"data: left out of what was found: {told}")
