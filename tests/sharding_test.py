"""Where leaves lie, and that it changes no number.

Steps of `sft` and `nash` on 1, 2 and 8 devices, under jit with every split and
under pmap, against one device.
"""

import functools
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

from configs import docstrings, tldr_decoder, tldr_t5
from nashmd_jax import mistakes, models
from nashmd_jax.capacity import compiled, programs
from nashmd_jax.models import lora
from nashmd_jax.stages import text
from nashmd_jax.training import checkpoints, sharding
from tests import least_squares, plays, tiny_runs

rule = functools.partial(sharding.spec, data=2, model=4, smallest=1)


class RuleTest(parameterized.TestCase):
  @parameterized.parameters(
    # The head axis of [N, D, H, K] over 4, the longest other one over 2; the
    # axis of depth never.
    ("layers/attention/query", (8, 6, 4, 2), P(None, "data", "model")),
    ("layers/attention/out", (8, 4, 2, 6), P(None, "model", None, "data")),
    ("layers/mlp/gate", (8, 6, 12), P(None, "data", "model")),
    ("layers/mlp/down", (8, 12, 6), P(None, "model", "data")),
    ("embedding", (12, 6), P("model", "data")),
    ("head", (6, 12), P("data", "model")),
    # Two key heads cannot be split over 4.
    ("layers/attention/key", (8, 6, 2, 2), P(None, "data")),
    ("layers/attention/key_bias", (8, 4, 2), P(None, "model", "data")),
    # An odd vocabulary is not split; what remains is.
    ("embedding", (13, 6), P(None, "data")),
    ("layers/attention_norm/scale", (8, 6), P("data")),
    # Moments have the paths of their matrices, with the optimizer's in front.
    ("1/0/mu/layers/mlp/gate", (8, 6, 12), P(None, "data", "model")),
    ("1/0/v_row/layers/mlp/gate", (8, 6), P("data")),
    ("1/0/v/layers/mlp/gate", (1,), P()),
    # Slots of past policies lead, as depth does.
    ("past/snapshots/embedding", (8, 12, 6), P(None, "model", "data")),
    ("query/a", (8, 6, 4), P(None, "data")),
    ("query/b", (8, 2, 4, 2), P(None, "data", "model")),
    ("query/matrix", (8, 6, 4, 2), P(None, "data", "model")),
    ("policy/keys", (8, 6, 4, 10, 2), P(None, "data", "model")),
    ("policy/cross/0", (8, 6, 4, 10, 2), P(None, "data", "model")),
    ("policy/fed", (), P()),
  )
  def test_by_hand(self, path, shape, expected):
    self.assertEqual(rule(path.split("/"), shape), expected)

  def test_small_leaves_and_the_copy_that_runs_are_whole(self):
    names = ("layers", "mlp", "gate")
    self.assertEqual(rule(names, (8, 6, 12), smallest=577), P())
    self.assertEqual(rule(names, (8, 6, 12), data=1), P(None, None, "model"))

  @parameterized.parameters("t5", "gemma2", "qwen2")
  def test_every_matrix_of_a_family_is_split_along_both_axes(self, family):
    model = models.make_language_model(vocab_size=64, **tiny_runs.SIZES[family])
    params = jax.eval_shape(model.init, jax.random.key(0))
    adapters = lora.init_lora(
      jax.random.key(0), params, rank=4, targets=("query", "down")
    )
    moments = optax.adamw(1e-3).init(params)
    devices = tiny_runs.devices(8, model=2, fsdp=True)
    places = sharding.shardings((params, moments), devices)
    for place, leaf in zip(
      jax.tree.leaves(places), jax.tree.leaves((params, moments)), strict=True
    ):
      if leaf.ndim > 2:
        self.assertEqual({"data", "model"}, set(place.spec) - {None})
    attached = jax.eval_shape(
      functools.partial(lora.attach, alpha=1.0), params, adapters
    )
    jax.tree.map(
      lambda place, leaf: place.shard_shape(leaf.shape),
      sharding.shardings(attached, devices),
      attached,
    )

  @parameterized.parameters(
    (dict(mode="xmap"), "devices.mode: got 'xmap'"),
    (dict(frozen_dtype="float16"), "devices.frozen_dtype: got 'float16'"),
    (dict(model=0), "devices.model: got 0"),
    (dict(mode="pmap", fsdp=True), "devices.mode: pmap keeps every parameter"),
    (dict(model=3), "devices.model: got 3, expected a divisor of the 8"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      tiny_runs.devices(8, **changes)


LAYOUTS = {
  "fsdp": dict(count=8, fsdp=True),
  "fsdp on 2": dict(count=2, fsdp=True),
  "tensor": dict(count=2, model=2),
  "both": dict(count=8, model=2, fsdp=True),
  "pmap": dict(count=8, mode="pmap"),
  "parts": dict(count=2, fsdp=True, micro_batches=2),
  "pmap of parts": dict(count=2, mode="pmap", micro_batches=4),
}


class EqualityTest(parameterized.TestCase):
  @parameterized.parameters(
    ("sft", "t5", "fsdp"),
    ("nash", "gemma2", "both"),
    ("nash", "t5", "pmap of parts"),
  )
  def test_five_steps_are_those_of_one_device(self, stage, family, layout):
    self.check(stage, family, layout)

  @parameterized.parameters(
    ("sft", "t5", "pmap"),
    ("nash", "t5", "both"),
    ("nash", "t5", "pmap"),
    ("nash", "gemma2", "fsdp on 2"),
    ("nash", "gemma2", "tensor"),
    ("nash", "t5", "parts"),
  )
  @pytest.mark.slow
  def test_and_in_every_other_layout(self, stage, family, layout):
    self.check(stage, family, layout)

  def check(self, stage, family, layout):
    one = tiny_runs.five_steps(stage, family)
    many = tiny_runs.five_steps(stage, family, **LAYOUTS[layout])
    for a, b in (
      (one.params, many.params),
      (one.followers["ema"], many.followers["ema"]),
    ):
      self.assertLess(plays.distance(a, b), 1e-5)


class ByRowsTest(parameterized.TestCase):
  @parameterized.parameters("fsdp", "both", "pmap")
  def test_scores_are_those_of_one_device_and_rows_are_shared(self, layout):
    devices = tiny_runs.devices(**LAYOUTS[layout])
    made = tiny_runs.config("t5")
    scores = []

    def score(params, batch):
      jax.debug.inspect_array_sharding(batch["prompts"], callback=split.append)
      loss = tiny_runs.experiment("sft", made, task).loss
      return loss(params, {}, batch, jax.random.key(0))[0].value

    for places in (tiny_runs.devices(1), devices):
      split = []
      task = programs.stand_in_task(made, places)
      params = sharding.store(places, task.model.init, jax.random.key(0))
      run = sharding.by_rows(score, places)
      scores.append(run(params, tiny_runs.batches(1)[0]))
    np.testing.assert_allclose(*scores, rtol=1e-6)
    rows = tiny_runs.ROWS // devices.mesh.shape["data"]
    for one in split:
      shape = one.shard_shape((tiny_runs.ROWS, tiny_runs.PROMPT))
      self.assertEqual(shape, (rows, tiny_runs.PROMPT))

  @parameterized.parameters(
    (docstrings.get_config(),),
    (tldr_t5.get_config(),),
    (tldr_decoder.get_config("9b"),),
  )
  def test_our_configs_run_on_eight_devices(self, config):
    devices = sharding.make_devices(**config.devices)
    self.assertEqual(devices.mesh.size, 8)
    text.check_batches(config, devices)

  @parameterized.parameters(
    ({"nash.data.batch_size": 12}, "nash.runs.nash_md.data.batch_size: got 12"),
    ({"sft.train.micro_batches": 2}, "sft.data.batch_size: got 4 rows"),
    (
      {"comparisons.drawing.batch_size": 9},
      "comparisons.drawing.batch_size: got 9",
    ),
  )
  def test_rows_that_cannot_be_shared_are_named_at_the_start(self, given, told):
    made = docstrings.get_config("tiny").copy_and_resolve_references()
    made.update_from_flattened_dict(given)
    one, all_devices = (
      sharding.make_devices(found, **made.devices)
      for found in (jax.devices()[:1], jax.devices())
    )
    text.check_batches(made, one)
    with self.assertRaisesRegex(mistakes.Mistake, f"{told}.* expected"):
      text.check_batches(made, all_devices)


class DecodeTest(parameterized.TestCase):
  @parameterized.product(family=("t5", "gemma2"), layout=("fsdp", "both"))
  def test_the_same_completions_for_the_same_keys(self, family, layout):
    self.check(family, layout)

  @parameterized.parameters("t5", "gemma2")
  @pytest.mark.slow
  def test_and_where_only_heads_are_split(self, family):
    self.check(family, "tensor")

  def check(self, family, layout):
    one, _ = tiny_runs.roll(family)
    many, _ = tiny_runs.roll(family, **LAYOUTS[layout])
    np.testing.assert_array_equal(one.tokens, many.tokens)
    np.testing.assert_allclose(one.log_prob, many.log_prob, atol=2e-5)

  @parameterized.parameters("t5", "gemma2")
  def test_replicas_exchange_the_stop_test_and_nothing_else(self, family):
    _, found = tiny_runs.roll(family, **LAYOUTS["fsdp"])
    loop = tiny_runs.in_decode_loop(found)
    self.assertEqual(
      [(one.kind, one.size) for one in loop], [("all-reduce", 1)]
    )

  @parameterized.parameters("t5", "gemma2")
  def test_tensor_parallel_decoding_never_moves_parameters(self, family):
    _, found = tiny_runs.roll(family, **LAYOUTS["both"])
    loop = tiny_runs.in_decode_loop(found)
    self.assertNotIn("all-to-all", {one.kind for one in loop})
    # The sampler sees the whole vocabulary; nothing else is gathered.
    self.assertIn("all-gather", {one.kind for one in loop})
    places = tiny_runs.devices(**LAYOUTS["both"])
    self.assertEqual(tiny_runs.beside_the_sampler(found, places), [])

  def test_without_the_copy_every_token_costs_gathers(self):
    _, found = tiny_runs.roll("t5", placed=False, **LAYOUTS["fsdp"])
    places = tiny_runs.devices(**LAYOUTS["fsdp"])
    self.assertNotEmpty(tiny_runs.beside_the_sampler(found, places))

  def test_a_gather_of_a_parameter_is_not_the_samplers(self):
    places = tiny_runs.devices(**LAYOUTS["both"])
    task = programs.stand_in_task(tiny_runs.config("t5"), places)
    params = jax.eval_shape(task.model.init, jax.random.key(0))
    shapes = {x.shape for x in jax.tree.leaves(params)}
    shapes |= {x.shape[1:] for x in jax.tree.leaves(params["decoder"])}
    found = [
      compiled.Collective("all-gather", 1, 1, True, "", shape)
      for shape in shapes
    ]
    self.assertLen(tiny_runs.beside_the_sampler(found, places), len(shapes))


class TopologyTest(absltest.TestCase):
  def test_a_run_cut_on_eight_devices_goes_on_on_fewer(self):
    folders = {
      name: self.create_tempdir(name).full_path for name in ("1", "2", "whole")
    }
    least_squares.train(folders["whole"], 8, devices=tiny_runs.devices(1))
    many = tiny_runs.devices(8, fsdp=True)
    least_squares.train(folders["1"], 4, devices=many)
    shutil.copytree(folders["1"], folders["2"], dirs_exist_ok=True)
    for count in (1, 2):
      fewer = tiny_runs.devices(count)
      least_squares.train(folders[f"{count}"], 8, devices=fewer)
    like = {"w": jax.ShapeDtypeStruct((8,), "float32")}
    ends = {
      name: checkpoints.load_params(pathlib.Path(folder), like)["w"]
      for name, folder in folders.items()
    }
    for name in ("1", "2"):
      np.testing.assert_allclose(ends[name], ends["whole"], rtol=1e-5)


class CompileTest(parameterized.TestCase):
  def test_a_program_compiled_quickly_computes_the_same(self):
    x = np.linspace(-2, 2, 1000, dtype=np.float32)

    def made():
      return np.asarray(jax.jit(lambda x: jnp.tanh(x) * jnp.exp(x))(x))

    self.addCleanup(sharding.compile_as, "quick")  # as all other tests
    found = []
    for compile in ("full", "quick"):
      sharding.compile_as(compile)
      found.append(made())
    np.testing.assert_allclose(*found, rtol=1e-5)

  @parameterized.parameters(("quick", True), ("full", False))
  def test_jax_is_told(self, compile, least):
    with mock.patch.object(sharding.jax.config, "update") as update:
      sharding.compile_as(compile)
    update.assert_called_once_with("jax_disable_most_optimizations", least)


class DtypeTest(absltest.TestCase):
  def test_only_named_matrices_are_cast(self):
    tree = {"gate": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    cast = sharding.cast(tree, "bfloat16")
    self.assertEqual(cast["gate"].dtype, jnp.bfloat16)
    self.assertEqual(cast["scale"].dtype, jnp.float32)

  def test_gradient_comes_back_in_the_stored_dtype_and_place(self):
    devices = tiny_runs.devices(8, fsdp=True, run_dtype="bfloat16")
    tree = {"gate": jnp.arange(64.0).reshape(8, 8)}
    stored = sharding.store(devices, lambda: tree)

    def loss(stored):
      return jnp.sum(sharding.to_run(stored, devices)["gate"] ** 2)

    gradient = jax.jit(jax.grad(loss))(stored)["gate"]
    self.assertEqual(gradient.dtype, jnp.float32)
    self.assertEqual(gradient.sharding.spec, stored["gate"].sharding.spec)
    np.testing.assert_array_equal(gradient, 2 * tree["gate"])


if __name__ == "__main__":
  absltest.main()
