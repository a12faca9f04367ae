"""The loop: equal on one and many devices, resumes bit for bit, stops on NaN.

The experiment is least squares, so that the update is known by hand.
"""

import json
import pathlib

from absl.testing import absltest, parameterized
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax.training import (
  checkpoints,
  followers,
  loop,
  metrics,
  optimizer,
  sharding,
  state,
)

PAST = dict(size=3, every=2, law="uniform")
DEVICES = sharding.make_devices(
  mode="jit", model=1, fsdp=False, smallest=1,
  run_dtype="float32", frozen_dtype="float32",
)  # fmt: skip
TARGET = np.arange(8.0, dtype=np.float32)


def rows():
  def row(index):
    rng = np.random.default_rng(index)
    x = rng.normal(size=8).astype(np.float32)
    return {"x": x, "y": np.float32(x @ TARGET)}

  return grain.MapDataset.range(100).seed(0).shuffle().repeat().map(row)


def make_batches():
  return iter(rows().batch(16).to_iter_dataset())


def loss(params, batch, rng):
  noise = 0.1 * jax.random.normal(rng, batch["y"].shape)
  error = batch["x"] @ params["w"] - batch["y"] - batch["shift"] + noise
  return jnp.mean(error**2), {"error": jnp.mean(jnp.abs(error))}


def start(tx):
  experiment = least_squares()
  return state.init_state(
    *experiment.init(None), tx, loop.all_followers(experiment, 0.9)
  )


def train_step(tx, experiment=None, **changes):
  kwargs = dict(seed=0, ema_decay=0.9, updates_per_rollout=1)
  return loop.make_train_step(
    experiment or least_squares(), tx, **(kwargs | changes)
  )


def rollout(params_by_name, batch, rng, step):
  del rng, step
  return {**batch, "shift": batch["x"] @ params_by_name["anchor"]["w"]}


def least_squares(poison_from: float = np.inf) -> loop.Experiment:
  def poisoned(params, batch, rng):
    value, extra = loss(params, batch, rng)
    return jnp.where(jnp.sum(params["w"]) > poison_from, jnp.nan, value), extra

  return loop.Experiment(
    init=lambda rng: ({"w": jnp.zeros(8)}, {"anchor": {"w": jnp.ones(8)}}),
    rollout=rollout,
    loss=poisoned,
    batches=make_batches,
    evaluate=lambda sets: {"w0": float(sets["policy"]["w"][0])},
    followers={"past": followers.past_policies(**PAST)},
  )


def cut_at_evaluation(number: int) -> loop.Experiment:
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


def train(folder, steps, experiment=None, **changes):
  kwargs = dict(
    devices=DEVICES,
    name="test",
    seed=0,
    updates_per_rollout=1,
    ema_decay=0.9,
    log_every=2,
    eval_every=4,
    save_every=4,
  )
  return loop.train(
    experiment or least_squares(),
    adamw(),
    folder=pathlib.Path(folder),
    steps=steps,
    **(kwargs | changes),
  )


def ema(now):
  return now.followers["ema"]


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
    with checkpoints.make_checkpointer(
      pathlib.Path(folder), save_every=4
    ) as checkpointer:
      held = checkpointer.load_checkpointables(checkpointer.latest, like)
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
      r"test: (loss|grad_norm) is nan .* last good checkpoint is ",
    ):
      train(folder, 100, least_squares(poison_from=12.0))
    self.assertTrue(np.isfinite(self.saved(folder)["w"]).all())

  @parameterized.parameters(
    (dict(save_every=5), "sft.train.save_every: got 5, expected a multiple"),
    (dict(eval_every=0), "sft.train.eval_every: got 0"),
    (dict(steps=0), "sft.train: got steps 0"),
    (dict(ema_decay=1.0), "sft.train.ema_decay: got 1.0"),
  )
  def test_settings_that_cannot_work(self, changes, message):
    kwargs = dict(
      steps=8, ema_decay=0.9, log_every=2, eval_every=4, save_every=4
    )
    loop.check_intervals("sft", **kwargs)
    with self.assertRaisesRegex(ValueError, message):
      loop.check_intervals("sft", **(kwargs | changes))

  def test_events_are_written(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    train(folder, 4)
    self.assertNotEmpty(list((folder / "events").glob("events.out.*")))


class StepTest(parameterized.TestCase):
  def test_frozen_sets_do_not_move_and_share_no_memory(self):
    params = {"w": jnp.ones(8)}
    now = state.init_state(
      params,
      {"anchor": params},
      adamw(),
      loop.all_followers(least_squares(), 0.9),
    )
    step = jax.jit(train_step(adamw()), donate_argnums=0)
    batches = make_batches()
    for _ in range(3):
      now, _ = step(now, next(batches))
    np.testing.assert_array_equal(now.frozen["anchor"]["w"], np.ones(8))
    np.testing.assert_array_equal(params["w"], np.ones(8))

  def test_several_updates_on_one_rollout_are_single_steps_on_it(self):
    def quiet(params, batch, rng):
      del rng
      return loss(params, batch, jax.random.key(0))

    experiment = least_squares()._replace(loss=quiet)
    tx = optax.sgd(0.1)
    batch = next(make_batches())
    three, out = train_step(tx, experiment, updates_per_rollout=3)(
      start(tx), batch
    )
    one = train_step(tx, experiment)
    now, losses = start(tx), []
    for _ in range(3):
      now, metrics = one(now, batch)
      losses.append(metrics["loss"])
    np.testing.assert_allclose(three.params["w"], now.params["w"], rtol=1e-6)
    np.testing.assert_allclose(out["loss"], np.mean(losses), rtol=1e-6)
    self.assertEqual(int(three.step), 1)
    # Followers move once a step, however many updates it makes.
    np.testing.assert_allclose(
      ema(three)["w"], 0.1 * three.params["w"], rtol=1e-5
    )

  def test_no_two_sets_share_memory(self):
    params = {"w": jnp.ones(8)}
    now = state.init_state(
      params,
      {"anchor": params, "judge": params},
      adamw(),
      loop.all_followers(least_squares(), 0.9),
    )
    sets = (params, now.params, now.followers["ema"], now.frozen)
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(sets)]
    self.assertLen(set(places), len(places))

  def test_moving_θ_leaves_the_frozen_sets_and_the_stored_past(self):
    tx = optax.sgd(0.1)
    step, now = jax.jit(train_step(tx)), start(tx)
    batch = next(make_batches())
    moved, _ = step(now, batch)  # no snapshot is due after step 1
    self.assertGreater(np.abs(moved.params["w"]).max(), 0)
    for a, b in (
      (moved.frozen, now.frozen),
      (moved.followers["past"], now.followers["past"]),
    ):
      jax.tree.map(np.testing.assert_array_equal, a, b)
    shifted = jax.tree.map(lambda x: x + 1, now.followers)
    other, _ = step(now._replace(followers=shifted), batch)
    np.testing.assert_array_equal(other.params["w"], moved.params["w"])

  def test_moving_average_by_hand(self):
    tx = optax.sgd(1.0)
    step = train_step(tx, ema_decay=0.75)
    new, _ = step(start(tx), next(make_batches()))
    np.testing.assert_allclose(ema(new)["w"], 0.25 * new.params["w"], rtol=1e-6)

  def test_rows_must_split_evenly(self):
    with self.assertRaisesRegex(ValueError, "12 rows cannot be split evenly"):
      sharding.shard_batch({"x": np.zeros(12)}, DEVICES.mesh)


class OptimizerTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(name="sgd9"), "optimizer.name: got 'sgd9'"),
    (dict(learning_rate=0.0), "optimizer.learning_rate: got 0.0"),
    (dict(decay_steps=1), "optimizer.decay_steps: got 1"),
    (dict(decay_rate=0.8), "optimizer: .*'decay_rate'"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      adamw(**changes)

  def test_adafactor_trains(self):
    tx = optimizer.make_optimizer(
      name="adafactor", learning_rate=0.1, warmup_steps=0, decay_steps=0,
      max_grad_norm=1.0, decay_rate=0.8,
    )  # fmt: skip
    params = {"w": jnp.ones(3)}
    updates, _ = tx.update({"w": jnp.ones(3)}, tx.init(params), params)
    self.assertTrue((np.asarray(updates["w"]) < 0).all())


class CheckpointTest(parameterized.TestCase):
  def test_missing_and_misfitting(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(ValueError, "run that stage first"):
      checkpoints.load_params(folder / "absent", {})
    train(folder, 2)
    with self.assertRaisesRegex(ValueError, "do not fit the model"):
      checkpoints.load_params(folder, {"w": jnp.zeros(9)})


if __name__ == "__main__":
  absltest.main()
