"""Where leaves lie, and that it changes no number.

Steps of `sft` and `nash` on 1, 2 and 8 devices, under jit with every split and
under pmap, against one device.
"""

import functools
import pathlib

from absl.testing import absltest, parameterized
import jax
from jax.sharding import PartitionSpec as P
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from nashmd_jax import models, sampling
from nashmd_jax.evaluation import compiled
from nashmd_jax.experiments import nash, sft
from nashmd_jax.models import lora
from nashmd_jax.pipelines import pod_check
from nashmd_jax.training import checkpoints, loop, optimizer, sharding
from tests import tiny_runs

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
    (dict(model=0), "devices: got model 0"),
    (dict(mode="pmap", fsdp=True), "devices.mode: pmap keeps every parameter"),
    (dict(model=3), "devices.model: got 3, expected a divisor of the 8"),
  )
  def test_mistakes(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      tiny_runs.devices(8, **changes)


LAYOUTS = {
  "jit on 2": dict(count=2),
  "jit on 8": dict(count=8),
  "fsdp": dict(count=8, fsdp=True),
  "tensor": dict(count=8, model=2),
  "both": dict(count=8, model=2, fsdp=True),
  "pmap on 2": dict(count=2, mode="pmap"),
  "pmap on 8": dict(count=8, mode="pmap"),
}


class EqualityTest(parameterized.TestCase):
  @parameterized.product(
    stage=("sft", "nash"), family=("t5", "gemma2"), layout=tuple(LAYOUTS)
  )
  def test_five_steps_are_those_of_one_device(self, stage, family, layout):
    one = tiny_runs.five_steps(stage, family)
    many = tiny_runs.five_steps(stage, family, **LAYOUTS[layout])
    self.assertLess(tiny_runs.distance(one.params, many.params), 1e-5)
    self.assertLess(
      tiny_runs.distance(one.followers["ema"], many.followers["ema"]), 1e-5
    )
