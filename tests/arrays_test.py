"""Hand values of checks and masked reductions."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays


class ArraysTest(parameterized.TestCase):
  def test_shape_message_names_array_and_sizes(self):
    with self.assertRaisesRegex(
      ValueError, r"tokens: expected \[B, T\] with \{'B': 4, 'T': 7\}, got"
    ):
      arrays.check_shapes(
        mask=(jnp.ones((4, 7)), "B T"), tokens=(jnp.ones((4, 8)), "B T")
      )

  def test_shape_check_rejects_rank(self):
    with self.assertRaisesRegex(ValueError, "x: expected"):
      arrays.check_shapes(x=(jnp.ones((4,)), "B T"))

  def test_shapes_come_back(self):
    sizes = arrays.check_shapes(x=(jnp.ones((4, 2)), "B T"))
    self.assertEqual(sizes, {"B": 4, "T": 2})

  def test_mean_over_counts_what_the_mask_keeps(self):
    values = jnp.array([1.0, jnp.nan, 5.0])
    mean = arrays.mean_over(values, jnp.array([True, False, True]))
    self.assertEqual((float(mean.total), float(mean.count)), (6.0, 2.0))
    self.assertEqual(float(mean.value), 3.0)

  def test_the_mean_of_nothing_is_zero_and_has_no_gradient(self):
    def value(x):
      return arrays.mean_over(x, jnp.zeros(2, bool)).value

    found, grad = jax.value_and_grad(value)(jnp.array([jnp.inf, 1.0]))
    self.assertEqual(float(found), 0.0)
    np.testing.assert_array_equal(grad, [0.0, 0.0])

  def test_means_of_parts_add_up_where_their_mean_would_be_wrong(self):
    values, mask = jnp.arange(4.0), jnp.array([True, True, True, False])
    parts = [
      arrays.mean_over(values[i], mask[i]) for i in (slice(1), slice(1, 4))
    ]
    summed = jax.tree.map(jnp.add, *parts)
    self.assertEqual(float(summed.value), 1.0)
    self.assertNotEqual(float(parts[0].value + parts[1].value) / 2, 1.0)

  def test_masked_sum_ignores_non_finite(self):
    values = jnp.array([[1.0, jnp.nan, 2.0], [jnp.inf, 1.0, 1.0]])
    mask = jnp.array([[True, False, True], [False, True, False]])
    np.testing.assert_allclose(arrays.masked_sum(values, mask), [3.0, 1.0])

  def test_masked_sum_gradient_is_zero_where_masked(self):
    mask = jnp.array([True, False])
    grad = jax.grad(lambda x: arrays.masked_sum(x, mask))(jnp.ones(2))
    np.testing.assert_array_equal(grad, [1.0, 0.0])

  def test_sum_to_go(self):
    values = jnp.array([[1.0, 2.0, 4.0, 8.0]])
    mask = jnp.array([[True, True, True, False]])
    np.testing.assert_allclose(
      arrays.sum_to_go(values, mask), [[7.0, 6.0, 4.0, 0.0]]
    )

  def test_token_log_probs_at_temperature(self):
    # softmax([0, 2 log 3] / 2) = softmax([0, log 3]) = [1/4, 3/4].
    logits = jnp.array([[0.0, 2 * np.log(3.0)]] * 2)
    tokens = jnp.array([0, 1])
    np.testing.assert_allclose(
      arrays.token_log_probs(logits, tokens, 2.0),
      np.log([0.25, 0.75]),
      rtol=1e-6,
    )

  def test_token_log_probs_of_low_precision_logits_are_float32(self):
    logits = jnp.zeros((2, 3), jnp.bfloat16)
    got = arrays.token_log_probs(logits, jnp.array([0, 1]), 1.0)
    self.assertEqual(got.dtype, jnp.float32)

  def test_left_justify(self):
    tokens, mask = arrays.left_justify(
      jnp.array([[5, 6, 7, 8], [1, 2, 3, 4]]),
      jnp.array([[False, True, False, True], [True, False, False, True]]),
    )
    np.testing.assert_array_equal(tokens, [[6, 8, 0, 0], [1, 4, 0, 0]])
    np.testing.assert_array_equal(mask[:, :3], [[1, 1, 0], [1, 1, 0]])


if __name__ == "__main__":
  absltest.main()
