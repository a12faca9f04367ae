"""Rows of metrics and events: what is whole is read, what fails is told."""

import contextlib
import io
import pathlib
import struct
import time
from unittest import mock

from absl.testing import absltest, parameterized
import tensorboardX
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from figures import endure_ends
from nashmd_jax import mistakes
from nashmd_jax.training import events, metrics, telling


def read_events(path: pathlib.Path) -> list[event_pb2.Event]:
  """The events of a file, as far as they are whole."""
  data, found, at = path.read_bytes(), [], 0
  while at + 12 <= len(data):
    (size,) = struct.unpack_from("Q", data, at)
    text = data[at + 12 : at + 12 + size]
    found.append(event_pb2.Event.FromString(text))
    at += 16 + size
  return found


def shown(folder: pathlib.Path) -> dict[int, float]:
  """The steps of a curve as TensorBoard shows them, file after file."""
  curve = {}
  for path in sorted(folder.iterdir()):
    for event in read_events(path):
      if event.session_log.status == event_pb2.SessionLog.START:
        curve = {k: v for k, v in curve.items() if k < event.step}
      for value in event.summary.value:
        curve[event.step] = value.simple_value
  return curve


class RowsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / "metrics.jsonl"

  def rows(self, start=0, stop=4):
    with metrics.MetricWriter(self.folder, start_step=start) as writer:
      for step in range(start + 1, stop + 1):
        writer.write(step, {"loss": step / 2})

  @parameterized.parameters(
    (b'{"loss": 1.0, "st', "Unterminated"),
    (b"", "Expecting value"),
    (b'{"step": 2, "loss": "\xff"}', "not UTF-8"),
    (b'{"loss": 1.0}', "'step'"),
    (b'{"step": "2", "loss": 1.0}', "its step is no number"),
    (b"[2]", "list indices"),
    (b"[" * 100_000, "nested"),
  )
  def test_a_damaged_row_in_the_middle_is_refused_by_line(self, line, why):
    self.rows()
    lines = self.path.read_bytes().splitlines()
    lines[1] = line
    before = b"\n".join(lines) + b"\n"
    self.path.write_bytes(before)
    for read in (
      lambda: metrics.load_metrics(self.path),
      lambda: metrics.MetricWriter(self.folder, start_step=4),
    ):
      with self.assertRaisesRegex(
        mistakes.Mistake, "metrics.jsonl, line 2: "
      ) as raised:
        read()
      self.assertIn(why, str(raised.exception))
      self.assertIn("2 more follow", str(raised.exception))
      self.assertLess(len(str(raised.exception)), 500)
    self.assertEqual(self.path.read_bytes(), before)

  def test_a_last_row_that_was_cut_is_repaired(self):
    self.rows()
    whole = self.path.read_bytes()
    for length in range(1, len(whole.splitlines()[-1]) + 1):
      self.path.write_bytes(whole[:-length])
      self.rows(start=3)
      self.assertEqual(self.path.read_bytes(), whole)

  def test_samples_of_a_run_that_was_cut_are_there_once(self):
    def write(start, stop):
      with metrics.MetricWriter(self.folder, start_step=start) as writer:
        for step in range(start + 1, stop + 1):
          texts = {"prompt": "p", "policy": f"step {step}"}
          sample = telling.Sample(texts, {"win_prob": float("nan")})
          writer.write(step, {"loss": 1.0}, [sample, sample])

    path = self.folder / metrics.SAMPLES
    write(0, 4)
    whole = path.read_bytes()
    # Samples of step 3 whose row was not written: its evaluation is repeated.
    rows = self.path.read_bytes().splitlines(keepends=True)
    self.path.write_bytes(b"".join(rows[:2]))
    with metrics.MetricWriter(self.folder, start_step=3) as writer:
      self.assertEqual(writer.last_step, 2)
    self.assertLen(metrics.load_metrics(path), 4)
    write(2, 4)
    self.assertEqual(path.read_bytes(), whole)


class EventsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_a_row_is_on_disk_when_it_is_written(self):
    writer = events.Events(self.folder, start_step=0)
    for step in (1, 2, 3):
      writer.write(step, {"loss": step / 2})
      self.assertEqual(shown(self.folder)[step], step / 2)
    writer.close()

  def test_texts_and_settings_stand_there_once_whatever_was_cut(self):
    texts = {"prompt": "a <b>\n\n# c", "policy": "d"}
    samples = [telling.Sample(texts, {"win_prob": 0.5})]
    settings = {"seed": 1, "names": ["a"], "none": None, "flag": True}
    for start, stop in ((0, 3), (0, 4), (2, 4)):
      run = telling.Run("sft", self.folder, start, "", "", settings)
      with events.to_tensorboard(run) as write:
        for step in range(start + 1, stop + 1):
          write(step, {"loss": step / 2}, samples)
    folder = self.folder / "events"
    found = endure_ends.shown(folder)
    self.assertEqual({len(values) for values in found.values()}, {1})
    said = [found["samples/text_summary", step] for step in (1, 2, 3, 4)]
    self.assertEqual(said, [said[0]] * 4)
    self.assertIn(b"    a <b>\n    \n    # c\n\n**policy**", said[0][0])
    start = b"".join(
      value.metadata.plugin_data.content
      for path in sorted(folder.iterdir())[1:]
      for event in read_events(path)
      for value in event.summary.value
      if value.tag == "_hparams_/session_start_info"
    )
    for piece in (b"seed", b"['a']", b"None", b"flag"):
      self.assertEqual(start.count(piece), 1, piece)

  def test_settings_are_written_alike_by_every_process(self):
    settings = {f"name_{number}": number for number in range(100)}
    run = telling.Run("sft", self.folder, 0, "", "", settings)
    with events.to_tensorboard(run):
      pass
    found = endure_ends.shown(self.folder / "events")
    ((content,),) = (
      said for (tag, _), said in found.items() if "start_info" in tag
    )
    parsed = plugin_hparams_pb2.HParamsPluginData.FromString(content)
    self.assertLen(parsed.session_start_info.hparams, 100)
    self.assertEqual(content, parsed.SerializeToString(deterministic=True))

  def test_a_clock_that_was_set_back_hides_nothing(self):
    now = time.time()
    for clock, start in ((now, 0), (now - 1000, 2), (now - 5000, 4)):
      with mock.patch.object(time, "time", lambda clock=clock: clock):
        written = events.Events(self.folder, start_step=start)
      for step in (start + 1, start + 2, start + 3):
        written.write(step, {"loss": start})
      written.close()
    self.assertLen(list(self.folder.iterdir()), 3)
    self.assertEqual(
      shown(self.folder), {1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4}
    )

  def test_events_that_cannot_be_written_stop_nothing(self):
    said = io.StringIO()
    full = OSError(28, "No space left on device")
    with contextlib.redirect_stdout(said):
      writer = events.Events(self.folder, start_step=0)
      writer.write(1, {"loss": 1.0})
      with mock.patch.object(
        tensorboardX.RecordWriter, "flush", side_effect=full
      ):
        for step in range(2, 40):
          writer.write(step, {"loss": 1.0})
      writer.close()
    self.assertEqual(said.getvalue().count("No space left on device"), 1)


if __name__ == "__main__":
  absltest.main()
