"""TFDS builder of summaries and comparisons that others collected.

Reads JSON lines in the schemas of `SCHEMAS`, from local or remote files,
plain or packed with xz or gzip, and describes them as our records. A schema
of the user's own is a function of one row, named module:function.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import itertools
import json
from typing import Any, NamedTuple

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from nashmd_jax import files, mistakes, outside
from nashmd_jax.data import lines, message_rows, records

Row = Mapping[str, Any]
# What stands for the fields of a comparison that a record does not have.
ABSENT = {"rater": "", "weight": records.WEIGHT, **records.COUNTS}
# The fields of a Reddit post.
POST = ("subreddit", "title", "post")
# What a row that is not of its schema raises where it is converted.
MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


# Why a row is bad: no JSON object, none of its schema, a field that cannot be.
CAUSES = ("not_json", "not_of_the_schema", "bad_field")
REFUSE, SKIP = BAD_ROWS = ("error", "skip")


class Schema(NamedTuple):
  """How others' rows become our records.

  Attributes:
    kind: of the records, a key of `records.TEXT_FIELDS`; None for a user's
      function, whose first record decides.
    convert: row -> its records; one of `MISFITS` is reported with file and
      line. A user's may return one record bare.
  """

  kind: str | None
  convert: Callable[[Row], list[records.Record] | records.Record]


def _text(row: Row, name: str) -> str:
  """A field that must be text: null or a number would be words in a prompt."""
  if not isinstance(row[name], str):
    raise TypeError(f"{name!r} is {mistakes.quote(row[name])}, expected text")
  return row[name]


def post_prompt(post: Row) -> records.Record:
  """A Reddit post as the models of Stiennon et al. (2020) read it.

  Returns: "prompt", and the post's own text in it as its "slot".
  """
  group, title, text = (_text(post, name) for name in POST)
  head = f"SUBREDDIT: r/{group}\n\nTITLE: {title}\n\nPOST: "
  return {
    "prompt": f"{head}{text}\n\nTL;DR:",
    "slot": (len(head), len(head) + len(text)),
  }


def _whole(row: Row, name: str) -> records.Record:
  """A prompt that may be shortened anywhere."""
  text = _text(row, name)
  return {"prompt": text, "slot": (0, len(text))}


def _post(row: Row) -> list[records.Record]:
  return [{"id": row["id"], **post_prompt(row), "response": row["summary"]}]


def _comparison(row: Row) -> list[records.Record]:
  """openai/summarize_from_feedback: TL;DR posts, or articles of CNN/DM."""
  info, (first, second) = row["info"], row["summaries"]
  is_post = info.get("article") is None
  return [
    {
      "id": info["id"],
      **(post_prompt(info) if is_post else _whole(info, "article")),
      "response_a": first["text"],
      "response_b": second["text"],
      "prob_a": {0: 1.0, 1: 0.0}[row["choice"]],
      "rater": row["worker"],
    }
  ]


def _scitldr(row: Row) -> list[records.Record]:
  key, summaries = _text(row, "id"), row["summaries"]
  if not isinstance(summaries, list):
    raise TypeError(f"'summaries' is {mistakes.quote(summaries)}, not a list")
  return [
    {"id": f"{key}/{i}", **_whole(row, "text"), "response": summary}
    for i, summary in enumerate(summaries)
  ]


def _votes(row: Row) -> list[records.Record]:
  """UKPConvArg1: the share of votes for the first text, a tie half a vote."""
  worth = {1: 1.0, 2: 0.0, 0: 0.5}
  votes = [worth[vote] for _, vote in row["votes"]]
  return [
    {
      "id": row["id"],
      "prompt": row["title"],
      "response_a": row["text1"],
      "response_b": row["text2"],
      "prob_a": sum(votes) / len(votes),
      "votes": len(votes),
      "ties": votes.count(0.5),
    }
  ]


def _article(text: str, summary: str):
  def convert(row: Row) -> list[records.Record]:
    return [{"id": row["id"], **_whole(row, text), "response": row[summary]}]

  return convert


def _ours(kind: str):
  """Records that have their fields already; what else a row has is no field.

  A row may have messages in place of a prompt, and of a response.
  """
  fields = [*records.TEXT_FIELDS[kind], "slot"]
  fields += [records.SHARES[kind]] if kind in records.SHARES else []
  fields += ABSENT if kind == "comparison" else []

  def convert(row: Row) -> list[records.Record]:
    record = {name: row[name] for name in fields if name in row}
    if row.get("messages") is None:
      return [record]
    answers = "response" in fields and "response" not in row
    return [record | message_rows.conversation(row["messages"], answers, row)]

  return convert


def _chosen(row: Row) -> list[records.Record]:
  """Pairs of a chosen and a rejected response, each text or messages."""
  sides = {"response_a": row["chosen"], "response_b": row["rejected"]}
  prompt, found = row.get("prompt"), {}
  if not isinstance(row["chosen"], str):
    before = [] if prompt is None or isinstance(prompt, str) else prompt
    both = [
      message_rows.conversation([*before, *side], True, {})
      for side in sides.values()
    ]
    if both[0]["prompt"] != both[1]["prompt"]:
      raise ValueError("the two responses are to different conversations")
    sides = {
      name: one["response"] for name, one in zip(sides, both, strict=True)
    }
    found = {name: both[0][name] for name in ("prompt", "messages")}
  elif isinstance(prompt, list):
    found = message_rows.conversation(prompt, False, {})
  found = {"prompt": prompt} | found | sides
  key = row.get("id", row.get("prompt_id", files.digest(found)[:16]))
  return [{"id": key, **found, "prob_a": 1.0}]


SCHEMAS = {
  "tldr_posts": Schema("summary", _post),
  "openai_comparisons": Schema("comparison", _comparison),
  "xsum": Schema("summary", _article("document", "summary")),
  "cnn_dailymail": Schema("summary", _article("article", "highlights")),
  "scitldr": Schema("summary", _scitldr),
  "ukp_votes": Schema("comparison", _votes),
  "chosen": Schema("comparison", _chosen),
  **{kind: Schema(kind, _ours(kind)) for kind in records.TEXT_FIELDS},
  "conversation": Schema("conversation", message_rows.several_turns),
}


def find_schema(name: str, *, setting: str = "data.schema") -> Schema:
  """A schema by its name.

  Args:
    name: a key of `SCHEMAS`, or module:function of the user's.
    setting: dotted name of the setting, for the error.
  Raises: Mistake for a name that is neither.
  """
  found = outside.find(name, SCHEMAS, setting=setting)
  return found if isinstance(found, Schema) else Schema(None, found)


def read_records(
  path: epath.PathLike, schema: str, **how: Any
) -> Iterator[tuple[int, records.Record]]:
  """Records of a file, each with the number of its line.

  Args:
    path: JSON lines; a name in .xz, .gz or .zst is unpacked.
    schema: a key of `SCHEMAS`, or module:function of the user's.
    **how: see `read_rows`.
  Raises: Mistake for an unknown schema, a missing file, or with file, line
    and field of the first bad row.
  """
  for number, found in read_rows(path, schema, **how):
    for record in found:
      yield number, record


def read_rows(
  path: epath.PathLike,
  schema: str,
  *,
  kind: str | None = None,
  setting: str = "data.schema",
  skip: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Sequence[records.Record]]]:
  """The records of each row of a file, maybe none; see `read_records`.

  Args:
    kind: of the records of a user's schema; None for that of the first.
    setting: dotted name of the setting that gave the schema, for errors.
    skip: called with one of `CAUSES` for a bad row, which is passed over; None
      to refuse it.
  """
  declared, convert = find_schema(schema, setting=setting)
  kind = declared or kind
  for number, line in lines.read_lines(path, f"JSON lines of {schema}"):
    where, cause = f"{path}, line {number}", "not_json"
    try:
      row = lines.parse_object(line, where)
      cause = "not_of_the_schema"
      found = _converted(convert, row, schema, where)
      cause = "bad_field"
      for record in found:
        kind = kind or records.kind_of(record)
        records.check_record(record, kind, where)
    except mistakes.Mistake:
      if skip is None:
        raise
      skip(cause)
      continue
    yield number, found


def _converted(convert, row: Row, schema: str, where: str):
  """The records of a row; what goes wrong is a Mistake that names the line."""
  try:
    found = convert(row)
  except mistakes.Mistake as mistake:
    raise mistakes.Mistake(f"{where}: {mistake}") from None
  except MISFITS as error:
    raise mistakes.Mistake(
      f"{where}: not a row of {schema} ({type(error).__name__}: "
      f"{mistakes.brief(error)})"
    ) from None
  found = [found] if isinstance(found, dict) else found
  if not (
    isinstance(found, list | tuple)
    and all(isinstance(record, dict) for record in found)
  ):
    raise mistakes.Mistake(
      f"{where}: {schema} gave {mistakes.quote(found)}, expected a record, a "
      "dict, or a list of them"
    )
  return found


class Tldr(tfds.core.GeneratorBasedBuilder):
  """Records of one schema, by split."""

  VERSION = tfds.core.Version("1.4.0")
  RELEASE_NOTES = {
    "1.0.0": "Summaries and comparisons as our records.",
    "1.1.0": "Slots; unary records; schemas of the user's own.",
    "1.2.0": "Votes, ties and weights of comparisons.",
    "1.3.0": "Text that is null, a number or not UTF-8 is refused. Rows that "
    "gave no record are counted.",
    "1.4.0": "Messages.",
  }

  def __init__(
    self,
    *,
    schema: str,
    files: Mapping[str, Sequence[str]],
    bad_rows: str = REFUSE,
    **kwargs,
  ):
    """Describes the data; nothing is read before `download_and_prepare`.

    Of a user's schema the first record is, to know the kind.

    Args:
      schema: a key of `SCHEMAS`, or module:function of the user's.
      files: local or remote paths by split.
      bad_rows: one of `BAD_ROWS`; those that are skipped are counted.
      **kwargs: of the TFDS builder, such as data_dir.
    Raises: Mistake for an unknown schema, or a first row that is bad.
    """
    declared = find_schema(schema).kind
    self._schema, self._files, self._bad_rows = schema, files, bad_rows
    self._kind = declared or self._first_kind()
    name = schema if declared else f"{schema.replace(':', '.')}.{self._kind}"
    config = tfds.core.BuilderConfig(name=name, version=self.VERSION)
    super().__init__(config=config, **kwargs)

  def _first_kind(self) -> str:
    for path in itertools.chain(*self._files.values()):
      for _, record in read_records(path, self._schema, skip=self._skip({})):
        return records.kind_of(record)
    raise mistakes.Mistake(f"{self._schema}: gave no record")

  def _skip(self, counts: dict[str, int]) -> Callable[[str], None] | None:
    """What counts bad rows by their cause; None where they are refused."""
    if self._bad_rows == REFUSE:
      return None
    return lambda cause: counts.update({cause: counts.get(cause, 0) + 1})

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      name: tfds.features.Text() for name in records.TEXT_FIELDS[self._kind]
    }
    features["messages"] = tfds.features.Text()
    features["slot"] = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    if self._kind in records.SHARES:
      share = records.SHARES[self._kind]
      features[share] = tfds.features.Scalar(np.float32)
    if self._kind == "conversation":
      features["turns"] = tfds.features.Text()
    if self._kind == "comparison":
      features["rater"] = tfds.features.Text()
      features["weight"] = tfds.features.Scalar(np.float32)
      features |= {
        name: tfds.features.Scalar(np.int32) for name in records.COUNTS
      }
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    digest, left_out = hashlib.sha256(), dict.fromkeys(self._files, 0)
    skipped: dict[str, dict[str, int]] = {split: {} for split in self._files}
    for split in sorted(self._files):
      for path in self._files[split]:
        how = {"kind": self._kind, "skip": self._skip(skipped[split])}
        for number, found in read_rows(path, self._schema, **how):
          left_out[split] += not found
          for record in found:
            digest.update(f"{split} {number} {record}\n".encode())
    self.info.metadata["content_hash"] = digest.hexdigest()
    self.info.metadata["left_out"] = left_out
    self.info.metadata["skipped"] = skipped
    return {split: self._generate_examples(split) for split in self._files}

  def _generate_examples(self, split: str):
    names = set(self.info.features)
    for i, path in enumerate(self._files[split]):
      how = {"kind": self._kind, "skip": self._skip({})}
      found = read_records(path, self._schema, **how)
      for row, (_, record) in enumerate(found):
        slot = records.slot_of(record) or (0, 0)
        told = {
          name: json.dumps(record.get(name), ensure_ascii=False)
          for name in ("messages", "turns")
        }
        record = ABSENT | record | {"slot": slot, **told}
        yield f"{i}/{row}", {name: record[name] for name in names}
