"""Optimizers on stacks of layers against the same layers one by one."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax.training import optimizer

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

  def test_weights_decay_but_scales_of_norms_do_not(self):
    params = {
      "decoder": {
        "up": jnp.ones((2, 3, 4)),
        "norm": {"scale": jnp.ones((2, 3))},
      },
      "head": jnp.ones((3, 5)),
      "final_norm": {"scale": jnp.ones((3,))},
    }
    update = optimizer.make_optimizer(
      name="adamw", b1=0.9, b2=0.98, weight_decay=0.5, **COMMON
    )
    got = steps(update, params, jax.tree.map(jnp.zeros_like, params))
    for name, leaf in (
      ("decays", got["decoder"]["up"]),
      ("decays", got["head"]),
      ("stays", got["decoder"]["norm"]["scale"]),
      ("stays", got["final_norm"]["scale"]),
    ):
      expected = 0.95**2 if name == "decays" else 1.0
      np.testing.assert_allclose(leaf, expected, rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
