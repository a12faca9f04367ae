"""The loop: resumes bit for bit, leaves out NaN, writes what was measured.

The experiment is least squares, so that the update is known by hand; steps of
it are in step_test.
"""

import functools
import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays
from nashmd_jax.training import (
  checkpoints,
  followers,
  loop,
  metrics,
  optimizer,
  programs,
  settings,
  sharding,
  state,
  step,
  writers,
)

FOLLOWERS = {
  "ema": followers.moving_average(decay=0.9),
  "past": followers.past_policies(size=3, every=2, law="uniform"),
}
LOG = writers.Log(("tensorboard",), "project", "group", {})
KEEP = {"last": 2, "best": 0, "metric": None, "highest": False}
TARGET = np.arange(8.0, dtype=np.float32)


@functools.cache
def devices() -> sharding.Devices:
  """All devices, looked up after a process has found the others."""
  return sharding.make_devices(
    mode="jit", model=1, fsdp=False, smallest=1,
    run_dtype="float32", frozen_dtype="float32",
  )  # fmt: skip


def rows():
  def row(index):
    rng = np.random.default_rng(index)
    x = rng.normal(size=8).astype(np.float32)
    return {
      "x": x, "y": np.float32(x @ TARGET), "example_ids": np.int32(index)
    }  # fmt: skip

  return grain.MapDataset.range(100).seed(0).shuffle().repeat().map(row)


def make_batches():
  return iter(rows().batch(16).to_iter_dataset())


def loss(params, sets, rows, rng):
  del sets
  noise = 0.1 * jax.random.normal(rng, rows["y"].shape)
  error = rows["x"] @ params["w"] - rows["y"] - rows["shift"] + noise
  every = jnp.ones(error.shape, bool)
  return arrays.mean_over(error**2, every), {
    "error": arrays.mean_over(jnp.abs(error), every)
  }


def rollout(sets, batch, rng, step):
  del rng, step
  return {**batch, "shift": batch["x"] @ sets["anchor"]["w"]}


def least_squares(poison_from: float = np.inf) -> step.Experiment:
  def poisoned(params, *rest):
    mean, extra = loss(params, *rest)
    total = jnp.where(jnp.sum(params["w"]) > poison_from, jnp.nan, mean.total)
    return arrays.Mean(total, mean.count), extra

  return step.Experiment(
    init=lambda rng: ({"w": jnp.zeros(8)}, {"anchor": {"w": jnp.ones(8)}}),
    rollout=rollout,
    host=None,
    loss=poisoned,
    batches=make_batches,
    evaluate=lambda sets: {"w0": float(sets["policy"]["w"][0])},
    followers=FOLLOWERS,
  )


def start(tx):
  return state.init_state(*least_squares().init(None), tx, FOLLOWERS)


def cut_at_evaluation(number: int) -> step.Experiment:
  """Dies in the given evaluation, after training past the last checkpoint."""
  calls = []

  def evaluate(sets):
    calls.append(sets)
    if len(calls) == number:
      raise KeyboardInterrupt
    return {"w0": float(sets["policy"]["w"][0])}

  return least_squares()._replace(evaluate=evaluate)


def adamw(**changes):
  kwargs = dict(
    name="adamw", learning_rate=0.1, warmup_steps=2, decay_steps=0,
    max_grad_norm=10.0, b1=0.9, b2=0.99, weight_decay=0.0,
  )  # fmt: skip
  return optimizer.make_optimizer(**(kwargs | changes))


def train(folder, steps, experiment=None, optimizer=None, **changes):
  kwargs = dict(
    devices=devices(),
    name="test",
    seed=0,
    updates_per_rollout=1,
    micro_batches=1,
    nonfinite_steps=3,
    log_every=2,
    eval_every=4,
    save_every=4,
    save_minutes=0,
    keep=KEEP,
    log=LOG,
  )
  return loop.train(
    experiment or least_squares(),
    optimizer or adamw(),
    folder=pathlib.Path(folder),
    steps=steps,
    **(kwargs | changes),
  )


class LoopTest(parameterized.TestCase):
  def saved(self, folder):
    like = {"w": jnp.zeros(8)}
    return checkpoints.load_params(pathlib.Path(folder), like)

  def ended(self, folder):
    """All that the last checkpoint holds, and the batch that comes next."""
    now = start(adamw())
    like = {
      "params": now.params,
      **now.followers,
      "optimizer": {"step": now.step, "state": now.opt_state},
      "data": make_batches(),
    }
    with checkpoints.make_checkpointer(pathlib.Path(folder)) as checkpointer:
      held = checkpointer.orbax.load_checkpointables(checkpointer.latest, like)
    held["data"] = next(like["data"])
    self.assertEqual(int(held["optimizer"]["step"]), 12)
    return held

  def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(self):
    whole = self.create_tempdir("whole").full_path
    parts = self.create_tempdir("parts").full_path
    expected = train(whole, 12)
    with self.assertRaises(KeyboardInterrupt):
      train(parts, 12, cut_at_evaluation(2))
    self.assertEqual(train(parts, 12), expected)
    ends = [self.ended(folder) for folder in (whole, parts)]
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
      np.testing.assert_array_equal(a, b)
    first, second = (
      (pathlib.Path(folder) / "metrics.jsonl").read_bytes()
      for folder in (whole, parts)
    )
    self.assertEqual(first, second)

  def test_it_learns(self):
    folder = self.create_tempdir().full_path
    train(folder, 400)
    np.testing.assert_allclose(self.saved(folder)["w"], TARGET + 1, atol=0.2)

  def test_finished_run_trains_no_further(self):
    folder = self.create_tempdir().full_path
    self.assertEqual(train(folder, 4), train(folder, 4))

  def test_rows_behind_the_checkpoint_are_written_anew(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    train(folder, 4)
    with (folder / "metrics.jsonl").open("a") as file:
      file.write(json.dumps({"step": 6, "loss": 0.0}) + '\n{"step": 8, "lo')
    train(folder, 8)
    rows = metrics.load_metrics(folder / "metrics.jsonl")
    self.assertEqual([row["step"] for row in rows], [2, 4, 6, 8])
    self.assertNotEqual(rows[2]["loss"], 0.0)

  def test_non_finite_loss_stops_before_it_is_saved(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(
      FloatingPointError,
      r"test: loss or gradient was not finite in 3 steps in a row, .* step \d+ "
      r"on the examples \[\d+, .*\], kept for --replay=test:\d+, and the last "
      "good checkpoint is ",
    ):
      train(folder, 100, least_squares(poison_from=12.0))
    self.assertTrue(np.isfinite(self.saved(folder)["w"]).all())

  def damaged_batches(self, *bad: int):
    """Batches of which some hold what makes the loss NaN, by their number."""

    def damage(number, batch):
      return {**batch, "y": batch["y"] + np.where(number in bad, np.nan, 0)}

    def make():
      made = rows().batch(16).map_with_index(damage)
      return iter(made.to_iter_dataset())

    return least_squares()._replace(batches=make)

  def test_a_bad_batch_is_left_out_and_that_is_said(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    train(folder, 12, self.damaged_batches(4, 5, 7, 8))
    found = metrics.load_metrics(folder / "metrics.jsonl")
    self.assertEqual(
      {row["step"]: row["left_out"] for row in found if "left_out" in row},
      {6: 1.0, 8: 0.5, 10: 0.5},
    )
    bad = [row["step"] for row in found if not np.isfinite(row["loss"])]
    self.assertEqual(bad, [6])
    self.assertEqual(
      int(self.ended(folder)["optimizer"]["state"][1][0].count), 8
    )

  def test_as_many_in_a_row_as_are_allowed_stop_it(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(
      FloatingPointError, "in 3 steps in a row, .* step 8 on .* is step 4"
    ):
      train(folder, 12, self.damaged_batches(5, 6, 7))
    other = folder / "other"
    with self.assertRaisesRegex(FloatingPointError, "in 1 steps in a row"):
      train(other, 12, self.damaged_batches(5), nonfinite_steps=1)

  def test_an_update_that_ruins_the_state_is_never_saved(self):
    folder = pathlib.Path(self.create_tempdir().full_path)

    def ruin(updates, state, params=None):
      del params
      late = state > 5
      return jax.tree.map(
        lambda x: jnp.where(late, jnp.nan, x), updates
      ), state + 1

    tx = optax.chain(
      adamw(), optax.GradientTransformation(lambda _: jnp.int32(0), ruin)
    )
    with self.assertRaisesRegex(
      FloatingPointError, "step 8 left .* the last good checkpoint is step 4"
    ):
      train(folder, 12, optimizer=tx)
    self.assertTrue(np.isfinite(self.saved(folder)["w"]).all())

  @parameterized.parameters(
    (dict(save_every=5), "train.save_every: got 5, expected a multiple"),
    (dict(eval_every=0), "train.eval_every: got 0"),
    (dict(steps=-1), "train.steps: got -1"),
    (dict(log_every=0), "train.log_every: got 0"),
    (dict(micro_batches=0), "train.micro_batches: got 0"),
    (dict(nonfinite_steps=0), "train.nonfinite_steps: got 0"),
  )
  def test_settings_that_cannot_work(self, changes, message):
    kwargs = dict(
      steps=8,
      micro_batches=1,
      nonfinite_steps=3,
      log_every=2,
      eval_every=4,
      save_every=4,
      save_minutes=0,
      keep=KEEP,
    )
    settings.check_train(**kwargs)
    with self.assertRaisesRegex(ValueError, message):
      settings.check_train(**(kwargs | changes))

  def test_a_row_is_the_mean_over_steps_weighted_by_their_counts(self):
    rows = [
      {"loss": arrays.Mean(jnp.float32(total), jnp.float32(count))}
      for total, count in ((6.0, 3.0), (1.0, 1.0))
    ]
    self.assertEqual(metrics.means(rows), {"loss": 1.75})
    nothing = {"loss": arrays.Mean(jnp.float32(0), jnp.float32(0))}
    self.assertTrue(np.isnan(metrics.means([nothing])["loss"]))

  def test_a_row_is_fetched_while_the_next_step_is_taken(self):
    seen = []
    compile_step, write = programs.compile_step, metrics.MetricWriter.write

    def compiled(*args, **kwargs):
      take = compile_step(*args, **kwargs)

      def step(state, batch, following):
        seen.append(f"step {int(state.step) + 1}")
        return *take(state, batch, following), take.rows

      return programs.Step(step)

    def written(writer, step, row, samples):
      seen.append(f"row {step}")
      return write(writer, step, row, samples)

    with (
      mock.patch.object(programs, "compile_step", compiled),
      mock.patch.object(metrics.MetricWriter, "write", written),
    ):
      train(self.create_tempdir().full_path, 8)
    # Of step 4, which is saved, and of step 8 at once, of others behind the
    # next step.
    expected = [
      "step 1", "step 2", "step 3", "row 2", "step 4", "row 4",
      "step 5", "step 6", "step 7", "row 6", "step 8", "row 8",
    ]  # fmt: skip
    self.assertEqual(seen, expected)

  def test_nothing_is_compiled_anew_behind_the_first_steps(self):
    counts = []
    for steps in (8, 32):
      folder, compiled = self.create_tempdir().full_path, []

      def listen(event, seconds, compiled=compiled, **kwargs):
        del seconds, kwargs
        if "backend_compile" in event:
          compiled.append(event)

      jax.monitoring.register_event_duration_secs_listener(listen)
      jax.clear_caches()
      train(folder, steps)
      counts.append(len(compiled))
    self.assertGreater(counts[0], 0)
    self.assertEqual(counts[0], counts[1])

  def test_events_are_written(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    train(folder, 4)
    self.assertNotEmpty(list((folder / "events").glob("events.out.*")))


class CheckpointTest(parameterized.TestCase):
  def test_missing_and_misfitting(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(ValueError, "run that stage first"):
      checkpoints.load_params(folder / "absent", {})
    train(folder, 2)
    with self.assertRaisesRegex(ValueError, "does not fit the model"):
      checkpoints.load_params(folder, {"w": jnp.zeros(9)})


if __name__ == "__main__":
  absltest.main()
