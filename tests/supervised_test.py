"""Maximum-likelihood losses against hand values."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses


class SupervisedTest(parameterized.TestCase):
  def test_sft_loss(self):
    loss, metrics = losses.sft_loss(
      log_prob=jnp.array([[-1.0, -2.0, -9.0], [-0.5, -0.25, -1.0]]),
      mask=jnp.array([[True, True, False], [True, True, True]]),
    )
    np.testing.assert_allclose(loss.value, (3.0 + 1.75) / 2)
    np.testing.assert_allclose(
      metrics["nats_per_token"].value, 4.75 / 5, rtol=1e-6
    )

  def test_a_row_that_is_masked_whole_counts_nowhere(self):
    whole = losses.sft_loss(
      log_prob=jnp.array([[-1.0, -2.0, -9.0], [-jnp.inf, jnp.nan, -1.0]]),
      mask=jnp.array([[True, True, False], [False, False, False]]),
    )
    alone = losses.sft_loss(
      log_prob=jnp.array([[-1.0, -2.0]]), mask=jnp.ones((1, 2), bool)
    )
    jax.tree.map(np.testing.assert_array_equal, whole, alone)

  def test_preference_loss(self):
    # -log σ(log 3) = log 4/3; a tie costs log 2 at logit 0.
    loss, metrics = losses.preference_loss(
      logit=jnp.array([np.log(3.0), -np.log(3.0), 0.0]),
      prob_a=jnp.array([1.0, 1.0, 0.5]),
      weight=jnp.ones(3),
      mask=jnp.ones(3, bool),
    )
    expected = (np.log(4 / 3) + np.log(4) + np.log(2)) / 3
    np.testing.assert_allclose(loss.value, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"].value, 0.5)

  def test_a_comparison_that_does_not_count_is_as_if_it_were_not_there(self):
    def run(logit, prob_a, mask):
      def value(x):
        mean, metrics = losses.preference_loss(
          logit=x,
          prob_a=jnp.array(prob_a),
          weight=jnp.where(jnp.array(mask), 0.5, jnp.nan),
          mask=jnp.array(mask),
        )
        return mean.value, (mean, metrics)

      return jax.grad(value, has_aux=True)(jnp.array(logit))

    grad, found = run(
      [0.3, np.inf, -1.0], [1.0, np.nan, 0.2], [True, False, True]
    )
    alone, expected = run([0.3, -1.0], [1.0, 0.2], [True, True])
    np.testing.assert_allclose(grad, [alone[0], 0.0, alone[1]], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, expected)

  def test_a_weight_of_two_is_the_comparison_twice(self):
    def run(logit, prob_a, weight):
      def value(x):
        return losses.preference_loss(
          logit=x,
          prob_a=jnp.array(prob_a),
          weight=jnp.array(weight),
          mask=jnp.ones(len(weight), bool),
        )[0].value

      return jax.value_and_grad(value)(jnp.array(logit))

    twice, slope = run([0.3, 0.3, -1.0], [1.0, 1.0, 0.2], [1.0, 1.0, 1.0])
    # Weights far below one are as good: they are divided by their sum.
    loss, found = run([0.3, -1.0], [1.0, 0.2], [0.02, 0.01])
    np.testing.assert_allclose(loss, twice, rtol=1e-6)
    np.testing.assert_allclose(found, [2 * slope[0], slope[2]], rtol=1e-6)

  @parameterized.parameters(
    ("soft", "half", 0.0, [0.9, 0.5, 0.2], [1.0, 2.0, 3.0]),
    ("hard", "half", 0.0, [1.0, 0.5, 0.0], [1.0, 2.0, 3.0]),
    ("soft", "skip", 0.0, [0.9, 0.5, 0.2], [1.0, 0.0, 3.0]),
    ("hard", "skip", 0.2, [0.9, 0.5, 0.1], [1.0, 0.0, 3.0]),
    ("soft", "half", 0.5, [0.7, 0.5, 0.35], [1.0, 2.0, 3.0]),
  )
  def test_targets(self, kind, ties, smoothing, targets, weights):
    found = losses.comparison_targets(
      jnp.array([0.9, 0.5, 0.2]),
      jnp.array([1.0, 2.0, 3.0]),
      kind=kind,
      ties=ties,
      smoothing=smoothing,
    )
    np.testing.assert_allclose(found[0], targets, rtol=1e-6)
    np.testing.assert_allclose(found[1], weights, rtol=1e-6)

  def test_bradley_terry_is_invariant_to_a_constant(self):
    a, b = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.7])
    prob = jnp.array([1.0, 0.0])
    first, second = (
      losses.bradley_terry_loss(
        reward_a=a + c,
        reward_b=b + c,
        prob_a=prob,
        weight=jnp.ones(2),
        mask=jnp.ones(2, bool),
      )[0]
      for c in (0.0, 5.0)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)
    # The logits are .7 for what was chosen and −2.7 for what was not.
    cost = np.log1p(np.exp(-0.7)) + np.log1p(np.exp(-2.7))
    np.testing.assert_allclose(first.value, cost / 2, rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
