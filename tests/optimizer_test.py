"""Optimizers: stacks of layers by layer, what decays, what is refused."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import models
from nashmd_jax.models import lora
from nashmd_jax.training import optimizer
from tests import decoder_test, t5_test

COMMON = {
  "learning_rate": 0.1,
  "warmup_steps": 0,
  "decay_steps": 0,
  "max_grad_norm": 1e9,
}


def steps(update, params, grads):
  """Two updates with the given gradients, twice the second time."""
  state = update.init(params)
  for scale in (1.0, 2.0):
    now = jax.tree.map(lambda grad, scale=scale: scale * grad, grads)
    updates, state = update.update(now, state, params)
    params = optax.apply_updates(params, updates)
  return params


class StackedTest(absltest.TestCase):
  def test_adafactor_sees_each_layer_by_itself(self):
    keys = jax.random.split(jax.random.key(0), 4)
    scale = jnp.array([0.01, 1.0, 100.0])[:, None, None]
    params = {
      "layers": {"up": scale * jax.random.normal(keys[0], (3, 128, 130))},
      "head": jax.random.normal(keys[1], (128, 7)),
    }
    grads = {
      "layers": {"up": jax.random.normal(keys[2], (3, 128, 130))},
      "head": jax.random.normal(keys[3], (128, 7)),
    }
    update = optimizer.make_optimizer(
      name="adafactor", decay_rate=0.8, **COMMON
    )
    got = steps(update, params, grads)
    plain = optax.adafactor(0.1, decay_rate=0.8)
    for layer in range(3):
      one = jax.tree.map(lambda x, layer=layer: x[layer], params["layers"])
      grad = jax.tree.map(lambda x, layer=layer: x[layer], grads["layers"])
      np.testing.assert_allclose(
        got["layers"]["up"][layer], steps(plain, one, grad)["up"], rtol=1e-5
      )
    np.testing.assert_allclose(
      got["head"], steps(plain, params["head"], grads["head"]), rtol=1e-5
    )


def adamw(**changes):
  kwargs = dict(name="adamw", b1=0.9, b2=0.98, weight_decay=0.5)
  return optimizer.make_optimizer(**(COMMON | kwargs | changes))


def factors(params) -> dict[str, float]:
  """By path, what two updates without a gradient multiply a leaf of ones by."""
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
  got = jax.jit(lambda ones: steps(
    adamw(), ones, jax.tree.map(jnp.zeros_like, ones)
  ))(ones)  # fmt: skip
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(got):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    self_same = np.unique(np.asarray(leaf))
    assert len(self_same) == 1, name
    found[name] = round(float(self_same[0]), 4)
  return found


DECAYED, KEPT = 0.9025, 1.0


class DecayTest(parameterized.TestCase):
  @parameterized.parameters("qwen2", "qwen3", "gemma3_text", "t5")
  def test_matrices_decay_and_no_bias_or_scale_does(self, family):
    shapes = jax.eval_shape(models_of(family).init, jax.random.key(0))
    found = factors(shapes)
    kept = {name for name, factor in found.items() if factor == KEPT}
    decayed = {name for name, factor in found.items() if factor == DECAYED}
    self.assertEqual(kept | decayed, set(found))
    last = {name.rpartition("/")[2] for name in kept}
    expected = {"scale"}
    if family == "qwen2":
      expected |= {"query_bias", "key_bias", "value_bias"}
    if family == "t5":
      expected |= {"table"}  # of relative positions
    self.assertEqual(last, expected)
    last = {name.rpartition("/")[2] for name in decayed}
    matrices = {"embedding", "query", "key", "value", "out", "gate", "up"}
    matrices |= {"down"} | ({"head"} if family != "gemma3_text" else set())
    self.assertEqual(last, matrices)

  @parameterized.parameters("qwen2", "t5")
  def test_adapters_decay(self, family):
    shapes = jax.eval_shape(models_of(family).init, jax.random.key(0))
    adapters = lora.init_lora(
      jax.random.key(0), shapes, rank=2, targets=("query", "value", "down")
    )
    self.assertEqual(set(factors(adapters).values()), {DECAYED})


def models_of(family: str):
  if family == "t5":
    return t5_test.tiny_model()
  changes = {"tied": True} if family == "gemma3_text" else {}
  return models.make_language_model(
    family=family, window=3, **decoder_test.SIZES, **changes
  )


class MistakesTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(name="sgd9"), "optimizer.name: got 'sgd9'"),
    (dict(learning_rate=0.0), "optimizer.learning_rate: got 0.0"),
    (dict(max_grad_norm=0.0), "optimizer.max_grad_norm: got 0.0"),
    (dict(warmup_steps=2, decay_steps=1), "optimizer.decay_steps: got 1"),
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


if __name__ == "__main__":
  absltest.main()
