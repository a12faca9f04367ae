"""Rows of `make endure` on how runs end: what of two workdirs differs."""

import collections
from collections.abc import Iterator
import pathlib
import struct

import jax
from jax.sharding import SingleDeviceSharding
import numpy as np
from orbax.checkpoint import v1 as ocp
from tensorboardX.proto import event_pb2, plugin_hparams_pb2, summary_pb2

from nashmd_jax.training import metrics

ADDRESS = "judges.served.url"  # each of two runs has a server of its own
TEXTS = (
  "comparisons/*.jsonl",
  "nash/*/samples.jsonl",
  "tournament/*.json*",
  "tournament/*.csv",
  "tournament/*/*.jsonl",
)


def of_metrics(whole: pathlib.Path, cut: pathlib.Path) -> dict[str, int]:
  """How many lines there are, and how many were lost, doubled, are others."""
  found = collections.Counter(lines=0, lost=0, doubled=0, differ=0)
  for path in sorted(whole.rglob("metrics.jsonl")):
    other = cut / path.relative_to(whole)
    expected = path.read_bytes().splitlines()
    got = other.read_bytes().splitlines() if other.exists() else []
    more = collections.Counter(got) - collections.Counter(expected)
    less = collections.Counter(expected) - collections.Counter(got)
    doubled = sum(n for line, n in more.items() if line in expected)
    found.update(
      lines=len(expected), lost=less.total(), doubled=doubled,
      differ=int(expected != got),
    )  # fmt: skip
  return dict(found)


def of_texts(whole: pathlib.Path, cut: pathlib.Path) -> tuple[int, list[str]]:
  """How many files of texts and judgments there are, and those that differ."""
  names = sorted(
    path.relative_to(whole)
    for pattern in TEXTS
    for path in whole.glob(pattern)
    if path.name not in ("done.json", "key.json")
  )
  return len(names), [
    str(name) for name in names if _text(whole / name) != _text(cut / name)
  ]


def _text(path: pathlib.Path) -> list[bytes]:
  """Its lines; of pieces without the first, which knows when stages ended."""
  lines = path.read_bytes().splitlines() if path.exists() else []
  return lines[1:] if path.name == "pieces.jsonl" else lines


def of_checkpoints(
  whole: pathlib.Path, cut: pathlib.Path
) -> tuple[int, list[str]]:
  """How many arrays the last checkpoints hold, and those that differ."""
  count, differ = 0, []
  for folder in sorted(whole.rglob("checkpoints")):
    name = folder.relative_to(whole)
    expected, got = _last(folder), _last(cut / name)
    count += len(expected)
    differ += [
      f"{name}/{key}"
      for key in sorted({*expected, *got})
      if not _same(expected.get(key), got.get(key))
    ]
  return count, differ


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
  if one is None or other is None:
    return False
  same = (one.shape, one.dtype) == (other.shape, other.dtype)
  return same and one.tobytes() == other.tobytes()


def _last(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of the newest checkpoint, and the place in the data."""
  steps = [int(x.name) for x in folder.glob("*") if x.name.isdigit()]
  if not steps:
    return {}
  place = folder.absolute() / str(max(steps))
  held = {
    name: tree
    for name, tree in ocp.checkpointables_metadata(place).metadata.items()
    if (place / name / "_METADATA").exists()
  }
  one = SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), held
  )
  found = jax.tree.leaves_with_path(ocp.load_checkpointables(place, like))
  arrays = {jax.tree_util.keystr(key): np.asarray(x) for key, x in found}
  for path in sorted((place / "data").glob("*.json")):
    arrays[f"data/{path.name}"] = np.frombuffer(path.read_bytes(), np.uint8)
  return {f"{max(steps)}{key}": x for key, x in arrays.items()}


def of_events(whole: pathlib.Path, cut: pathlib.Path) -> tuple[int, int]:
  """How many points TensorBoard shows, and how many it shows otherwise."""
  count = differ = 0
  for folder in sorted(whole.rglob("events")):
    expected, got = shown(folder), shown(cut / folder.relative_to(whole))
    count += len(expected)
    differ += sum(
      expected.get(key) != got.get(key) for key in {*expected, *got}
    )
  return count, differ


def shown(folder: pathlib.Path) -> dict[tuple[str, int], list[float | bytes]]:
  """The values of each curve at each step; more than one is doubled."""
  points: dict[tuple[str, int], list[float | bytes]] = {}
  for path in sorted(folder.iterdir()) if folder.is_dir() else []:
    for event in _events(path.read_bytes()):
      if event.session_log.status == event_pb2.SessionLog.START:
        points = {key: x for key, x in points.items() if key[1] < event.step}
      for value in event.summary.value:
        if not value.tag.endswith(metrics.TIMES):
          points.setdefault((value.tag, event.step), []).append(_value(value))
  return points


def _value(value: summary_pb2.Summary.Value) -> float | bytes:
  """A scalar; of a text and of settings what they say."""
  if value.HasField("simple_value"):
    return value.simple_value
  told = value.metadata.plugin_data
  if told.plugin_name != "hparams":
    return b"".join([*value.tensor.string_val, told.content])
  settings = plugin_hparams_pb2.HParamsPluginData.FromString(told.content)
  settings.session_start_info.hparams.pop(ADDRESS, None)
  return settings.SerializeToString(deterministic=True)


def _events(data: bytes) -> Iterator[event_pb2.Event]:
  """The events of a file up to a last one that was cut short."""
  at = 0
  while at + 12 <= len(data):
    (size,) = struct.unpack_from("Q", data, at)
    if at + 16 + size > len(data):
      return
    yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
    at += 16 + size
