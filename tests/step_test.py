"""The step: by hand, in parts of the batch, as one program and as two."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nashmd_jax import arrays, losses
from nashmd_jax.training import followers, programs, sharding, state, step
from tests import plays, training_test

SEED = 0


def make_programs(tx, experiment=None, **changes):
  kwargs = dict(seed=SEED, updates_per_rollout=1, micro_batches=1)
  return step.make_programs(
    experiment or training_test.least_squares(), tx, **(kwargs | changes)
  )


class StepTest(parameterized.TestCase):
  def test_frozen_sets_do_not_move_and_share_no_memory(self):
    params, tx = {"w": jnp.ones(8)}, training_test.adamw()
    now = state.init_state(
      params, {"anchor": params}, tx, training_test.FOLLOWERS
    )
    take = jax.jit(make_programs(tx).step, donate_argnums=0)
    batches = training_test.make_batches()
    for _ in range(3):
      now, _ = take(now, next(batches))
    np.testing.assert_array_equal(now.frozen["anchor"]["w"], np.ones(8))
    np.testing.assert_array_equal(params["w"], np.ones(8))

  def test_several_updates_on_one_rollout_are_single_steps_on_it(self):
    def quiet(params, sets, rows, rng):
      del rng
      return training_test.loss(params, sets, rows, jax.random.key(0))

    experiment = training_test.least_squares()._replace(loss=quiet)
    tx = optax.sgd(0.1)
    batch = next(training_test.make_batches())
    three, out = make_programs(tx, experiment, updates_per_rollout=3).step(
      training_test.start(tx), batch
    )
    one = make_programs(tx, experiment).step
    now, found = training_test.start(tx), []
    for _ in range(3):
      now, metrics = one(now, batch)
      found.append(metrics)
    np.testing.assert_allclose(three.params["w"], now.params["w"], rtol=1e-6)
    summed = jax.tree.map(lambda *parts: sum(parts), *found)
    self.assertEqual(set(out), {"loss", "error", "grad_norm", "left_out"})
    for name, mean in summed.items():
      np.testing.assert_allclose(out[name], mean, rtol=1e-6)
    self.assertEqual(int(three.step), 1)
    # Followers move once a step, however many updates it makes.
    np.testing.assert_allclose(
      three.followers["ema"]["w"], 0.1 * three.params["w"], rtol=1e-5
    )

  @parameterized.product(of=["loss", "gradient"], updates=[1, 2])
  def test_an_update_that_is_not_finite_changes_nothing(self, of, updates):
    def bad(params, sets, rows, rng):
      mean, extra = training_test.loss(params, sets, rows, rng)
      if of == "loss":
        return mean._replace(total=mean.total + jnp.inf), extra
      # sqrt(0) is 0, and its slope is not finite.
      zero = jnp.sqrt(jnp.sum(params["w"] * 0))
      return mean._replace(total=mean.total + zero), extra

    tx = training_test.adamw()
    experiment = training_test.least_squares()
    batch = next(training_test.make_batches())
    one = make_programs(tx, experiment, updates_per_rollout=updates).step
    before, _ = one(training_test.start(tx), batch)
    experiment = experiment._replace(loss=bad)
    bad_one = make_programs(tx, experiment, updates_per_rollout=updates).step
    after, out = bad_one(before, batch)
    self.assertEqual(int(after.step), int(before.step) + 1)
    for a, b in zip(
      *(jax.tree.leaves(x._replace(step=0)) for x in (before, after)),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)
    left_out = out.pop("left_out")
    self.assertEqual((left_out.total, left_out.count), (updates, updates))
    self.assertEqual({float(x) for x in jax.tree.leaves(out)}, {0.0})

  def test_no_two_sets_share_memory(self):
    params = {"w": jnp.ones(8)}
    now = state.init_state(
      params,
      {"anchor": params, "judge": params},
      training_test.adamw(),
      training_test.FOLLOWERS,
    )
    sets = (params, now.params, now.followers["ema"], now.frozen)
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(sets)]
    self.assertLen(set(places), len(places))

  def test_moving_θ_leaves_the_frozen_sets_and_the_stored_past(self):
    tx = optax.sgd(0.1)
    take, now = jax.jit(make_programs(tx).step), training_test.start(tx)
    batch = next(training_test.make_batches())
    moved, _ = take(now, batch)  # no snapshot is due after step 1
    self.assertGreater(np.abs(moved.params["w"]).max(), 0)
    for a, b in (
      (moved.frozen, now.frozen),
      (moved.followers["past"], now.followers["past"]),
    ):
      jax.tree.map(np.testing.assert_array_equal, a, b)
    shifted = jax.tree.map(lambda x: x + 1, now.followers)
    other, _ = take(now._replace(followers=shifted), batch)
    np.testing.assert_array_equal(other.params["w"], moved.params["w"])

  def test_moving_average_by_hand(self):
    tx = optax.sgd(1.0)
    average = {"ema": followers.moving_average(decay=0.75)}
    experiment = training_test.least_squares()._replace(followers=average)
    now = state.init_state(*experiment.init(None), tx, average)
    new, _ = make_programs(tx, experiment).step(
      now, next(training_test.make_batches())
    )
    np.testing.assert_allclose(
      new.followers["ema"]["w"], 0.25 * new.params["w"], rtol=1e-6
    )

  def test_the_gradient_is_that_of_the_mean(self):
    tx = optax.sgd(1.0)
    batch = next(training_test.make_batches())
    quiet = training_test.least_squares()._replace(
      loss=lambda params, sets, rows, rng: training_test.loss(
        params, sets, rows, jax.random.key(0)
      )
    )
    new, metrics = make_programs(tx, quiet).step(training_test.start(tx), batch)
    rows = training_test.rollout({"anchor": {"w": np.ones(8)}}, batch, None, 0)

    def value(w):
      return quiet.loss({"w": w}, {}, rows, None)[0].value

    loss, gradient = jax.value_and_grad(value)(jnp.zeros(8))
    np.testing.assert_allclose(new.params["w"], -gradient, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"].value, loss, rtol=1e-6)
    np.testing.assert_allclose(
      metrics["grad_norm"].value, np.linalg.norm(gradient), rtol=1e-6
    )

  def test_rows_must_split_evenly(self):
    mesh = training_test.devices().mesh
    with self.assertRaisesRegex(ValueError, "12 rows cannot be split evenly"):
      sharding.shard_batch({"x": np.zeros(12)}, mesh)


LAYOUTS = {
  "one": dict(),
  "mesh": dict(count=8),
  "pmap": dict(count=8, mode="pmap"),
}
ROWS = 32


def uneven(params, sets, rows, rng):
  """Least squares over a part of the rows, with its own denominator."""
  del sets, rng
  error = rows["x"] @ params["w"] - rows["y"] - rows["shift"]
  counted = rows["example_ids"] % 3 > 0
  every = jnp.ones(error.shape, bool)
  metrics = {"error": arrays.mean_over(jnp.abs(error), every)}
  return arrays.mean_over(error**2, counted), metrics


def least_squares_batches():
  batches = iter(training_test.rows().batch(ROWS).to_iter_dataset())
  return [next(batches) for _ in range(5)]


@functools.cache
def uneven_steps(micro_batches: int, layout: str):
  """Five steps of `uneven`: the parameters and the metrics of each."""
  experiment = training_test.least_squares()._replace(loss=uneven)
  return plays.run(
    experiment,
    optax.sgd(0.05),
    batches=least_squares_batches(),
    devices=plays.devices(**LAYOUTS[layout]),
    micro_batches=micro_batches,
  )


@functools.cache
def played_steps(loss: str, micro_batches: int, layout: str):
  """Five steps of play with K = 2, the judge silent on some pairs."""
  play = plays.make_play(loss=loss, samples=2)
  return plays.run(
    plays.experiment(play, silent=True),
    optax.sgd(3.0),
    batches=plays.batches(5, rows=ROWS),
    devices=plays.devices(**LAYOUTS[layout]),
    micro_batches=micro_batches,
  )


class MicroBatchTest(parameterized.TestCase):
  def check_equal(self, whole, parts):
    self.assertLess(plays.distance(whole[0].params, parts[0].params), 1e-6)
    for expected, found in zip(whole[1], parts[1], strict=True):
      self.assertEqual(set(expected), set(found))
      for name in expected:
        np.testing.assert_allclose(
          found[name].value, expected[name].value, rtol=3e-5, atol=1e-6
        )
        np.testing.assert_array_equal(found[name].count, expected[name].count)

  @parameterized.product(micro_batches=[2, 4], layout=list(LAYOUTS))
  def test_a_loss_with_its_own_denominator(self, micro_batches, layout):
    self.check_equal(
      uneven_steps(1, "one"), uneven_steps(micro_batches, layout)
    )

  @parameterized.parameters(
    ("policy_gradient", 2, "one"),
    ("policy_gradient", 4, "one"),
    ("policy_gradient", 4, "mesh"),
    ("policy_gradient", 4, "pmap"),
    ("ipo", 4, "one"),
  )
  def test_play_with_two_samples(self, loss, micro_batches, layout):
    whole = played_steps(loss, 1, "one")
    self.assertGreater(float(whole[1][0]["grad_norm"].total), 1e-2)
    self.check_equal(whole, played_steps(loss, micro_batches, layout))

  def test_parts_would_differ_if_their_means_were_averaged(self):
    experiment = training_test.least_squares()._replace(
      loss=lambda *args: as_one(uneven(*args))
    )
    wrong = plays.run(
      experiment,
      optax.sgd(0.05),
      batches=least_squares_batches(),
      devices=plays.devices(),
      micro_batches=4,
    )
    expected = uneven_steps(1, "one")[0].params
    self.assertGreater(plays.distance(expected, wrong[0].params), 1e-4)

  def test_peak_memory_of_the_update_falls(self):
    whole, parts = update_bytes((1, 4))
    self.assertLess(parts, 0.5 * whole)


def update_bytes(micro_batches) -> list[int]:
  """Temporary memory of a compiled update, for each number of parts."""

  def loss(params, sets, rows, rng):
    del sets, rng
    hidden = jnp.tanh(params["embedding"][rows["tokens"]])
    log_prob = arrays.token_log_probs(
      hidden @ params["head"], rows["tokens"], 1.0
    )
    return losses.sft_loss(log_prob=log_prob, mask=rows["tokens"] > 3)

  experiment = training_test.least_squares()._replace(loss=loss, followers={})
  tx = optax.sgd(0.1)
  rows = {
    "tokens": jnp.ones((64, 32), jnp.int32), "example_ids": jnp.arange(64)
  }  # fmt: skip
  params = {"embedding": jnp.ones((256, 8)), "head": jnp.ones((8, 256))}
  start = state.init_state(params, {}, tx, {})
  found = []
  for parts in micro_batches:
    update = make_programs(tx, experiment, micro_batches=parts).update
    program = jax.jit(update).lower(start, rows).compile()
    found.append(program.memory_analysis().temp_size_in_bytes)
  return found


def as_one(found):
  """A mean that pretends to be of one row: parts weigh alike."""
  mean, metrics = found
  return arrays.Mean(mean.value, jnp.float32(1)), metrics


def both_ways(model: str, layout: str, settings: dict) -> list:
  """State and metrics after four steps, the judge in jit and on the host."""
  settings = dict(settings)
  updates = settings.pop("updates", 1)
  play = plays.make_play(
    model=plays.MODELS[model](), updates=updates, **settings
  )
  return [
    plays.run(
      plays.experiment(play, on_host=on_host, hashed=True),
      optax.adam(0.05),
      batches=plays.batches(4, rows=8),
      devices=plays.devices(**LAYOUTS[layout]),
      updates_per_rollout=updates,
    )
    for on_host in (False, True)
  ]


class TwoProgramsTest(parameterized.TestCase):
  """A judge on the host, against the same judge inside jit."""

  @parameterized.parameters(
    ("table", "one", dict(loss="ipo")),
    ("table", "one", dict(scores="reward", samples=3)),
    ("table", "mesh", dict(samples=2)),
    ("table", "pmap", dict(samples=2)),
  )
  def test_bit_for_bit(self, model, layout, settings):
    self.check_bit_for_bit(model, layout, settings)

  @parameterized.parameters(
    ("table", dict(loss="policy_gradient_exact_kl")),
    ("t5", dict()),
    ("t5", dict(updates=2)),
  )
  @pytest.mark.slow
  def test_more_of_them(self, model, settings):
    self.check_bit_for_bit(model, "one", settings)

  def check_bit_for_bit(self, model, layout, settings):
    ends = both_ways(model, layout, settings)
    jax.tree.map(np.testing.assert_array_equal, *(now for now, _ in ends))
    # Metrics that nothing is computed from may be summed in another order.
    for one, other in zip(*(found for _, found in ends), strict=True):
      for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6)
      np.testing.assert_array_equal(one["code"], other["code"])
    # The sum of the tokens of each step tells completions apart.
    codes = [float(one["code"].total) for one in ends[0][1]]
    self.assertLen(set(codes), len(codes))

  def test_rows_are_those_of_the_other_judge_but_for_the_answers(self):
    play = plays.make_play(samples=2)
    found = []
    for on_host in (False, True):
      one = play._replace(judge=None) if on_host else play
      experiment = plays.experiment(one)
      now = plays.start(experiment, optax.sgd(0.1), plays.devices())
      compiled = programs.compile_programs(
        plays.devices(),
        functools.partial(make_programs, optax.sgd(0.1), experiment),
        now,
      )
      found.append(
        jax.device_get(compiled.rollout(now, plays.batches(1, rows=8)[0]))
      )
    inside, outside = found
    self.assertEqual(set(inside) - set(outside), {"answers", "judged"})
    self.assertLessEqual(set(outside), set(inside))
    for name in set(inside) & set(outside):
      np.testing.assert_array_equal(inside[name], outside[name])


if __name__ == "__main__":
  absltest.main()
