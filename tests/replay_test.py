"""Steps that changed nothing are kept, and computed again to the same end."""

import contextlib
import io
import pathlib
import shutil

from absl.testing import absltest, parameterized
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, files, jobs, mistakes, pipeline
from nashmd_jax.training import dumps, replay, step
from tests import training_test

POISON = np.float32(1e30)  # its square is not finite


def batches(*bad: int):
  """Batches of which some make the loss infinite, by the example in place 3."""

  def damage(number, batch):
    hit = (np.arange(16) == 3) & (number in bad)
    return {**batch, "y": np.where(hit, POISON, batch["y"])}

  made = training_test.rows().batch(16).map_with_index(damage)
  return iter(made.to_iter_dataset())


def rollout(sets, batch, rng, now):
  """Also with rows that are too large to keep, and drawn."""
  made = training_test.rollout(sets, batch, rng, now)
  noise = jnp.abs(batch["x"][:, None]) + 1
  return {**made, "large": noise, "written": noise.astype(jnp.int32)}


def loss(params, sets, rows, rng):
  mean, extra = training_test.loss(params, sets, rows, rng)
  more = arrays.mean_over(rows["large"][:, 0, 0], rows["y"] == rows["y"])
  return mean._replace(total=mean.total + 0 * more.total), {
    **extra,
    "more": more,
  }


def experiment(*bad: int) -> step.Experiment:
  made = training_test.least_squares()
  return made._replace(
    batches=lambda: batches(*bad), rollout=rollout, loss=loss
  )


def train(folder, *bad, **changes):
  return training_test.train(folder, 12, experiment(*bad), **changes)


def again(folder, number, made=None, **changes):
  return replay.replay(
    made or experiment(),
    **(
      dict(
        devices=training_test.devices(),
        name="test",
        folder=folder,
        seed=0,
        step=number,
        updates_per_rollout=1,
      )
      | changes
    ),
  )


class ReplayTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(absltest.TEST_TMPDIR.value) / cls.__name__
    shutil.rmtree(cls.folder, ignore_errors=True)
    cls.folder.mkdir(parents=True)
    try:
      train(cls.folder, 5, 6, nonfinite_steps=2)
    except FloatingPointError as error:
      cls.stopped = str(error)

  def test_the_step_that_stops_a_run_is_named_and_kept(self):
    self.assertIn("step 7 on the examples [", self.stopped)
    self.assertIn("], kept for --replay=test:7, and the last", self.stopped)
    self.assertEqual(dumps.there(self.folder), [6, 7])

  def test_rows_are_those_of_the_step(self):
    dump, made = dumps.load(self.folder, 7), batches(6)
    for _ in range(7):
      batch = next(made)
    shift = batch["x"] @ np.ones(8)
    np.testing.assert_allclose(dump.rows["shift"], shift, rtol=1e-5)
    for name in ("x", "y", "example_ids"):
      np.testing.assert_array_equal(dump.rows[name], batch[name])
    self.assertEqual(dump.rows["written"].shape, (16, 1, 8))
    self.assertNotIn("large", dump.rows)
    self.assertEqual((dump.step, dump.seed), (7, 0))

  def test_it_says_which_example_it_was(self):
    ids = dumps.load(self.folder, 7).rows["example_ids"]
    lines = again(self.folder, 7)
    self.assertEqual(
      lines,
      [
        "test: step 7 on 16 examples, with the parameters of step 4",
        "  made again, being too large to keep  large, of the same responses",
        "  loss  inf",
        "  gradient of w  inf",
        "  metrics not finite  none",
        f"  examples not finite  {ids[3]}",
      ],
    )

  def test_what_is_finite_now_is_said_to_be(self):
    mended = experiment()._replace(
      loss=lambda params, sets, rows, rng: loss(
        params, sets, {**rows, "y": jnp.minimum(rows["y"], 1)}, rng
      )
    )
    lines = again(self.folder, 7, mended)
    self.assertNotIn("inf", " ".join(lines[2:4]))
    self.assertEqual(
      lines[-2:],
      [
        "  metrics not finite  none",
        "  all of it is finite now: what broke it came after step 4",
      ],
    )

  def test_rows_that_are_not_finite_are_found(self):
    x = np.zeros((6, 4), np.float32)
    x[3, 1] = np.nan
    rows = {"example_ids": np.array([7, 8, 9]), "behaviour_log_prob": x}
    self.assertEqual(
      list(replay._damage(rows)),
      ["  behaviour_log_prob not finite  1 of 24: example 8 at [1, 1]"],
    )

  def test_at_most_three_are_kept_and_the_last_is_among_them(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaises(FloatingPointError):
      train(folder, 1, 3, 5, 7, 8, nonfinite_steps=2)
    self.assertEqual(dumps.there(folder), [2, 4, 9])
    names = {one.name for one in (folder / dumps.FOLDER).iterdir()}
    self.assertLen(names, 6)

  def test_a_step_that_is_not_kept(self):
    with self.assertRaisesRegex(
      mistakes.Mistake, "step 3 is not kept in .*; kept are 6, 7"
    ):
      again(self.folder, 3)

  @parameterized.parameters(
    "cut", "flipped", "locked", "pickled", "empty", "text"
  )
  def test_a_damaged_file_ends_in_a_sentence(self, how):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / dumps.FOLDER).mkdir()
    for suffix in (".npz", ".json"):
      path = dumps.place(self.folder, 7).with_suffix(suffix)
      (folder / dumps.FOLDER / path.name).write_bytes(path.read_bytes())
    path = dumps.place(folder, 7)
    held = bytearray(path.read_bytes())
    if how == "cut":
      path.write_bytes(held[: len(held) // 2])
    elif how == "flipped":
      held[len(held) // 3] ^= 1
      path.write_bytes(held)
    elif how == "locked":
      held[held.index(b"PK\1\2") + 8] |= 1  # that there is a password
      path.write_bytes(held)
    elif how == "pickled":
      np.savez(path, example_ids=np.array([{}]))
    elif how == "empty":
      path.write_bytes(b"")
    else:
      path.with_suffix(".json").write_text("[]")
    said = "npz: cannot be read .*delete it" if how != "text" else "json: expec"
    with self.assertRaisesRegex(mistakes.Mistake, f"step-7.{said}"):
      dumps.load(folder, 7)

  def whole(self, **reads):
    """A pipeline of one stage, whose run "one" keeps steps."""
    made = pipeline.Stage(
      name="nash",
      settings={},
      check=None,
      jobs=lambda config: ["nash/one"],
      needs=lambda config, job: [],
      reads=lambda config, job: reads,
      run=None,
      replay=lambda config, workdir, job, number: [f"{job} {number}"],
    )
    return pipeline.Pipeline([made], {}, None, lambda *_: {}, "")

  def test_what_names_no_step_is_refused(self):
    for named in ("nash/one", "nash/two:3", "nash/one:x", ":", "nash/one:²"):
      with self.assertRaisesRegex(
        mistakes.Mistake, "expected a job and a step, .*: nash/one$"
      ):
        jobs.replay(self.whole(), None, self.folder, named)

  def test_it_is_replayed_with_the_settings_that_it_was_made_of(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    kept = workdir / "nash/one" / dumps.FOLDER
    shutil.copytree(self.folder / dumps.FOLDER, kept)
    key = next(iter(jobs.make_keys(self.whole(lr=1), None, {}).values()))
    files.save_json(workdir / "nash/one/key.json", key)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
      jobs.replay(self.whole(lr=1), None, workdir, "nash/one:7")
    self.assertEqual(told.getvalue(), "nash/one 7\n")
    with self.assertRaisesRegex(mistakes.Mistake, "lr was 1 and is now 2"):
      jobs.replay(self.whole(lr=2), None, workdir, "nash/one:7")
    with self.assertRaisesRegex(mistakes.Mistake, "step 8 is not kept"):
      jobs.replay(self.whole(lr=1), None, workdir, "nash/one:8")


if __name__ == "__main__":
  absltest.main()
